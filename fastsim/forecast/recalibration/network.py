"""A network whose bands are set right as one module, to be exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.forecast.interface import Forecast, ForecastModel, ModelCard
from fastsim.forecast.recalibration.recalibrated import LevelMap, set_right
from fastsim.forecast.returns import returns_with_gaps


class RecalibratedModel(ForecastModel):
    """What `Recalibrated` does, with no forecaster between; inputs are those of its network."""

    def __init__(self, model: ForecastModel, levels: LevelMap, card: ModelCard) -> None:
        super().__init__()
        self.model, self.levels = model, levels
        self.card = replace(card, inputs=model.card.inputs)

    def settings(self) -> Mapping[str, Any]:
        """The network's."""
        return self.model.settings()

    def for_export(self) -> ForecastModel:
        """The same around the network in the form that an artefact is made of."""
        plain = copy.copy(self)
        plain._modules = {**self._modules, "model": self.model.for_export()}
        return plain

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] of what the network reads."""
        quantiles = self.model(*inputs, horizon=horizon).float().sort(-1).values
        closes = inputs[0] if inputs[0].dim() == 2 else inputs[0][..., CLOSE]
        places = torch.ones_like(closes[0], dtype=torch.int64).cumsum(0) - 1  # traced, not baked in
        last = returns_with_gaps(closes.double(), places).last
        told = Forecast(quantiles, self.model.card.levels)
        return set_right(told, last, self.levels(horizon)).quantiles
