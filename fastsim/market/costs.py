"""What a trade costs: commission, half spread, square-root impact, and borrow on shorts.

For trades u in account currency, a fee f and a half spread s (slippage), both fractions:

    C(u) = kb sum u+ + ks sum u- + Y sum sigma |u| sqrt(|u| / ADV)
    kb = (1 + s)(1 + f) - 1,   ks = 1 - (1 - s)(1 - f)

A buyer pays the fee on a price raised by the half spread, a seller on a price lowered by it. Where
a broker charges by the share or at least so much per order, the commission of an order of n shares
is the larger of that and of f |u| (1 +- s) + q n. The square-root law of impact: Almgren, Thum,
Hauptmann and Li (2005); Toth et al. (2011).
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_count
from fastsim.errors import ConfigError

BPS = 1e-4
_BY_ORDER = ("fee_per_share", "minimum_fee")


@configuration
class CostConfig:
    """Frictions of one trade. Rates are basis points of traded notional unless named otherwise."""

    fee_bps: float = 1.0
    half_spread_bps: float = 2.0
    fee_per_share: float = 0.0
    """Commission in account currency on each share, at prices as traded, beside `fee_bps`."""
    minimum_fee: float = 0.0
    """Least commission on an order, in account currency. Orders worth less are not placed."""
    impact: float = 1.0
    """Y of the square-root law, cost = Y sigma |u| sqrt(|u| / ADV); 0 turns it off. It needs volume
    and is zero on data without."""
    participation: float = 0.05
    """Most that is traded of an asset in one bar, as a share of that bar's traded value; see
    `OrderConfig.unfilled` for the rest. Without volume in the data there is no limit."""
    borrow_bps_per_year: float = 50.0
    """Charged on the value of short positions over calendar days."""

    def __post_init__(self) -> None:
        require_between(self, "fee_bps", 0, 1000)
        require_between(self, "half_spread_bps", 0, 1000)
        require_between(self, "fee_per_share", 0, 1e6)
        require_between(self, "minimum_fee", 0, 1e6)
        require_between(self, "impact", 0, 100)
        require_between(self, "participation", 0, open_low=True)
        require_between(self, "borrow_bps_per_year", 0, 1e5)


class Friction(NamedTuple):
    """The costs of N environments, each its own. Fractions, not basis points."""

    fee: Tensor  # [N]
    half_spread: Tensor  # [N]
    impact: Tensor  # [N]  Y
    participation: Tensor  # [N]
    borrow: Tensor  # [N]  per year
    per_share: Tensor | None = None  # [N]  account currency; with `minimum`, or neither
    minimum: Tensor | None = None  # [N]  account currency per order


class TradeCost(NamedTuple):
    """What a set of trades cost, by cause, in account currency."""

    commission: Tensor  # [N]
    spread: Tensor  # [N]
    impact: Tensor  # [N]

    @property
    def total(self) -> Tensor:
        """Sum of the parts [N]."""
        return self.commission + self.spread + self.impact


def make_friction(
    config: CostConfig,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **per_env: Tensor,
) -> Friction:
    """Lay out the costs of `num_envs` environments.

    Parameters
    ----------
    config
        The costs that all environments share.
    per_env
        Any field of `CostConfig`, in its unit, as a tensor [N]: that cost differs per environment.

    Raises
    ------
    ConfigError
        A number of environments below one, a name that is no cost, a shape other than [N], or a
        value outside the field's range.
    """
    require_count("num_envs", num_envs)
    names = [field.name for field in fields(CostConfig)]
    for name, values in per_env.items():
        if name not in names:
            raise ConfigError(f"no cost is called {name!r}; the costs are {', '.join(names)}")
        if values.shape != (num_envs,):
            raise ConfigError(
                f"per-environment {name} must have shape ({num_envs},), got {tuple(values.shape)}"
            )
        for bound in values.aminmax():
            CostConfig(**{name: float(bound)})

    def column(name: str, unit: float) -> Tensor:
        values = per_env.get(name, torch.tensor(getattr(config, name), dtype=torch.float64))
        return (values.to(device, torch.float64) * unit).to(dtype).expand(num_envs)

    by_order = any(name in per_env or getattr(config, name) for name in _BY_ORDER)
    return Friction(
        fee=column("fee_bps", BPS),
        half_spread=column("half_spread_bps", BPS),
        impact=column("impact", 1.0),
        participation=column("participation", 1.0),
        borrow=column("borrow_bps_per_year", BPS),
        per_share=column("fee_per_share", 1.0) if by_order else None,
        minimum=column("minimum_fee", 1.0) if by_order else None,
    )


def trade_cost(trade: Tensor, impact_scale: Tensor, friction: Friction, price: Tensor) -> TradeCost:
    """Cost of trading `trade` [N, A] (buys positive).

    Parameters
    ----------
    impact_scale
        sigma / sqrt(ADV) [N, A].
    price
        Of one share [N, A], as traded.
    """
    size = trade.abs()  # [N, A]
    notional, net = size.sum(-1), trade.sum(-1)  # [N]
    root = size.clamp_min(torch.finfo(size.dtype).tiny).sqrt()  # sqrt has no slope at zero
    if friction.minimum is None:
        commission = friction.fee * (notional + friction.half_spread * net)
    else:
        charged = torch.maximum(
            _proportional_fee(trade, friction, price), friction.minimum[:, None]
        )
        commission = torch.where(size > 0, charged, 0.0).sum(-1)
    return TradeCost(
        commission=commission,
        spread=friction.half_spread * notional,
        impact=friction.impact * (impact_scale * size * root).sum(-1),
    )


def marginal_cost(trade: Tensor, impact_scale: Tensor, friction: Friction, price: Tensor) -> Tensor:
    """Derivative of the cost by each trade [N, A]; at zero, that of a buy."""
    fee, half_spread = friction.fee[:, None], friction.half_spread[:, None]
    buy = fee + half_spread + fee * half_spread  # [N, 1]
    sell = fee + half_spread - fee * half_spread
    linear = torch.where(trade >= 0, buy, -sell)
    if friction.minimum is not None and friction.per_share is not None:
        side = torch.where(trade >= 0, 1.0, -1.0)
        by_value = linear + side * friction.per_share[:, None] / price
        cheap = _proportional_fee(trade, friction, price) < friction.minimum[:, None]
        linear = torch.where(cheap, side * half_spread, by_value)
    return (
        linear + 1.5 * friction.impact[:, None] * impact_scale * trade.sign() * trade.abs().sqrt()
    )


def _proportional_fee(trade: Tensor, friction: Friction, price: Tensor) -> Tensor:
    """Commission on each order [N, A] by its value and its shares."""
    assert friction.per_share is not None
    size = trade.abs()
    by_value = friction.fee[:, None] * (size + friction.half_spread[:, None] * trade)
    return by_value + friction.per_share[:, None] * size / price
