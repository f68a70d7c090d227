"""Forecasts of whole bars: open, high, low, volume and traded value beside the close.

A model of bars draws all of a bar at once. What an agent sees is the close; the other columns are
for people, and for whoever places stops within a bar.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastsim.data.bars import BAR_FIELDS, VOLUME
from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    ModuleForecaster,
    check_request,
    model_inputs,
)


@runtime_checkable
class ForecastsBars(Protocol):
    """A model that forecasts every column of a bar."""

    def bar_quantiles(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, 6, Q] of the columns, in their units."""
        ...


@torch.inference_mode()
def forecast_bars(forecaster: Forecaster, context: Context, horizon: int) -> dict[str, Forecast]:
    """Forecasts of every column of the next bars, by its name in `BAR_FIELDS`.

    Each column has quantiles of its own, all of the same paths: that of the close is the
    forecaster's forecast. Volume and traded value are not below 0.

    Raises
    ------
    ForecastError
        The forecaster forecasts closes alone, or the request does not fit it.
    """
    model = forecaster.model if isinstance(forecaster, ModuleForecaster) else None
    if not isinstance(model, ForecastsBars):
        raise ForecastError(
            f"{forecaster.card.name} forecasts closes alone: whole bars are forecast by kronos, "
            f"kronos-mini and kronos-base, on their own and without a season"
        )
    assert isinstance(forecaster, ModuleForecaster)
    card = forecaster.card
    check_request(card, context, horizon)
    inputs = model_inputs(card, context, card.max_context, forecaster.device)
    quantiles = model.bar_quantiles(*inputs, horizon=horizon).float().sort(-1).values
    columns = dict(zip(BAR_FIELDS, quantiles.unbind(2), strict=True))
    for name in BAR_FIELDS[VOLUME:]:
        columns[name] = columns[name].clamp_min(0.0)
    return {name: Forecast(column, card.levels) for name, column in columns.items()}
