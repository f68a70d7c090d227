"""A network with the season around it as one module, to be exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.season.divide import Season, multiplied


class SeasonalModel(ForecastModel):
    """From bars and timestamps to quantiles: what `Seasonal` does, without a forecaster between."""

    def __init__(self, model: ForecastModel, season: Season) -> None:
        super().__init__()
        self.model, self.season = model, season
        self.card = replace(model.card, name=f"{model.card.name}, season", inputs="bars")

    def settings(self) -> Mapping[str, Any]:
        """The network's, and the zone."""
        return {**self.model.settings(), "zone": self.season.zone}

    def for_export(self) -> ForecastModel:
        """The same around the network in the form that an artefact is made of."""
        plain = copy.copy(self)
        plain._modules = {**self._modules, "model": self.model.for_export()}
        return plain

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] from bars [B, L, 6] and timestamps [B, L]."""
        bars, timestamps = inputs
        divided = self.season(bars, timestamps, horizon)
        closes_alone = self.model.card.inputs == "close"
        shown = (divided.bars[..., CLOSE],) if closes_alone else (divided.bars, timestamps)
        told = self.model(*shown, horizon=horizon)
        return multiplied(told, divided.last, divided.growth)
