"""A network that was fitted, with its median where the fit has left it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastsim.data.bars import CLOSE
from fastsim.forecast.interface import MEDIAN, ForecastModel
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.training.lora import merged


class LastClose(nn.Module):
    """A median that is the last known close, at every horizon."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """The latest known close [B, 1] of closes [B, L], or of bars [B, L, 6]."""
        closes = inputs[0] if inputs[0].dim() == 2 else inputs[0][..., CLOSE]
        places = torch.ones_like(closes[0], dtype=torch.int64).cumsum(0) - 1  # traced, not baked in
        return returns_with_gaps(closes.float(), places).last[:, None]


class FittedModel(ForecastModel):
    """Spread and shape of a fitted network, about its own median, another's or the last close.

    Quantiles are multiplied by wanted over own median at every horizon, so that their distances in
    log prices stay.

    Parameters
    ----------
    spread
        What was fitted.
    centre
        What the fit began with, where its median is kept; None for the fitted one's own.
    name
        Of the whole.
    reach
        How many bars ahead was learned: further ones are refused.
    known_until
        The last day that fitted it or its start, as in `ModelCard`.
    trials
        Fits of which it is the best, likewise.
    """

    def __init__(
        self,
        spread: ForecastModel,
        centre: ForecastModel | LastClose | None,
        *,
        name: str,
        reach: int,
        known_until: str | None,
        trials: int = 1,
    ) -> None:
        super().__init__()
        self.spread, self.centre = spread, centre
        self.card = replace(
            spread.card,
            name=name,
            revision=None,
            parameters=sum(each.numel() for each in self.parameters()),
            max_horizon=reach,
            known_until=known_until,
            known_source="the bars of its fit, and what it began with",
            trials=trials,
        )

    def settings(self) -> Mapping[str, Any]:
        """Those of its network, and where the median is."""
        centre = None if self.centre is None else type(self.centre).__qualname__
        network = type(self.spread).__qualname__
        return {"network": network, "centre": centre, **self.spread.settings()}

    def weights_changed(self) -> None:
        """As its networks say."""
        for network in (self.spread, self.centre):
            if isinstance(network, ForecastModel):
                network.weights_changed()

    def for_export(self) -> ForecastModel:
        """The same with adapters in the weights that they are beside of."""
        plain = copy.copy(self)
        plain._modules = {**self._modules, "spread": merged(self.spread)}
        return plain

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, in the unit of the close."""
        quantiles: Tensor = self.spread(*inputs, horizon=horizon)
        if self.centre is None:
            return quantiles
        middle = self.card.levels.index(MEDIAN)
        own = quantiles[..., middle : middle + 1]
        if isinstance(self.centre, LastClose):
            wanted: Tensor = self.centre(*inputs)[..., None]
        else:
            wanted = self.centre(*inputs, horizon=horizon)[..., middle : middle + 1]
        return quantiles / own * wanted
