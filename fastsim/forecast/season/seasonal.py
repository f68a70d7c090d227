"""Any forecaster with the season of volatility around it."""

from __future__ import annotations

import functools
from dataclasses import replace

from fastsim.forecast.around import Around
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    Identity,
    ModelCard,
)
from fastsim.forecast.season.clock import DAY, bar_length
from fastsim.forecast.season.divide import Season, multiplied

LEAST_BARS = 3
"""Of a context, for the lengths of its bars to be told."""


class Seasonal(Around):
    """A forecaster that is shown bars without their season, whose forecasts are given it again.

    Bars of a day or longer have none, and are forecast as the forecaster itself does, to the bit.
    The season is read from the whole context, also where the forecaster looks at less of it.
    """

    def __init__(self, forecaster: Forecaster, season: Season) -> None:
        self.forecaster, self.season = forecaster, season

    @property
    def card(self) -> ModelCard:
        """That of its forecaster, under a name of its own."""
        card = self.forecaster.card
        return replace(card, name=f"{card.name}, season")

    @functools.cached_property
    def identity(self) -> Identity:
        """The forecaster, the clock, and what was known of the season before."""
        settings = {"forecaster": self.forecaster.key, "zone": self.season.zone}
        return Identity(card=self.card, weights=fingerprint(self.season), settings=settings)

    def say(self, context: Context, horizon: int) -> Forecast:
        """The forecast of bars without their season, with it."""
        if not has_season(context):
            return self.forecaster.forecast(context, horizon)
        divided = self.season(*context, horizon)
        told = self.forecaster.forecast(Context(divided.bars, context.timestamps), horizon)
        return Forecast(multiplied(told.quantiles, divided.last, divided.growth), told.levels)


def has_season(context: Context) -> bool:
    """Whether bars are so short that a day has several."""
    if len(context.bars) == 0 or context.timestamps.shape[1] < LEAST_BARS:
        return False
    return bool((bar_length(context.timestamps) < DAY).any())
