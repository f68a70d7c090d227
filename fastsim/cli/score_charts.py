"""Charts of scores: losses by horizon and period, bands, the PIT, and what stacks of NHITS add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsim.backtest.charts import BOLD_COLOURS
from fastsim.backtest.page import INK, Chart, Trace, as_shown
from fastsim.forecast.interface import INNER_BAND, Forecast
from fastsim.forecast.scoring.losses import BAND_SHARES, Scores, at_horizon
from fastsim.forecast.scoring.slices import Part
from fastsim.forecast.scoring.summary import relative, summarise

DASHES = ("solid", "dash", "dot")
"""Of lines, where there are more than colours."""
FAINT = "#8a939d"


def horizon_chart(scores: Mapping[str, Scores], walk: Scores, horizons: Sequence[int]) -> Chart:
    """Quantile loss beside the walk's at each horizon, a line for each forecaster."""
    chart = Chart.along({"title": {"text": "bars ahead"}, "automargin": True})
    places = range(len(horizons))
    for (name, own), style in zip(scores.items(), _styles(), strict=False):
        ratios = [
            relative(at_horizon(own, place), at_horizon(walk, place)).estimate for place in places
        ]
        chart.traces.append(_line(list(horizons), ratios, name, style))
    chart.hover("%{y:.3f}")
    chart.y_axis["title"] = {"text": "Quantile loss / walk"}
    return chart


def part_chart(parts: Mapping[str, Sequence[Part]], other: str) -> Chart:
    """Quantile loss beside another's in each part, a line for each forecaster."""
    chart = Chart.along({"type": "category"})
    for (name, own), style in zip(parts.items(), _styles(), strict=False):
        ratios = [part.relative[other].estimate for part in own]
        chart.traces.append(_line([part.name for part in own], ratios, name, style))
    chart.hover("%{y:.3f}")
    chart.y_axis["title"] = {"text": f"Quantile loss / {as_shown(other)}"}
    return chart


def band_chart(scores: Mapping[str, Scores]) -> Chart:
    """What bands of 50, 80 and 95 % hold, with intervals, by forecaster."""
    chart = Chart.along({"type": "category"}, hovermode="closest")
    summaries = {name: summarise(own) for name, own in scores.items()}
    names = [as_shown(name) for name in summaries]
    for place, (share, colour) in enumerate(zip(BAND_SHARES, BOLD_COLOURS, strict=False)):
        held = [
            (each.coverage_50, each.coverage, each.coverage_95)[place]
            for each in summaries.values()
        ]
        middle = np.array([each.estimate for each in held])
        above, below = ([each[at] for each in held] for at in (2, 1))
        chart.traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": names,
                "y": middle,
                "name": f"{share:.0%}",
                "marker": {"color": colour, "size": 9},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": np.array(above) - middle,
                    "arrayminus": middle - np.array(below),
                    "color": colour,
                },
            }
        )
    chart.hover("%{x}: %{y:.1%}")
    chart.layout["shapes"] = [_level(share) for share in BAND_SHARES]
    chart.y_axis.update(tickformat=".0%", title={"text": "Share of outcomes held"})
    return chart


def pit_chart(scores: Mapping[str, Scores]) -> Chart:
    """Share of outcomes in each tenth of the forecast, a group of bars for each tenth."""
    tenths = [f"{place / 10:.1f} to {(place + 1) / 10:.1f}" for place in range(10)]
    axis = {"type": "category", "title": {"text": "level of the forecast"}, "automargin": True}
    chart = Chart.along(axis)
    for (name, own), style in zip(scores.items(), _styles(), strict=False):
        bar = {"type": "bar", "x": tenths, "y": np.array(summarise(own).pit)}
        chart.traces.append(bar | {"name": as_shown(name), "marker": {"color": style["color"]}})
    chart.hover("%{y:.1%}")
    chart.layout |= {"shapes": [_level(0.1)], "bargap": 0.25}
    chart.y_axis.update(tickformat=".0%", title={"text": "Share of outcomes"})
    return chart


def with_outcome(fan: Chart, last: float, outcome: Tensor) -> Chart:
    """A fan chart with the closes [H] that came."""
    came = torch.cat([outcome.new_tensor([last]), outcome]).double().numpy()
    line = _line(list(range(len(came))), came.tolist(), "what came", {"color": "#d9761a"})
    fan.traces.append(line)
    return fan


def stack_chart(told: Sequence[Forecast]) -> Chart:
    """Width of the 80 % band over that of no stack, as one stack of a network after another speaks.

    Forecasts are of one window, of no stack, the first, the first two and so on.
    """
    chart = Chart.along({"title": {"text": "bars ahead"}, "automargin": True})
    last, widths = len(told) - 1, [_log_width(forecast) for forecast in told]
    for number, (width, colour) in enumerate(zip(widths, cycle(BOLD_COLOURS), strict=False)):
        factor = (width / widths[0]).tolist()
        name = {0: "no stack: volatility alone", last: f"all {last} stacks"}.get(
            number, f"the first {number}" if number > 1 else "the first stack"
        )
        dash = "solid" if number else "dot"
        style = {"color": INK if number == last else colour, "dash": dash}
        chart.traces.append(_line(list(range(1, len(factor) + 1)), factor, name, style))
    chart.hover("%{y:.3f}")
    chart.y_axis["title"] = {"text": "80 % band / that of no stack"}
    return chart


def _log_width(forecast: Forecast) -> Tensor:
    """Width [H] of the 80 % band of one window, in logarithms."""
    low, high = (forecast.at(level)[0].double() for level in INNER_BAND)
    return (high / low).log()


def _styles() -> Any:
    """Colours, and dashes once they begin again."""
    count = len(BOLD_COLOURS)
    for number in range(count * len(DASHES)):
        yield {"color": BOLD_COLOURS[number % count], "dash": DASHES[number // count]}


def _line(x: list[Any], y: Sequence[float], name: str, style: dict[str, Any]) -> Trace:
    trace = {"type": "scatter", "mode": "lines+markers" if len(x) <= 30 else "lines"}
    return trace | {"x": x, "y": np.array(y), "name": as_shown(name), "line": style}


def _level(share: float) -> dict[str, Any]:
    """A line across a chart."""
    line = {"color": FAINT, "width": 1, "dash": "dot"}
    ends = {"x0": 0, "x1": 1, "y0": share, "y1": share}
    return {"type": "line", "xref": "paper", **ends, "line": line, "layer": "below"}
