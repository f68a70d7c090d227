"""A summary in words: how its numbers are written, on a page and in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite, isnan

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fastsim.backtest.summary import Summary
from fastsim.stats.bootstrap import Interval

COLUMNS = (
    *("Strategy", "Total return", "Annual return", "Volatility", "Sharpe", "Sortino"),
    *("Max drawdown", "Calmar", "Turnover /yr", "Costs paid"),
)


def metrics_table(summary: Summary, names: Sequence[str]) -> Table:
    """Lay out a summary for a terminal of 120 columns, one row per strategy."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(COLUMNS[0], no_wrap=True, overflow="ellipsis", max_width=24)
    for column in COLUMNS[1:]:
        header = column.replace(" ", "\n", 1)
        table.add_column(header, justify="right", no_wrap=True)
    for name, cells in zip(names, metric_cells(summary), strict=True):
        table.add_row(Text(name), *cells)
    return table


def metric_cells(summary: Summary) -> list[list[str]]:
    """Format a summary: one list per strategy, in the order of COLUMNS without the name."""
    columns = (
        (summary.total_return, percent),
        (summary.annual_return, percent),
        (summary.annual_volatility, percent),
        (summary.sharpe_ratio, ratio),
        (summary.sortino_ratio, ratio),
        (summary.max_drawdown, percent),
        (summary.calmar_ratio, ratio),
        (summary.turnover, multiple),
    )
    formatted = [[write(value) for value in values.tolist()] for values, write in columns]
    costs = zip(summary.cost.tolist(), summary.relative_cost.tolist(), strict=True)
    formatted.append([f"{money(paid)} ({percent(share)})" for paid, share in costs])
    return [list(row) for row in zip(*formatted, strict=True)]


def sharpe_sentence(interval: Interval, focus: str, benchmark: str) -> str:
    """Say in plain words what an interval of a Sharpe difference shows."""
    numbers = (
        f"Sharpe ratio of {focus} minus that of {benchmark}: {interval.estimate:+.2f}, "
        f"{100 * interval.level:g}% bootstrap interval "
        f"{interval.low:+.2f} to {interval.high:+.2f}. "
    )
    if not isfinite(interval.estimate + interval.low + interval.high):
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


def label_of(name: str) -> str:
    """Words of a name in code: "stamp_duty" is "stamp duty"."""
    return name.replace("_", " ")


def percent(value: float, digits: int = 1) -> str:
    """Write a fraction in hundredths."""
    # Adding zero makes a rounded -0.0 positive.
    return f"{round(100 * value, digits) + 0.0:.{digits}f}%" if isfinite(value) else _unusual(value)


def ratio(value: float) -> str:
    """Write a number to two digits."""
    return f"{round(value, 2) + 0.0:.2f}" if isfinite(value) else _unusual(value)


def multiple(value: float) -> str:
    """Write how many times."""
    return f"{ratio(value)}x"


def money(value: float) -> str:
    """Write an amount in account currency, to the cent if it is small."""
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:.2f}"


def typeset(text: str) -> str:
    """Give negative numbers a real minus sign; hyphens in names stay."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "\N{MINUS SIGN}", text)


def _unusual(value: float) -> str:
    return "n/a" if isnan(value) else f"{value}"
