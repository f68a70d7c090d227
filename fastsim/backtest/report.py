"""A history for people and programs: Parquet files, a table for the terminal, one HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isfinite, isnan
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from fastsim.backtest.charts import (
    MAX_BOLD,
    costs_chart,
    drawdown_chart,
    equity_chart,
    label_of,
    to_array,
    turnover_chart,
    weights_chart,
)
from fastsim.backtest.history import History
from fastsim.backtest.summary import Summary, summarize
from fastsim.config import write_whole
from fastsim.errors import ConfigError
from fastsim.stats.bootstrap import Interval
from fastsim.stats.metrics import periods_per_year

CASH = "cash"
COLUMNS = (
    *("Strategy", "Total return", "Annual return", "Volatility", "Sharpe", "Sortino"),
    *("Max drawdown", "Calmar", "Turnover /yr", "Costs paid"),
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class YearOfReturns(NamedTuple):
    """Simple returns of one calendar year; None where the history has no step in a month."""

    year: int
    months: tuple[float | None, ...]  # 12
    total: float


def save_history(history: History, folder: Path) -> None:
    """Write a history as three long Parquet tables, each in one piece.

    `equity.parquet` (date, strategy, wealth) has a row per close, the first one included.
    `weights.parquet` (date, strategy, asset, weight; the last asset is "cash") and `costs.parquet`
    (date, strategy, turnover, and a column per cost part, by its name) have a row per step, dated
    by the close that the step is marked at. Money is in account currency.

    Raises
    ------
    ConfigError
        If two strategies, or two assets, share a name, an asset is called "cash", or a cost part is
        called like another column.
    """
    strategies = _labels("strategies", history.names)
    assets = _labels("assets", (*history.symbols, CASH))
    dates = history.timestamps.astype("datetime64[ns]")
    steps, count, width = history.weights.shape

    def rows_of(dates: NDArray[np.datetime64], repeats: int) -> dict[str, pl.Series]:
        codes = np.tile(np.repeat(np.arange(count), repeats), len(dates))
        return {
            "date": pl.Series(np.repeat(dates, count * repeats)),
            "strategy": strategies.gather(codes),
        }

    equity = {**rows_of(dates, 1), "wealth": _values(history.wealth)}
    costs = {**rows_of(dates[1:], 1), "turnover": _values(history.turnover)}
    _labels("columns of costs.parquet", (*costs, *history.costs))
    costs |= {name: _values(paid) for name, paid in history.costs.items()}
    asset = assets.gather(np.tile(np.arange(width), steps * count))
    weights = {**rows_of(dates[1:], width), "asset": asset, "weight": _values(history.weights)}
    _write_parquet(folder / "equity.parquet", equity)
    _write_parquet(folder / "costs.parquet", costs)
    _write_parquet(folder / "weights.parquet", weights)


def metrics_table(summary: Summary, names: Sequence[str]) -> Table:
    """Lay out a summary for a terminal of 120 columns, one row per strategy."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(COLUMNS[0], no_wrap=True, overflow="ellipsis", max_width=24)
    for column in COLUMNS[1:]:
        header = column.replace(" ", "\n", 1)
        table.add_column(header, justify="right", no_wrap=True)
    for name, cells in zip(names, _metric_cells(summary), strict=True):
        table.add_row(Text(name), *cells)
    return table


def monthly_returns(history: History, focus: str) -> list[YearOfReturns]:
    """Compound the simple returns of one strategy within each calendar month and year.

    A step belongs to the month of the close it is marked at.

    Raises
    ------
    ConfigError
        If no strategy is called `focus`.
    """
    returns = to_array(history.simple_returns[:, _column(history, "focus", focus)])
    growth = 1.0 + np.nan_to_num(returns)  # [T]
    month_numbers = history.timestamps[1:].astype("datetime64[M]").astype(int)  # since 1970-01
    table = []
    for year in np.unique(month_numbers // 12):
        months = [
            float(growth[rows].prod()) - 1.0 if (rows := month_numbers == month).any() else None
            for month in range(12 * year, 12 * year + 12)
        ]
        total = float(growth[month_numbers // 12 == year].prod()) - 1.0
        table.append(YearOfReturns(1970 + int(year), tuple(months), total))
    return table


def sharpe_sentence(interval: Interval, focus: str, benchmark: str) -> str:
    """Say in plain words what an interval of a Sharpe difference shows."""
    numbers = (
        f"Sharpe ratio of {focus} minus that of {benchmark}: {interval.estimate:+.2f}, "
        f"{100 * interval.level:g}% bootstrap interval "
        f"{interval.low:+.2f} to {interval.high:+.2f}. "
    )
    if isnan(interval.estimate + interval.low + interval.high):
        return (
            f"The Sharpe ratios of {focus} and {benchmark} cannot be compared: "
            "at least one of the return series does not vary."
        )
    if interval.contains_zero:
        return numbers + "The interval contains zero: no evidence of a difference."
    side, verdict = ("above", "more") if interval.low > 0 else ("below", "less")
    return (
        numbers + f"The interval lies {side} zero: evidence that {focus} earned {verdict} per "
        f"unit of risk than {benchmark} over this period."
    )


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
) -> None:
    """Write one HTML file that needs nothing else: no network, no folder beside it.

    Parameters
    ----------
    history
        What was replayed. Strategies named after an asset are drawn faintly.
    path
        Where to write, in one piece.
    title, subtitle
        Shown at the top. All text given is escaped.
    focus, benchmark
        Names of the strategy the report is about and of the one it is held against.
    interval
        Of the Sharpe ratio of `focus` minus that of `benchmark`, from `sharpe_difference`.
    notes
        Sentences that a reader should see before the numbers.
    settings
        What the run was made with, shown as a table.

    Raises
    ------
    ConfigError
        If `focus` or `benchmark` names no strategy.
    """
    columns = (_column(history, "focus", focus), _column(history, "benchmark", benchmark))
    periods = periods_per_year(history.timestamps)
    summary = summarize(history, periods_per_year=periods)
    verdict = "" if interval is None else sharpe_sentence(interval, focus, benchmark)
    page = Template(files("fastsim.backtest").joinpath("report.html").read_text("utf-8"))
    text = page.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        focus=escape(focus),
        headline=_headline_html(summary, columns, benchmark),
        verdict=verdict and f'<p class="verdict">{_typeset(escape(verdict))}</p>',
        notes=_notes_html(notes),
        basis=f"Annualised at {periods:,.0f} steps a year; ratios use a risk-free return of zero.",
        metrics=_metrics_html(history, summary, columns),
        months=_months_html(monthly_returns(history, focus)),
        costs=_costs_html(history, summary, columns),
        settings=_settings_html(settings or {}),
        footer=_footer(history),
        plotly_js=get_plotlyjs(),
        **_charts_html(history, columns, periods),
    )
    write_whole(path, text.encode())


def _charts_html(history: History, columns: tuple[int, int], periods: float) -> dict[str, str]:
    bold = _bold_columns(history, columns)
    focus, steps = columns[0], len(history.turnover)
    window = min(steps, max(2, round(periods / 12)))
    charts: dict[str, tuple[go.Figure, int]] = {
        "equity_chart": (equity_chart(history, bold), 440),
        "drawdown_chart": (drawdown_chart(history, bold), 300),
        "weights_chart": (weights_chart(history, focus), 440),
        "turnover_chart": (turnover_chart(history, focus, window), 320),
        "costs_chart": (costs_chart(history, focus), 320),
    }
    config = {
        "displayModeBar": False,
        "responsive": True,
    }
    return {
        name: figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config=config,
            default_height=f"{height}px",
        )
        for name, (figure, height) in charts.items()
    }


def _bold_columns(history: History, columns: tuple[int, int]) -> list[int]:
    """Pick the focus, the benchmark, then other strategies that are not one asset alone."""
    named = [number for number, name in enumerate(history.names) if name not in history.symbols]
    return list(dict.fromkeys([*columns, *named]))[:MAX_BOLD]


def _headline_html(summary: Summary, columns: tuple[int, int], benchmark: str) -> str:
    shown: list[tuple[str, Tensor, Callable[[float], str]]] = [
        ("Total return", summary.total_return, _percent),
        ("Annual return", summary.annual_return, _percent),
        ("Sharpe ratio", summary.sharpe_ratio, _ratio),
        ("Max drawdown", summary.max_drawdown, _percent),
        ("Turnover a year", summary.turnover, _multiple),
        ("Costs of trading", summary.relative_cost, _percent),
    ]
    items = []
    for label, values, write in shown:
        focus, other = (_typeset(write(float(values[column]))) for column in columns)
        items.append(
            f"<li><span>{label}</span><strong>{focus}</strong>"
            f"<span>{escape(benchmark)} {other}</span></li>"
        )
    return "\n".join(items)


def _metrics_html(history: History, summary: Summary, columns: tuple[int, int]) -> str:
    cells = _metric_cells(summary)
    bold = _bold_columns(history, columns)
    rest = [number for number in range(len(cells)) if number not in bold]

    def table(numbers: Iterable[int]) -> str:
        rows = [
            (history.names[number], cells[number], "focus" if number == columns[0] else "")
            for number in numbers
        ]
        return _table_html(COLUMNS, rows)

    if not rest:
        return table(bold)
    return (
        f"{table(bold)}\n<details><summary>The {len(rest)} other strategies</summary>\n"
        f"{table(rest)}\n</details>"
    )


def _costs_html(history: History, summary: Summary, columns: tuple[int, int]) -> str:
    chosen = list(dict.fromkeys(columns))
    rows = []
    parts = [(label_of(name), paid, "") for name, paid in summary.costs.items()]
    for name, paid, kind in (*parts, ("total", summary.cost, "total")):
        share = paid / summary.initial_wealth
        cells = [
            text
            for column in chosen
            for text in (_money(float(paid[column])), _percent(float(share[column]), 2))
        ]
        rows.append((name, cells, kind))
    names = [history.names[column] for column in chosen]
    header = ["", *(part for name in names for part in (name, "of initial wealth"))]
    return _table_html(header, rows)


def _months_html(table: Sequence[YearOfReturns]) -> str:
    known = [abs(month) for row in table for month in row.months if month is not None]
    strongest = max(float(np.quantile(known, 0.95)), 1e-9)

    def cell(value: float | None) -> str:
        if value is None:
            return "<td></td>"
        colour = "46, 139, 98" if value > 0 else "205, 70, 60"
        strength = 0.55 * min(1.0, abs(value) / strongest)
        shade = f"background: rgba({colour}, {strength:.2f})"
        return f'<td style="{shade}">{_typeset(_percent(value))}</td>'

    head = "".join(f"<th>{month}</th>" for month in ("", *MONTHS, "Year"))
    body = "\n".join(
        f"<tr><th>{row.year}</th>{''.join(map(cell, row.months))}"
        f'<td class="year">{_typeset(_percent(row.total))}</td></tr>'
        for row in table
    )
    return (
        f'<div class="wide"><table class="months"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _notes_html(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">\n{items}\n</ul>'


def _settings_html(settings: Mapping[str, str]) -> str:
    if not settings:
        return ""
    rows = "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in settings.items()
    )
    return (
        "<section>\n<h2>Settings</h2>\n"
        f'<table class="settings"><tbody>\n{rows}\n</tbody></table>\n</section>'
    )


def _footer(history: History) -> str:
    first, last = (np.datetime_as_string(history.timestamps[row], unit="D") for row in (0, -1))
    steps = len(history.turnover)
    counted = f"{steps:,} {'step' if steps == 1 else 'steps'}"
    return (
        f"{counted} from {first} to {last}, {len(history.symbols)} assets, "
        f"{len(history.names)} strategies. Made with fastsim. Past returns, simulated or real, "
        "say little about future ones."
    )


def _table_html(header: Iterable[str], rows: Iterable[tuple[str, Sequence[str], str]]) -> str:
    """Make a table of plain text: a name, its cells and a CSS class per row."""
    head = "".join(f"<th>{escape(column)}</th>" for column in header)
    body = "\n".join(
        f'<tr class="{kind}"><th>{escape(name)}</th>'
        + "".join(f"<td>{_typeset(escape(text))}</td>" for text in cells)
        + "</tr>"
        for name, cells, kind in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _metric_cells(summary: Summary) -> list[list[str]]:
    """Format a summary: one list per strategy, in the order of COLUMNS without the name."""
    columns = (
        *((values, _percent) for values in (summary.total_return, summary.annual_return)),
        (summary.annual_volatility, _percent),
        *((values, _ratio) for values in (summary.sharpe_ratio, summary.sortino_ratio)),
        (summary.max_drawdown, _percent),
        (summary.calmar_ratio, _ratio),
        (summary.turnover, _multiple),
    )
    formatted = [[write(value) for value in values.tolist()] for values, write in columns]
    paid = zip(summary.cost.tolist(), summary.relative_cost.tolist(), strict=True)
    formatted.append([f"{_money(money)} ({_percent(share)})" for money, share in paid])
    return [list(row) for row in zip(*formatted, strict=True)]


def _percent(value: float, digits: int = 1) -> str:
    # Adding zero makes a rounded -0.0 positive.
    return f"{round(100 * value, digits) + 0.0:.{digits}f}%" if isfinite(value) else _unusual(value)


def _ratio(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}" if isfinite(value) else _unusual(value)


def _multiple(value: float) -> str:
    return f"{_ratio(value)}x"


def _money(value: float) -> str:
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:.2f}"


def _unusual(value: float) -> str:
    return "n/a" if isnan(value) else f"{value}"


def _typeset(text: str) -> str:
    """Give negative numbers a real minus sign in HTML; hyphens in names stay."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "&minus;", text)


def _column(history: History, role: str, name: str) -> int:
    if name not in history.names:
        known = ", ".join(repr(known) for known in history.names)
        raise ConfigError(f"{role} must be one of the strategies {known}, got {name!r}")
    return history.names.index(name)


def _labels(kind: str, names: Sequence[str]) -> pl.Series:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"names of {kind} must differ, got {twice!r} twice in {list(names)}")
    return pl.Series(names, dtype=pl.Enum(names))


def _values(figure: Tensor) -> pl.Series:
    return pl.Series(figure.detach().cpu().numpy().reshape(-1))


def _write_parquet(path: Path, columns: Mapping[str, pl.Series]) -> None:
    content = io.BytesIO()
    pl.DataFrame(columns).write_parquet(content)
    write_whole(path, content.getvalue())
