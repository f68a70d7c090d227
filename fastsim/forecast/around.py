"""What all forecasters have in common that are around another one."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    Identity,
    ModelCard,
    can_forecast,
    check_request,
    no_forecasts,
)
from fastsim.forecast.statistics import Counted, counted


class Around(Counted):
    """A forecaster that asks another one, and says something else."""

    forecaster: Forecaster

    @property
    @abstractmethod
    def card(self) -> ModelCard:
        """What it is."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """All that makes its forecasts what they are."""

    @property
    def key(self) -> str:
        """Name, and the hash of its identity."""
        return self.identity.key

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] the other one can."""
        return can_forecast(self.forecaster, context)

    @counted
    @torch.inference_mode()
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes; ForecastError as the other one."""
        check_request(self.card, context, horizon)
        if not len(context.bars):
            return no_forecasts(self.card, horizon)
        return self.say(context, horizon)

    @abstractmethod
    def say(self, context: Context, horizon: int) -> Forecast:
        """What it says of a request that is checked, about one series or more."""
