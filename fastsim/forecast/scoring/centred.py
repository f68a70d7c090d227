"""Another forecaster's law with its median at the last close."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from fastsim.forecast.interface import Context, Forecast, Forecaster, can_forecast
from fastsim.forecast.statistics import Counted, counted


class Centred(Counted):
    """Another forecaster's law with its median at the last close: what its score owes to no drift.

    Quantiles are multiplied by last close / median at every horizon, so that widths and shape in
    log prices stay. Series whose last close is missing have no forecast: NaN.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster
        self.card = replace(forecaster.card, name=f"{forecaster.card.name}, centred")
        self.key = f"{forecaster.key}/centred"

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] the forecaster itself can."""
        return can_forecast(self.forecaster, context)

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes; ForecastError as the forecaster itself."""
        told = self.forecaster.forecast(context, horizon)
        last = context.close[:, -1, None, None].to(told.quantiles)  # [B, 1, 1]
        # The median divided by itself is one exactly, so that it takes no side.
        return Forecast(told.quantiles / told.median[..., None] * last, told.levels)
