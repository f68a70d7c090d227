"""A network with the season and the correction of its volatility around it, to be exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.forecast.correction.corrected import Correction, widened
from fastsim.forecast.correction.inputs import inputs_of
from fastsim.forecast.interface import (
    Context,
    Forecast,
    ForecastModel,
    ModelCard,
)
from fastsim.forecast.season.clock import Offsets, local_time
from fastsim.forecast.season.divide import Season


class CorrectedModel(ForecastModel):
    """From bars and timestamps to quantiles: what `Corrected` does, with no forecaster between."""

    def __init__(
        self, model: ForecastModel, correction: Correction, season: Season, card: ModelCard
    ) -> None:
        super().__init__()
        self.model, self.correction, self.season = model, correction, season
        self.card = card

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
        quantiles = self.model(*shown, horizon=horizon).float().sort(-1).values
        told = Forecast(quantiles, self.model.card.levels)
        local = local_time(timestamps, Offsets(self.season.since, self.season.ahead))
        seen = inputs_of(Context(divided.bars, timestamps), told, local)
        told = widened(told, divided.last, self.correction(seen, horizon))
        grown = told.quantiles * divided.growth[..., None]
        prices: Tensor = divided.last.double()[:, None, None] * grown.exp()
        return prices.float()
