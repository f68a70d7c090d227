"""Orders under further rules, fused for a CPU: what `fastsim.env.orders` does, row by row.

Shorts that are banned or lent at a fee of their own, commissions by share and order, whole shares,
orders that stay open, stops and targets, delisting, and margin calls. They are worked out at a
desk, a room of a few rows [DESK, A'] that a thread uses again and again; where none of these rules
hold there is no desk, and what asks for it is not compiled. `numba_kernel`'s docstring says what
looks odd.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_perpetual import keep_none as keep_no_settlement
from fastsim.env.kernels.numba_perpetual import liquidation_level, seize, touch
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
def grow_since(n, bar, row, state, market):
    """Let prices over what they were grow with the price."""
    one = state.holdings.dtype.type(1.0)
    for j in range(state.since.shape[2]):
        growth = one + market.moves[bar, row, j]
        state.since[n, c.SINCE.entry, j] *= growth
        state.since[n, c.SINCE.best, j] *= growth


@jit
def enter_now(n, state, rules):
    """Let what is held be entered at the price now."""
    zero, one = state.holdings.dtype.type(0.0), state.holdings.dtype.type(1.0)
    for j in range(state.since.shape[2]):
        now = one if state.holdings[n, j] != zero else zero
        state.since[n, c.SINCE.entry, j] = now
        state.since[n, c.SINCE.best, j] = now
        if rules.whole[c.WHOLE.asks]:
            state.since[n, c.SINCE.stop, j] = now * rules.real[c.REAL.stop]
            state.since[n, c.SINCE.target, j] = now * rules.real[c.REAL.target]


@jit
def place_levels(n, j, opened, state, rules, desk):
    """Note how far the stop and the target of a position are that is opened, or added to."""
    zero = state.holdings.dtype.type(0.0)
    for part in range(2):
        asked = desk[c.DESK.stop + part, j]
        if asked > zero:
            state.since[n, c.SINCE.stop + part, j] = asked
        elif opened:
            state.since[n, c.SINCE.stop + part, j] = rules.real[c.REAL.stop + part]


@jit
def enter(n, state, rules, desk):
    """Take note of the orders on the desk, before they are added to what is held."""
    zero, one = state.holdings.dtype.type(0.0), state.holdings.dtype.type(1.0)
    for j in range(state.since.shape[2]):
        held, order, ratio = state.holdings[n, j], desk[c.DESK.trade, j], state.since[n, 0, j]
        after = held + order
        kept = (held > zero and after > zero) or (held < zero and after < zero)
        if not kept:
            now = one if after != zero else zero
            state.since[n, c.SINCE.entry, j] = now
            state.since[n, c.SINCE.best, j] = now
        elif abs(after) > abs(held):
            state.since[n, c.SINCE.entry, j] = after / (held / ratio + order)
        if rules.whole[c.WHOLE.asks] and (not kept or abs(after) > abs(held)):
            place_levels(n, j, not kept, state, rules, desk)


@jit
def follow(n, bar, state, market):
    """Carry prices over what they were to the close, which may be the best one so far."""
    zero, one = state.holdings.dtype.type(0.0), state.holdings.dtype.type(1.0)
    grow_since(n, bar, c.MOVE.r_after, state, market)
    for j in range(state.since.shape[2]):
        held, best = state.holdings[n, j], state.since[n, c.SINCE.best, j]
        best = min(best, one) if held > zero else max(best, one)
        state.since[n, c.SINCE.best, j] = best if held != zero else zero
        if held == zero:
            state.since[n, c.SINCE.entry, j] = zero


@jit
def forget_closed(n, state, rules):
    """Keep nothing of positions that are no more."""
    zero = state.holdings.dtype.type(0.0)
    for j in range(state.since.shape[2]):
        if state.holdings[n, j] == zero:
            state.since[n, c.SINCE.entry, j] = zero
            state.since[n, c.SINCE.best, j] = zero
            if rules.whole[c.WHOLE.asks]:
                state.since[n, c.SINCE.stop, j] = zero
                state.since[n, c.SINCE.target, j] = zero


@jit
def stop_and_target(n, j, state, rules):
    """Levels of a position over the price now; out of reach where there is none."""
    real = state.holdings.dtype.type
    zero, one, endless = real(0.0), real(1.0), real(np.inf)
    long = state.holdings[n, j] > zero
    adverse = -one if long else one
    stop, target = (zero, endless) if long else (endless, zero)
    entry, best = state.since[n, c.SINCE.entry, j], state.since[n, c.SINCE.best, j]
    below, above = rules.real[c.REAL.stop], rules.real[c.REAL.target]
    if rules.whole[c.WHOLE.asks]:
        below, above = state.since[n, c.SINCE.stop, j], state.since[n, c.SINCE.target, j]
    if below > zero:
        level = (one + adverse * below) / entry
        stop = max(stop, level) if long else min(stop, level)
    if rules.real[c.REAL.trailing] > zero:
        behind = (one + adverse * rules.real[c.REAL.trailing]) / best
        stop = max(stop, behind) if long else min(stop, behind)
    if above > zero:
        target = (one - adverse * above) / entry
    return stop, target


@jit
def reach(n, bar, j, state, market, rules):
    """Price over that of the fill at which a position is closed, and how.

    1 by a stop, 2 at a target, 3 by an exchange.
    """
    real = state.holdings.dtype.type
    one, slack = real(1.0), touch(real)
    stop, target = stop_and_target(n, j, state, rules)
    line = real(0.0) if state.holdings[n, j] > real(0.0) else real(np.inf)
    if rules.whole[c.WHOLE.perpetual]:
        line = liquidation_level(n, j, state, market, rules)
    first = one + market.ranges[bar, c.RANGE.r_open, j]
    high = one + market.ranges[bar, c.RANGE.r_high, j]
    low = one + market.ranges[bar, c.RANGE.r_low, j]
    if state.holdings[n, j] > real(0.0):
        stop = max(stop, line)
        at_stop, at_target = low <= stop * (one + slack), high >= target * (one - slack)
        if at_target and (not at_stop or first >= target * (one - slack)):
            return max(target, first), 2
        left = min(stop, first)
        forced = rules.whole[c.WHOLE.perpetual] and left <= line * (one + slack)
        return (left, 3 if forced else 1) if at_stop else (one, 0)
    stop = min(stop, line)
    at_stop, at_target = high >= stop * (one - slack), low <= target * (one + slack)
    if at_target and (not at_stop or first <= target * (one + slack)):
        return min(target, first), 2
    left = max(stop, first)
    forced = rules.whole[c.WHOLE.perpetual] and left >= line * (one - slack)
    return (left, 3 if forced else 1) if at_stop else (one, 0)


@partial(jit, inline=False)
def leave(n, bar, before, state, market, rules, figures, singles, desk):
    """Close what is closed within the bar, and tell of it; returns what is received."""
    real = desk.dtype.type
    zero, one, stopped, taken, seized = real(0.0), real(1.0), real(0.0), real(0.0), real(0.0)
    for j in range(state.since.shape[2]):
        growth, cause = one, 0
        if state.holdings[n, j] != zero and before > zero:
            growth, cause = reach(n, bar, j, state, market, rules)
        value = abs(growth * state.holdings[n, j])
        if cause == 3:
            seized += seize(n, j, growth, state, market, rules, singles)
            cause = 0
        stopped += value if cause == 1 else zero
        taken += value if cause == 2 else zero
        closing = market.terms[bar, c.TERM.closing_price, j]
        desk[c.DESK.price, j] = growth * closing / (one + market.moves[bar, c.MOVE.r_after, j])
        desk[c.DESK.trade, j] = -growth * state.holdings[n, j] if cause > 0 else zero
        if cause > 0:
            state.holdings[n, j] = zero
            if rules.whole[c.WHOLE.carries]:
                state.open_orders[n, j] = zero
    commission, spread, impact, _, net = charge(n, market, rules, desk)
    figures[n, c.FIGURE.commission] += commission
    figures[n, c.FIGURE.spread] += spread
    figures[n, c.FIGURE.impact] += impact
    if singles is not None and singles.exit_trade.shape[0]:
        tell(n, commission, spread, impact, singles.exit_trade, singles.exit_cost, desk)
        singles.exit_value[n, c.EXIT.stopped] = stopped
        singles.exit_value[n, c.EXIT.taken] = taken
    return seized - net - (commission + spread + impact)


@jit
def tell(n, commission, spread, impact, trade, cost, desk):
    """Tell the orders on the desk and what they cost."""
    for j in range(trade.shape[1]):
        trade[n, j] = desk[c.DESK.trade, j]
    cost[n, 0] = commission
    cost[n, 1] = spread
    cost[n, 2] = impact


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
        tell(n, commission, spread, impact, singles.called, singles.called_cost, desk)
    return commission + spread + impact, net


@jit
def clear(n, block):
    """Write 0 into a row of numbers."""
    for j in range(block.shape[1]):
        block[n, j] = block.dtype.type(0.0)


@jit
def keep_no_exit(n, singles):
    """Tell that nothing was closed within the bar."""
    if singles.exit_trade.shape[0] > 0:
        clear(n, singles.exit_trade)
        clear(n, singles.exit_cost)
        clear(n, singles.exit_value)
    keep_no_settlement(n, singles)


@jit
def keep_no_call(n, singles):
    """Tell that nothing was sold by force."""
    if singles.called.shape[0] > 0:
        clear(n, singles.called)
        clear(n, singles.called_cost)
