"""A forecaster whose volatility is corrected, by what its bars and the calendar say beside it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.forecast.around import Around
from fastsim.forecast.correction.inputs import inputs_of
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    Identity,
    ModelCard,
)
from fastsim.forecast.networks.return_network import HORIZON, KNOTS, horizon_curve
from fastsim.forecast.season.clock import Offsets, local_time
from fastsim.forecast.season.divide import Season

INPUTS = 41
"""Columns of `inputs_of`."""


class Correction(nn.Module):
    """How much wider or narrower a distribution is to be, over horizons: linear in the inputs.

    The logarithm of the factor is a smooth curve over the root of the horizon, whose KNOTS control
    points are linear in the inputs. Zero weights correct nothing.
    """

    weights: Tensor  # [INPUTS, KNOTS]
    curve: Tensor  # [HORIZON, KNOTS]

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        zero = torch.zeros(INPUTS, KNOTS, dtype=torch.float64)
        self.register_buffer("weights", zero if weights is None else weights)
        self.register_buffer("curve", horizon_curve().double(), persistent=False)

    def forward(self, inputs: Tensor, horizon: int) -> Tensor:
        """Factors [B, H] of the distance from the median, from inputs [B, INPUTS]."""
        ahead = torch.arange(horizon).clamp_max(HORIZON - 1)
        return (inputs @ self.weights.double() @ self.curve[ahead].T.double()).exp()


class Seen(NamedTuple):
    """What a correction goes by."""

    told: Forecast  # of bars without their season
    inputs: Tensor  # [B, INPUTS]  float64
    last: Tensor  # [B]  latest known close
    growth: Tensor  # [B, H]  factor of log returns, for their season


def seen_by(forecaster: Forecaster, season: Season, context: Context, horizon: int) -> Seen:
    """Show a forecaster bars without their season, and read what else they say."""
    divided = season(*context, horizon)
    bars = Context(divided.bars, context.timestamps)
    told = forecaster.forecast(bars, horizon)
    local = local_time(context.timestamps, Offsets(season.since, season.ahead))
    return Seen(told, inputs_of(bars, told, local), divided.last, divided.growth)


def widened(told: Forecast, last: Tensor, factor: Tensor) -> Forecast:
    """Quantiles whose log return from `last` [B] is `factor` [B, H] times as far from the median's.

    In place of prices.
    """
    returns = told.log_returns(last).quantiles.double()
    middle = Forecast(returns, told.levels).median[..., None]
    return Forecast(middle + (returns - middle) * factor[..., None], told.levels)


class Corrected(Around):
    """A forecaster with its season around it and its volatility corrected; its median stays."""

    def __init__(
        self,
        forecaster: Forecaster,
        correction: Correction,
        season: Season,
        *,
        name: str,
        known_until: str | None,
    ) -> None:
        self.forecaster, self.correction, self.season = forecaster, correction, season
        self._name, self._known_until = name, known_until

    @property
    def card(self) -> ModelCard:
        """That of its forecaster, under a name of its own, with the weights of the correction."""
        card = self.forecaster.card
        return replace(
            card,
            name=self._name,
            inputs="bars",
            parameters=card.parameters + self.correction.weights.numel(),
            known_until=self._known_until,
            known_source="the bars of its fit, and what it began with",
        )

    @functools.cached_property
    def identity(self) -> Identity:
        """The forecaster, the season, and the weights."""
        return Identity(
            card=self.card,
            weights=fingerprint(self.correction) + fingerprint(self.season),
            settings={"forecaster": self.forecaster.key, "zone": self.season.zone},
        )

    def say(self, context: Context, horizon: int) -> Forecast:
        """The forecast of bars without their season, widened, and with it."""
        seen = seen_by(self.forecaster, self.season, context, horizon)
        told = widened(seen.told, seen.last, self.correction(seen.inputs, horizon))
        grown = told.quantiles * seen.growth[..., None]
        return Forecast((seen.last.double()[:, None, None] * grown.exp()).float(), told.levels)
