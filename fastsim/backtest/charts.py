"""The report's charts, drawn from a history.

Long series are thinned so that a report stays small: a chart is hardly more than a thousand pixels
wide. Each of its points then stands for a bin of steps and shows what matters about it: the lowest
and the highest wealth, the deepest drawdown, mean weights and turnover, costs so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.history import History, unlike
from fastsim.backtest.page import Chart, Trace, as_shown
from fastsim.backtest.wording import label_of
from fastsim.stats.metrics import drawdown

FloatArray = NDArray[np.float64]

MAX_POINTS = 700
"""Most points of one line."""
MAX_FAINT = 60
"""Most faint lines; of more strategies than that, as many are drawn, evenly by what they ended as.
"""
MAX_FAINT_POINTS = 7_200
"""Most points of all faint lines together."""
LOG_TICKS = 4
"""What plotly is asked for of a log axis. Below a decade it draws half as many again, at round
numbers; up to three decades 1, 2 and 5 of each; beyond that powers of ten."""
MAX_SHOWN_ASSETS = 10
MAX_BOLD = 5

DATES = {"type": "date"}
FAINT, CASH, OTHER = "#bcc6d1", "#d3d7dc", "#bcd0e5"
BOLD_COLOURS = ("#0b5cad", "#d9761a", "#6b4c9a", "#1f8a70", "#b03a5b")
ASSET_COLOURS = (
    *("#3f6ea3", "#e98a2b", "#5fa8a2", "#d9565a", "#5a9e4f"),
    *("#e0bd3e", "#a06f98", "#f297a1", "#93705c", "#6c83c4"),
)
COST_COLOURS = (
    *("#0b5cad", "#5fa8a2", "#d9761a", "#a06f98"),
    *("#e0bd3e", "#5a9e4f", "#93705c", "#f297a1"),
)


class Bins(NamedTuple):
    """Consecutive rows grouped so that at most so many groups remain."""

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]  # inclusive

    @classmethod
    def of(cls, length: int, most: int) -> Bins:
        """Split `length` rows into at most `most` bins of nearly equal size."""
        edges = np.linspace(0, length, min(length, most) + 1).astype(np.intp)
        return cls(edges[:-1], edges[1:] - 1)

    def mean(self, values: FloatArray) -> FloatArray:
        """Average the rows of each bin."""
        sums: FloatArray = np.add.reduceat(values, self.starts, axis=0)
        return sums / (self.ends - self.starts + 1).reshape(-1, *(1,) * (values.ndim - 1))


def to_array(tensor: Tensor) -> FloatArray:
    """Copy a tensor of any device and dtype to a float64 array."""
    array: FloatArray = tensor.detach().cpu().double().numpy()
    return array


def equity_chart(history: History, bold: Sequence[int]) -> Chart:
    """Draw wealth as a multiple of the initial wealth, on a log axis.

    Columns `bold` are lines with a name each; all others are faint and share one legend entry.
    """
    growth = to_array(history.wealth / history.wealth[0])  # [T + 1, N]
    others = [column for column in range(len(history.names)) if column not in bold]
    faint = _evenly(others, growth[-1])
    of_all = f"{len(faint)} of " if len(faint) < len(others) else ""
    chart = Chart.along(DATES, hovermode="closest")
    dates = written_dates(history.timestamps)
    hover = "%{meta}<br>%{x}: %{y:.4~f}<extra></extra>"
    most = min(MAX_POINTS, MAX_FAINT_POINTS // max(1, len(faint)))
    rows, levels = _extremes(growth[:, faint], most)
    for number, column in enumerate(faint):
        style, name = {"color": FAINT, "width": 1}, f"{of_all}{len(others)} other strategies"
        line = _line(dates[rows], _positive(levels[:, number]), name, style)
        line |= {"legendgroup": "faint", "showlegend": number == 0, "legendrank": 2000}
        line |= {"hovertemplate": hover, "meta": as_shown(history.names[column])}
        chart.traces.append(line)
    rows, levels = _extremes(growth[:, list(bold)], MAX_POINTS)
    for number, (style, column) in enumerate(_bold_styles(bold)):
        name = as_shown(history.names[column])
        line = _line(dates[rows], _positive(levels[:, number]), name, style)
        line |= {"hovertemplate": hover, "meta": name, "zorder": len(bold) - number}
        chart.traces.append(line)
    chart.y_axis.update(type="log", range=_log_range(growth), nticks=LOG_TICKS)
    chart.y_axis.update(title={"text": "Wealth, start = 1"}, tickformat="~r")
    return chart


def drawdown_chart(history: History, bold: Sequence[int]) -> Chart:
    """Draw the fraction lost since the highest wealth so far; the first of `bold` is filled."""
    losses = to_array(drawdown(history.simple_returns[:, list(bold)]))  # [T, bold]
    bins = Bins.of(len(losses), MAX_POINTS)
    deepest = _from_zero(np.minimum.reduceat(losses, bins.starts, axis=0))
    dates = _from_start(history, bins)
    chart = Chart.along(DATES)
    for number, (style, column) in enumerate(_bold_styles(bold)):
        line = _line(dates, deepest[:, number], as_shown(history.names[column]), style)
        line["zorder"] = len(bold) - number
        if number == 0:
            line |= {"fill": "tozeroy", "fillcolor": "rgba(11, 92, 173, 0.12)"}
        chart.traces.append(line)
    chart.hover("%{y:.1%}")
    lowest = min(float(np.nan_to_num(deepest).min()), -1e-3)
    chart.y_axis.update(tickformat="~%", title={"text": "Below the highest wealth"})
    chart.y_axis.update(range=[1.08 * lowest, -0.03 * lowest])
    return chart


def weights_chart(history: History, focus: int) -> Chart:
    """Stack the weights one strategy held; with shorts or debt, cash is a line of its own."""
    weights = to_array(history.held(focus))  # [T, A + 1]
    bins = Bins.of(len(weights), MAX_POINTS)
    dates = _from_start(history, bins)
    signed = bool((weights < -1e-9).any())
    chart = Chart.along(DATES)
    for name, colour, series in _shown_assets(history.symbols, weights[:, :-1]):
        longs = _held_from_start(bins.mean(series.clip(min=0.0)))
        chart.traces.append(_area(dates, longs, name, colour, "long"))
        if signed:
            shorts = _held_from_start(bins.mean(series.clip(max=0.0)))
            area = _area(dates, shorts, name, colour, "short")
            chart.traces.append(area | {"showlegend": False})
    cash = _held_from_start(bins.mean(weights[:, -1]))
    name = unlike("cash", " (money)", history.symbols)
    if signed:
        style = {"color": "#8a939d", "width": 1.5, "dash": "dot"}
        chart.traces.append(_line(dates, cash, name, style))
    else:
        chart.traces.append(_area(dates, cash, name, CASH, "long"))
        chart.y_axis.update(range=[0.0, max(1.0, float(weights.sum(-1).max()))])
    chart.hover("%{y:.1%}")
    chart.y_axis.update(tickformat=".0%", title={"text": "Share of wealth"})
    chart.layout["legend"]["traceorder"] = "normal"
    return chart


def turnover_chart(history: History, focus: int, window: int) -> Chart:
    """Draw what one strategy traded per step, and its mean over the last `window` steps.

    A window is at most a quarter of the steps, so that its line is one. The first purchase dwarfs
    everything after it: the axis and the mean are for what comes after.
    """
    turnover = to_array(history.turnover[:, focus])  # [T]
    bins = Bins.of(len(turnover), MAX_POINTS)
    dates = written_dates(history.timestamps)[1:][bins.ends]
    window = min(window, len(turnover) // 4)
    chart = Chart.along(DATES)
    steps = bins.mean(turnover)
    chart.traces.append(_line(dates, steps, "per step", {"color": "#9dbbdc", "width": 1}))
    if window >= 2:
        total = np.concatenate([[0.0], turnover.cumsum()])
        rolling = np.full(len(turnover), np.nan)
        rolling[window:] = (total[window + 1 :] - total[1:-window]) / window
        style, name = {"color": BOLD_COLOURS[0], "width": 2}, f"mean of {window:,} steps"
        chart.traces.append(_line(dates, rolling[bins.ends], name, style))
    chart.hover("%{y:.2%}")
    later = float(steps[1:].max(initial=0.0))
    _from_nothing_to(chart, later if later > 0 else float(steps[0]), "Traded, of wealth")
    return chart


def costs_chart(history: History, focus: int) -> Chart:
    """Stack what one strategy has paid so far, by part, as a fraction of its initial wealth."""
    bins = Bins.of(len(history.turnover), MAX_POINTS)
    dates = _from_start(history, bins)
    chart = Chart.along(DATES)
    for (name, costs), colour in zip(history.costs.items(), cycle(COST_COLOURS), strict=False):
        paid = to_array(costs[:, focus] / history.wealth[0, focus]).cumsum()
        area = _from_zero(paid[bins.ends])
        chart.traces.append(_area(dates, area, as_shown(label_of(name)), colour, "paid"))
    chart.hover("%{y:.2%}")
    paid = to_array(history.cost[:, focus] / history.wealth[0, focus]).cumsum()
    _from_nothing_to(chart, float(paid.max()), "Of initial wealth")
    chart.layout["legend"]["traceorder"] = "normal"
    return chart


def _shown_assets(
    symbols: Sequence[str], weights: FloatArray
) -> Iterator[tuple[str, str, FloatArray]]:
    """Yield name, colour and weights of the largest assets, then of all others added up."""
    largest = np.argsort(-np.abs(weights).mean(0), kind="stable")
    shown = largest if len(largest) <= MAX_SHOWN_ASSETS + 1 else largest[:MAX_SHOWN_ASSETS]
    for number, asset in enumerate(shown):
        colour = ASSET_COLOURS[number % len(ASSET_COLOURS)]
        yield as_shown(symbols[asset]), colour, weights[:, asset]
    others = largest[len(shown) :]
    if len(others):
        yield f"{len(others)} other assets, net", OTHER, weights[:, others].sum(-1)


def _bold_styles(bold: Sequence[int]) -> list[tuple[dict[str, Any], int]]:
    return [
        ({"color": BOLD_COLOURS[number % len(BOLD_COLOURS)], "width": 2.5 - (number > 0)}, column)
        for number, column in enumerate(bold)
    ]


def _evenly(columns: Sequence[int], growth: FloatArray) -> list[int]:
    """At most MAX_FAINT of these columns, from the one that grew least to the one that did most."""
    if len(columns) <= MAX_FAINT:
        return list(columns)
    ranked = sorted(columns, key=lambda column: growth[column])
    chosen = np.linspace(0, len(ranked) - 1, MAX_FAINT).round().astype(int)
    return sorted(ranked[place] for place in chosen)


def _extremes(levels: FloatArray, most: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Rows and levels [at most `most`, lines] that draw what all levels [T, lines] would.

    The first and the last are kept, and of every bin between them the lowest and the highest, in
    the order in which they came, at its two ends.
    """
    length = len(levels)
    if length <= max(4, most):
        return np.arange(length), levels
    inner, bins = levels[1:-1], Bins.of(length - 2, max(1, most // 2 - 1))
    rows = np.stack([bins.starts, bins.ends], axis=1).flatten() + 1
    drawn = np.empty((len(rows), levels.shape[1]))
    for number, (start, end) in enumerate(zip(bins.starts, bins.ends + 1, strict=True)):
        part = inner[start:end]
        low, high = part.min(0), part.max(0)
        falls = part.argmax(0) < part.argmin(0)
        drawn[2 * number] = np.where(falls, high, low)
        drawn[2 * number + 1] = np.where(falls, low, high)
    return np.concatenate([[0], rows, [length - 1]]), np.vstack([levels[:1], drawn, levels[-1:]])


def _positive(levels: FloatArray) -> FloatArray:
    """Levels with nothing where a log axis has no place for them."""
    return np.where(levels > 0, levels, np.nan)


def _log_range(growth: FloatArray) -> list[float]:
    """Powers of ten between which a log axis shows all growth above zero, at least 1 % of it."""
    shown = np.log10(growth[growth > 0])
    low, high = float(shown.min()), float(shown.max())
    room = max(0.04 * (high - low), 0.002)
    return [low - room, high + room]


def _from_start(history: History, bins: Bins) -> NDArray[np.str_]:
    """Dates of the first decision and of the end of each bin of steps."""
    dates = written_dates(history.timestamps)
    return np.concatenate([dates[:1], dates[1:][bins.ends]])


def _from_zero(series: FloatArray) -> FloatArray:
    """Put nothing before a series [bins, ...]: what was lost or paid at the first decision."""
    return np.concatenate([np.zeros_like(series[:1]), series])


def _held_from_start(series: FloatArray) -> FloatArray:
    """Weights that hold from the start of their bin: the first of them from the first decision."""
    return np.concatenate([series[:1], series])


def _from_nothing_to(chart: Chart, highest: float, title: str) -> None:
    """An axis from zero to a fraction, with ticks that people read."""
    most = 1.1 * highest if highest > 0 else 0.01
    chart.y_axis.update(tickformat=".3~p", title={"text": title}, range=[0.0, most])


def written_dates(timestamps: NDArray[np.datetime64]) -> NDArray[np.str_]:
    """Write dates as plotly reads them, as precisely as they differ: to the day at least."""
    for unit in ("D", "m", "s"):
        if (timestamps.astype(f"datetime64[{unit}]") == timestamps).all():
            return np.datetime_as_string(timestamps, unit=unit)
    gaps = np.diff(timestamps)
    daily = len(gaps) and np.median(gaps) > np.timedelta64(19, "h")
    return np.datetime_as_string(timestamps, unit="D" if daily else "ms")


def _line(dates: NDArray[np.str_], values: FloatArray, name: str, style: dict[str, Any]) -> Trace:
    return {
        "type": "scatter",
        "x": dates.tolist(),
        "y": values.astype(np.float32),
        "name": name,
        "mode": "lines" if len(values) > 1 else "lines+markers",  # one point makes no line
        "line": style,
    }


def _area(dates: NDArray[np.str_], values: FloatArray, name: str, colour: str, stack: str) -> Trace:
    line = _line(dates, values, name, {"color": colour, "width": 0})
    return line | {"stackgroup": stack, "fillcolor": colour, "legendgroup": name}
