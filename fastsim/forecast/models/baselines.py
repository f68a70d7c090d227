"""What a forecaster of prices has to beat: a Gaussian random walk with a trailing volatility."""

from __future__ import annotations

import functools
from dataclasses import asdict, is_dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Context, Forecast, Identity, ModelCard, check_request
from fastsim.forecast.networks.return_network import CONTEXT, LEVELS
from fastsim.forecast.returns import GapReturns, returns_with_gaps
from fastsim.forecast.statistics import Counted, counted

MAX_HORIZON = 512


class Volatility(Protocol):
    """A frozen record that is a rule: its class and fields are part of the forecaster's key."""

    def __call__(self, gaps: GapReturns) -> Tensor:
        """From one-bar log returns [B, L - 1] to the volatility [B] of the next bar."""
        ...


@configuration(slots=False)
class TrailingVolatility:
    """Root mean square of the last `window` one-bar log returns."""

    window: int = 60

    def __post_init__(self) -> None:
        if not 2 <= self.window < CONTEXT:
            raise ConfigError(f"window must be 2 to {CONTEXT - 1} bars, got {self.window!r}")

    def __call__(self, gaps: GapReturns) -> Tensor:
        """Volatility [B]; 0 where no return of the window is known."""
        known = gaps.known[:, -self.window :].sum(1).clamp_min(1)
        return (gaps.returns[:, -self.window :].square().sum(1) / known).sqrt()


@configuration(slots=False)
class EwmaVolatility:
    """Root of the exponentially weighted mean square of log returns: RiskMetrics (1996)."""

    decay: float = 0.94

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ConfigError(f"decay must be between 0 and 1, got {self.decay!r}")

    def __call__(self, gaps: GapReturns) -> Tensor:
        """Volatility [B]."""
        age = torch.arange(gaps.known.shape[1], device=gaps.known.device).flip(0)
        weight = self.decay**age * gaps.known
        return ((weight * gaps.returns.square()).sum(1) / weight.sum(1)).sqrt()


@configuration(slots=False)
class GaussianRandomWalk(Counted):
    """The log price is a driftless Gaussian walk: its h-bar deviation is volatility * sqrt(h)."""

    name: str
    volatility: Volatility
    min_context: int
    levels: tuple[float, ...] = LEVELS

    def __post_init__(self) -> None:
        if not is_dataclass(self.volatility):
            raise ConfigError(
                f"GaussianRandomWalk.volatility must be a dataclass that can be called, so that "
                f"its settings are known, got {self.volatility!r}"
            )

    @property
    def card(self) -> ModelCard:
        """What it is: no parameters, any horizon up to MAX_HORIZON."""
        return ModelCard(
            name=self.name,
            licence="MIT",
            parameters=0,
            max_context=CONTEXT,
            max_horizon=MAX_HORIZON,
            levels=self.levels,
            min_context=self.min_context,
            known_until=None,
            known_source="nothing is fitted beyond its context",
        )

    @functools.cached_property
    def identity(self) -> Identity:
        """Its card, and this record whole."""
        rule = type(self.volatility).__qualname__
        return Identity(card=self.card, settings={"rule": rule} | asdict(self))

    @property
    def key(self) -> str:
        """Name, and the hash of its identity."""
        return self.identity.key

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes; ForecastError if the context is too short."""
        check_request(self.card, context, horizon)
        closes = context.close[:, -CONTEXT:].double()
        gaps = returns_with_gaps(closes, torch.arange(closes.shape[1], device=closes.device))
        root = torch.arange(1, horizon + 1, device=closes.device).double().sqrt()
        normal = torch.special.ndtri(closes.new_tensor(self.levels))  # [Q]
        spread = self.volatility(gaps)[:, None, None] * root[:, None] * normal
        return Forecast((gaps.last[:, None, None] * spread.exp()).float(), self.levels)


def trailing_random_walk(
    window: int = 60, *, levels: tuple[float, ...] = LEVELS
) -> GaussianRandomWalk:
    """Random walk with the root mean square of the last `window` one-bar log returns.

    Raises
    ------
    ConfigError
        The window is not 2 to 511 bars.
    """
    return GaussianRandomWalk(
        name=f"random-walk-{window}",
        volatility=TrailingVolatility(window=window),
        min_context=3,
        levels=levels,
    )


def ewma_random_walk(
    decay: float = 0.94, *, levels: tuple[float, ...] = LEVELS
) -> GaussianRandomWalk:
    """Random walk with an exponentially weighted mean square of log returns: RiskMetrics (1996).

    Raises
    ------
    ConfigError
        The decay per bar is not between 0 and 1.
    """
    return GaussianRandomWalk(
        name=f"random-walk-ewma-{decay:g}",
        volatility=EwmaVolatility(decay=decay),
        min_context=3,
        levels=levels,
    )
