"""The step on a GPU, fused: one program per environment, from its action to its observation.

Functions have the names of the reference. A program holds its environment in registers, an asset to
a lane, with lanes padded to a power of two: it reads its rows once, and writes them once at the
end. What is fixed for an environment is a compile-time constant, so that no branch on it is left.
Arithmetic is that of the tables' floating-point type.

Where players meet or trades move prices a program holds a market: a row of lanes to a player, and
columns of what is one number to an account. The same functions do for both. Rows, too, are padded
to a power of two: those that are too many repeat the last player, and write what it writes.

Annotations are not deferred in this file, because the compiler reads them.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from fastsim.env.accounting import Settlement
from fastsim.env.actions import LARGEST
from fastsim.env.brackets import Exits, Since
from fastsim.env.episode import START_STREAM, WORLD_STREAM, Episode
from fastsim.env.impact import Displacement
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.triton_brackets import (
    closed,
    distances,
    either,
    ended,
    entered_now,
    grown,
    levels,
    load_since,
    store_since,
    traded,
)
from fastsim.env.kernels.triton_draws import (
    Friction,
    draw_factor,
    draw_friction,
    draw_integer,
    draw_rate,
    find_slots,
    hidden,
    renew_slots,
    show_view,
)
from fastsim.env.kernels.triton_math import (
    anyone,
    common,
    cut,
    divide,
    gross_return,
    is_number,
    largest,
    log1p,
    mean_price,
    not_finite,
    total,
)
from fastsim.env.kernels.triton_perpetual import (
    beyond_open,
    found_within,
    liquidation_of,
    within_leverage,
)
from fastsim.env.orders import BISECTIONS, NEWTON_STEPS, Wish
from fastsim.env.reward import INITIAL_VOLATILITY, RUIN_LOG_GROWTH, RewardMemory
from fastsim.market.features import FEATURE_LIMIT

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Python, on tensors anywhere: TRITON_INTERPRET=1 when this was imported."""

_NEWTON_STEPS = tl.constexpr(NEWTON_STEPS)
_BISECTIONS = tl.constexpr(BISECTIONS)
_LARGEST = tl.constexpr(LARGEST)
_SMALLEST = tl.constexpr(1e-37)  # wealth and its ratios are raised to this before a logarithm
_START_STREAM = tl.constexpr(START_STREAM)
_WORLD_STREAM = tl.constexpr(WORLD_STREAM)
_RUIN_LOG_GROWTH = tl.constexpr(RUIN_LOG_GROWTH)
_INITIAL_SQUARE = tl.constexpr(INITIAL_VOLATILITY**2)
_LIMIT = tl.constexpr(FEATURE_LIMIT)


class Account(NamedTuple):
    """What a step changes, apart from where the episode is; in a market of every player."""

    held: tl.tensor  # [A'] or [P', A']
    cash: tl.tensor
    carry: tl.tensor
    open_orders: tl.tensor  # like `held`, or as a number 0 where none are carried
    since: Since  # likewise, of what the rules keep of positions
    peak: tl.tensor
    memory: RewardMemory


class Further(NamedTuple):
    """Which rules of orders hold beside rates and limits, as `columns.WHOLE` names them."""

    carries: bool = False
    whole_shares: bool = False
    by_order: bool = False
    lends: bool = False
    bans: bool = False
    delists: bool = False
    brackets: bool = False
    perpetual: bool = False
    entries: bool = False
    asks: bool = False
    trails: bool = False  # whether stops follow the price
    calls: bool = False  # whether margin is kept
    tiers: int = 0  # of the margin of perpetual futures


class Venue(NamedTuple):
    """Where an environment trades: at what scale of impact and price, and what it is charged."""

    scale: tl.tensor  # [A'] or [1, A']
    price: tl.tensor  # likewise
    friction: Friction
    per_share: tl.tensor
    minimum: tl.tensor


class Bounds(NamedTuple):
    """Least and most that can be traded, as in `orders.Bounds`."""

    low: tl.tensor
    high: tl.tensor


class TradeCost(NamedTuple):
    """What orders cost, as `columns.COSTS` names it."""

    commission: tl.tensor
    spread: tl.tensor
    impact: tl.tensor


class Within(NamedTuple):
    """Where it says what a bar may do to positions before it ends."""

    ranges: tl.tensor  # [RANGE, A']
    funding: tl.tensor  # [A']
    tiers: tl.tensor  # [K, TIER, A']


class Singles(NamedTuple):
    """Orders one by one, as in `buffers.Singles`."""

    trade: tl.tensor
    holdings: tl.tensor
    called: tl.tensor
    called_cost: TradeCost
    exits: Exits  # or a number 0 where there can be none
    settlement: Settlement  # likewise, of perpetual futures


class Figures(NamedTuple):
    """What a row of `Results.figures` holds, less the reward."""

    wealth_before: tl.tensor
    wealth_at_fill: tl.tensor
    wealth_traded: tl.tensor
    wealth: tl.tensor
    turnover: tl.tensor
    unfilled: tl.tensor
    commission: tl.tensor
    spread: tl.tensor
    impact: tl.tensor
    borrow: tl.tensor
    interest: tl.tensor


assert TradeCost._fields == c.COSTS


@triton.jit
def target_weights(row, max_gross, shown, assets: tl.constexpr, mode: tl.constexpr):
    """Admissible weights, zero in empty lanes, and whether the row is not finite and holds."""
    inside = shown.inside
    asked = tl.load(row + shown.slot, mask=inside, other=0.0)
    odd = largest(not_finite(asked))
    if mode == c.ACTION.logits:
        cash = tl.load(row + assets)
        hold = (odd + not_finite(cash)) > 0
        asked = tl.where(hold, 0.0, cut(asked, _LARGEST))
        cash = tl.where(hold, 0.0, cut(cash, _LARGEST))
        top = largest(tl.where(inside, asked, cash))
        top = tl.maximum(top, cash)
        raised = tl.where(inside, tl.exp(asked - top), 0.0)
        weights = raised / (total(raised) + tl.exp(cash - top))
    else:
        hold = odd > 0
        asked = tl.where(hold, 0.0, cut(asked, _LARGEST))
        if mode == c.ACTION.weights:
            asked = tl.maximum(asked, 0.0)
            excess = total(asked)
        elif mode == c.ACTION.leveraged:
            excess = total(tl.abs(asked)) / max_gross
        else:
            signed: tl.constexpr = (mode == c.ACTION.signed) | (mode == c.ACTION.bracketed)
            tl.static_assert(signed, "no such action mode")
            excess = tl.maximum(total(tl.abs(asked)) / max_gross, total(asked))
        weights = asked / tl.maximum(excess, 1.0)
    return weights, hold


@triton.jit
def load_friction(row):
    """What trading costs this environment."""
    return Friction(
        fee=tl.load(row + c.FRICTION.fee),
        half_spread=tl.load(row + c.FRICTION.half_spread),
        impact=tl.load(row + c.FRICTION.impact),
        participation=tl.load(row + c.FRICTION.participation),
        borrow=tl.load(row + c.FRICTION.borrow),
    )


@triton.jit
def load_account(state, n, lanes, padded: tl.constexpr, further: tl.constexpr):
    """The account as the last step left it; empty lanes hold nothing."""
    money = state.money + n * c.NUM_MONEY
    place, open_orders = n * padded + lanes, 0.0
    if further.carries:
        open_orders = tl.load(state.open_orders + place, mask=lanes < padded, other=0.0)
    return Account(
        held=tl.load(state.holdings + place, mask=lanes < padded, other=0.0),
        open_orders=open_orders,
        since=load_since(state.since, n, lanes, padded, further),
        cash=tl.load(money + c.MONEY.cash),
        carry=tl.load(money + c.MONEY.carry),
        peak=tl.load(money + c.MONEY.peak),
        memory=RewardMemory(
            mean=tl.load(money + c.MONEY.mean), square=tl.load(money + c.MONEY.square)
        ),
    )


@triton.jit
def store_account(account, state, n, lanes, padded: tl.constexpr, further: tl.constexpr):
    """Keep the account for the next step."""
    money, place = state.money + n * c.NUM_MONEY, n * padded + lanes
    tl.store(state.holdings + place, account.held, lanes < padded)
    if further.carries:
        tl.store(state.open_orders + place, account.open_orders, lanes < padded)
    store_since(account.since, state.since, n, lanes, padded, further)
    tl.store(money + c.MONEY.cash, account.cash)
    tl.store(money + c.MONEY.carry, account.carry)
    tl.store(money + c.MONEY.peak, account.peak)
    tl.store(money + c.MONEY.mean, account.memory.mean)
    tl.store(money + c.MONEY.square, account.memory.square)


@triton.jit
def load_term(terms, row: tl.constexpr, room, padded: tl.constexpr):
    """What further rules need of a bar; empty lanes hold ones, as in the table."""
    return tl.load(terms + row * padded, mask=room, other=1.0)


@triton.jit
def load_venue(scale, price, factor, friction, fees, room, further: tl.constexpr):
    """Where an environment trades, by where the scale of impact and the price are."""
    one, none = 1.0, 0.0
    if further.by_order or further.whole_shares:
        one = tl.load(price, mask=room, other=1.0)
    per_share, minimum = none, none
    if further.by_order:
        per_share = tl.load(fees + c.FEE.per_share)
        minimum = tl.load(fees + c.FEE.minimum)
    scales = tl.load(scale, mask=room, other=0.0)
    if factor is not None:
        scales = factor * scales
    return Venue(scales, one, friction, per_share, minimum)


@triton.jit
def placed(wanted, bounds, venue, further: tl.constexpr):
    """Orders within bounds; none that is worth less than the least commission on it."""
    order = tl.minimum(tl.maximum(wanted, bounds.low), bounds.high)
    if further.by_order:
        order = tl.where(tl.abs(order) < venue.minimum, 0.0, order)
    return order


@triton.jit
def proportional_fee(order, venue):
    """Commission on each order by its value and its shares."""
    friction = venue.friction
    size = tl.abs(order)
    by_value = friction.fee * (size + friction.half_spread * order)
    return by_value + divide(venue.per_share * size, venue.price)


@triton.jit
def trade_cost(order, venue, further: tl.constexpr):
    """Cost of the orders of one environment."""
    friction, size = venue.friction, tl.abs(order)
    notional = total(size)
    if further.by_order:
        charged = tl.maximum(proportional_fee(order, venue), venue.minimum)
        commission = total(tl.where(size > 0.0, charged, 0.0))
    else:
        commission = friction.fee * (notional + friction.half_spread * total(order))
    return TradeCost(
        commission=commission,
        spread=friction.half_spread * notional,
        impact=friction.impact * total(size * (venue.scale * tl.sqrt(size))),
    )


@triton.jit
def sum_of(cost):
    """All parts of a cost together."""
    return cost.commission + cost.spread + cost.impact


@triton.jit
def slope(order, weights, bounds, venue, further: tl.constexpr):
    """Derivative of g(x) = x + C(w x - h') - V-."""
    fee, half_spread = venue.friction.fee, venue.friction.half_spread
    size = tl.abs(order)
    curve = 1.5 * venue.friction.impact * (venue.scale * tl.sqrt(size))
    free = tl.where((size < bounds.high) & (order > bounds.low), weights, 0.0)
    if further.by_order:
        change = tl.where(order < 0.0, -free, free)
        fees = fee * (change + half_spread * free) + divide(change * venue.per_share, venue.price)
        cheap = proportional_fee(order, venue) < venue.minimum
        marginal = tl.where(cheap, 0.0, fees) + change * (half_spread + curve)
    else:
        buy = fee + half_spread + fee * half_spread
        sell = fee + half_spread - fee * half_spread
        marginal = free * tl.where(order >= 0.0, buy + curve, -sell - curve)
    return 1.0 + total(marginal)


@triton.jit
def post_cost_wealth(
    before, held, weights, bounds, venue, enough: tl.constexpr, further: tl.constexpr
):
    """Solve V+ = V- - C(w V+ - h') by Newton's method from V-.

    A step below `enough` of x is the last, as in the kernel for CPUs: mostly the second. All
    threads of a program leave the loop together and wait for no other. Commissions by order make
    the cost jump where one is placed: there it stays below the root.
    """
    x = before
    left = tl.full((), _NEWTON_STEPS, tl.int32)
    while left > 0:
        order = placed(weights * x - held, bounds, venue, further)
        excess = x + sum_of(trade_cost(order, venue, further)) - before
        step = excess / slope(order, weights, bounds, venue, further)
        x = x - step
        left = tl.where(anyone(tl.abs(step) > enough * tl.abs(x)), left - 1, 0)
    if further.by_order:
        for _ in range(_NEWTON_STEPS):
            order = placed(weights * x - held, bounds, venue, further)
            excess = x + sum_of(trade_cost(order, venue, further)) - before
            x = tl.minimum(x, x - excess)
    return x


@triton.jit
def affordable(before, held, standing, bounds, venue, further: tl.constexpr):
    """Open orders with their purchases scaled down to the cash there is for them."""
    order = placed(standing, bounds, venue, further)
    buys, sells = tl.maximum(order, 0.0), tl.minimum(order, 0.0)
    cash = before - total(held + sells) - sum_of(trade_cost(order, venue, further))
    share = divide(cash, tl.maximum(total(buys), _SMALLEST))
    return sells + tl.minimum(tl.maximum(share, 0.0), 1.0) * buys


@triton.jit
def whole_shares(trade, held, bounds, price, rounding: tl.constexpr):
    """Round trades to shares as `orders.whole_shares` does."""
    shares, owned = divide(trade, price), divide(held, price)
    after, nearest = owned + shares, tl.floor(shares + 0.5)
    error = tl.minimum(rounding * (tl.abs(owned) + tl.abs(shares)), 0.25)
    rounded = tl.where(after > 0.0, tl.floor(shares), tl.ceil(shares))
    rounded = tl.where(tl.abs(shares - nearest) <= error, nearest, rounded)
    rounded = tl.where(after > 0.0, tl.maximum(rounded, -owned), rounded)
    rounded = tl.where(after < 0.0, tl.minimum(rounded, -owned), rounded)
    above, below = rounded * price > bounds.high, rounded * price < bounds.low
    rounded = tl.where(above, tl.floor(divide(bounds.high, price)), rounded)
    rounded = tl.where(below, tl.ceil(divide(bounds.low, price)), rounded)
    return tl.where((trade == 0.0) | (trade == -held), trade, rounded * price)


@triton.jit
def left_open(wanted, trade, bounds):
    """What of the orders wanted stays open: not what would need shares to borrow."""
    allowed = tl.where(bounds.low > -bounds.high, tl.maximum(wanted, bounds.low), wanted)
    outside = (allowed > bounds.high) | (allowed < bounds.low)
    return tl.where(outside, allowed - trade, 0.0)


@triton.jit
def find_bounds(before, held, friction, moves, terms, room, padded: tl.constexpr,
                further: tl.constexpr):  # fmt: skip
    """What may be traded of each asset."""
    dollars = tl.load(moves + c.MOVE.dollars * padded, mask=room, other=0.0)
    high = tl.where(before <= 0.0, 0.0, friction.participation * dollars)
    low = -high
    if further.bans:
        free = load_term(terms, c.TERM.shortable, room, padded) > 0.0
        low = tl.where(free, low, -tl.minimum(high, tl.maximum(held, 0.0)))
    return Bounds(low, high)


@triton.jit
def rebalance(
    before, held, open_orders, weights, hold, moves, terms, factor, friction, fees, room,
    padded: tl.constexpr, enough: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Orders that lead to `weights` of what their cost leaves of `before`.

    Returns also their cost, how much more was asked for, and what stays open.
    """
    venue = load_venue(
        moves + c.MOVE.impact_scale * padded, terms + c.TERM.price * padded, factor, friction, fees,
        room, further,
    )  # fmt: skip
    bounds = find_bounds(before, held, friction, moves, terms, room, padded, further)
    x = post_cost_wealth(before, held, weights, bounds, venue, enough, further)
    wanted = tl.where(hold, 0.0, weights * x - held)
    asked, rest = wanted, open_orders
    if further.carries:
        standing = affordable(before, held, open_orders, bounds, venue, further)
        wanted = tl.where(hold, standing, wanted)
        asked = tl.where(hold, open_orders, wanted)
    order = placed(wanted, bounds, venue, further)
    lacking = tl.where(before > 0.0, total(tl.abs(asked - order)), 0.0)
    if further.whole_shares:
        order = whole_shares(order, held, bounds, venue.price, 0.04 * enough)
        order = placed(order, bounds, venue, further)
    if further.carries:
        rest = left_open(asked, order, bounds)
    return order, trade_cost(order, venue, further), lacking, rest


@triton.jit
def cut_positions(
    wealth, held, called, terms, factor, friction, fees, margin, room,
    padded: tl.constexpr, enough: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Sales of those who are called, as in `orders.cut`, and their cost."""
    venue = load_venue(
        terms + c.TERM.closing_scale * padded, terms + c.TERM.closing_price * padded, factor,
        friction, fees, room, further,
    )  # fmt: skip
    loose = tl.where(load_term(terms, c.TERM.listed, room, padded) > 0.0, held, 0.0)
    gross, movable = total(tl.abs(held)), total(tl.abs(loose))
    whole, left = trade_cost(-loose, venue, further), wealth
    if further.by_order:
        left = wealth - venue.minimum * total(tl.where(loose != 0.0, 1.0, 0.0))
    low, high = wealth * 0.0, wealth * 0.0 + 1.0
    for _ in range(_BISECTIONS):
        share = 0.5 * (low + high)
        impact = share * tl.sqrt(share) * whole.impact
        paid = share * whole.commission + share * whole.spread + impact
        covered = left - paid >= margin * (gross - share * movable)
        low, high = tl.where(covered, low, share), tl.where(covered, share, high)
    order = tl.where(called, -high * loose, 0.0)
    if further.whole_shares:
        bounds = Bounds(-tl.abs(loose), tl.abs(loose))
        order = whole_shares(order, held, bounds, venue.price, 0.04 * enough)
    return order, trade_cost(order, venue, further)


@triton.jit
def receive(cash, carry, amount):
    """Cash with an amount added, and carry with what rounding loses of it; see the reference."""
    raised = cash + amount
    added = raised - cash
    carry = carry + ((cash - (raised - added)) + (amount - added))
    whole = raised + carry
    return whole, carry - (whole - raised)


@triton.jit
def accrue(
    cash, carry, held, bars, terms, friction, room, padded: tl.constexpr, further: tl.constexpr
):
    """Cash and carry after interest and the borrow fee on shorts, and both of them."""
    interest = cash * tl.load(bars + c.BARS.interest)
    short = tl.maximum(-held, 0.0)
    if further.lends:
        fee = load_term(terms, c.TERM.borrow, room, padded)
        fee = tl.where(is_number(fee), fee, friction.borrow)
        borrow = tl.load(bars + c.BARS.years) * total(fee * short)
    else:
        borrow = friction.borrow * tl.load(bars + c.BARS.years) * total(short)
    cash, carry = receive(cash, carry, interest - borrow)
    return cash, carry, interest, borrow


@triton.jit
def figures_of(start, before, traded, wealth, order, lacking, cost, borrow, interest):
    """What happened."""
    solvent = before > 0.0
    turnover = total(tl.abs(order)) / tl.where(solvent, before, 1.0)
    return Figures(
        wealth_before=start,
        wealth_at_fill=before,
        wealth_traded=traded,
        wealth=wealth,
        turnover=tl.where(solvent, turnover, 0.0),
        unfilled=lacking,
        commission=cost.commission,
        spread=cost.spread,
        impact=cost.impact,
        borrow=borrow,
        interest=interest,
    )


@triton.jit
def growth_to_close(moves, terms, room, factor, padded: tl.constexpr, further: tl.constexpr):
    """By how much prices grow from the fill to the close; what is delisted loses what it loses."""
    growth = gross_return(moves, room, factor, c.MOVE.r_after, padded)
    if further.delists and factor is not None:
        gone = load_term(terms, c.TERM.delisted, room, padded) > 0.0
        told = tl.load(moves + c.MOVE.r_after * padded, mask=room, other=0.0)
        growth = tl.where(gone, tl.exp(told), growth)
    return growth


@triton.jit
def pay_out(held, value, open_orders, growth, terms, room, padded: tl.constexpr,
            further: tl.constexpr):  # fmt: skip
    """Holdings, open orders and growth less what is delisted, and the cash that it brings."""
    paid = total(held * 0.0)
    if further.delists:
        gone = load_term(terms, c.TERM.delisted, room, padded) > 0.0
        paid = total(tl.where(gone, growth * value, 0.0))
        held, growth = tl.where(gone, 0.0, held), tl.where(gone, 1.0, growth)
        if further.carries:
            open_orders = tl.where(gone, 0.0, open_orders)
    return held, open_orders, growth, paid


@triton.jit
def leave(
    held, found, moves, terms, factor, friction, fees, room,
    padded: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Orders that close the positions whose stop or target a bar reaches, filled whole."""
    venue = load_venue(
        moves + c.MOVE.impact_scale * padded, terms + c.TERM.closing_price * padded, factor,
        friction, fees, room, further,
    )  # fmt: skip
    price = venue.price
    if further.by_order:
        later = growth_to_close(moves, terms, room, factor, padded, further)
        price = divide(price * found.growth, later)
    venue = Venue(venue.scale, price, friction, venue.per_share, venue.minimum)
    order = tl.where(found.stopped | found.taken, -found.growth * held, 0.0)
    return Exits(
        trade=order,
        cost=trade_cost(order, venue, further),
        stopped=total(tl.where(found.stopped, tl.abs(order), 0.0)),
        taken=total(tl.where(found.taken, tl.abs(order), 0.0)),
    )


@triton.jit
def without(account, which, received, further: tl.constexpr):
    """The account with what it receives for these positions, and with nothing open of them."""
    cash, carry = receive(account.cash, account.carry, received)
    return Account(
        held=tl.where(which, 0.0, account.held),
        cash=cash,
        carry=carry,
        open_orders=tl.where(which, 0.0, account.open_orders) if further.carries else 0.0,
        since=ended(account.since, which, further),
        peak=account.peak,
        memory=account.memory,
    )


@triton.jit
def close_within(
    account, solvent, within, moves, terms, factor, friction, fees, real, room,
    padded: tl.constexpr, enough: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Close what a bar brings to its stop, its target or its liquidation, of who is solvent.

    Returns the account, exits and liquidation.
    """
    exits, liquidation = 0.0, 0.0
    if further.entries:
        held, since = tl.where(solvent, account.held, 0.0), account.since
        found = found_within(
            levels(since, held, real, further), held, since.entry, within, factor, real, room,
            padded, enough, further,
        )  # fmt: skip
        if further.brackets:
            exits = leave(held, found, moves, terms, factor, friction, fees, room, padded, further)
            received = -total(exits.trade) - sum_of(exits.cost)
            account = without(account, found.stopped | found.taken, received, further)
        if further.perpetual:
            liquidation, received = liquidation_of(
                found.liquidated, found.growth, held, since.entry, real
            )
            account = without(account, found.liquidated, received, further)
    return account, exits, liquidation


@triton.jit
def meet_margin(
    account, wish, tiers, real, room, padded: tl.constexpr, enough: tl.constexpr,
    further: tl.constexpr,
):  # fmt: skip
    """Liquidate what a gap to the fill has gone beyond, and ask for no more than leverage allows.

    Returns the account, what is asked for, and the liquidation.
    """
    liquidation = 0.0
    if further.perpetual:
        held, entry = account.held, account.since.entry
        which = beyond_open(held, entry, tiers, real, room, padded, enough, further)
        liquidation, received = liquidation_of(which, held * 0.0 + 1.0, held, entry, real)
        account = without(account, which, received, further)
        wealth = total(account.held) + account.cash
        weights = within_leverage(wish.weights, wealth, tiers, room, padded)
        wish = Wish(weights, wish.hold, wish.stop, wish.target)
    return account, wish, liquidation


@triton.jit
def pay_funding(cash, carry, held, funding, room, padded: tl.constexpr, further: tl.constexpr):
    """Cash and carry after the funding of what is held until the close, and that."""
    paid = 0.0
    if further.perpetual:
        paid = total(held * tl.load(funding, mask=room, other=0.0))
        cash, carry = receive(cash, carry, -paid)
    return cash, carry, paid


@triton.jit
def settlement_of(funding, at_open, within, further: tl.constexpr):
    """What funding and liquidations come to together; a number 0 of spot."""
    settlement = 0.0
    if further.perpetual:
        settlement = Settlement(
            funding=funding,
            liquidated=at_open.value + within.value,
            liquidation_fee=at_open.fee + within.fee,
            insured=at_open.insured + within.insured,
            seized=at_open.trade + within.trade,
        )
    return settlement


@triton.jit
def with_exits(cost, exits, further: tl.constexpr):
    """What orders cost together with exits, where there are such."""
    commission, spread, impact = cost.commission, cost.spread, cost.impact
    if further.brackets:
        commission += exits.cost.commission
        spread += exits.cost.spread
        impact += exits.cost.impact
    return TradeCost(commission, spread, impact)


@triton.jit
def with_call(figures, wealth, cost):
    """The figures of a step whose account was also called."""
    return Figures(
        figures.wealth_before,
        figures.wealth_at_fill,
        figures.wealth_traded,
        wealth,
        figures.turnover,
        figures.unfilled,
        figures.commission + cost.commission,
        figures.spread + cost.spread,
        figures.impact + cost.impact,
        figures.borrow,
        figures.interest,
    )


@triton.jit
def at_prices(account, growth, further: tl.constexpr):
    """The account at prices that have grown."""
    return Account(
        held=account.held * growth,
        cash=account.cash,
        carry=account.carry,
        open_orders=account.open_orders * growth,
        since=grown(account.since, growth, further),
        peak=account.peak,
        memory=account.memory,
    )


@triton.jit
def advance(
    account, wish, within, moves, bars, terms, factor, friction, fees, real, lanes,
    padded: tl.constexpr, enough: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """From a close to the next: the account, figures, ruin and single orders."""
    room, growth = lanes < padded, gross_return(moves, lanes < padded, factor, c.MOVE.r_before,
                                                padded)  # fmt: skip
    met, wish, at_open = meet_margin(
        at_prices(account, growth, further), wish, within.tiers, real, room, padded, enough, further
    )
    held, since = met.held, met.since
    before = total(held) + met.cash
    order, cost, lacking, waiting = rebalance(
        before, held, met.open_orders, wish.weights, wish.hold, moves, terms, factor, friction,
        fees, room, padded, enough, further,
    )  # fmt: skip
    paid = sum_of(cost)
    bought, since = held + order, traded(since, held, order, wish, real, further)
    cash, carry = receive(met.cash, met.carry, -total(order) - paid)
    cash, carry, interest, borrow = accrue(
        cash, carry, bought, bars, terms, friction, room, padded, further
    )
    cash, carry, funding = pay_funding(cash, carry, bought, within.funding, room, padded, further)
    left, exits, liquidation = close_within(
        Account(bought, cash, carry, waiting, since, account.peak, account.memory), before > 0.0,
        within, moves, terms, factor, friction, fees, real, room, padded, enough, further,
    )  # fmt: skip
    cash, carry = left.cash, left.carry
    growth = growth_to_close(moves, terms, room, factor, padded, further)
    held, waiting, growth, due = pay_out(
        left.held, left.held, left.open_orders, growth, terms, room, padded, further
    )
    if further.delists:
        cash, carry = receive(cash, carry, due)
    held, waiting = held * growth, waiting * growth
    since = closed(left.since, growth, held, further)
    wealth = total(held) + cash
    start = total(account.held) + account.cash
    figures = figures_of(
        start, before, before - paid, wealth, order, lacking, with_exits(cost, exits, further),
        borrow, interest,
    )  # fmt: skip
    sold, called_cost = held * 0.0, TradeCost(paid * 0.0, paid * 0.0, paid * 0.0)
    if further.calls:
        margin = tl.load(real + c.REAL.maintenance_margin)
        called = (wealth > 0.0) & (wealth < margin * total(tl.abs(held)))
        if anyone(called):
            sold, called_cost = cut_positions(
                wealth,
                held,
                called,
                terms,
                factor,
                friction,
                fees,
                margin,
                room,
                padded,
                enough,
                further,
            )
        if further.carries:
            waiting = tl.where(largest(tl.abs(sold)) > 0.0, 0.0, waiting)
        held = held + sold
        since = ended(since, held == 0.0, further)
        spent = total(sold) + sum_of(called_cost)
        whole, rest = receive(cash, carry, -spent)
        cash, carry = tl.where(called, whole, cash), tl.where(called, rest, carry)
        wealth = tl.where(called, total(held) + cash, wealth)
        figures = with_call(figures, wealth, called_cost)
    ruined = (before <= 0.0) | (wealth <= 0.0)
    account = Account(held, cash, carry, waiting, since, account.peak, account.memory)
    settlement = settlement_of(funding, at_open, liquidation, further)
    return account, figures, ruined, Singles(order, bought, sold, called_cost, exits, settlement)


@triton.jit
def meet(order, rate, transient, seat, share, players: tl.constexpr):
    """Let orders of a market move its prices; returns also what orders pay, and the price after."""
    net = tl.sum(tl.where(seat < players, order, 0.0), 0, keep_dims=True)
    moved = rate * net
    lift = tl.exp(moved)
    return rate / lift, transient + share * moved, mean_price(moved), lift


@triton.jit
def advance_with_impact(
    account, displacement, wish, moves, bars, terms, factor, friction, fees, real, seat,
    lanes, players: tl.constexpr, padded: tl.constexpr, enough: tl.constexpr,
    further: tl.constexpr,
):  # fmt: skip
    """`advance` of a market in which trades move prices: displacement, too.

    A move of the exogenous price leaves the mean price of a sale alone, relative to that price.
    """
    room, waiting = lanes < padded, account.open_orders
    retention, share = tl.load(real + c.REAL.retention), tl.load(real + c.REAL.transient_share)
    growth = gross_return(moves, room, factor, c.MOVE.r_before, padded)
    growth = growth * tl.exp((retention - 1.0) * displacement.transient)
    price = mean_price(-displacement.rate * account.held)
    held = account.held * growth
    before = total(held * price) + account.cash
    order, cost, lacking, waiting = rebalance(
        before, held, waiting * growth, wish.weights, wish.hold, moves, terms, factor, friction,
        fees, room, padded, enough, further,
    )  # fmt: skip
    rate, transient, paid, lift = meet(
        order, displacement.rate / growth, displacement.transient * retention, seat, share, players
    )
    spent = total(order * paid) + sum_of(cost)
    cash, carry = receive(account.cash, account.carry, -spent)
    bought, waiting = (held + order) * lift, waiting * lift
    later = mean_price(-rate * bought)
    traded = total(bought * later) + cash
    cash, carry, interest, borrow = accrue(
        cash, carry, bought, bars, terms, friction, room, padded, further
    )
    growth = growth_to_close(moves, terms, room, factor, padded, further)
    held, waiting, growth, due = pay_out(
        bought, bought * later, waiting, growth, terms, room, padded, further
    )
    if further.delists:
        cash, carry = receive(cash, carry, due)
    held, waiting, rate = held * growth, waiting * growth, rate / growth
    wealth = total(held * later) + cash
    start = total(account.held * price) + account.cash
    figures = figures_of(start, before, traded, wealth, order, lacking, cost, borrow, interest)
    sold, none = held * 0.0, wealth * 0.0
    called_cost = TradeCost(none, none, none)
    if further.calls:
        margin = tl.load(real + c.REAL.maintenance_margin)
        called = (wealth > 0.0) & (wealth < margin * total(tl.abs(held)))
        if anyone(called):
            sold, called_cost = cut_positions(
                wealth,
                held,
                called,
                terms,
                factor,
                friction,
                fees,
                margin,
                room,
                padded,
                enough,
                further,
            )
            rate, transient, paid, lift = meet(sold, rate, transient, seat, share, players)
            cash, carry = receive(cash, carry, -total(sold * paid) - sum_of(called_cost))
            held, waiting = (held + sold) * lift, waiting * lift
            wealth = total(held * mean_price(-rate * held)) + cash
        if further.carries:
            waiting = tl.where(largest(tl.abs(sold)) > 0.0, 0.0, waiting)
        figures = with_call(figures, wealth, called_cost)
    ruined = (before <= 0.0) | (wealth <= 0.0)
    account = Account(held, cash, carry, waiting, account.since, account.peak, account.memory)
    singles = Singles(order, bought, sold, called_cost, 0.0, 0.0)
    return account, Displacement(transient, rate), figures, ruined, singles


@triton.jit
def measure_reward(
    before, after, peak_before, peak, market_return, memory, real, kind: tl.constexpr
):
    """Reward, and what it remembers."""
    ratio = divide(after, tl.where(before > 0.0, before, 1.0))
    growth = tl.maximum(tl.log(tl.maximum(ratio, _SMALLEST)), _RUIN_LOG_GROWTH)
    gain = ratio - 1.0
    mean = memory.mean
    square = memory.square
    if kind == c.REWARD.log_growth:
        reward = growth
    elif kind == c.REWARD.excess_log_growth:
        reward = growth - log1p(market_return)
    elif kind == c.REWARD.simple_return:
        reward = gain
    elif kind == c.REWARD.drawdown_penalized_growth:
        deepening = (1.0 - divide(after, peak)) - (1.0 - divide(before, peak_before))
        reward = growth - tl.load(real + c.REAL.drawdown_penalty) * tl.maximum(deepening, 0.0)
    else:
        tl.static_assert(kind == c.REWARD.differential_sharpe, "no such reward")
        rate = tl.load(real + c.REAL.adaptation)
        d_mean = gain - mean
        d_square = gain * gain - square
        variance = tl.maximum(square - mean * mean, 1e-8)
        reward = divide(square * d_mean - 0.5 * mean * d_square, variance * tl.sqrt(variance))
        mean = mean + rate * d_mean
        square = square + rate * d_square
    return reward, RewardMemory(mean=mean, square=square)


@triton.jit
def be_paid(account, figures, ruined, market_return, real, kind: tl.constexpr):
    """Account and reward; who had nothing gets nothing.

    Ruin is final: the reward is that of having nothing left, whatever comes after.
    """
    peak = tl.maximum(account.peak, figures.wealth)
    reward, memory = measure_reward(
        figures.wealth_before,
        tl.where(ruined, 0.0, figures.wealth),
        account.peak,
        peak,
        market_return,
        account.memory,
        real,
        kind,
    )
    account = Account(
        account.held, account.cash, account.carry, account.open_orders, account.since, peak, memory
    )
    return account, tl.where(figures.wealth_before > 0.0, reward, 0.0)


@triton.jit
def load_episode(state, n):
    """Where the environment is."""
    row = state.counters + n * c.NUM_COUNTERS
    return Episode(
        bar=tl.load(row + c.COUNTER.bar),
        end=tl.load(row + c.COUNTER.end),
        number=tl.load(row + c.COUNTER.number),
        done=tl.load(state.done + n) != 0,
    )


@triton.jit
def store_episode(episode, state, n):
    """Keep where the environment is for the next step."""
    row = state.counters + n * c.NUM_COUNTERS
    tl.store(row + c.COUNTER.bar, episode.bar)
    tl.store(row + c.COUNTER.end, episode.end)
    tl.store(row + c.COUNTER.number, episode.number)
    tl.store(state.done + n, episode.done)


@triton.jit
def begin(
    over, episode, key, market, first: tl.constexpr, starts: tl.constexpr, horizon: tl.constexpr,
    last: tl.constexpr, worlds: tl.constexpr, span: tl.constexpr, worlds_per_market: tl.constexpr,
):  # fmt: skip
    """The episode, or where it is `over` the next, in one of `worlds` of `span` bars each.

    It is the next of the market's own `worlds_per_market`, or with none any one, drawn. The episode
    starts at one of `starts` bars, `first` and later, and runs to `last` without a horizon.
    """
    number = episode.number + tl.where(over, 1, 0)
    first_bar = key * 0 + first
    if worlds_per_market > 0:
        first_bar += span * (market + number % worlds_per_market * (worlds // worlds_per_market))
    elif worlds > 1:
        first_bar += span * draw_integer(key, number, _WORLD_STREAM, worlds)
    start = first_bar
    if starts > 1:
        start += draw_integer(key, number, _START_STREAM, starts)
    end = start + horizon if horizon > 0 else first_bar + (last - first)
    return Episode(
        bar=tl.where(over, start, episode.bar),
        end=tl.where(over, end, episode.end),
        number=number,
        done=episode.done & (over == 0),
    )


@triton.jit
def load_start(moves, lanes, row: tl.constexpr, rows: tl.constexpr, padded: tl.constexpr):
    """What a table says of episodes that begin at a bar; zero where it has no such row."""
    return tl.load(moves + row * padded, mask=lanes < padded, other=0.0) if rows > row else 0.0


@triton.jit
def endow(endowment, initial, invested, bars, shown, most: tl.constexpr):
    """Holdings, cash and wealth of an episode that begins: as laid out, or shared by the drawn."""
    held, cash = endowment, tl.load(bars + c.BARS.start_cash)
    wealth = tl.load(bars + c.BARS.start_wealth)
    if most > 0:
        there = shown.inside & (endowment > 0.0)
        count = tl.maximum(total(tl.where(there, 1.0, 0.0)), 1.0).to(initial.dtype)
        held = tl.where(there, divide(invested * initial, count), 0.0)
        cash = initial - total(held)
        wealth = total(held) + cash
    return held, cash, wealth


@triton.jit
def renew(over, account, held, cash, peak, real, further: tl.constexpr):
    """The account, or where its episode is `over` that of the next."""
    held = tl.where(over, held, account.held)
    return Account(
        held=held,
        cash=tl.where(over, cash, account.cash),
        carry=tl.where(over, 0.0, account.carry),
        open_orders=tl.where(over, 0.0, account.open_orders) if further.carries else 0.0,
        since=either(over, entered_now(held, real, further), account.since, further),
        peak=tl.where(over, peak, account.peak),
        memory=RewardMemory(
            mean=tl.where(over, 0.0, account.memory.mean),
            square=tl.where(over, _INITIAL_SQUARE, account.memory.square),
        ),
    )


@triton.jit
def lay_out(
    market, bar, initial, invested, key, number, ranges, lanes, shown,
    padded: tl.constexpr, rows: tl.constexpr, by_market: tl.constexpr, drawn: tl.constexpr,
    log_spacing: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """What an episode begins with: holdings, cash, wealth, and how far trades move prices."""
    moves = market.moves + bar * (rows * padded) + lanes
    bars = market.bars + bar * c.NUM_BARS
    held = load_start(moves, lanes, c.MOVE.start_holdings, rows, padded)
    held, cash, wealth = endow(held, initial, invested, bars, shown, most)
    rate = load_start(moves, lanes, c.MOVE.start_rate, rows, padded)
    if by_market and drawn and rows > c.MOVE.start_rate:
        rate = rate * draw_rate(initial, key, number, ranges, drawn, log_spacing)
        wealth = total(held * mean_price(-rate * held)) + cash
    return held, cash, wealth, rate


@triton.jit
def renew_prices(over, displacement, rate, place, lanes, padded: tl.constexpr):
    """Where the market stands, or if its episode is `over` where the next begins; kept, too."""
    displacement = Displacement(
        tl.where(over, 0.0, displacement.transient), tl.where(over, rate, displacement.rate)
    )
    tl.store(place.transient, displacement.transient, lanes < padded)
    tl.store(place.rate, displacement.rate, lanes < padded)
    return displacement


@triton.jit
def write_orders(
    singles, n, live, kept, account, lanes,
    assets: tl.constexpr, told: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Tell the orders one by one; where not `live`, that there were none."""
    at, inside = n * assets + lanes, lanes < assets
    tl.store(singles.holdings + at, tl.where(live, kept.holdings, account.held), inside)
    if told:
        tl.store(singles.trade + at, tl.where(live, kept.trade, 0.0), inside)
    if told and further.calls:
        row, cost = singles.called_cost + n * c.NUM_COSTS, kept.called_cost
        tl.store(singles.called + at, tl.where(live, kept.called, 0.0), inside)
        tl.store(row, tl.where(live, cost.commission, 0.0))
        tl.store(row + 1, tl.where(live, cost.spread, 0.0))
        tl.store(row + 2, tl.where(live, cost.impact, 0.0))
    if further.brackets:
        write_exits(singles, n, live, kept.exits, at, inside)
    if further.perpetual:
        write_settlement(singles, n, live, kept.settlement, at, inside)


@triton.jit
def write_exits(singles, n, live, exits, at, inside):
    """The same of what stops and targets closed."""
    row, cost = singles.exit_cost + n * c.NUM_COSTS, exits.cost
    tl.store(singles.exit_trade + at, tl.where(live, exits.trade, 0.0), inside)
    tl.store(row, tl.where(live, cost.commission, 0.0))
    tl.store(row + 1, tl.where(live, cost.spread, 0.0))
    tl.store(row + 2, tl.where(live, cost.impact, 0.0))
    row = singles.exit_value + n * c.NUM_EXITS
    tl.store(row + c.EXIT.stopped, tl.where(live, exits.stopped, 0.0))
    tl.store(row + c.EXIT.taken, tl.where(live, exits.taken, 0.0))


@triton.jit
def write_settlement(singles, n, live, settlement, at, inside):
    """The same of what perpetual futures came to."""
    row = singles.settled + n * c.NUM_SETTLED
    tl.store(singles.seized + at, tl.where(live, settlement.seized, 0.0), inside)
    tl.store(row + c.SETTLED.funding, tl.where(live, settlement.funding, 0.0))
    tl.store(row + c.SETTLED.liquidated, tl.where(live, settlement.liquidated, 0.0))
    tl.store(row + c.SETTLED.liquidation_fee, tl.where(live, settlement.liquidation_fee, 0.0))
    tl.store(row + c.SETTLED.insured, tl.where(live, settlement.insured, 0.0))


@triton.jit
def show_features(
    seen, bar, market, slots, rising, factor, assets: tl.constexpr, features: tl.constexpr,
    chunk: tl.constexpr, rows: tl.constexpr, padded: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """Write the features of a bar, by slot, at the volatility of the episode; 0 where masked."""
    each: tl.constexpr = features // assets + (features == 0)
    for start in range(0, features, chunk):
        columns = start + tl.arange(0, chunk)
        inside = columns < features
        asset = columns // each
        if most > 0:
            asset = tl.load(slots + asset, mask=inside, other=-1)
        there = inside & (asset >= 0)
        place = bar * features + asset * each + columns % each
        told = tl.load(market.features + place, mask=there, other=0.0)
        if factor is not None:
            known = market.moves + (bar * rows + c.MOVE.present) * padded + asset
            rise = tl.where(tl.load(known, mask=there, other=0.0) > 0.0, tl.log(factor), 0.0)
            told += rise * tl.load(rising + columns, mask=there, other=0.0)
        tl.store(seen + columns, tl.where(there, cut(told, _LIMIT), 0.0), inside)


@triton.jit
def show(column, values, shown, lanes, assets: tl.constexpr, most: tl.constexpr):
    """Write a number of each asset, by slot; 0 where masked."""
    tl.store(column + shown.slot, cut(values, _LIMIT), shown.inside)
    if most > 0:
        tl.store(column + lanes, lanes * 0.0, hidden(shown, lanes, assets))


@triton.jit
def observe(
    seen, n, bar, account, wealth, initial, real, market, lanes, shown, transient, slots, rising,
    factor,
    assets: tl.constexpr, features: tl.constexpr, chunk: tl.constexpr, pitch: tl.constexpr,
    rows: tl.constexpr, padded: tl.constexpr, most: tl.constexpr, weight_at: tl.constexpr,
    drawdown_at: tl.constexpr, log_growth_at: tl.constexpr, displacement_at: tl.constexpr,
    order_at: tl.constexpr, stop_at: tl.constexpr, target_at: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Write the bar's features, if any are wanted, and the portfolio's columns.

    Rows begin every `pitch` numbers.
    """
    seen += n * pitch
    if rows > c.MOVE.tradable:
        show_features(
            seen, bar, market, slots, rising, factor, assets, features, chunk, rows, padded, most
        )
    else:
        table = market.features + bar * features
        for start in range(0, features, chunk):
            columns = start + tl.arange(0, chunk)
            inside = columns < features
            tl.store(seen + columns, tl.load(table + columns, mask=inside), inside)
    positive = tl.maximum(wealth, _SMALLEST)
    scale = 1.0 / positive
    show(seen + weight_at, account.held * scale, shown, lanes, assets, most)
    tl.store(seen + weight_at + assets, cut(account.cash * scale, _LIMIT))
    tl.store(seen + drawdown_at, cut(1.0 - divide(wealth, account.peak), _LIMIT))
    tl.store(seen + log_growth_at, cut(tl.log(divide(positive, initial)), _LIMIT))
    if displacement_at > 0:
        displaced = account.held * 0.0 + 100.0 * transient
        show(seen + displacement_at, displaced, shown, lanes, assets, most)
    if order_at > 0:
        show(seen + order_at, account.open_orders * scale, shown, lanes, assets, most)
    if further.brackets:
        away = distances(account.since, account.held, real, further)
        if stop_at > 0:
            show(seen + stop_at, away.stop, shown, lanes, assets, most)
        if target_at > 0:
            show(seen + target_at, away.target, shown, lanes, assets, most)


@triton.jit
def write_figures(row, live, start, reward, figures):
    """Write what happened; where not `live`, the figures of an account that stood still."""
    tl.store(row + c.FIGURE.reward, tl.where(live, reward, 0.0))
    tl.store(row + c.FIGURE.wealth_before, tl.where(live, figures.wealth_before, start))
    tl.store(row + c.FIGURE.wealth_at_fill, tl.where(live, figures.wealth_at_fill, start))
    tl.store(row + c.FIGURE.wealth_traded, tl.where(live, figures.wealth_traded, start))
    tl.store(row + c.FIGURE.wealth, tl.where(live, figures.wealth, start))
    tl.store(row + c.FIGURE.turnover, tl.where(live, figures.turnover, 0.0))
    tl.store(row + c.FIGURE.unfilled, tl.where(live, figures.unfilled, 0.0))
    tl.store(row + c.FIGURE.commission, tl.where(live, figures.commission, 0.0))
    tl.store(row + c.FIGURE.spread, tl.where(live, figures.spread, 0.0))
    tl.store(row + c.FIGURE.impact, tl.where(live, figures.impact, 0.0))
    tl.store(row + c.FIGURE.borrow, tl.where(live, figures.borrow, 0.0))
    tl.store(row + c.FIGURE.interest, tl.where(live, figures.interest, 0.0))


@triton.jit
def write_flags(row, live, ruined, done, alive, terminates: tl.constexpr):
    """Write how the step ended; who had nothing before it had been terminated then."""
    terminated = (ruined | done) if terminates else ruined
    tl.store(row + c.FLAG.terminated, live & alive & terminated)
    tl.store(row + c.FLAG.truncated, live & done & (terminated == 0))
    tl.store(row + c.FLAG.restarted, live == 0)
    tl.store(row + c.FLAG.ruined, live & ruined)


@triton.jit
def distance_asked(row, shown):
    """How far levels are to be, by asset; 0 where nothing is asked."""
    asked = tl.load(row + shown.slot, mask=shown.inside, other=0.0)
    return tl.where(asked > 0.0, tl.minimum(asked, _LARGEST), 0.0)


@triton.jit
def decide(
    action, n, episode, max_gross, lanes, shown,
    assets: tl.constexpr, width: tl.constexpr, mode: tl.constexpr, liquidates: tl.constexpr,
    further: tl.constexpr,
):  # fmt: skip
    """What is asked for, and whether the row is not finite.

    A row of NaN alone leaves orders open, where there are such. At the last fill of an episode
    everything may have to be sold.
    """
    row = action + n * width
    weights, odd = target_weights(row, max_gross, shown, assets, mode)
    hold, stop, target = odd, 0.0, 0.0
    if further.asks:
        stop = distance_asked(row + assets, shown)
        target = distance_asked(row + 2 * assets, shown)
    if further.carries:
        asked = tl.load(row + lanes, mask=lanes < assets, other=float("nan"))
        told = largest(is_number(asked).to(tl.int32))
        if mode == c.ACTION.logits:
            cash = tl.load(row + assets)
            told = told + is_number(cash).to(tl.int32)
        odd = odd & (told > 0)
    if liquidates:
        ending = episode.bar + 1 >= episode.end
        weights, hold = tl.where(ending, 0.0, weights), hold & (ending == 0)
    return Wish(weights, hold, stop, target), odd


@triton.jit
def load_displacement(state, program, lanes, padded: tl.constexpr):
    """Where the market stands, and where that is kept."""
    transient = state.displaced + program * padded + lanes
    rate = transient + tl.num_programs(0).to(tl.int64) * padded
    room = lanes < padded
    return Displacement(
        tl.load(transient, mask=room, other=0.0), tl.load(rate, mask=room, other=0.0)
    ), Displacement(transient, rate)


@triton.jit
def find_prices(state, account, program, lanes, padded: tl.constexpr, by_market: tl.constexpr):
    """The same, or where prices are left alone, that they are where they were."""
    still, place = account.held * 0.0, state.displaced
    displacement = Displacement(still, still)
    if by_market:
        displacement, place = load_displacement(state, program, lanes, padded)
    return displacement, place


@triton.jit
def mean_return(moves, terms, room, factor, shown, padded: tl.constexpr, further: tl.constexpr):
    """Mean simple return of what is shown and can be traded."""
    gross = gross_return(moves, room, factor, c.MOVE.r_before, padded)
    gross *= growth_to_close(moves, terms, room, factor, padded, further)
    tradable = tl.load(moves + c.MOVE.tradable * padded, mask=room, other=0.0) > 0.0
    there = shown.inside & tradable
    return total(tl.where(there, gross - 1.0, 0.0)) / tl.maximum(
        total(tl.where(there, 1.0, 0.0)), 1.0
    )


@triton.jit
def move(
    account, displacement, wish, market, bar, n, factor, friction, real, seat, lanes, shown,
    padded: tl.constexpr, rows: tl.constexpr, kind: tl.constexpr, enough: tl.constexpr,
    by_market: tl.constexpr, players: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Trade and be paid; returns account, displacement, reward, figures, ruin and orders."""
    moves = market.moves + bar * (rows * padded) + lanes
    bars = market.bars + bar * c.NUM_BARS
    terms, fees = market.terms + bar * (c.NUM_TERMS * padded) + lanes, market.fees + n * c.NUM_FEES
    within = Within(
        ranges=market.ranges + bar * (c.NUM_RANGES * padded) + lanes,
        funding=market.funding + bar * padded + lanes,
        tiers=market.tiers + lanes,
    )
    if by_market and not further.entries:  # where positions are closed within bars prices stay
        account, displacement, figures, ruined, singles = advance_with_impact(
            account, displacement, wish, moves, bars, terms, factor, friction, fees, real,
            seat, lanes, players, padded, enough, further,
        )  # fmt: skip
    else:
        account, figures, ruined, singles = advance(
            account, wish, within, moves, bars, terms, factor, friction, fees, real, lanes,
            padded, enough, further,
        )  # fmt: skip
    if players > 1:  # the reference closes the accounts of the ruined, who wait for the others
        account = Account(
            held=tl.where(ruined, 0.0, account.held),
            cash=tl.where(ruined, 0.0, account.cash),
            carry=tl.where(ruined, 0.0, account.carry),
            open_orders=tl.where(ruined, 0.0, account.open_orders) if further.carries else 0.0,
            since=ended(account.since, ruined, further),
            peak=account.peak,
            memory=account.memory,
        )
    market_return = tl.load(bars + c.BARS.market_return)
    if rows > c.MOVE.tradable:
        market_return = mean_return(moves, terms, lanes < padded, factor, shown, padded, further)
    account, reward = be_paid(account, figures, ruined, market_return, real, kind)
    return account, displacement, reward, figures, ruined, singles


@triton.jit
def step_kernel(
    action, state, market, real, results, singles, views, ranges, rising, desk,
    assets: tl.constexpr, padded: tl.constexpr, block: tl.constexpr, features: tl.constexpr,
    chunk: tl.constexpr, mode: tl.constexpr, kind: tl.constexpr, same_step: tl.constexpr,
    first: tl.constexpr, starts: tl.constexpr, horizon: tl.constexpr, last: tl.constexpr,
    worlds: tl.constexpr, span: tl.constexpr, worlds_per_market: tl.constexpr, enough: tl.constexpr,
    rows: tl.constexpr, liquidates: tl.constexpr, terminates: tl.constexpr, by_market: tl.constexpr,
    players: tl.constexpr, seats: tl.constexpr, pitch: tl.constexpr, weight_at: tl.constexpr,
    drawdown_at: tl.constexpr, log_growth_at: tl.constexpr, displacement_at: tl.constexpr,
    drawn: tl.constexpr, log_spacing: tl.constexpr, fewest: tl.constexpr, most: tl.constexpr,
    order_at: tl.constexpr, stop_at: tl.constexpr, target_at: tl.constexpr, width: tl.constexpr,
    told: tl.constexpr, further: tl.constexpr,
):  # fmt: skip
    """Step the environment, or the market, that has this program's number."""
    program, lanes = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    n, seat = program, 0
    if by_market:
        seat, lanes = tl.arange(0, seats)[:, None], lanes[None, :]
        n = program * players + tl.minimum(seat, players - 1)
    initial, gross = tl.load(real + c.REAL.initial_cash), tl.load(real + c.REAL.max_gross)
    counters = state.counters + n * c.NUM_COUNTERS
    key, invalid = tl.load(counters + c.COUNTER.key), tl.load(counters + c.COUNTER.invalid_actions)
    old, account = load_episode(state, n), load_account(state, n, lanes, padded, further)
    displacement, place = find_prices(state, account, program, lanes, padded, by_market)
    friction = load_friction(market.friction + n * c.NUM_FRICTIONS)
    friction = draw_friction(friction, key, old.number, ranges, drawn, log_spacing)
    factor = draw_factor(initial, common(key), common(old.number), ranges, drawn, log_spacing)
    slots = state.slots + program * players * assets
    shown = find_slots(slots, desk, program, lanes, assets, padded, most)
    wish, odd = decide(
        action, n, old, gross, lanes, shown, assets, width, mode, liquidates, further
    )
    tl.debug_barrier()  # all threads have read before one writes

    account, displacement, reward, figures, ruined, kept = move(
        account, displacement, wish, market, common(old.bar), n, factor, friction, real, seat,
        lanes, shown, padded, rows, kind, enough, by_market, players, further,
    )  # fmt: skip
    wealth = tl.where(ruined, 0.0, figures.wealth) if players > 1 else figures.wealth
    done = (anyone(ruined == 0) == 0) | (old.bar + 1 >= old.end)
    now = Episode(old.bar + 1, old.end, old.number, done)
    live = (old.done == 0) | same_step  # else the episode had ended, and begins anew
    over = live == 0
    if same_step:
        over = done
        tl.store(results.final_bar + n, now.bar)
        observe(
            results.final_seen, n, now.bar, account, wealth, initial, real, market, lanes,
            shown, displacement.transient, slots, rising, factor, assets, features, chunk, pitch,
            rows, padded, most, weight_at, drawdown_at, log_growth_at, displacement_at, order_at,
            stop_at, target_at, further,
        )  # fmt: skip
        if views is not None:
            show_view(
                views.final_slots, views.final_volatility, n, initial, factor, shown, lanes, assets,
                most,
            )  # fmt: skip

    episode = begin(
        over, now, key, program, first, starts, horizon, last, worlds, span, worlds_per_market
    )
    key, number = common(key), common(episode.number)
    shown = renew_slots(
        anyone(over), state.slots, n, shown, key, number, lanes, assets, fewest, most
    )
    factor = draw_factor(initial, key, number, ranges, drawn, log_spacing)
    held, cash, peak, fresh = lay_out(
        market, common(episode.bar), initial, tl.load(real + c.REAL.initial_invested), key, number,
        ranges, lanes, shown, padded, rows, by_market, drawn, log_spacing, most,
    )  # fmt: skip
    if by_market:
        displacement = renew_prices(anyone(over), displacement, fresh, place, lanes, padded)
    account = renew(over, account, held, cash, peak, real, further)
    wealth = tl.where(over, account.peak, wealth)
    write_figures(results.figures + n * c.NUM_FIGURES, live, account.peak, reward, figures)
    write_flags(
        results.flags + n * c.NUM_FLAGS, live, ruined, done, figures.wealth_before > 0.0, terminates
    )
    tl.store(counters + c.COUNTER.invalid_actions, invalid + tl.where(odd & live, 1, 0))
    if singles is not None:
        write_orders(singles, n, live, kept, account, lanes, assets, told, further)
    store_episode(episode, state, n)
    store_account(account, state, n, lanes, padded, further)
    tl.store(results.bar + n, episode.bar)
    observe(
        results.seen, n, episode.bar, account, wealth, initial, real, market, lanes, shown,
        displacement.transient, slots, rising, factor, assets, features, chunk, pitch, rows,
        padded, most, weight_at, drawdown_at, log_growth_at, displacement_at, order_at, stop_at,
        target_at, further,
    )  # fmt: skip
    if views is not None:
        show_view(views.slots, views.volatility, n, initial, factor, shown, lanes, assets, most)
