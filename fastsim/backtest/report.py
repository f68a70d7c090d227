"""A history for people: one HTML page of figures, tables and charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fastsim.backtest.charts import (
    MAX_BOLD,
    costs_chart,
    drawdown_chart,
    equity_chart,
    turnover_chart,
    weights_chart,
)
from fastsim.backtest.history import History, check_history
from fastsim.backtest.page import Chart, charts_html, plotly_script
from fastsim.backtest.refused import refusals_in_words
from fastsim.backtest.sections import Row, Section, template
from fastsim.backtest.summary import Summary, YearOfReturns, monthly_returns, summarize
from fastsim.backtest.wording import (
    COLUMNS,
    label_of,
    metric_cells,
    money,
    multiple,
    percent,
    ratio,
    sharpe_sentence,
)
from fastsim.config import write_whole
from fastsim.errors import ConfigError
from fastsim.stats.bootstrap import Interval


class Pair(NamedTuple):
    """Columns of the history: the strategy a report is about, and the one it is held against."""

    focus: int
    benchmark: int


def write_report(
    history: History,
    path: Path,
    *,
    title: str,
    subtitle: str,
    focus: str = "agent",
    benchmark: str = "equal weight",
    interval: Interval | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    sections: Sequence[Section] = (),
    periods_per_year: float | None = None,
) -> None:
    """Write one HTML file that needs nothing else: no network, no folder beside it.

    Parameters
    ----------
    history
        What was replayed. Strategies that are one asset alone are drawn faintly.
    path
        Where to write, in one piece.
    title, subtitle
        Shown at the top. All text given is escaped.
    focus, benchmark
        Names of the strategy the report is about and of the one it is held against.
    interval
        Of the Sharpe ratio of `focus` minus that of `benchmark`, from `sharpe_difference`.
    notes
        Sentences that a reader should see before the numbers; what rules refused often, and who
        was ruined, is said after them.
    settings
        What the run was made with, shown as a table.
    sections
        Parts of the page beside its usual ones.
    periods_per_year
        Steps a year, where the history does not know the whole calendar.

    Raises
    ------
    ConfigError, DataError
        `focus` or `benchmark` names no strategy, `path` is a folder, or the history cannot be
        judged (see `check_history`).
    """
    check_history(history)
    if path.is_dir():
        raise ConfigError(f"a report is written to a file, {path} is a folder: add a name to it")
    pair = Pair(history.column(focus, "focus"), history.column(benchmark, "benchmark"))
    periods = periods_per_year or history.steps_per_year
    summary = summarize(history, periods_per_year=periods)
    bold, rest = _metrics(history, summary, pair)
    years = monthly_returns(history, focus)
    first, last = (str(stamp)[:10] for stamp in history.timestamps[[0, -1]])
    text = template("report.html", percent=percent, shade=_shade).render(
        title=title,
        subtitle=subtitle,
        history=history,
        first=first,
        last=last,
        focus=focus,
        benchmark=benchmark,
        headline=_headline(summary, pair),
        verdict=interval and sharpe_sentence(interval, focus, benchmark),
        notes=list(dict.fromkeys([*notes, *refusals_in_words(history)])),
        periods=periods,
        columns=COLUMNS,
        bold=bold,
        rest=rest,
        years=years,
        strongest=_strongest(years),
        costs=_costs(history, summary, pair),
        settings=settings or {},
        sections=sections,
        charts=_charts(history, pair, periods),
        plotly_js=plotly_script(),
    )
    write_whole(path, text.encode())


def _charts(history: History, pair: Pair, periods: float) -> dict[str, str]:
    bold = _bold_columns(history, pair)
    window = max(2, round(periods / 12))
    charts: dict[str, tuple[Chart, int]] = {
        "equity_chart": (equity_chart(history, bold), 440),
        "drawdown_chart": (drawdown_chart(history, bold), 300),
        "weights_chart": (weights_chart(history, pair.focus), 440),
        "turnover_chart": (turnover_chart(history, pair.focus, window), 320),
        "costs_chart": (costs_chart(history, pair.focus), 320),
    }
    return charts_html(charts)


def _bold_columns(history: History, pair: Pair) -> list[int]:
    """Pick the focus, the benchmark, then other strategies that are not one asset alone."""
    singles = set(history.singles)
    named = [number for number in range(len(history.names)) if number not in singles]
    return list(dict.fromkeys([*pair, *named]))[:MAX_BOLD]


def _headline(summary: Summary, pair: Pair) -> list[tuple[str, str, str]]:
    """What stands large at the top: its name, the focus' figure and the benchmark's."""
    figures: tuple[tuple[str, Tensor, Callable[[float], str]], ...] = (
        ("Total return", summary.total_return, percent),
        ("Annual return", summary.annual_return, percent),
        ("Sharpe ratio", summary.sharpe_ratio, ratio),
        ("Max drawdown", summary.max_drawdown, percent),
        ("Turnover a year", summary.turnover, multiple),
        ("Costs of trading", summary.relative_cost, percent),
    )
    return [
        (name, write(float(values[pair.focus])), write(float(values[pair.benchmark])))
        for name, values, write in figures
    ]


def _metrics(history: History, summary: Summary, pair: Pair) -> tuple[list[Row], list[Row]]:
    """Rows of the strategies that are drawn boldly, and of all others."""
    rows = [Row(*row) for row in zip(history.names, metric_cells(summary), strict=True)]
    rows[pair.focus] = rows[pair.focus]._replace(kind="focus")
    bold = _bold_columns(history, pair)
    rest = [number for number in range(len(rows)) if number not in bold]
    return [rows[number] for number in bold], [rows[number] for number in rest]


def _costs(history: History, summary: Summary, pair: Pair) -> tuple[list[str], list[Row]]:
    """Header and rows of what the pair paid: money and share of wealth by part, then in all."""
    columns = list(dict.fromkeys(pair))

    def row(name: str, paid: Tensor, kind: str = "") -> Row:
        share = paid / summary.initial_wealth
        cells = ((money(float(paid[at])), percent(float(share[at]), 2)) for at in columns)
        return Row(name, list(chain(*cells)), kind)

    names = ((history.names[at], "of initial wealth") for at in columns)
    parts = [row(label_of(name), paid) for name, paid in summary.costs.items()]
    return ["", *chain(*names)], [*parts, row("total", summary.cost, "total")]


def _strongest(months: Sequence[YearOfReturns]) -> float:
    """Size of a monthly return from which on its colour is the deepest."""
    known = [abs(month) for year in months for month in year.months if month is not None]
    return max(float(np.quantile(known, 0.95)), 1e-9)


def _shade(simple_return: float, strongest: float) -> str:
    colour = "46, 139, 98" if simple_return > 0 else "205, 70, 60"
    strength = 0.55 * min(1.0, abs(simple_return) / strongest)
    return f"background: rgba({colour}, {strength:.2f})"
