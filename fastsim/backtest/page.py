"""Charts on pages that need no network: the script that draws them comes with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go

DRAWS = {"scatter", "bar", "pie"}
"""Kinds of traces that the script knows: it is plotly's own bundle "basic"."""
CONFIG = {"displayModeBar": False, "responsive": True}


def as_shown(name: str) -> str:
    """Escape a name for plotly, which reads tags and `&lt;` in it, but would show `&quot;`."""
    return escape(name, quote=False)


def plotly_script() -> str:
    """The JavaScript that draws charts, to be put into a page once."""
    folder = files("fastsim.backtest") / "plotly"
    return (folder / "plotly-basic.min.js").read_text("utf-8")


def charts_html(charts: Mapping[str, tuple[go.Figure, int]]) -> dict[str, str]:
    """Elements of a page by their names, each with the script that draws a chart into it.

    `dates` is another, to stand before them: what lines have in common along x is written there,
    once. Nothing in a chart can end its script.

    Parameters
    ----------
    charts
        By name: a figure and its height in pixels.
    """
    shared: list[Any] = []
    elements = {name: _element(name, *chart, shared) for name, chart in charts.items()}
    return {"dates": f"<script>const dates = {_script(shared)};</script>"} | elements


def _element(name: str, figure: go.Figure, height: int, shared: list[Any]) -> str:
    """A chart whose lines look up their x in `shared`, which is added to."""
    content = json.loads(figure.to_json())
    assert {trace["type"] for trace in content["data"]} <= DRAWS
    for trace in content["data"]:
        if trace["x"] not in shared:
            shared.append(trace["x"])
        trace["x"] = shared.index(trace["x"])
    data, layout, config = map(_script, (content["data"], content["layout"], CONFIG))
    return (
        f'<div id="{name}" class="plotly-graph-div" style="height: {height}px"></div>\n'
        f'<script>Plotly.newPlot("{name}", {data}.map((trace) => ({{...trace, '
        f"x: dates[trace.x]}})), {layout}, {config});</script>"
    )


def chart_page(figure: go.Figure, title: str, height: int = 600) -> str:
    """A page of one chart, and nothing that it would have to load."""
    parts = charts_html({"chart": (figure, height)})
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<script>{plotly_script()}</script>\n</head>\n"
        f"<body>\n{parts['dates']}\n{parts['chart']}\n</body>\n</html>\n"
    )


def _script(part: Any) -> str:
    """A value as JavaScript that can stand in a page."""
    text = json.dumps(part, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
