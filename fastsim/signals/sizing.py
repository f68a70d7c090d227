"""How large a position is, by what it may lose.

The notional of one position is min(cap, risk x equity / |entry - stop|) in shares' worth: at the
stop it loses the risk, two hundredths of equity unless told otherwise, if it is filled there. Of
all positions together no more is held than a gross cap, and no more is at risk than a budget; what
is too much is taken from all of them alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.signals.regimes import REGIMES

ROUNDING = 1e-6
"""Of a sum of weights: nothing is traded for it."""


@configuration
class SizingConfig:
    """Sizes of positions, as shares of equity."""

    risk: float = 0.02
    """What one position loses at its stop."""
    cap: float = 1.0
    """Most that is held of one asset."""
    gross: float = 1.0
    """Most that is held of all together, long and short."""
    budget: float = 0.06
    """Most that all positions together lose at their stops."""
    by_regime: tuple[float, ...] = (1.0,) * len(REGIMES)
    """What positions are multiplied by in each of the six regimes, in the order of `REGIMES`: low,
    middle and high volatility, each ranging and trending. Where no regime is known it is 1."""

    def __post_init__(self) -> None:
        require_between(self, "risk", 0, 1, open_low=True)
        require_between(self, "cap", 0, 10, open_low=True)
        require_between(self, "gross", 0, 10, open_low=True)
        require_between(self, "budget", 0, 1, open_low=True)
        numbers = isinstance(self.by_regime, tuple) and all(
            isinstance(each, int | float) and not isinstance(each, bool) and 0.0 <= each <= 10.0
            for each in self.by_regime
        )
        if not numbers or len(self.by_regime) != len(REGIMES):
            raise ConfigError(
                f"SizingConfig.by_regime must be {len(REGIMES)} numbers from 0 to 10, one for each "
                f"of {', '.join(REGIMES)}, got {self.by_regime!r}"
            )
        if self.budget < self.risk:
            raise ConfigError(
                f"SizingConfig.budget = {self.budget!r} is of all positions together, and must be "
                f"at least SizingConfig.risk = {self.risk!r}, which is of one"
            )


def stop_distance(entry: Tensor, stop: Tensor) -> Tensor:
    """|entry - stop| / entry [...], a fraction; NaN where there is no stop."""
    return (entry - stop).abs() / entry


def position_by_risk(distance: Tensor, config: SizingConfig) -> Tensor:
    """Share of equity [...] that loses `risk` of it over a distance [...], at most the cap.

    0 where there is no distance, or none is known: nothing would be at risk, or who knows what.
    """
    known = distance > 0
    wanted = (config.risk / torch.where(known, distance, 1.0)).clamp_max(config.cap)
    return torch.where(known, wanted, 0.0)


def by_regime(positions: Tensor, regimes: Tensor, config: SizingConfig) -> Tensor:
    """Positions [...] times the factors of their regimes [...] (int64), within the cap."""
    factors = positions.new_tensor((*config.by_regime, 1.0))  # the last is that of -1
    return (positions * factors[regimes]).clamp_max(config.cap)


def coordinate(weights: Tensor, distance: Tensor, config: SizingConfig) -> Tensor:
    """Weights [..., A], signed, scaled down together to the gross cap and to the budget of risk.

    min(1, gross / sum |w|, budget / sum |w| d, 1 / sum w) for distances d [..., A] to the stops:
    the last because nothing is bought on credit.
    """
    held = weights.abs().sum(-1, keepdim=True)
    lost = planned_risk(weights, distance).sum(-1, keepdim=True)
    bought = weights.sum(-1, keepdim=True)
    excess = torch.stack([held / config.gross, lost / config.budget, bought]).amax(0)
    return weights / torch.where(excess > 1.0 + ROUNDING, excess, 1.0)


def planned_risk(weights: Tensor, distance: Tensor) -> Tensor:
    """Share of equity [..., A] that is lost where each position is filled at its stop."""
    return weights.abs() * distance.nan_to_num(nan=0.0)
