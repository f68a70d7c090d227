"""The step on a CPU, fused: one pass over each environment, from its action to its observation.

Functions have the names of the reference and work on environment `n`. Three things make them fast,
and look odd: blocks are indexed, never sliced, because a slice counts references; scalars are
wrapped in `real`, the floating-point type of the tables, because a bare literal would turn the
arithmetic into float64; and sums may be reassociated, which lets them run in vector registers.
NaN and infinities keep their meaning.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fastsim.env.actions import LARGEST
from fastsim.env.episode import START_STREAM, WORLD_STREAM
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_draws import (
    by_asset,
    draw_episode,
    draw_integer,
    meet_drawn,
    show_features,
    show_in_slots,
    show_view,
)
from fastsim.env.kernels.numba_jit import every, jit
from fastsim.env.kernels.numba_math import STEEPEST, exp
from fastsim.env.kernels.numba_orders import charge as charge_orders
from fastsim.env.kernels.numba_orders import (
    close_orders,
    cut,
    drop_orders,
    enter,
    enter_now,
    find_bounds,
    follow,
    forget_closed,
    grow_orders,
    grow_since,
    is_all_nan,
    is_called,
    keep_no_call,
    keep_no_exit,
    leave,
    lent,
    pay_call,
    place,
    stop_and_target,
    want,
)
from fastsim.env.kernels.numba_orders import excess_and_slope as excess_by_order
from fastsim.env.kernels.numba_perpetual import (
    funding_of,
    liquidate_beyond,
    wealth_now,
    within_leverage,
)
from fastsim.env.kernels.numba_prefetch import prefetch_row
from fastsim.env.kernels.numba_stream import stream_row
from fastsim.env.kernels.numba_turns import take_turns
from fastsim.env.orders import NEWTON_STEPS
from fastsim.env.reward import INITIAL_VOLATILITY, RUIN_LOG_GROWTH
from fastsim.market.features import FEATURE_LIMIT

SMALLEST = 1e-37
"""Wealth and its ratios are raised to this before a logarithm."""
AHEAD = 2
"""Environments between a row's request from memory and its use: each stands at a bar of its own."""


@partial(jit, inline=False, fastmath={"contract"})
def added(cash, carry, amount):
    """Cash and its carry with an amount added, as `accounting.receive` does.

    No number is reassociated here: the compiler would find that nothing is lost in rounding.
    """
    total = cash + amount
    seen = total - cash
    carry += (cash - (total - seen)) + (amount - seen)
    whole = total + carry
    return whole, carry - (whole - total)


@partial(jit, fastmath={"nnan", "nsz", "reassoc"})
def highest(values, floor):
    """The highest of values [A'], none of them NaN, and of a floor."""
    top = floor
    for j in range(values.shape[0]):
        top = max(top, values[j])
    return top


@jit
def fill(n, action, shown, rest, weights):
    """Copy the first `shown` numbers of a row, and let the others be `rest`.

    It is done by whole registers: one that is read before its parts have left the store buffer
    waits until they have.
    """
    for j in range(weights.shape[0]):
        weights[j] = action[n, j] if j < shown else rest


@jit
@every(c.ACTION)
def target_weights(n, action, shown, rules, weights):
    """Write admissible weights [A']; returns whether the row is not finite and holds instead.

    Nothing is asked for but by the first `shown` numbers, and by the last where cash has one.
    """
    real = weights.dtype.type
    largest, one, zero = real(LARGEST), real(1.0), real(0.0)
    mode, last = rules.whole[c.WHOLE.action], action.shape[1] - 1
    check = action[n, last] * zero if mode == c.ACTION.logits else zero
    for j in range(shown):
        check += action[n, j] * zero  # NaN if anything is not finite
    if check != zero:
        weights[:] = zero
        return True
    total, scale = zero, one
    if mode == c.ACTION.logits:
        cash = max(-largest, min(action[n, last], largest))
        fill(n, action, shown, cash, weights)
        top = max(-largest, min(highest(weights, cash), largest))
        for j in range(weights.shape[0]):
            below = max(-largest, min(weights[j], largest)) - top
            asked = j < shown and below > real(-STEEPEST)  # who masks an asset holds none of it
            weights[j] = exp(below, real) if asked else zero
            total += weights[j]
        scale = one / (total + exp(cash - top, real))
    elif mode == c.ACTION.weights:
        fill(n, action, shown, zero, weights)
        for j in range(weights.shape[0]):
            weights[j] = max(zero, min(weights[j], largest))
            total += weights[j]
        scale = one / max(total, one)
    elif mode == c.ACTION.signed or mode == c.ACTION.bracketed:
        net = zero
        fill(n, action, shown, zero, weights)
        for j in range(weights.shape[0]):
            weights[j] = max(-largest, min(weights[j], largest))
            total += abs(weights[j])
            net += weights[j]
        scale = one / max(total / rules.real[c.REAL.max_gross], net, one)
    elif mode == c.ACTION.leveraged:
        fill(n, action, shown, zero, weights)
        for j in range(weights.shape[0]):
            weights[j] = max(-largest, min(weights[j], largest))
            total += abs(weights[j])
        scale = one / max(total / rules.real[c.REAL.max_gross], one)
    else:
        scale = real(math.nan)  # no such mode: nobody's money may look right
    for j in range(weights.shape[0]):
        weights[j] *= scale
    return False


@jit
def decide(n, action, state, rules, views, draws, weights, desk):
    """Write the weights to trade to, and count a row that is not finite; returns whether it holds.

    A row of NaN alone leaves orders open, where there are such. At the last fill of an episode
    everything may have to be sold.
    """
    shown = rules.whole[c.WHOLE.assets]
    if views is not None:
        shown = draws.shown[n]
    invalid = target_weights(n, action, shown, rules, weights)
    if views is not None:
        by_asset(n, weights, draws)
    counted = invalid
    if desk is not None:
        if rules.whole[c.WHOLE.asks]:
            ask(n, action, shown, rules, views, draws, desk)
        counted = invalid and not (rules.whole[c.WHOLE.carries] and is_all_nan(n, action))
    state.counters[n, c.COUNTER.invalid_actions] += counted
    last = state.counters[n, c.COUNTER.bar] + 1 >= state.counters[n, c.COUNTER.end]
    if last and rules.whole[c.WHOLE.liquidates]:
        weights[:] = weights.dtype.type(0.0)
        return False
    return invalid


@partial(jit, inline=False)
def ask(n, action, shown, rules, views, draws, desk):
    """Put on the desk how far stops and targets are to be, by asset; 0 where nothing is asked."""
    real = desk.dtype.type
    for part in range(2):
        row, at = c.DESK.stop + part, (part + 1) * rules.whole[c.WHOLE.assets]
        for j in range(desk.shape[1]):
            asked = action[n, at + j] if j < shown else real(0.0)
            desk[row, j] = min(asked, real(LARGEST)) if asked > real(0.0) else real(0.0)
        if views is not None:
            by_asset(n, desk[row], draws)


@jit
def excess_and_slope(x, before, n, bar, state, market, weights, limit, desk):
    """Value and derivative of g(x) = x + C(w x - h') - V-."""
    real = weights.dtype.type
    zero, one_and_half = real(0.0), real(1.5)
    holdings, moves = state.holdings, market.moves
    fee, half_spread = (
        market.friction[n, c.FRICTION.fee],
        market.friction[n, c.FRICTION.half_spread],
    )
    impact = market.friction[n, c.FRICTION.impact]
    buy = fee + half_spread + fee * half_spread
    sell = fee + half_spread - fee * half_spread
    notional, net, rough, marginal = zero, zero, zero, zero
    for j in range(holdings.shape[1]):
        low = -limit[j]
        if desk is not None:
            low = desk[c.DESK.low, j]
        order = min(max(weights[j] * x - holdings[n, j], low), limit[j])
        size = abs(order)
        rate = moves[bar, c.MOVE.impact_scale, j] * math.sqrt(size)
        notional += size
        net += order
        rough += size * rate
        curve = one_and_half * impact * rate
        slope = buy + curve if order >= zero else -sell - curve
        free = size < limit[j]
        if desk is not None:
            free = free and order > low
        marginal += weights[j] * slope if free else zero
    total = fee * (notional + half_spread * net) + half_spread * notional + impact * rough
    return x + total - before, real(1.0) + marginal


@partial(jit, inline=False)
def below_root(before, n, state, market, weights, limit, desk):
    """`post_cost_wealth` where commissions are by share and by order."""
    enough = weights.dtype.type(100.0 * np.finfo(weights.dtype).eps)
    x, left = before, NEWTON_STEPS
    while left > 0:
        excess, slope = excess_by_order(x, before, n, state, market, weights, limit, desk)
        step = excess / slope
        x -= step
        left = left - 1 if abs(step) > enough * abs(x) else 0
    left = NEWTON_STEPS
    while left > 0:
        excess, _ = excess_by_order(x, before, n, state, market, weights, limit, desk)
        x = min(x, x - excess)
        left = left - 1 if excess > 0 else 0
    return x


@jit
def post_cost_wealth(before, n, bar, state, market, rules, weights, limit, desk):
    """Solve V+ = V- - C(w V+ - h') by Newton's method from V-.

    A step of 100 roundings is the last: what it leaves is its square, or, where an order has
    changed sides, its product with the cost rates. Commissions by order make the cost jump where
    one is placed: there it stays below the root.
    """
    if desk is not None and rules.whole[c.WHOLE.by_order]:
        return below_root(before, n, state, market, weights, limit, desk)
    real = weights.dtype.type
    enough = real(100.0 * np.finfo(weights.dtype).eps)
    x, left = before, NEWTON_STEPS
    while left > 0:  # a for loop with a break would be unrolled, at twice the time
        excess, slope = excess_and_slope(x, before, n, bar, state, market, weights, limit, desk)
        step = excess / slope
        x -= step
        left = left - 1 if abs(step) > enough * abs(x) else 0
    return x


@jit
def limit_orders(n, bar, hold, before, market, limit):
    """Find how much may be traded: nothing by who holds or has lost everything."""
    zero = limit.dtype.type(0.0)
    if hold or before <= zero:
        limit[:] = zero
    else:
        share = market.friction[n, c.FRICTION.participation]
        for j in range(limit.shape[0]):
            limit[j] = share * market.moves[bar, c.MOVE.dollars, j]


@jit
def meet(n, bar, state, market):
    """Carry holdings to the fill; returns wealth at both ends."""
    real = state.money.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings, moves = state.holdings, market.moves
    wealth, before = zero, zero
    for j in range(holdings.shape[1]):
        wealth += holdings[n, j]
        holdings[n, j] *= one + moves[bar, c.MOVE.r_before, j]
        before += holdings[n, j]
    wealth += state.money[n, c.MONEY.cash]
    before += state.money[n, c.MONEY.cash]
    return wealth, before


@jit
def charge(n, notional, net, rough, market):
    """What orders of this size cost, by cause."""
    half_spread = market.friction[n, c.FRICTION.half_spread]
    commission = market.friction[n, c.FRICTION.fee] * (notional + half_spread * net)
    return commission, half_spread * notional, market.friction[n, c.FRICTION.impact] * rough


@jit
def pay(n, before, notional, commission, spread, impact, figures):
    """Write what orders cost and what part of `before` they turn over; returns the cost."""
    zero = figures.dtype.type(0.0)
    figures[n, c.FIGURE.turnover] = notional / before if before > zero else zero
    figures[n, c.FIGURE.commission] = commission
    figures[n, c.FIGURE.spread] = spread
    figures[n, c.FIGURE.impact] = impact
    return commission + spread + impact


@jit
def receive(n, amount, state):
    """Add an amount to the cash, and what rounding loses of it to the carry."""
    money = state.money
    cash, carry = added(money[n, c.MONEY.cash], money[n, c.MONEY.carry], amount)
    money[n, c.MONEY.cash] = cash
    money[n, c.MONEY.carry] = carry


@jit
def accrue(n, bar, fee, state, market, figures):
    """Receive interest on cash and pay the fee per year on shorts."""
    interest = state.money[n, c.MONEY.cash] * market.bars[bar, c.BARS.interest]
    borrow = market.bars[bar, c.BARS.years] * fee
    receive(n, interest - borrow, state)
    figures[n, c.FIGURE.borrow] = borrow
    figures[n, c.FIGURE.interest] = interest


@jit
def keep_orders(x, n, state, weights, limit, singles):
    """Tell the orders that lead to `weights` of `x`, and what is held after them."""
    for j in range(singles.trade.shape[1]):
        held = state.holdings[n, j]
        order = min(max(weights[j] * x - held, -limit[j]), limit[j])
        singles.trade[n, j] = order
        singles.holdings[n, j] = held + order


@jit
def keep_none(n, state, singles):
    """Tell that nothing was traded."""
    keep_no_call(n, singles)
    keep_no_exit(n, singles)
    zero = state.holdings.dtype.type(0.0)
    for j in range(singles.holdings.shape[1]):
        singles.holdings[n, j] = state.holdings[n, j]
    for j in range(singles.trade.shape[1] if singles.trade.shape[0] else 0):
        singles.trade[n, j] = zero


@jit
def trade(x, before, n, bar, hold, state, market, weights, limit, figures):
    """Trade to `weights` of `x` and let the market move; returns cost, and wealth at the close."""
    real = weights.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings, moves = state.holdings, market.moves
    notional, net, rough, short, after, lacking = zero, zero, zero, zero, zero, zero
    for j in range(holdings.shape[1]):
        wanted = weights[j] * x - holdings[n, j]
        order = min(max(wanted, -limit[j]), limit[j])
        size = abs(order)
        lacking += abs(wanted) - size
        notional += size
        net += order
        rough += size * (moves[bar, c.MOVE.impact_scale, j] * math.sqrt(size))
        held = holdings[n, j] + order
        short += max(-held, zero)
        held *= one + moves[bar, c.MOVE.r_after, j]
        holdings[n, j] = held
        after += held
    commission, spread, impact = charge(n, notional, net, rough, market)
    paid = pay(n, before, notional, commission, spread, impact, figures)
    figures[n, c.FIGURE.unfilled] = zero if hold or before <= zero else lacking
    receive(n, -net - paid, state)
    accrue(n, bar, market.friction[n, c.FRICTION.borrow] * short, state, market, figures)
    return paid, after + state.money[n, c.MONEY.cash]


@jit
def trade_by_orders(
    x, before, n, bar, hold, state, market, rules, weights, limit, figures, singles, desk
):
    """`trade` under further rules."""
    holdings, zero, one = state.holdings, weights.dtype.type(0.0), weights.dtype.type(1.0)
    want(n, x, hold, before, state, market, rules, weights, limit, desk)
    place(n, hold, before, state, market, rules, figures, limit, desk)
    commission, spread, impact, notional, net = charge_orders(n, market, rules, desk)
    paid = pay(n, before, notional, commission, spread, impact, figures)
    receive(n, -net - paid, state)
    if rules.whole[c.WHOLE.entries]:
        enter(n, state, rules, desk)
    short, fees = zero, zero
    for j in range(holdings.shape[1]):
        holdings[n, j] += desk[c.DESK.trade, j]
        short += max(-holdings[n, j], zero)
    fees = market.friction[n, c.FRICTION.borrow] * short
    if rules.whole[c.WHOLE.lends]:
        fees = zero
        for j in range(holdings.shape[1]):
            fees += lent(n, bar, j, market) * max(-holdings[n, j], zero)
    if singles is not None:
        keep_placed(n, state, singles, desk)
    accrue(n, bar, fees, state, market, figures)
    if rules.whole[c.WHOLE.perpetual]:
        receive(n, -funding_of(n, bar, state, market, singles), state)
    if rules.whole[c.WHOLE.entries]:
        left = leave(n, bar, before, state, market, rules, figures, singles, desk)
        receive(n, left, state)
    after, gross = zero, zero
    for j in range(holdings.shape[1]):
        held = holdings[n, j] * (one + market.moves[bar, c.MOVE.r_after, j])
        holdings[n, j] = held
        after += held
        gross += abs(held)
    after += state.money[n, c.MONEY.cash]
    if rules.whole[c.WHOLE.delists]:
        gross -= pay_out(n, bar, state, market)
    close_orders(n, bar, rules, state, market)
    if rules.whole[c.WHOLE.entries]:
        follow(n, bar, state, market)
        if rules.whole[c.WHOLE.asks]:
            forget_closed(n, state, rules)
    if is_called(after, gross, rules):
        after = call_margin(
            n, bar, after, gross, state, market, rules, figures, singles, limit, desk
        )
    return paid, after


@jit
def keep_placed(n, state, singles, desk):
    """Tell the orders on the desk, and what is held after them."""
    keep_no_call(n, singles)
    for j in range(singles.holdings.shape[1]):
        singles.holdings[n, j] = state.holdings[n, j]
    for j in range(singles.trade.shape[1] if singles.trade.shape[0] else 0):
        singles.trade[n, j] = desk[c.DESK.trade, j]


@jit
def pay_out(n, bar, state, market):
    """Turn positions in what is delisted into cash; returns their exposure."""
    zero = state.money.dtype.type(0.0)
    paid, gross = zero, zero
    for j in range(state.holdings.shape[1]):
        gone = market.terms[bar, c.TERM.delisted, j] > zero
        held = state.holdings[n, j] if gone else zero
        paid += held
        gross += abs(held)
        state.holdings[n, j] -= held
    receive(n, paid, state)
    return gross


@partial(jit, inline=False)
def call_margin(n, bar, wealth, gross, state, market, rules, figures, singles, limit, desk):
    """Cut the positions of an account that is called; returns its wealth."""
    cut(n, bar, wealth, gross, state, market, rules, limit, desk)
    paid, net = pay_call(n, state, market, rules, figures, singles, desk)
    receive(n, -net - paid, state)
    after = desk.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] += desk[c.DESK.trade, j]
        after += state.holdings[n, j]
    if rules.whole[c.WHOLE.entries]:
        forget_closed(n, state, rules)
    return after + state.money[n, c.MONEY.cash]


@jit
def advance(n, bar, hold, state, market, rules, figures, singles, weights, limit, desk):
    """From the close of `bar` to the next; returns wealth at both and whether it is gone."""
    zero = weights.dtype.type(0.0)
    wealth, before = meet(n, bar, state, market)
    if desk is None:
        limit_orders(n, bar, hold, before, market, limit)
    else:
        grow_orders(n, bar, c.MOVE.r_before, state, market)
        if rules.whole[c.WHOLE.entries]:
            grow_since(n, bar, c.MOVE.r_before, state, market)
        if rules.whole[c.WHOLE.perpetual]:
            receive(n, liquidate_beyond(n, state, market, rules, singles), state)
            before = wealth_now(n, state)
            if before > zero:
                within_leverage(before, market, weights)
        find_bounds(n, bar, before, state, market, rules, limit, desk)
    x = before
    if before > zero and not hold:
        x = post_cost_wealth(before, n, bar, state, market, rules, weights, limit, desk)
    if desk is None:
        if singles is not None:
            keep_orders(x, n, state, weights, limit, singles)
        paid, after = trade(x, before, n, bar, hold, state, market, weights, limit, figures)
    else:
        paid, after = trade_by_orders(
            x, before, n, bar, hold, state, market, rules, weights, limit, figures, singles, desk
        )
    figures[n, c.FIGURE.wealth_before] = wealth
    figures[n, c.FIGURE.wealth_at_fill] = before
    figures[n, c.FIGURE.wealth_traded] = before - paid
    figures[n, c.FIGURE.wealth] = after
    return wealth, after, not (before > zero and after > zero)


@jit
@every(c.REWARD)
def measure_reward(n, before, after, peak_before, peak, market_return, state, rules):
    """Reward of environment `n`, whose memory moves on."""
    money = state.money
    real = money.dtype.type
    one = real(1.0)
    ratio = after / (before if before > real(0.0) else one)
    kind = rules.whole[c.WHOLE.reward]
    growth = max(math.log(max(ratio, real(SMALLEST))), real(RUIN_LOG_GROWTH))
    if kind == c.REWARD.log_growth:
        return growth
    if kind == c.REWARD.excess_log_growth:
        return growth - math.log1p(market_return)
    if kind == c.REWARD.simple_return:
        return ratio - one
    if kind == c.REWARD.drawdown_penalized_growth:
        deepening = (one - after / peak) - (one - before / peak_before)
        return growth - rules.real[c.REAL.drawdown_penalty] * max(deepening, real(0.0))
    if kind != c.REWARD.differential_sharpe:
        return real(math.nan)  # no such reward
    gain, mean, square = ratio - one, money[n, c.MONEY.mean], money[n, c.MONEY.square]
    d_mean, d_square = gain - mean, gain * gain - square
    variance = max(square - mean * mean, real(1e-8))
    money[n, c.MONEY.mean] = mean + rules.real[c.REAL.adaptation] * d_mean
    money[n, c.MONEY.square] = square + rules.real[c.REAL.adaptation] * d_square
    return (square * d_mean - real(0.5) * mean * d_square) / (variance * math.sqrt(variance))


@jit
def world_of(n, counters, whole):
    """World of the episode: the next of the market's own, or any one, drawn."""
    key, number = counters[n, c.COUNTER.key], counters[n, c.COUNTER.number]
    if whole[c.WHOLE.worlds_per_market]:
        markets = whole[c.WHOLE.worlds] // whole[c.WHOLE.worlds_per_market]
        return n // whole[c.WHOLE.players] + number % whole[c.WHOLE.worlds_per_market] * markets
    return draw_integer(key, number, WORLD_STREAM, whole[c.WHOLE.worlds])


@partial(jit, inline=False)  # seldom called, and in the way of what is called often
def restart(n, state, market, rules, draws, desk):
    """The start of the next episode; wealth is the peak."""
    real = state.money.dtype.type
    counters, money, whole = state.counters, state.money, rules.whole
    counters[n, c.COUNTER.number] += 1
    first = whole[c.WHOLE.first]
    if whole[c.WHOLE.worlds] > 1:
        first += whole[c.WHOLE.span] * world_of(n, counters, whole)
    start = first
    if whole[c.WHOLE.random_start]:
        room = whole[c.WHOLE.last] - whole[c.WHOLE.first] - max(whole[c.WHOLE.horizon], 1)
        start += draw_integer(
            counters[n, c.COUNTER.key], counters[n, c.COUNTER.number], START_STREAM, room + 1
        )
    counters[n, c.COUNTER.bar] = start
    steps = whole[c.WHOLE.last] - whole[c.WHOLE.first]
    counters[n, c.COUNTER.end] = (
        start + whole[c.WHOLE.horizon] if whole[c.WHOLE.horizon] else first + steps
    )
    state.done[n] = False
    if desk is not None:
        drop_orders(n, state)
    invested = market.moves.shape[1] > c.MOVE.start_holdings
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] = (
            market.moves[start, c.MOVE.start_holdings, j] if invested else real(0.0)
        )
    money[n, c.MONEY.cash] = market.bars[start, c.BARS.start_cash]
    money[n, c.MONEY.carry] = real(0.0)
    money[n, c.MONEY.peak] = market.bars[start, c.BARS.start_wealth]
    money[n, c.MONEY.mean] = real(0.0)
    money[n, c.MONEY.square] = real(INITIAL_VOLATILITY**2)
    if draws is not None:
        draw_episode(n, state, market, rules, draws)
    if desk is not None:
        enter_now(n, state, rules)


@jit
def observe(n, wealth, state, market, rules, views, draws, seen, desk):
    """Write the features of the bar, if there is room for them, and the portfolio's columns."""
    real = state.money.dtype.type
    bound, one = real(FEATURE_LIMIT), real(1.0)
    features, bar = market.features, state.counters[n, c.COUNTER.bar]
    whole, assets = rules.whole, rules.whole[c.WHOLE.assets]
    if views is not None:
        if whole[c.WHOLE.flat]:
            show_features(n, bar, market, draws, seen)
    elif whole[c.WHOLE.flat] and seen.size * seen.itemsize >= whole[c.WHOLE.stream_from]:
        stream_row(features, bar, seen, n)
    else:
        for j in range(features.shape[1] if whole[c.WHOLE.flat] else 0):
            seen[n, j] = features[bar, j]
    positive = max(wealth, real(SMALLEST))
    scale, weight = one / positive, whole[c.WHOLE.weight_at]
    if views is None:
        for j in range(assets):
            seen[n, weight + j] = max(-bound, min(state.holdings[n, j] * scale, bound))
    else:
        for j in range(state.holdings.shape[1]):
            draws.spare[j] = max(-bound, min(state.holdings[n, j] * scale, bound))
        show_in_slots(n, weight, draws.spare, draws, seen)
    seen[n, weight + assets] = max(-bound, min(state.money[n, c.MONEY.cash] * scale, bound))
    drawdown = one - wealth / state.money[n, c.MONEY.peak]
    growth = math.log(positive / rules.real[c.REAL.initial_cash])
    seen[n, whole[c.WHOLE.drawdown_at]] = max(-bound, min(drawdown, bound))
    seen[n, whole[c.WHOLE.log_growth_at]] = max(-bound, min(growth, bound))
    if desk is not None:
        show_orders(n, scale, state, rules, views, draws, seen)
        if rules.whole[c.WHOLE.brackets]:
            show_levels(n, state, rules, views, draws, seen)


@jit
def show_orders(n, scale, state, rules, views, draws, seen):
    """Write the columns that are there where orders stay open; prices are where they were."""
    real, assets = state.money.dtype.type, rules.whole[c.WHOLE.assets]
    bound = real(FEATURE_LIMIT)
    shown, still = rules.whole[c.WHOLE.order_at], rules.whole[c.WHOLE.displacement_at]
    for j in range(assets if shown else 0):
        seen[n, still + j] = real(0.0)
    if views is None:
        for j in range(assets if shown else 0):
            seen[n, shown + j] = max(-bound, min(state.open_orders[n, j] * scale, bound))
    elif shown:
        for j in range(state.open_orders.shape[1]):
            draws.spare[j] = max(-bound, min(state.open_orders[n, j] * scale, bound))
        show_in_slots(n, shown, draws.spare, draws, seen)


@jit
def show_levels(n, state, rules, views, draws, seen):
    """Write the columns that are there where positions have stops or targets."""
    real = state.money.dtype.type
    bound, zero, one = real(FEATURE_LIMIT), real(0.0), real(1.0)
    for column in range(2):
        shown = rules.whole[c.WHOLE.stop_at + column]
        for j in range(rules.whole[c.WHOLE.assets] if shown else 0):
            held, away = state.holdings[n, j], zero
            if held != zero:
                stop, target = stop_and_target(n, j, state, rules)
                away = one - stop if column == 0 else target - one
                away = max(-bound, min(away if held > zero else -away, bound))
            if views is None:
                seen[n, shown + j] = away
            else:
                draws.spare[j] = away
        if views is not None and shown:
            show_in_slots(n, shown, draws.spare, draws, seen)


@jit
def stand_still(n, wealth, figures):
    """Figures of an account to which nothing happened."""
    zero = figures.dtype.type(0.0)
    for column in range(figures.shape[1]):
        figures[n, column] = zero
    for column in (
        c.FIGURE.wealth_before,
        c.FIGURE.wealth_at_fill,
        c.FIGURE.wealth_traded,
        c.FIGURE.wealth,
    ):
        figures[n, column] = wealth


@jit
def be_paid(n, bar, before, wealth, ruined, state, market, rules, figures):
    """Write the reward of a step from one wealth to another; who had nothing gets nothing."""
    zero = state.money.dtype.type(0.0)
    peak = state.money[n, c.MONEY.peak]
    state.money[n, c.MONEY.peak] = max(peak, wealth)
    left = zero if ruined else wealth  # ruin is final
    reward = measure_reward(
        n,
        before,
        left,
        peak,
        state.money[n, c.MONEY.peak],
        market.bars[bar, c.BARS.market_return],
        state,
        rules,
    )
    figures[n, c.FIGURE.reward] = reward if before > zero else zero


@jit
def end(n, bar, over, state):
    """Go on to the next bar, and end the episode there if it is `over` or was to end."""
    state.counters[n, c.COUNTER.bar] = bar + 1
    state.done[n] = over or bar + 1 >= state.counters[n, c.COUNTER.end]


@jit
def move(n, action, state, market, rules, results, singles, views, draws, weights, limit, desk):
    """Trade, be paid, and end the episode if it is over; returns wealth, and whether it is gone."""
    bar, figures = state.counters[n, c.COUNTER.bar], results.figures
    hold = decide(n, action, state, rules, views, draws, weights, desk)
    met, row = market, bar
    if views is not None:
        meet_drawn(n, bar, market, rules, draws, desk)
        met, row = draws.met, 0
    before, wealth, ruined = advance(
        n, row, hold, state, met, rules, figures, singles, weights, limit, desk
    )
    be_paid(n, row, before, wealth, ruined, state, met, rules, figures)
    end(n, bar, ruined, state)
    return wealth, ruined


@jit
def write_flags(n, ruined, restarted, state, rules, results):
    """Write how the step ended; who had nothing before it had been terminated then."""
    zero = results.figures.dtype.type(0.0)
    terminated = ruined or (state.done[n] and rules.whole[c.WHOLE.terminates] != 0)
    alive = results.figures[n, c.FIGURE.wealth_before] > zero
    results.flags[n, c.FLAG.terminated] = terminated and alive
    results.flags[n, c.FLAG.truncated] = state.done[n] and not terminated
    results.flags[n, c.FLAG.restarted] = restarted
    results.flags[n, c.FLAG.ruined] = ruined


@jit
def step_one(n, action, state, market, rules, results, singles, views, draws, weights, limit, desk):
    """Step environment `n`."""
    same_step = rules.whole[c.WHOLE.same_step] != 0
    restarted = state.done[n] and not same_step
    wealth, ruined = state.money[n, c.MONEY.peak], False
    if restarted:
        restart(n, state, market, rules, draws, desk)
        wealth = state.money[n, c.MONEY.peak]
        stand_still(n, wealth, results.figures)
        if singles is not None:
            keep_none(n, state, singles)
    else:
        wealth, ruined = move(
            n, action, state, market, rules, results, singles, views, draws, weights, limit, desk
        )
    write_flags(n, ruined, restarted, state, rules, results)
    if same_step:
        results.final_bar[n] = state.counters[n, c.COUNTER.bar]
        observe(n, wealth, state, market, rules, views, draws, results.final_seen, desk)
        if views is not None:
            show_view(n, draws, views.final_slots, views.final_volatility)
        if state.done[n]:
            restart(n, state, market, rules, draws, desk)
            wealth = state.money[n, c.MONEY.peak]
    results.bar[n] = state.counters[n, c.COUNTER.bar]
    observe(n, wealth, state, market, rules, views, draws, results.seen, desk)
    if views is not None:
        show_view(n, draws, views.slots, views.volatility)


@jit
def prefetch(n, state, market, rules, desk):
    """Ask for what environment `n` meets at its bar, and sees at the next."""
    bar = state.counters[n, c.COUNTER.bar]
    prefetch_row(market.moves, bar)
    if desk is not None:
        prefetch_row(market.terms, bar)
        if rules.whole[c.WHOLE.entries]:
            prefetch_row(market.ranges, bar)
    if rules.whole[c.WHOLE.flat]:
        prefetch_row(market.features, bar + 1)


@partial(jit, inline=False)
def step_block(
    start, stop, action, state, market, rules, results, singles, views, draws, weights, limit, desk
):
    """Step environments `start` to `stop`, one after the other."""
    for n in range(start, stop):
        prefetch(min(n + AHEAD, stop - 1), state, market, rules, desk)
        step_one(
            n, action, state, market, rules, results, singles, views, draws, weights, limit, desk
        )


@partial(jit, inline=False)
def step_turns(turns, bell, job, size, count, rest):
    """Take turns at all `count` rows; `rest` is what `step_block` is given beside."""
    take_turns(step_block, turns, bell, job, size, count, rest)
