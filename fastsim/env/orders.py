"""From target weights to orders: what may be traded, what is filled, and what is left of it.

    V+ = V- - C(w V+ - h')         wealth after trading: weights w are exact after costs

is the self-financing equation (Jiang, Xu and Liang 2017, section 2.3, with a cost function in place
of a constant rate). Trades are bounded on either side: by halts and participation, and where an
asset cannot be borrowed, by what of it is held.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.market.conditions import Conditions
from fastsim.market.costs import Friction, Orders, Venue, charge, slope, total

NEWTON_STEPS = 4
BISECTIONS = 50


@configuration
class OrderConfig:
    """How orders are filled, and when a broker steps in."""

    unfilled: Literal["drop", "carry"] = "drop"
    """What becomes of the part of an order that halts or participation kept from being filled.
    "carry" keeps it open, in shares, for as long as its account gives no new weights, which a row
    of NaN says, and as far as its cash goes. New weights replace it: what they still lack is in
    the order that they make."""
    whole_shares: bool = False
    """Trade whole shares at prices as traded, in favour of cash: less is bought and more is sold.
    Fractions that reinvested dividends have left go when a position is closed."""
    maintenance_margin: float = 0.0
    """Share of gross exposure that wealth must cover at each close, or else all positions are cut
    in proportion, at that close and its costs, to what it does cover; 0 never does."""
    stop: float = 0.0
    """Part of the price at which a position was entered, on average, whose loss closes it, within
    the bar in which it is reached; see `fastsim.env.brackets`. 0 is none, here and below."""
    target: float = 0.0
    """Part of that price whose gain closes the position."""
    trailing: float = 0.0
    """Part of the best close since a position was opened by which the price falls back (of a short
    position: rises) to close it."""

    def __post_init__(self) -> None:
        require_choice(self, "unfilled")
        require_between(self, "maintenance_margin", 0, 1)
        require_between(self, "stop", 0, 1)
        require_between(self, "target", 0, 100)
        require_between(self, "trailing", 0, 1)

    @property
    def carries(self) -> bool:
        """Whether open orders are kept."""
        return self.unfilled == "carry"

    @property
    def brackets(self) -> bool:
        """Whether positions have a stop or a target."""
        return max(self.stop, self.target, self.trailing) > 0


class Wish(NamedTuple):
    """What N agents ask for."""

    weights: Tensor  # [N, A]  of the wealth that is left after costs
    hold: Tensor  # [N]  bool: no new weights; what is open stays so
    stop: Tensor | None = None  # [N, A]  distance of the stops of what is opened or added to;
    #                             0 asks for none; None where actions never do
    target: Tensor | None = None  # [N, A]  that of their targets


class Bounds(NamedTuple):
    """Least and most that can be traded: low <= 0 <= high."""

    low: Tensor  # [N, A]
    high: Tensor  # [N, A]


class Fill(NamedTuple):
    """What became of orders."""

    trade: Tensor  # [N, A]  bought (positive) and sold, in account currency
    cost: dict[str, Tensor]  # [N] each, by cause
    rest: Tensor  # [N, A]  what stays open; without columns where nothing is carried
    unfilled: Tensor  # [N]  sum over assets of what was asked for and not traded, both sides


def rebalance(
    before: Tensor,
    holdings: Tensor,
    open_orders: Tensor,
    wish: Wish,
    venue: Venue,
    config: OrderConfig,
) -> Fill:
    """Trade `holdings` [N, A] to the weights of what the costs leave of `before` [N].

    An asset that cannot be traded keeps its position, cash pays for the rest, and the weights of
    the others are still exact. Where wealth is not positive nothing trades.
    """
    market, friction = venue.market, venue.friction
    bounds = find_bounds(before, holdings, market, friction)
    after = post_cost_wealth(before, holdings, wish.weights, bounds, venue)
    wanted = wish.weights * after[:, None] - holdings
    standing = torch.zeros_like(wanted)
    if config.carries:
        standing = affordable(before, holdings, open_orders, bounds, venue)
    wanted = torch.where(wish.hold[:, None], standing, wanted)
    trade = placed(wanted, bounds, friction)
    asked = torch.where(wish.hold[:, None], open_orders, wanted) if config.carries else wanted
    unfilled = torch.where(before > 0, (asked - trade).abs().sum(-1), 0.0)
    if config.whole_shares:
        trade = placed(whole_shares(trade, holdings, bounds, market.price), bounds, friction)
    rest = open_orders
    if config.carries:
        rest = left_open(asked, trade, bounds)
    return Fill(trade=trade, cost=venue.charge(trade), rest=rest, unfilled=unfilled)


def cut(wealth: Tensor, holdings: Tensor, venue: Venue, config: OrderConfig) -> Fill:
    """Sell a share of all positions where wealth [N] does not cover their margin: V < m G.

    The share x solves V - C(x h) = m (1 - x) G, by bisection; it is 1 where costs eat all that
    selling frees. Each cost grows with its own power of x; least commissions are reckoned to come
    on top. What cannot be traded stays, and the others are sold in its place.
    """
    market, friction, margin = venue.market, venue.friction, config.maintenance_margin
    loose = torch.where(market.tradable, holdings, 0.0)
    gross, movable = holdings.abs().sum(-1), loose.abs().sum(-1)
    called = (wealth < margin * gross) & (wealth > 0)
    whole, fixed = venue.charge(-loose), torch.zeros_like(wealth)
    if friction.minimum is not None:
        fixed = friction.minimum * (loose != 0).sum(-1)
    low, high = torch.zeros_like(wealth), torch.ones_like(wealth)
    for _ in range(BISECTIONS):
        share = 0.5 * (low + high)
        paid = total({cost.name: share**cost.exponent * whole[cost.name] for cost in venue.costs})
        enough = wealth - fixed - paid >= margin * (gross - share * movable)
        low, high = torch.where(enough, low, share), torch.where(enough, share, high)
    if wealth.requires_grad:
        parts = {
            cost.name: (high**cost.exponent * whole[cost.name], cost.exponent / high)
            for cost in venue.costs
        }
        paid = total({name: part for name, (part, _) in parts.items()})
        steepness = total({name: part * power for name, (part, power) in parts.items()})
        excess = wealth - fixed - paid - margin * (gross - high * movable)
        inside = called & (high < 1.0)
        high = with_gradient(high, excess, margin * movable - steepness, inside)
    trade = -torch.where(called, high, 0.0)[:, None] * loose
    if config.whole_shares:
        trade = whole_shares(trade, holdings, Bounds(-loose.abs(), loose.abs()), market.price)
    nothing = torch.zeros_like(trade)
    return Fill(trade=trade, cost=venue.charge(trade), rest=nothing, unfilled=nothing.sum(-1))


def with_gradient(root: Tensor, excess: Tensor, slope: Tensor, inside: Tensor) -> Tensor:
    """A root [N] of an equation, found without gradients, with those that it has.

    By the implicit function theorem: `excess` is what the equation leaves at the root, and `slope`
    its derivative by the unknown there. Where not `inside` [N], the root is a bound and has none.
    """
    step = -excess / torch.where(inside, slope, 1.0).detach()
    return root + torch.where(inside, step - step.detach(), 0.0)


def affordable(
    before: Tensor, holdings: Tensor, standing: Tensor, bounds: Bounds, venue: Venue
) -> Tensor:
    """Open orders [N, A] with their purchases scaled down to the cash there is for them."""
    order = placed(standing, bounds, venue.friction)
    buys, sells = order.clamp_min(0.0), order.clamp_max(0.0)
    cash = before - (holdings + sells).sum(-1) - total(venue.charge(order))
    share = (cash / buys.sum(-1).clamp_min(torch.finfo(cash.dtype).tiny)).clamp(0.0, 1.0)
    return sells + share[:, None] * buys


def find_bounds(before: Tensor, holdings: Tensor, market: Conditions, friction: Friction) -> Bounds:
    """What may be traded of each asset by accounts worth `before` [N]."""
    frozen = ~market.tradable | (before <= 0)[:, None]
    limit = torch.where(frozen, 0.0, friction.participation[:, None] * market.dollars)
    if market.shortable is None:
        return Bounds(-limit, limit)
    owned = torch.where(market.shortable, torch.inf, holdings.clamp_min(0.0))
    return Bounds(-torch.minimum(limit, owned), limit)


def placed(wanted: Tensor, bounds: Bounds, friction: Friction) -> Tensor:
    """Orders [N, A] within bounds; none that is worth less than the least commission on it."""
    order = wanted.clamp(bounds.low, bounds.high)
    if friction.minimum is None:
        return order
    return torch.where(order.abs() < friction.minimum[:, None], 0.0, order)


def whole_shares(trade: Tensor, holdings: Tensor, bounds: Bounds, price: Tensor) -> Tensor:
    """Round trades [N, A] to shares at `price` so that positions end nearer to zero.

    What closes a position is not rounded. What is a whole number but for rounding errors, of the
    order or of what is held, is taken for it.
    """
    shares, held = trade / price, holdings / price
    after, nearest = held + shares, shares.round()
    error = 4.0 * torch.finfo(trade.dtype).eps * (held.abs() + shares.abs())
    rounded = torch.where(after > 0, shares.floor(), shares.ceil())
    rounded = torch.where((shares - nearest).abs() <= error.clamp_max(0.25), nearest, rounded)
    rounded = torch.where(after > 0, torch.maximum(rounded, -held), rounded)  # a long stays one
    rounded = torch.where(after < 0, torch.minimum(rounded, -held), rounded)
    rounded = torch.where(rounded * price > bounds.high, (bounds.high / price).floor(), rounded)
    rounded = torch.where(rounded * price < bounds.low, (bounds.low / price).ceil(), rounded)
    return torch.where((trade == 0) | (trade == -holdings), trade, rounded * price)


def left_open(wanted: Tensor, trade: Tensor, bounds: Bounds) -> Tensor:
    """What of the orders `wanted` [N, A] stays open: not what would need shares to borrow."""
    refused = bounds.low > -bounds.high
    allowed = torch.where(refused, torch.maximum(wanted, bounds.low), wanted)
    outside = (allowed > bounds.high) | (allowed < bounds.low)
    return torch.where(outside, allowed - trade, 0.0)


def post_cost_wealth(
    before: Tensor, holdings: Tensor, weights: Tensor, bounds: Bounds, venue: Venue
) -> Tensor:
    """Solve V+ = V- - C(w V+ - h) for V+ [N] by Newton's method from V-.

    Without bounds g(x) = x + C(w x - h) - V- is convex and increasing while marginal cost times
    gross leverage is below one, so the iterates fall monotonically to the root. Only the last step
    is differentiated, at a root that the others have found: by the implicit function theorem its
    gradient is that of the root.
    """
    friction = venue.friction

    def orders_at(x: Tensor) -> Orders:
        trade = placed(weights * x[:, None] - holdings, bounds, friction)
        return Orders(trade, venue.market, friction)

    def excess(x: Tensor, orders: Orders) -> Tensor:
        return x + total(charge(orders, venue.costs)) - before

    def rise(orders: Orders) -> Tensor:
        stuck = orders.size >= bounds.high
        if venue.market.shortable is not None:  # else as much can be sold as bought
            stuck = stuck | (orders.trade <= bounds.low)
        return 1.0 + slope(orders, venue.costs, weights.masked_fill(stuck, 0.0))

    with torch.no_grad():
        x = before
        for _ in range(NEWTON_STEPS - 1):
            orders = orders_at(x)
            x = x - excess(x, orders) / rise(orders)
        steepness = rise(orders_at(x))
    x = x - excess(x, orders_at(x)) / steepness
    if friction.minimum is not None:  # the cost jumps where an order is placed: stay below the root
        for _ in range(NEWTON_STEPS):
            x = torch.minimum(x, x - excess(x, orders_at(x)))
    return x
