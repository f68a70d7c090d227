"""Orders under further rules, fused for a CPU: what `fastsim.env.orders` does, row by row.

Shorts that are banned or lent at a fee of their own, commissions by share and order, whole shares,
orders that stay open, delisting, and margin calls. They are worked out at a desk, a room of a few
rows [DESK, A'] that a thread uses again and again; where none of these rules hold there is no desk,
and what asks for it is not compiled. `numba_kernel`'s docstring says what looks odd.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.orders import BISECTIONS


@jit
def is_all_nan(n, action):
    """Whether a row asks for nothing new."""
    told = 0
    for j in range(action.shape[1]):
        told += not math.isnan(action[n, j])
    return told == 0


@jit
def find_bounds(n, bar, before, state, market, rules, limit, desk):
    """Write the least and the most that may be traded, and at what scale and price."""
    real = limit.dtype.type
    zero, share = real(0.0), market.friction[n, c.FRICTION.participation]
    for j in range(limit.shape[0]):
        most = share * market.moves[bar, c.MOVE.dollars, j] if before > zero else zero
        limit[j] = most
        desk[c.DESK.low, j] = -most
    if rules.whole[c.WHOLE.bans]:
        for j in range(limit.shape[0]):
            if not market.terms[bar, c.TERM.shortable, j] > zero:
                desk[c.DESK.low, j] = -min(limit[j], max(state.holdings[n, j], zero))
    for j in range(limit.shape[0]):
        desk[c.DESK.scale, j] = market.moves[bar, c.MOVE.impact_scale, j]
        desk[c.DESK.price, j] = market.terms[bar, c.TERM.price, j]


@jit
def placed(wanted, low, high, least):
    """An order within bounds; none that is worth less than the least commission on it."""
    order = min(max(wanted, low), high)
    return order if abs(order) >= least else order - order


@jit
def proportional_fee(n, order, price, market):
    """Commission on an order by its value and its shares."""
    size = abs(order)
    by_value = market.friction[n, c.FRICTION.fee] * (
        size + market.friction[n, c.FRICTION.half_spread] * order
    )
    return by_value + market.fees[n, c.FEE.per_share] * size / price


@partial(jit, inline=False)
def excess_and_slope(x, before, n, state, market, weights, limit, desk):
    """`numba_kernel.excess_and_slope` where commissions are by share and by order."""
    real = weights.dtype.type
    zero, one_and_half = real(0.0), real(1.5)
    fee, half_spread = (
        market.friction[n, c.FRICTION.fee],
        market.friction[n, c.FRICTION.half_spread],
    )
    per_share, least = market.fees[n, c.FEE.per_share], market.fees[n, c.FEE.minimum]
    impact = one_and_half * market.friction[n, c.FRICTION.impact]
    commission, notional, rough, marginal = zero, zero, zero, zero
    for j in range(limit.shape[0]):
        low, high, price = desk[c.DESK.low, j], limit[j], desk[c.DESK.price, j]
        order = placed(weights[j] * x - state.holdings[n, j], low, high, least)
        size, by_rate = abs(order), proportional_fee(n, order, price, market)
        rate = desk[c.DESK.scale, j] * math.sqrt(size)
        commission += max(by_rate, least) if size > zero else zero
        notional += size
        rough += size * rate
        free = weights[j] if size < high and order > low else zero
        change = -free if order < zero else free
        fees = fee * (change + half_spread * free) + change * per_share / price
        marginal += (zero if by_rate < least else fees) + change * (half_spread + impact * rate)
    paid = commission + half_spread * notional + market.friction[n, c.FRICTION.impact] * rough
    return x + paid - before, real(1.0) + marginal


@jit
def charge(n, market, rules, desk):
    """What the orders on the desk cost, by cause, and their sums without and with their signs."""
    real = desk.dtype.type
    notional, net, rough = real(0.0), real(0.0), real(0.0)
    for j in range(desk.shape[1]):
        order = desk[c.DESK.trade, j]
        size = abs(order)
        notional += size
        net += order
        rough += size * (desk[c.DESK.scale, j] * math.sqrt(size))
    half_spread = market.friction[n, c.FRICTION.half_spread]
    commission = market.friction[n, c.FRICTION.fee] * (notional + half_spread * net)
    if rules.whole[c.WHOLE.by_order]:
        commission, least = real(0.0), market.fees[n, c.FEE.minimum]
        for j in range(desk.shape[1]):
            order = desk[c.DESK.trade, j]
            fee = max(proportional_fee(n, order, desk[c.DESK.price, j], market), least)
            commission += fee if order != real(0.0) else real(0.0)
    impact = market.friction[n, c.FRICTION.impact] * rough
    return commission, half_spread * notional, impact, notional, net


@partial(jit, inline=False)
def afford(n, before, state, market, rules, limit, desk):
    """Want the open orders, with purchases scaled down to the cash there is for them."""
    real = desk.dtype.type
    zero, least = real(0.0), market.fees[n, c.FEE.minimum]
    for j in range(limit.shape[0]):
        desk[c.DESK.trade, j] = placed(
            state.open_orders[n, j], desk[c.DESK.low, j], limit[j], least
        )
    commission, spread, impact, _, _ = charge(n, market, rules, desk)
    kept, buys = zero, zero
    for j in range(limit.shape[0]):
        order = desk[c.DESK.trade, j]
        kept += state.holdings[n, j] + min(order, zero)
        buys += max(order, zero)
    cash = before - kept - (commission + spread + impact)
    share = min(max(cash / max(buys, real(np.finfo(desk.dtype).tiny)), zero), real(1.0))
    for j in range(limit.shape[0]):
        order = desk[c.DESK.trade, j]
        desk[c.DESK.wanted, j] = min(order, zero) + share * max(order, zero)


@jit
def want(n, x, hold, before, state, market, rules, weights, limit, desk):
    """Write the orders that lead to `weights` of `x`, or for who holds, those that stay open."""
    zero = desk.dtype.type(0.0)
    if not hold:
        for j in range(limit.shape[0]):
            desk[c.DESK.wanted, j] = weights[j] * x - state.holdings[n, j]
    elif rules.whole[c.WHOLE.carries]:
        afford(n, before, state, market, rules, limit, desk)
    else:
        for j in range(limit.shape[0]):
            desk[c.DESK.wanted, j] = zero


@jit
def place(n, hold, before, state, market, rules, figures, limit, desk):
    """Place what is wanted, round it to shares, and leave the rest open where it is carried."""
    real = desk.dtype.type
    zero, least, lacking = real(0.0), market.fees[n, c.FEE.minimum], real(0.0)
    carries = rules.whole[c.WHOLE.carries] != 0
    for j in range(limit.shape[0]):
        desk[c.DESK.trade, j] = placed(desk[c.DESK.wanted, j], desk[c.DESK.low, j], limit[j], least)
    if hold and carries:
        for j in range(limit.shape[0]):
            desk[c.DESK.wanted, j] = state.open_orders[n, j]
    for j in range(limit.shape[0]):
        lacking += abs(desk[c.DESK.wanted, j] - desk[c.DESK.trade, j])
    figures[n, c.FIGURE.unfilled] = lacking if before > zero else zero
    if rules.whole[c.WHOLE.whole_shares]:
        round_to_shares(n, least, state, limit, desk)
    if carries:
        leave_open(n, state, limit, desk)


@partial(jit, inline=False, fastmath={"contract"})
def whole_shares(trade, holdings, low, high, price, rounding, real):
    """Round a trade as `orders.whole_shares` does; nothing is reassociated or made a reciprocal."""
    zero = real(0.0)
    shares, held = trade / price, holdings / price
    after, nearest = held + shares, np.rint(shares)
    error = min(rounding * (abs(held) + abs(shares)), real(0.25))
    rounded = np.floor(shares) if after > zero else np.ceil(shares)
    rounded = nearest if abs(shares - nearest) <= error else rounded
    rounded = max(rounded, -held) if after > zero else rounded
    rounded = min(rounded, -held) if after < zero else rounded
    rounded = np.floor(high / price) if rounded * price > high else rounded
    rounded = np.ceil(low / price) if rounded * price < low else rounded
    return trade if (trade == zero) | (trade == -holdings) else rounded * price


@jit
def round_to_shares(n, least, state, limit, desk):
    """Round the orders on the desk to shares that may be placed."""
    real = desk.dtype.type
    rounding = real(4.0 * np.finfo(desk.dtype).eps)
    for j in range(limit.shape[0]):
        trade, price = desk[c.DESK.trade, j], desk[c.DESK.price, j]
        low, high = desk[c.DESK.low, j], limit[j]
        order = whole_shares(trade, state.holdings[n, j], low, high, price, rounding, real)
        desk[c.DESK.trade, j] = placed(order, low, high, least)


@jit
def leave_open(n, state, limit, desk):
    """Keep of the orders wanted what was not filled, unless it would need shares to borrow."""
    zero = desk.dtype.type(0.0)
    for j in range(limit.shape[0]):
        wanted, low, high = desk[c.DESK.wanted, j], desk[c.DESK.low, j], limit[j]
        allowed = max(wanted, low) if low > -high else wanted
        outside = allowed > high or allowed < low
        state.open_orders[n, j] = allowed - desk[c.DESK.trade, j] if outside else zero


@jit
def lent(n, bar, j, market):
    """Fee per year on a short: the asset's, or where that is not a number the account's own."""
    fee = market.terms[bar, c.TERM.borrow, j]
    return market.friction[n, c.FRICTION.borrow] if math.isnan(fee) else fee


@jit
def grow_orders(n, bar, row, state, market):
    """Let open orders, which are so many shares, grow with the price."""
    one = state.holdings.dtype.type(1.0)
    for j in range(state.open_orders.shape[1]):
        state.open_orders[n, j] *= one + market.moves[bar, row, j]


@jit
def drop_orders(n, state):
    """Leave no order open."""
    for j in range(state.open_orders.shape[1]):
        state.open_orders[n, j] = state.holdings.dtype.type(0.0)


@jit
def close_orders(n, bar, rules, state, market):
    """Carry open orders to the next close; those of what is delisted end there."""
    grow_orders(n, bar, c.MOVE.r_after, state, market)
    if rules.whole[c.WHOLE.delists]:
        zero = state.holdings.dtype.type(0.0)
        for j in range(state.open_orders.shape[1]):
            if market.terms[bar, c.TERM.delisted, j] > zero:
                state.open_orders[n, j] = zero


@jit
def is_called(wealth, gross, rules):
    """Whether wealth does not cover the margin of so much exposure."""
    zero = wealth * rules.real.dtype.type(0.0)
    return zero < wealth < rules.real[c.REAL.maintenance_margin] * gross


@partial(jit, inline=False)
def cut(n, bar, wealth, gross, state, market, rules, limit, desk):
    """Put on the desk the sales of an account that is called, at the close that `bar` leads to."""
    real, terms = desk.dtype.type, market.terms
    zero, one, half = real(0.0), real(1.0), real(0.5)
    movable, orders = zero, zero
    for j in range(limit.shape[0]):
        loose = state.holdings[n, j] if terms[bar, c.TERM.listed, j] > zero else zero
        desk[c.DESK.trade, j] = -loose
        desk[c.DESK.low, j], limit[j] = -abs(loose), abs(loose)
        desk[c.DESK.scale, j] = terms[bar, c.TERM.closing_scale, j]
        desk[c.DESK.price, j] = terms[bar, c.TERM.closing_price, j]
        movable += abs(loose)
        orders += one if loose != zero else zero
    commission, spread, impact, _, _ = charge(n, market, rules, desk)
    left = wealth - market.fees[n, c.FEE.minimum] * orders
    margin, low, high = rules.real[c.REAL.maintenance_margin], zero, one
    for _ in range(BISECTIONS):
        share = half * (low + high)
        paid = share * commission + share * spread + share * math.sqrt(share) * impact
        enough = left - paid >= margin * (gross - share * movable)
        low, high = (low, share) if enough else (share, high)
    for j in range(limit.shape[0]):
        desk[c.DESK.trade, j] *= high
    if rules.whole[c.WHOLE.whole_shares]:
        round_to_shares(n, zero, state, limit, desk)


@jit
def pay_call(n, state, market, rules, figures, singles, desk):
    """Add what the forced sales on the desk cost to the figures.

    Who is made to sell keeps no order open. Returns cost, and the sum of the orders.
    """
    commission, spread, impact, notional, net = charge(n, market, rules, desk)
    figures[n, c.FIGURE.commission] += commission
    figures[n, c.FIGURE.spread] += spread
    figures[n, c.FIGURE.impact] += impact
    if notional > desk.dtype.type(0.0):
        drop_orders(n, state)
    if singles is not None and singles.called.shape[0]:
        for j in range(singles.called.shape[1]):
            singles.called[n, j] = desk[c.DESK.trade, j]
        singles.called_cost[n, 0] = commission
        singles.called_cost[n, 1] = spread
        singles.called_cost[n, 2] = impact
    return commission + spread + impact, net


@jit
def keep_no_call(n, singles):
    """Tell that nothing was sold by force."""
    zero = singles.trade.dtype.type(0.0)
    if singles.called.shape[0] > 0:
        for j in range(singles.called.shape[1]):
            singles.called[n, j] = zero
        for part in range(singles.called_cost.shape[1]):
            singles.called_cost[n, part] = zero
