"""The fan chart of one forecast, as a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsim.backtest.page import INK, Chart, Trace, as_shown, chart_page
from fastsim.config import write_whole
from fastsim.forecast.interface import Context, Forecast

PAST = 126
"""Bars that are shown before the forecast."""


def write_fan_chart(path: Path, forecast: Forecast, context: Context, title: str) -> None:
    """Write a page of a forecast's first series and what came before it, in one piece."""
    write_whole(path, chart_page(fan_chart(forecast, context, title), title).encode())


def fan_chart(forecast: Forecast, context: Context, title: str) -> Chart:
    """Draw the last closes, the median and the two bands around it, bar by bar."""
    past = context.close[0, -PAST:].cpu()
    bars = list(range(forecast.quantiles.shape[1] + 1))

    def ahead(levels: Tensor) -> Tensor:
        return torch.cat([past[-1:], levels[0].cpu().to(past)])

    chart = Chart.along({"title": {"text": "bars"}})
    chart.layout |= {"title": {"text": as_shown(title)}, "margin": {"t": 96}}
    chart.traces.append(_line(list(range(1 - len(past), 1)), past, "close", {"color": INK}))
    for low, high, shade in ((0.1, 0.9, 0.15), (0.25, 0.75, 0.3)):
        name, edge = f"{low:.0%} to {high:.0%}", {"width": 0}
        upper = _line(bars, ahead(forecast.at(high)), name, edge)
        lower = _line(bars, ahead(forecast.at(low)), name, edge)
        colour = f"rgba(11, 92, 173, {shade})"
        chart.traces.append(upper | {"showlegend": False, "legendgroup": name})
        chart.traces.append(lower | {"fill": "tonexty", "fillcolor": colour, "legendgroup": name})
    style = {"color": "#0b5cad", "dash": "dot"}
    chart.traces.append(_line(bars, ahead(forecast.median), "median", style))
    return chart


def _line(bars: list[int], prices: Tensor, name: str, style: dict[str, Any]) -> Trace:
    trace = {"type": "scatter", "mode": "lines", "x": bars, "y": prices.float().numpy()}
    return trace | {"name": name, "line": style}
