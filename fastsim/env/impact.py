"""How trades move prices: transient and permanent impact, linear in signed volume.

    Delta = (kappa + gamma) sigma Q / V     displacement of the log price by a net order of Q
    J <- rho J + kappa sigma Q / V          the part that decays, by half in `half_life` bars
    mid = exogenous price * exp(I + J)      the rest, I, stays

An order walks the price from one end of its displacement to the other and pays the mean on its way.
Both parts are linear because a concave law feeding a decaying price state lets an agent earn from
round trips (Gatheral 2010). For the same reason sigma / V is fixed, per share, at the start of an
episode: with a permanent impact that varies in time, buying dear and selling cheap moves the price
up for nothing. Positions are worth what selling them now would bring, or one could grow rich by
buying up one's own price.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape


@configuration
class ImpactConfig:
    """How far trades move prices; zero for both parts leaves prices alone."""

    transient: float = 0.0
    """kappa: displacement that decays, in daily volatilities for an order of the average volume."""
    permanent: float = 0.0
    """gamma: displacement that stays, likewise."""
    half_life: float = 5.0
    """Bars in which half of the transient displacement decays."""

    def __post_init__(self) -> None:
        require_between(self, "transient", 0, 100)
        require_between(self, "permanent", 0, 100)
        require_between(self, "half_life", 0, open_low=True)

    @property
    def moves_prices(self) -> bool:
        """Whether there is any."""
        return self.transient + self.permanent > 0

    @property
    def retention(self) -> float:
        """rho: share of the transient displacement that is left after one bar."""
        return float(0.5 ** (1.0 / self.half_life))

    @property
    def transient_share(self) -> float:
        """Part of a displacement that will decay; 0 where there is none."""
        return self.transient / (self.transient + self.permanent) if self.moves_prices else 0.0


class Displacement(NamedTuple):
    """Where M markets stand; both without columns where prices are left alone."""

    transient: Tensor  # [M, A]  J, log displacement that will decay
    rate: Tensor  # [M, A]  log displacement per unit of currency bought at the mid now

    @property
    def exists(self) -> bool:
        """Whether prices are moved at all."""
        return self.rate.shape[-1] > 0


def undisturbed(config: ImpactConfig, sigma: Tensor, volume: Tensor) -> Displacement:
    """Prices at the start of episodes, where `sigma` and `volume` [M, A] are trailing means."""
    if not config.moves_prices:
        nothing = sigma.new_zeros(len(sigma), 0)
        return Displacement(nothing, nothing)
    rate = (config.transient + config.permanent) * sigma / volume
    return Displacement(torch.zeros_like(rate), rate)


def drift(
    displacement: Displacement, gross_return: Tensor, config: ImpactConfig
) -> tuple[Displacement, Tensor]:
    """Let the transient part decay on the way to the fill; returns also the mid's growth [M, A].

    `gross_return` [M, A] is that of the exogenous price. Shares are what impact is linear in, so
    the rate per unit of currency falls as the price rises.
    """
    growth = gross_return * torch.exp((config.retention - 1.0) * displacement.transient)
    transient = displacement.transient * config.retention
    return Displacement(transient, displacement.rate / growth), growth


def push(
    displacement: Displacement, net: Tensor, config: ImpactConfig
) -> tuple[Displacement, Tensor]:
    """Let net orders [M, A], in currency at the mid, move it; returns also their displacement."""
    moved = displacement.rate * net
    after = Displacement(
        displacement.transient + config.transient_share * moved,
        displacement.rate * torch.exp(-moved),
    )
    return after, moved


def mean_price(moved: Tensor) -> Tensor:
    """Mean price on the way through a displacement, relative to its start: (exp(x) - 1) / x."""
    small = moved.abs() < 1e-6
    safe = torch.where(small, 1.0, moved)
    return torch.where(small, 1.0 + 0.5 * moved, torch.expm1(safe) / safe)


def liquidation_value(holdings: Tensor, rate: Tensor) -> Tensor:
    """What selling `holdings` [N, A] at once would bring [N, A], each player selling alone."""
    return holdings * mean_price(-rate * holdings)


def check_volume(tape: MarketTape) -> None:
    """Raise ConfigError if the tape has no volume to move prices by."""
    if not tape.has_volume:
        raise ConfigError(
            "EnvConfig.impact moves prices by traded volume, and this market has none: use "
            "data with volume, or leave EnvConfig.impact out"
        )
