"""Worlds that differ from episode to episode: costs, impact and volatility drawn at its start.

A policy that has met many frictions and many volatilities leans on none of them (domain
randomisation: Tobin et al. 2017). Draws are hashes of environment and episode, so nothing is kept,
and players who share a market meet the same ones. Agents see the market's features as they are;
what was drawn they feel in what they earn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from fastsim.config import require_choice
from fastsim.env.conditions import Conditions
from fastsim.env.impact import Displacement
from fastsim.env.random import draw_uniform
from fastsim.errors import ConfigError
from fastsim.market.costs import BPS, CostConfig, Friction

RANDOMIZE_STREAM = 16
_COSTS = {  # names in the configuration: column of `Friction`, its unit
    "fee_bps": ("fee", BPS),
    "half_spread_bps": ("half_spread", BPS),
    "impact": ("impact", 1.0),
    "participation": ("participation", 1.0),
    "borrow_bps_per_year": ("borrow", BPS),
}
_FACTOR_LIMIT = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomizeConfig:
    """Ranges (lowest, highest) to draw from; an empty one leaves things as they are."""

    fee_bps: tuple[float, ...] = ()
    half_spread_bps: tuple[float, ...] = ()
    impact: tuple[float, ...] = ()
    """Y of the square-root law."""
    participation: tuple[float, ...] = ()
    borrow_bps_per_year: tuple[float, ...] = ()
    price_impact: tuple[float, ...] = ()
    """Factor on the displacement of prices, transient and permanent alike."""
    volatility: tuple[float, ...] = ()
    """Factor on every log return, and on the volatility that impact is measured in."""
    spacing: Literal["uniform", "log"] = "uniform"
    """Whether values or their logarithms are uniform."""

    def __post_init__(self) -> None:
        require_choice(self, "spacing")
        for name in _names():
            bounds = getattr(self, name)
            if not bounds:
                continue
            if len(bounds) != 2 or not bounds[0] <= bounds[1]:
                raise ConfigError(
                    f"RandomizeConfig.{name} must be (lowest, highest) or empty, got {bounds!r}"
                )
            for bound in bounds:
                self._check_bound(name, bound)

    @property
    def varies(self) -> bool:
        """Whether anything is drawn."""
        return any(getattr(self, name) for name in _names())

    def _check_bound(self, name: str, bound: float) -> None:
        if name in _COSTS:
            CostConfig(**{name: bound})
        elif not 0.0 <= bound <= _FACTOR_LIMIT:
            raise ConfigError(
                f"RandomizeConfig.{name} must lie between 0 and {_FACTOR_LIMIT:g}, got {bound!r}"
            )
        if bound <= 0.0 and (name == "volatility" or self.spacing == "log"):
            raise ConfigError(
                f"RandomizeConfig.{name} must be > 0 with spacing={self.spacing!r}, got {bound!r}"
            )


def _names() -> tuple[str, ...]:
    """What can be drawn; the place of a name is that of its stream."""
    return tuple(field.name for field in fields(RandomizeConfig) if field.name != "spacing")


def draw(config: RandomizeConfig, name: str, key: Tensor, episode: Tensor) -> Tensor:
    """Value of `name`, in its unit, in `episode` [N] of environments `key` [N]; float64 [N]."""
    bounds: tuple[float, float] = getattr(config, name)
    low, high = bounds
    share = draw_uniform(key, episode, RANDOMIZE_STREAM + _names().index(name))
    if config.spacing == "log":
        return low * torch.exp(math.log(high / low) * share)
    return low + (high - low) * share


def draw_friction(
    config: RandomizeConfig, friction: Friction, key: Tensor, episode: Tensor
) -> Friction:
    """`friction` with the costs that are drawn in place of its own."""
    drawn = {
        column: (unit * draw(config, name, key, episode)).to(friction.fee.dtype)
        for name, (column, unit) in _COSTS.items()
        if getattr(config, name)
    }
    return friction._replace(**drawn)


def scale_conditions(
    config: RandomizeConfig, market: Conditions, key: Tensor, episode: Tensor
) -> Conditions:
    """What is met where log returns and volatility are those of the tape times a factor.

    A simple return r becomes (1 + r)^factor - 1.
    """
    if not config.volatility:
        return market
    factor = draw(config, "volatility", key, episode).to(market.r_before.dtype)[:, None]  # [N, 1]
    before = torch.expm1(factor * torch.log1p(market.r_before))
    after = torch.expm1(factor * torch.log1p(market.r_after))
    total = torch.where(market.tradable, (1.0 + before) * (1.0 + after) - 1.0, 0.0)
    return market._replace(
        r_before=before,
        r_after=after,
        impact_scale=factor * market.impact_scale,
        market_return=total.sum(-1) / market.tradable.sum(-1).clamp_min(1),
    )


def scale_displacement(
    config: RandomizeConfig, displacement: Displacement, key: Tensor, episode: Tensor
) -> Displacement:
    """An undisturbed market of each of M whose prices move by a factor more than configured."""
    rate = displacement.rate
    for name in ("price_impact", "volatility"):
        if getattr(config, name):
            rate = rate * draw(config, name, key, episode).to(rate.dtype)[:, None]
    return displacement._replace(rate=rate)
