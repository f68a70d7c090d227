"""Charts on pages that need no network: the script that draws them comes with the package."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

Trace = dict[str, Any]
"""One line, area or the like, by plotly's own names; numbers in NumPy arrays of one axis."""
DRAWS = {"scatter", "bar", "pie"}
"""Kinds of traces that the script knows: it is plotly's own bundle "basic"."""
CONFIG = {"displayModeBar": False, "responsive": True}
INK, GRID, ZERO = "#1d2733", "#e4e8ed", "#aab4bf"


@dataclass
class Chart:
    """A figure as plotly's script takes it: its traces, and how all of it looks."""

    layout: dict[str, Any]
    traces: list[Trace] = field(default_factory=list)

    @classmethod
    def along(cls, x_axis: Mapping[str, Any], hovermode: str = "x unified") -> Chart:
        """Nothing yet, on white, above an axis of this kind: `{"type": "date"}`."""
        legend = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
        family = "system-ui, 'Segoe UI', Roboto, sans-serif"
        layout = {
            "hovermode": hovermode,
            "font": {"family": family, "size": 13, "color": INK},
            "margin": {"l": 64, "r": 16, "t": 12, "b": 40},
            "legend": legend,
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "xaxis": {"gridcolor": GRID, "linecolor": GRID, "ticks": "outside", **x_axis},
            "yaxis": {"gridcolor": GRID, "zerolinecolor": ZERO, "automargin": True},
        }
        return cls(layout)

    @property
    def y_axis(self) -> dict[str, Any]:
        """What its axis of values looks like."""
        axis: dict[str, Any] = self.layout["yaxis"]
        return axis

    def hover(self, template: str) -> None:
        """Let all traces say the same of a point."""
        for trace in self.traces:
            trace["hovertemplate"] = template


def as_shown(name: str) -> str:
    """Escape a name for plotly, which reads tags and `&lt;` in it, but would show `&quot;`."""
    return escape(name, quote=False)


def plotly_script() -> str:
    """The JavaScript that draws charts, to be put into a page once."""
    folder = files("fastsim.backtest") / "plotly"
    return (folder / "plotly-basic.min.js").read_text("utf-8")


def charts_html(charts: Mapping[str, tuple[Chart, int]]) -> dict[str, str]:
    """Elements of a page by their names, each with the script that draws a chart into it.

    `dates` is another, to stand before them: what lines have in common along x is written there,
    once. Nothing in a chart can end its script.

    Parameters
    ----------
    charts
        By name: a chart and its height in pixels.
    """
    shared: list[Any] = []
    elements = {name: _element(name, *chart, shared) for name, chart in charts.items()}
    return {"dates": f"<script>const dates = {as_script(shared)};</script>"} | elements


def _element(name: str, chart: Chart, height: int, shared: list[Any]) -> str:
    """A chart whose lines look up their x in `shared`, which is added to."""
    assert {trace["type"] for trace in chart.traces} <= DRAWS
    traces = []
    for trace in chart.traces:
        if trace["x"] not in shared:
            shared.append(trace["x"])
        traces.append(trace | {"x": shared.index(trace["x"])})
    data, layout, config = map(as_script, (traces, chart.layout, CONFIG))
    return (
        f'<div id="{name}" class="plotly-graph-div" style="height: {height}px"></div>\n'
        f'<script>Plotly.newPlot("{name}", {data}.map((trace) => ({{...trace, '
        f"x: dates[trace.x]}})), {layout}, {config});</script>"
    )


def chart_page(chart: Chart, title: str, height: int = 600) -> str:
    """A page of one chart, and nothing that it would have to load."""
    parts = charts_html({"chart": (chart, height)})
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<script>{plotly_script()}</script>\n</head>\n"
        f"<body>\n{parts['dates']}\n{parts['chart']}\n</body>\n</html>\n"
    )


def as_script(part: Any) -> str:
    """A value as JavaScript that can stand in a page."""
    text = json.dumps(part, separators=(",", ":"), ensure_ascii=False, default=_numbers)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _numbers(array: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, str]:
    """Numbers as plotly's script reads them from their bytes: shorter than digits, and exact."""
    little = np.ascontiguousarray(array, "<f4")
    return {"dtype": "f4", "bdata": base64.b64encode(little.tobytes()).decode()}
