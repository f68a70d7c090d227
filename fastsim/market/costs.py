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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import BPS, configuration, require_between, require_count
from fastsim.errors import ConfigError
from fastsim.extensions import Registry, checked, require_known
from fastsim.market.conditions import Conditions

RESERVED = (
    *("reward", "wealth_before", "wealth_at_fill", "wealth_traded", "wealth", "turnover"),
    *("unfilled", "stopped", "taken", "cost", "weights", "bar", "borrow", "interest", "date"),
    *("funding", "liquidated", "liquidation_fee", "insured"),
    *("strategy", "invalid_actions", "final_obs", "_final_obs", "episode"),
    *("episode_statistics", "_episode_statistics"),
)
"""What `info`, histories and files have under these names."""
_BY_ORDER = ("fee_per_share", "minimum_fee")


@cache
def _tiny(dtype: torch.dtype) -> float:
    """The least normal number of a type; asking torch takes longer than a step has for it."""
    return torch.finfo(dtype).tiny


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
    and is zero on data without. Until an asset has bars of its own, it is measured by the others'
    (`fastsim.market.tape.scale_impact`)."""
    participation: float = 0.05
    """Most that is traded of an asset in one bar, as a share of that bar's traded value; see
    `OrderConfig.unfilled` for the rest. Without volume in the data there is no limit."""
    borrow_bps_per_year: float = 50.0
    """Charged on the value of short positions over calendar days."""
    also: tuple[str, ...] = ()
    """Costs of your own beside these: names in `COSTS`, or "package.module:object"."""

    def __post_init__(self) -> None:
        require_between(self, "fee_bps", 0, 1000)
        require_between(self, "half_spread_bps", 0, 1000)
        require_between(self, "fee_per_share", 0, 1e6)
        require_between(self, "minimum_fee", 0, 1e6)
        require_between(self, "impact", 0, 100)
        require_between(self, "participation", 0, open_low=True)
        require_between(self, "borrow_bps_per_year", 0, 1e5)
        require_known(self, "also", COSTS)
        costs_of(self)


class Friction(NamedTuple):
    """The costs of N environments, each its own. Fractions, not basis points."""

    fee: Tensor  # [N]
    half_spread: Tensor  # [N]
    impact: Tensor  # [N]  Y
    participation: Tensor  # [N]
    borrow: Tensor  # [N]  per year
    per_share: Tensor | None = None  # [N]  account currency; with `minimum`, or neither
    minimum: Tensor | None = None  # [N]  account currency per order


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
    names = [field.name for field in fields(CostConfig) if field.name != "also"]
    for name, values in per_env.items():
        if name not in names:
            raise ConfigError(f"no cost is called {name!r}; the costs are {', '.join(names)}")
        if values.shape != (num_envs,):
            raise ConfigError(
                f"per-environment {name} must have shape ({num_envs},), got {tuple(values.shape)}"
            )
        for bound in values.aminmax():
            CostConfig(**{name: float(bound)})  # type: ignore[arg-type]

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


class Orders:
    """Orders of N accounts, and what they meet: what a cost is a function of."""

    __slots__ = (
        *("trade", "size", "root", "notional", "market", "friction"),
        *("direction", "size_change", "notional_change"),
    )
    direction: Tensor  # [N, A]  for slopes: how trades change
    size_change: Tensor  # [N, A]  and with them the sizes: against it where it sells
    notional_change: Tensor  # [N]

    def __init__(self, trade: Tensor, market: Conditions, friction: Friction) -> None:
        self.trade, self.market, self.friction = trade, market, friction  # [N, A]  buys positive
        self.size = trade.abs()  # [N, A]
        self.root = self.size.clamp_min(_tiny(trade.dtype)).sqrt()  # [N, A]  a slope at zero, too
        self.notional = self.size.sum(-1)  # [N]

    def change(self, direction: Tensor) -> None:
        """Let trades change in this direction [N, A], from zero on as a buy."""
        self.direction = direction
        self.size_change = torch.where(self.trade < 0, -direction, direction)
        self.notional_change = self.size_change.sum(-1)


@configuration
class Cost:
    """One part of what trades cost, in account currency."""

    name: str
    """What it is called in `info`, histories and reports."""
    charge: Callable[[Orders], Tensor]
    """Paid by each account [N]: never negative, nothing for no trade, and no less for a larger one.
    Every account's is its own: it depends on no other row."""
    slope: Callable[[Orders], Tensor] | None = None
    """How the charge of each account changes [N] as trades do, by `orders.direction`; from zero on
    as a buy. Found by automatic differentiation where there is none."""
    exponent: float = 1.0
    """It grows with this power of all orders of an account together, as margin calls reckon: 1, or
    more where impact is felt."""


def _commission(orders: Orders) -> Tensor:
    """Fee on the value at the price that is paid, or by the share and the order."""
    friction = orders.friction
    if friction.minimum is None:
        net = orders.trade.sum(-1)
        return friction.fee * (orders.notional + friction.half_spread * net)
    charged = torch.maximum(_proportional_fee(orders), friction.minimum[:, None])
    return torch.where(orders.size > 0, charged, 0.0).sum(-1)


def _slope_of_commission(orders: Orders) -> Tensor:
    friction, direction, change = orders.friction, orders.direction, orders.size_change
    if friction.minimum is None or friction.per_share is None:
        return friction.fee * (orders.notional_change + friction.half_spread * direction.sum(-1))
    by_value = friction.fee[:, None] * (change + friction.half_spread[:, None] * direction)
    by_share = by_value + change * friction.per_share[:, None] / orders.market.price
    cheap = _proportional_fee(orders) < friction.minimum[:, None]
    return torch.where(cheap, 0.0, by_share).sum(-1)


def _proportional_fee(orders: Orders) -> Tensor:
    """Commission on each order [N, A] by its value and its shares."""
    friction, size = orders.friction, orders.size
    assert friction.per_share is not None
    by_value = friction.fee[:, None] * (size + friction.half_spread[:, None] * orders.trade)
    return by_value + friction.per_share[:, None] * size / orders.market.price


def _impact(orders: Orders) -> Tensor:
    paid = (orders.market.impact_scale * orders.size * orders.root).sum(-1)
    return orders.friction.impact * paid


def _slope_of_impact(orders: Orders) -> Tensor:
    rate = orders.market.impact_scale * orders.root
    return 1.5 * orders.friction.impact * (rate * orders.size_change).sum(-1)


COSTS: Registry[Cost] = Registry(
    "cost",
    Cost,
    (
        Cost(name="commission", charge=_commission, slope=_slope_of_commission),
        Cost(
            name="spread",
            charge=lambda orders: orders.friction.half_spread * orders.notional,
            slope=lambda orders: orders.friction.half_spread * orders.notional_change,
        ),
        Cost(name="impact", charge=_impact, slope=_slope_of_impact, exponent=1.5),
    ),
)
"""What a trade can cost. fastsim's own are always charged, at the rates of `CostConfig`; what was
added to them is charged where `CostConfig.also` names it."""
ALWAYS = tuple(COSTS.values())


def costs_of(config: CostConfig) -> tuple[Cost, ...]:
    """Everything that trades are charged."""
    also = tuple(COSTS.find(name) for name in config.also)
    names = [cost.name for cost in (*ALWAYS, *also)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"CostConfig.also charges {name!r} twice; leave one of them out")
        if name in RESERVED:
            raise ConfigError(
                f"CostConfig.also: a cost cannot be called {name!r}, which is told beside the "
                f"costs; choose another name"
            )
    return (*ALWAYS, *also)


class Venue(NamedTuple):
    """Where N accounts trade: what they meet, at what rates, and for what they are charged."""

    market: Conditions
    friction: Friction
    costs: tuple[Cost, ...] = ALWAYS

    def charge(self, trade: Tensor) -> dict[str, Tensor]:
        """What trades [N, A] cost each account [N], by cause."""
        return charge(Orders(trade, self.market, self.friction), self.costs)


def charge(orders: Orders, costs: Sequence[Cost]) -> dict[str, Tensor]:
    """What orders cost each account [N], by cause."""
    charged = {cost.name: cost.charge(orders) for cost in costs}
    for cost, paid in zip(costs, charged.values(), strict=True):
        if paid.shape != orders.notional.shape:
            checked("cost", cost, paid, orders.notional.shape)
    return charged


def total(charged: Mapping[str, Tensor]) -> Tensor:
    """Sum of the parts [N]."""
    first, *others = charged.values()
    return sum(others, first)


def slope(orders: Orders, costs: Sequence[Cost], direction: Tensor) -> Tensor:
    """How all costs of each account change [N] as its trades do, by `direction` [N, A]."""
    orders.change(direction)
    first, *others = (
        _differentiated(cost, orders) if cost.slope is None else cost.slope(orders)
        for cost in costs
    )
    return sum(others, first)


def _differentiated(cost: Cost, orders: Orders) -> Tensor:
    """The slope of a cost that brings none."""
    with torch.enable_grad():
        trade = orders.trade.detach().requires_grad_()
        paid = cost.charge(Orders(trade, orders.market, orders.friction)).sum()
        if not paid.requires_grad:
            return torch.zeros_like(trade[:, 0])
        (marginal,) = torch.autograd.grad(paid, trade)
    return (marginal * orders.direction).sum(-1)
