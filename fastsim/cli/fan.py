"""The fan chart of one forecast, as a page of its own."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go
import torch

from fastsim.backtest.page import as_shown, chart_page
from fastsim.config import write_whole
from fastsim.forecast.interface import Context, Forecast

PAST = 126
"""Bars that are shown before the forecast."""


def write_fan_chart(path: Path, forecast: Forecast, context: Context, title: str) -> None:
    """Write a page of a forecast's first series and what came before it, in one piece."""
    write_whole(path, chart_page(fan_chart(forecast, context, title), title).encode())


def fan_chart(forecast: Forecast, context: Context, title: str) -> go.Figure:
    """Draw the last closes, the median and the two bands around it, bar by bar."""
    past = context.close[0, -PAST:].tolist()
    ahead = list(range(0, forecast.quantiles.shape[1] + 1))
    figure = go.Figure(go.Scatter(x=list(range(1 - len(past), 1)), y=past, name="close"))
    last = torch.tensor([past[-1]])
    for low, high, shade in ((0.1, 0.9, 0.15), (0.25, 0.75, 0.3)):
        lower, upper = (
            torch.cat([last, forecast.at(level)[0].cpu()]).tolist() for level in (low, high)
        )
        figure.add_scatter(x=ahead, y=upper, line={"width": 0}, showlegend=False)
        figure.add_scatter(
            x=ahead,
            y=lower,
            fill="tonexty",
            fillcolor=f"rgba(31,119,180,{shade})",
            line={"width": 0},
            name=f"{low:.0%} to {high:.0%}",
        )
    median = torch.cat([last, forecast.median[0].cpu()]).tolist()
    figure.add_scatter(x=ahead, y=median, name="median", line={"dash": "dot"})
    return figure.update_layout(title=as_shown(title), xaxis_title="bars", template="plotly_white")
