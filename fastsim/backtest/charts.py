"""The report's charts, as plotly figures of a history.

Long series are thinned so that a report stays small: each chart point then stands for a bin of
steps and shows what matters about it: the last wealth and weights, the deepest drawdown, the mean
turnover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.history import History
from fastsim.backtest.wording import label_of
from fastsim.stats.metrics import drawdown

FloatArray = NDArray[np.float64]

MAX_POINTS = 3_000
"""Most points of one line."""
MAX_FAINT_POINTS = 60_000
"""Most points of all faint lines together."""
MAX_WEIGHT_POINTS = 1_500
MAX_SHOWN_ASSETS = 10
MAX_BOLD = 5

INK, GRID, FAINT, CASH, OTHER = "#1d2733", "#e4e8ed", "#bcc6d1", "#d3d7dc", "#bcd0e5"
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
        return sums / (self.ends - self.starts + 1)


def as_shown(name: str) -> str:
    """Escape a name for plotly, which reads tags and `&lt;` in it, but would show `&quot;`."""
    return escape(name, quote=False)


def to_array(tensor: Tensor) -> FloatArray:
    """Copy a tensor of any device and dtype to a float64 array."""
    array: FloatArray = tensor.detach().cpu().double().numpy()
    return array


def equity_chart(history: History, bold: Sequence[int]) -> go.Figure:
    """Draw wealth as a multiple of the initial wealth, on a log axis.

    Columns `bold` are lines with a name each; all others are faint and share one legend entry.
    """
    growth = to_array(history.wealth / history.wealth[0])  # [T + 1, N]
    growth = np.where(growth > 0, growth, np.nan)
    faint = [column for column in range(len(history.names)) if column not in bold]
    figure = _figure(hovermode="closest")
    rows = _level_rows(len(growth), min(MAX_POINTS, MAX_FAINT_POINTS // max(1, len(faint))))
    dates = _dates(history.timestamps)
    hover = "%{meta}<br>%{x}: %{y:.3f}<extra></extra>"
    for number, column in enumerate(faint):
        style = {"color": FAINT, "width": 1}
        line = _line(dates[rows], growth[rows, column], f"{len(faint)} other strategies", style)
        line.update(legendgroup="faint", showlegend=number == 0, legendrank=2000)
        figure.add_trace(line.update(hovertemplate=hover, meta=as_shown(history.names[column])))
    rows = _level_rows(len(growth), MAX_POINTS)
    for number, (style, column) in enumerate(_bold_styles(bold)):
        name = as_shown(history.names[column])
        line = _line(dates[rows], growth[rows, column], name, style)
        figure.add_trace(line.update(hovertemplate=hover, meta=name, zorder=len(bold) - number))
    figure.update_yaxes(type="log", title="Wealth, start = 1", tickformat="~g", dtick="D2")
    return figure


def drawdown_chart(history: History, bold: Sequence[int]) -> go.Figure:
    """Draw the fraction lost since the highest wealth so far; the first of `bold` is filled."""
    losses = to_array(drawdown(history.simple_returns[:, list(bold)]))  # [T, bold]
    bins = Bins.of(len(losses), MAX_POINTS)
    deepest = np.minimum.reduceat(losses, bins.starts, axis=0)
    dates = _dates(history.timestamps[1:])[bins.ends]
    figure = _figure()
    for number, (style, column) in enumerate(_bold_styles(bold)):
        line = _line(dates, deepest[:, number], as_shown(history.names[column]), style)
        line.update(zorder=len(bold) - number)
        if number == 0:
            line.update(fill="tozeroy", fillcolor="rgba(11, 92, 173, 0.12)")
        figure.add_trace(line)
    figure.update_traces(hovertemplate="%{y:.1%}")
    figure.update_yaxes(tickformat=".0%", title="Below the highest wealth")
    return figure


def weights_chart(history: History, focus: int) -> go.Figure:
    """Stack the weights one strategy held; with shorts or debt, cash is a line of its own."""
    weights = to_array(history.weights[:, focus])  # [T, A + 1]
    bins = Bins.of(len(weights), MAX_WEIGHT_POINTS)
    dates = _dates(history.timestamps[1:])[bins.ends]
    signed = bool((weights < -1e-9).any())
    figure = _figure()
    for name, colour, series in _shown_assets(history.symbols, weights[bins.ends, :-1]):
        figure.add_trace(_area(dates, series.clip(min=0.0), name, colour, "long"))
        if signed:
            shorts = _area(dates, series.clip(max=0.0), name, colour, "short")
            figure.add_trace(shorts.update(showlegend=False))
    cash = weights[bins.ends, -1]
    if signed:
        style = {"color": "#8a939d", "width": 1.5, "dash": "dot"}
        figure.add_trace(_line(dates, cash, "cash", style))
    else:
        figure.add_trace(_area(dates, cash, "cash", CASH, "long"))
        figure.update_yaxes(range=[0.0, max(1.0, float(weights.sum(-1).max()))])
    figure.update_traces(hovertemplate="%{y:.1%}")
    figure.update_yaxes(tickformat=".0%", title="Share of wealth")
    figure.update_layout(legend={"traceorder": "normal"})
    return figure


def turnover_chart(history: History, focus: int, window: int) -> go.Figure:
    """Draw what one strategy traded per step, and its mean over the last `window` steps.

    The first purchase dwarfs everything after it: the axis and the mean are for what comes after.
    """
    turnover = to_array(history.turnover[:, focus])  # [T]
    bins = Bins.of(len(turnover), MAX_POINTS)
    dates = _dates(history.timestamps[1:])[bins.ends]
    total = np.concatenate([[0.0], turnover.cumsum()])
    rolling = np.full(len(turnover), np.nan)
    rolling[window:] = (total[window + 1 :] - total[1:-window]) / window
    figure = _figure()
    steps = bins.mean(turnover)
    figure.add_trace(_line(dates, steps, "per step", {"color": "#9dbbdc", "width": 1}))
    style = {"color": BOLD_COLOURS[0], "width": 2}
    figure.add_trace(_line(dates, rolling[bins.ends], f"mean of {window} steps", style))
    figure.update_traces(hovertemplate="%{y:.2%}")
    figure.update_yaxes(tickformat=".3~p", title="Traded, of wealth", rangemode="tozero")
    later = float(steps[1:].max(initial=0.0))
    if later > 0:
        figure.update_yaxes(range=[0.0, 1.1 * later])
    return figure


def costs_chart(history: History, focus: int) -> go.Figure:
    """Stack what one strategy has paid so far, by part, as a fraction of its initial wealth."""
    bins = Bins.of(len(history.turnover), MAX_POINTS)
    dates = _dates(history.timestamps[1:])[bins.ends]
    figure = _figure()
    for (name, costs), colour in zip(history.costs.items(), cycle(COST_COLOURS), strict=False):
        paid = to_array(costs[:, focus] / history.wealth[0, focus]).cumsum()
        figure.add_trace(_area(dates, paid[bins.ends], as_shown(label_of(name)), colour, "paid"))
    figure.update_traces(hovertemplate="%{y:.2%}")
    figure.update_yaxes(tickformat=".3~p", title="Of initial wealth", rangemode="tozero")
    figure.update_layout(legend={"traceorder": "normal"})
    return figure


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


def _level_rows(length: int, most: int) -> NDArray[np.intp]:
    """Rows to keep of a series of levels: the first, and the last of every bin."""
    return np.unique(np.concatenate([[0], Bins.of(length, max(2, most)).ends]))


def _dates(timestamps: NDArray[np.datetime64]) -> NDArray[np.str_]:
    """Write dates as plotly reads them: to the day, or to the minute if bars are intraday."""
    daily = len(timestamps) < 2 or np.median(np.diff(timestamps)) > np.timedelta64(19, "h")
    return np.datetime_as_string(timestamps, unit="D" if daily else "m")


def _line(dates: NDArray[np.str_], values: FloatArray, name: str, style: dict[str, Any]) -> Any:
    return go.Scatter(
        x=dates.tolist(), y=values.astype(np.float32), name=name, mode="lines", line=style
    )


def _area(dates: NDArray[np.str_], values: FloatArray, name: str, colour: str, stack: str) -> Any:
    style = {"color": colour, "width": 0}
    return _line(dates, values, name, style).update(
        stackgroup=stack, fillcolor=colour, legendgroup=name
    )


def _figure(hovermode: str = "x unified") -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="none",
        hovermode=hovermode,
        font={"family": "system-ui, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        margin={"l": 64, "r": 16, "t": 12, "b": 40},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    figure.update_xaxes(type="date", gridcolor=GRID, linecolor=GRID, ticks="outside")
    figure.update_yaxes(gridcolor=GRID, zerolinecolor="#aab4bf", automargin=True)
    return figure
