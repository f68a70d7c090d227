"""Worlds that differ from episode to episode: costs, impact, volatility and assets drawn anew.

A policy that has met many frictions and many volatilities leans on none of them, and one that has
met every asset in every slot leans on no asset (domain randomisation: Tobin et al. 2017). Draws are
hashes of environment and episode, and players who share a market meet the same ones. Costs and
impact agents feel in what they earn; assets and volatility they also see (`observe.View`).
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Literal

import torch
from torch import Tensor

from fastsim.config import BPS, configuration, require_choice
from fastsim.env.impact import Displacement
from fastsim.env.random import draw_uniform
from fastsim.env.slots import View, drawn_assets
from fastsim.errors import ConfigError
from fastsim.market.conditions import Conditions, with_market_return
from fastsim.market.costs import CostConfig, Friction
from fastsim.market.tape import MarketTape

RANDOMIZE_STREAM = 16
DRAWN_COSTS = {
    "fee_bps": ("fee", BPS),
    "half_spread_bps": ("half_spread", BPS),
    "impact": ("impact", 1.0),
    "participation": ("participation", 1.0),
    "borrow_bps_per_year": ("borrow", BPS),
}
"""Names in the configuration: column of `Friction`, and its unit."""
_FACTOR_LIMIT = 100.0


@configuration
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
    assets: tuple[int, ...] = ()
    """The fewest and the most assets of an episode, all numbers between them alike. Agents see as
    many slots as the market has assets: the first show those drawn, in random order, the rest are
    masked (see `fastsim.env.slots`)."""
    spacing: Literal["uniform", "log"] = "uniform"
    """Whether values, other than numbers of assets, or their logarithms are uniform."""

    def __post_init__(self) -> None:
        require_choice(self, "spacing")
        self._check_assets()
        for name in drawn_names():
            bounds = getattr(self, name)
            if isinstance(bounds, tuple | list) and not bounds:
                continue
            if not _are_ordered(bounds):
                raise ConfigError(
                    f"RandomizeConfig.{name} must be (lowest, highest) or empty, got {bounds!r}"
                )
            for bound in bounds:
                self._check_bound(name, bound)

    @property
    def varies(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.assets) or any(getattr(self, name) for name in drawn_names())

    @property
    def shows(self) -> bool:
        """Whether agents see another market than the tape's."""
        return bool(self.assets or self.volatility)

    def _check_assets(self) -> None:
        bounds = self.assets
        whole = all(type(bound) is int for bound in bounds)
        if bounds and not (whole and len(bounds) == 2 and 1 <= bounds[0] <= bounds[1]):
            raise ConfigError(
                f"RandomizeConfig.assets must be (fewest, most) with 1 <= fewest <= most or empty, "
                f"got {bounds!r}"
            )

    def _check_bound(self, name: str, bound: float) -> None:
        if name in DRAWN_COSTS:
            CostConfig(**{name: bound})  # type: ignore[arg-type]
        elif not 0.0 <= bound <= _FACTOR_LIMIT:
            raise ConfigError(
                f"RandomizeConfig.{name} must lie between 0 and {_FACTOR_LIMIT:g}, got {bound!r}"
            )
        if bound <= 0.0 and (name == "volatility" or self.spacing == "log"):
            raise ConfigError(
                f"RandomizeConfig.{name} must be > 0 with spacing={self.spacing!r}, got {bound!r}"
            )


def check_assets(tape: MarketTape, config: RandomizeConfig) -> None:
    """Raise ConfigError if an episode asks for more assets than the tape has."""
    if config.assets and config.assets[1] > tape.num_assets:
        raise ConfigError(
            f"RandomizeConfig.assets draws up to {config.assets[1]} assets of a market of "
            f"{tape.num_assets}; use at most {tape.num_assets}"
        )


def drawn_names() -> tuple[str, ...]:
    """What is drawn from a range of numbers; the place of a name is that of its stream."""
    apart = ("assets", "spacing")
    return tuple(field.name for field in fields(RandomizeConfig) if field.name not in apart)


def draw(config: RandomizeConfig, name: str, key: Tensor, episode: Tensor) -> Tensor:
    """Value of `name`, in its unit, in `episode` [N] of environments `key` [N]; float64 [N]."""
    bounds: tuple[float, float] = getattr(config, name)
    low, high = bounds
    share = draw_uniform(key, episode, RANDOMIZE_STREAM + drawn_names().index(name))
    if config.spacing == "log":
        return low * torch.exp(math.log(high / low) * share)
    return low + (high - low) * share


def draw_friction(
    config: RandomizeConfig, friction: Friction, key: Tensor, episode: Tensor
) -> Friction:
    """`friction` with the costs that are drawn in place of its own."""
    drawn = {
        column: (unit * draw(config, name, key, episode)).to(friction.fee.dtype)
        for name, (column, unit) in DRAWN_COSTS.items()
        if getattr(config, name)
    }
    return friction._replace(**drawn)


def volatility_of(config: RandomizeConfig, key: Tensor, episode: Tensor) -> Tensor | None:
    """Factor [N] on log returns in `episode` [N]; None where it is not drawn."""
    return draw(config, "volatility", key, episode) if config.volatility else None


def restrict_conditions(market: Conditions, slots: Tensor) -> Conditions:
    """What is met where nothing is traded but the assets in `slots`, and they are the market."""
    if not slots.shape[-1]:
        return market
    drawn = drawn_assets(slots, market.tradable.shape[-1])
    return with_market_return(market._replace(tradable=market.tradable & drawn))


def view_of(
    config: RandomizeConfig, slots: Tensor, key: Tensor, episode: Tensor, dtype: torch.dtype
) -> View | None:
    """How agents with these slots see the market in `episode` [N]; None if as it is."""
    if not config.shows:
        return None
    factor = volatility_of(config, key, episode)
    return View(slots, torch.ones_like(key, dtype=dtype) if factor is None else factor.to(dtype))


def scale_displacement(
    config: RandomizeConfig, displacement: Displacement, key: Tensor, episode: Tensor
) -> Displacement:
    """An undisturbed market of each of M whose prices move by a factor more than configured."""
    rate = displacement.rate
    for name in ("price_impact", "volatility"):
        if getattr(config, name):
            rate = rate * draw(config, name, key, episode).to(rate.dtype)[:, None]
    return displacement._replace(rate=rate)


def _are_ordered(bounds: object) -> bool:
    """Whether these are two numbers, the first no higher than the second."""
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        return False
    numbers = [isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds]
    return all(numbers) and bounds[0] <= bounds[1]
