"""Charts on pages that need no network: the script that draws them comes with the package."""

from __future__ import annotations

import json
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


def chart_html(figure: go.Figure, name: str, height: int) -> str:
    """The element `name` of a page and the script that draws a chart into it, `height` px high.

    Dates that lines of the chart share are written once. Nothing in it can end the script.
    """
    content = json.loads(figure.to_json())
    assert {trace["type"] for trace in content["data"]} <= DRAWS
    shared: list[Any] = []
    for trace in content["data"]:
        if trace["x"] not in shared:
            shared.append(trace["x"])
        trace["x"] = shared.index(trace["x"])
    dates, data, layout, config = (
        _script(part) for part in (shared, content["data"], content["layout"], CONFIG)
    )
    return (
        f'<div id="{name}" class="plotly-graph-div" style="height: {height}px"></div>\n'
        f"<script>{{ const shared = {dates};\n"
        f'Plotly.newPlot("{name}", {data}.map((trace) => ({{...trace, x: shared[trace.x]}})), '
        f"{layout}, {config}); }}</script>"
    )


def chart_page(figure: go.Figure, title: str, height: int = 600) -> str:
    """A page of one chart, and nothing that it would have to load."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<script>{plotly_script()}</script>\n</head>\n"
        f"<body>\n{chart_html(figure, 'chart', height)}\n</body>\n</html>\n"
    )


def _script(part: Any) -> str:
    """A value as JavaScript that can stand in a page."""
    text = json.dumps(part, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
