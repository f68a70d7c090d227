"""The status of a paper account for people: tables on a console, and one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fastsim.backtest.page import Chart, charts_html, plotly_script
from fastsim.config import write_whole
from fastsim.live.candles import candles_of, candles_section
from fastsim.live.status import Drift, Equity, Status, drift, mean_slippage

MOST = 12
"""Orders that a console shows: the last."""
MOST_ON_PAGE = 400
STYLE = """
body { font: 15px/1.5 system-ui, 'Segoe UI', Roboto, sans-serif; color: #1d2733; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 2rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e4e8ed; }
th:first-child, td:first-child { text-align: left; }
.scroll { max-height: 28rem; overflow: auto; }
"""
Cells = Sequence[Sequence[str]]


def show_status(status: Status, console: Console) -> None:
    """Equity, positions, the last orders, slippage and drift, as tables and sentences."""
    for title, head, rows in _tables(status, MOST):
        table = Table(*head, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for sentence in sentences(status):
        console.print(f"- {sentence}", highlight=False, markup=False, soft_wrap=True)


def write_page(status: Status, path: Path) -> None:
    """One HTML file that needs nothing else."""
    title = f"{'Real' if status.run.live else 'Paper'} account of {status.run.agent}"
    parts = [f"<h1>{escape(title)}</h1>", "<ul>"]
    parts += [f"<li>{escape(sentence)}</li>" for sentence in sentences(status)]
    parts += ["</ul>"]
    if len(status.snapshots) > 1:
        charts = charts_html({"equity": (_equity_chart(status), 440)})
        parts += ["<h2>Equity</h2>", charts["dates"], charts["equity"]]
    candles = candles_of(status)
    if candles is not None:
        parts += ["<h2>Symbol by symbol</h2>", candles_section(candles)]
    for name, head, rows in _tables(status, MOST_ON_PAGE):
        parts += [f"<h2>{escape(name)}</h2>", f'<div class="scroll">{_html(head, rows)}</div>']
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"<script>{plotly_script()}</script>\n</head>\n<body>\n"
    )
    write_whole(path, (page + "\n".join(parts) + "\n</body>\n</html>\n").encode())


def sentences(status: Status) -> list[str]:
    """What has to be known first."""
    told = [f"{status.run.broker}, {'real money' if status.run.live else 'no real money'}"]
    if not status.snapshots:
        return [*told, "nothing has been decided yet"]
    first, last = status.snapshots[0], status.snapshots[-1]
    told.append(
        f"equity {last.equity:,.2f} at the close of {last.bar}, "
        f"{last.equity / first.equity - 1.0:+.2%} since {first.bar}, {len(status.snapshots)} bars"
    )
    lacking = sum(each.state in ("open", "not answered") for each in status.placed)
    told.append(f"{len(status.placed)} orders, of which {lacking} are open")
    for what, name in (("the last close", "close"), ("the simulator", "simulator")):
        slippage = mean_slippage(status.placed, f"against_{name}")
        if slippage is not None:
            told.append(f"slippage against {what}: {slippage:+.2f} basis points of what was traded")
    told += _drifts(status)
    if status.refusals:
        told.append(
            f"{len(status.refusals)} refusals by limits, the last: {status.refusals[-1].why}"
        )
    return told


def _drifts(status: Status) -> list[str]:
    told = []
    for what, other in (
        ("the same orders in the simulator", status.simulator),
        ("the backtest of its run", status.backtest),
    ):
        found = drift(status.equity, other)
        if found is not None:
            told.append(_in_words(found, what))
    if not status.backtest:
        told.append(
            "there is no backtest to compare with: `fastsim evaluate` of its run leaves one"
        )
    return told


def _in_words(found: Drift, what: str) -> str:
    return (
        f"drift from {what}: {found.apart:+.4%} from {found.since} to {found.bar}, "
        f"{found.account - 1.0:+.2%} against {found.other - 1.0:+.2%}"
    )


def _tables(status: Status, most: int) -> list[tuple[str, Sequence[str], Cells]]:
    positions = [
        (each.symbol, f"{each.shares:,.6g}", f"{each.close:,.4f}", f"{each.weight:.2%}")
        for each in status.standings
    ]
    orders = []
    for each in status.placed[-most:][::-1]:
        report = each.report
        filled = "" if report is None else f"{report.filled:+,.6g}"
        price = "" if each.against_close is None or report is None else f"{report.price:,.4f}"
        slips = (
            "" if slip is None else f"{slip:+.2f}"
            for slip in (each.against_close, each.against_simulator)
        )
        order = each.order
        row = (each.bar, order.symbol, f"{order.shares:+,.6g}", each.state, filled, price, *slips)
        orders.append(row)
    refusals = [(r.bar, r.limit, r.symbol, r.why) for r in status.refusals[-most:][::-1]]
    head = (
        "Decided on",
        "Symbol",
        "Shares",
        "State",
        "Filled",
        "Price",
        "bp to close",
        "bp to sim",
    )
    found: list[tuple[str, Sequence[str], Cells]] = [
        ("Positions", ("Symbol", "Shares", "Last close", "Weight"), positions),
        ("Orders, the last first", head, orders),
        ("Refusals, the last first", ("Decided on", "Limit", "Symbol", "Why"), refusals),
    ]
    return [each for each in found if each[2]]


def _html(head: Sequence[str], rows: Cells) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _equity_chart(status: Status) -> Chart:
    """The account, the same orders in the simulator, and the backtest, from the same start."""
    chart = Chart.along({"type": "date"})
    account = status.equity
    for name, other, colour in (
        ("account", account, "#0b5cad"),
        ("the same orders in the simulator", status.simulator, "#d9761a"),
        ("backtest of its run", status.backtest, "#6b4c9a"),
    ):
        line = _from_same_start(account, other)
        if line:
            chart.traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": list(line),
                    "y": np.array(list(line.values()), dtype=np.float32),
                    "name": name,
                    "line": {"color": colour, "width": 2},
                }
            )
    chart.hover("%{y:,.2f}")
    chart.y_axis.update(title={"text": "Equity, account currency"}, tickformat=",")
    return chart


def _from_same_start(account: Equity, other: Equity) -> Equity:
    """What `other` has at the account's bars, scaled to it at the first common one."""
    common = [bar for bar in account if bar in other]
    if not common:
        return {}
    scale = account[common[0]] / other[common[0]]
    return {bar: scale * other[bar] for bar in common}
