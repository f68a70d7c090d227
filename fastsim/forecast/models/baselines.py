"""What a forecaster of prices has to beat: a Gaussian random walk with a trailing volatility."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Context, Forecast, ModelCard, check_request
from fastsim.forecast.models.prior import CONTEXT, LEVELS
from fastsim.forecast.returns import GapReturns, returns_with_gaps
from fastsim.forecast.statistics import Counted, counted

MAX_HORIZON = 512
Volatility = Callable[[GapReturns], Tensor]
"""From one-bar log returns [B, L - 1] to the volatility [B] of the next bar."""


@configuration(slots=False)
class GaussianRandomWalk(Counted):
    """The log price is a driftless Gaussian walk: its h-bar deviation is volatility * sqrt(h)."""

    name: str
    volatility: Volatility
    min_context: int
    levels: tuple[float, ...] = LEVELS

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
        )

    @property
    def key(self) -> str:
        """Name, which holds the setting."""
        return self.name

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
    if not 2 <= window < CONTEXT:
        raise ConfigError(f"window must be 2 to {CONTEXT - 1} bars, got {window!r}")

    def volatility(gaps: GapReturns) -> Tensor:
        known = gaps.known[:, -window:].sum(1).clamp_min(1)
        return (gaps.returns[:, -window:].square().sum(1) / known).sqrt()

    return GaussianRandomWalk(
        name=f"random-walk-{window}", volatility=volatility, min_context=3, levels=levels
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
    if not 0.0 < decay < 1.0:
        raise ConfigError(f"decay must be between 0 and 1, got {decay!r}")

    def volatility(gaps: GapReturns) -> Tensor:
        age = torch.arange(gaps.known.shape[1], device=gaps.known.device).flip(0)
        weight = decay**age * gaps.known
        return ((weight * gaps.returns.square()).sum(1) / weight.sum(1)).sqrt()

    return GaussianRandomWalk(
        name=f"random-walk-ewma-{decay:g}", volatility=volatility, min_context=3, levels=levels
    )
