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
from typing import Any

import numba
import numpy as np

from fastsim.env.actions import LARGEST
from fastsim.env.episode import START_STREAM, WORLD_STREAM
from fastsim.env.kernels import columns as c
from fastsim.env.orders import NEWTON_STEPS
from fastsim.env.random import GOLDEN
from fastsim.env.reward import INITIAL_VOLATILITY, RUIN_LOG_GROWTH
from fastsim.market.features import FEATURE_LIMIT

SMALLEST = 1e-37
"""Wealth and its ratios are raised to this before a logarithm."""
_WEIGHTS, _LOGITS = c.ACTION_CODES["weights"], c.ACTION_CODES["logits"]
_LOG_GROWTH, _EXCESS, _SIMPLE, _PENALIZED = (
    c.REWARD_CODES[kind]
    for kind in ("log_growth", "excess_log_growth", "simple_return", "drawdown_penalized_growth")
)
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def jit(function: Any, *, inline: bool = True, fastmath: set[str] = _FAST) -> Any:
    """Compile for speed: no bounds checks, IEEE division by zero, cached on disk.

    Without `_nrt` numba counts no references. It would at every block that is taken out of a named
    tuple, with an atomic operation each: six times the time of the whole step.
    """
    return numba.njit(
        function,
        fastmath=fastmath,
        error_model="numpy",
        cache=True,
        nogil=True,
        inline="always" if inline else "never",
        _nrt=False,
    )


@jit
def mix(bits: int) -> int:
    """Finalise 32 bits, as `fastsim.env.random` does."""
    bits = bits & np.uint64(0xFFFFFFFF)
    bits = bits ^ (bits >> np.uint64(16))
    bits = (bits * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    bits = bits ^ (bits >> np.uint64(13))
    bits = (bits * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    return bits ^ (bits >> np.uint64(16))


@jit
def draw_integer(key: int, episode: int, stream: int, bound: int) -> int:
    """An integer in [0, bound)."""
    bits = mix(np.uint64(key) + np.uint64(episode) * np.uint64(GOLDEN))
    bits = mix(bits + np.uint64(stream))
    return np.int64((bits * np.uint64(bound)) >> np.uint64(32))


@jit
def target_weights(n, action, rules, weights):
    """Write admissible weights [A']; returns whether the row is not finite and holds instead."""
    real = weights.dtype.type
    largest, one, zero = real(LARGEST), real(1.0), real(0.0)
    mode, width = rules.whole[c.ACTION], action.shape[1]
    assets = width - 1 if mode == _LOGITS else width
    check = zero
    for j in range(width):
        check += action[n, j] * zero  # NaN if anything is not finite
    weights[assets:] = zero
    if check != zero:
        weights[:] = zero
        return True
    total, scale = zero, one
    if mode == _LOGITS:
        top = -largest
        for j in range(width):
            top = max(top, min(action[n, j], largest))
        for j in range(assets):
            weights[j] = math.exp(max(-largest, min(action[n, j], largest)) - top)
        total = math.exp(max(-largest, min(action[n, assets], largest)) - top)
        for j in range(assets):
            total += weights[j]
        scale = one / total
    elif mode == _WEIGHTS:
        for j in range(assets):
            weights[j] = max(zero, min(action[n, j], largest))
            total += weights[j]
        scale = one / max(total, one)
    else:
        net = zero
        for j in range(assets):
            weights[j] = max(-largest, min(action[n, j], largest))
            total += abs(weights[j])
            net += weights[j]
        scale = one / max(total / rules.real[c.MAX_GROSS], net, one)
    for j in range(assets):
        weights[j] *= scale
    return False


@jit
def decide(n, action, state, rules, weights):
    """Write the weights to trade to, and count a row that is not finite; returns whether it holds.

    At the last fill of an episode everything may have to be sold.
    """
    invalid = target_weights(n, action, rules, weights)
    state.counters[n, c.INVALID] += invalid
    last = state.counters[n, c.BAR] + 1 >= state.counters[n, c.END]
    if last and rules.whole[c.LIQUIDATES]:
        weights[:] = weights.dtype.type(0.0)
        return False
    return invalid


@jit
def excess_and_slope(x, before, n, bar, state, market, weights, limit):
    """Value and derivative of g(x) = x + C(w x - h') - V-."""
    real = weights.dtype.type
    zero, one_and_half = real(0.0), real(1.5)
    holdings, moves = state.holdings, market.moves
    fee, half_spread = market.friction[n, c.FEE], market.friction[n, c.HALF_SPREAD]
    impact = market.friction[n, c.IMPACT]
    buy = fee + half_spread + fee * half_spread
    sell = fee + half_spread - fee * half_spread
    notional, net, rough, marginal = zero, zero, zero, zero
    for j in range(holdings.shape[1]):
        order = min(max(weights[j] * x - holdings[n, j], -limit[j]), limit[j])
        size = abs(order)
        rate = moves[bar, c.IMPACT_SCALE, j] * math.sqrt(size)
        notional += size
        net += order
        rough += size * rate
        curve = one_and_half * impact * rate
        slope = buy + curve if order >= zero else -sell - curve
        marginal += weights[j] * slope if size < limit[j] else zero
    total = fee * (notional + half_spread * net) + half_spread * notional + impact * rough
    return x + total - before, real(1.0) + marginal


@jit
def post_cost_wealth(before, n, bar, state, market, weights, limit):
    """Solve V+ = V- - C(w V+ - h') by Newton's method from V-.

    A step of 100 roundings is the last: what it leaves is its square, or, where an order has
    changed sides, its product with the cost rates.
    """
    real = weights.dtype.type
    enough = real(100.0 * np.finfo(weights.dtype).eps)
    x, left = before, NEWTON_STEPS
    while left > 0:  # a for loop with a break would be unrolled, at twice the time
        excess, slope = excess_and_slope(x, before, n, bar, state, market, weights, limit)
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
        share = market.friction[n, c.PARTICIPATION]
        for j in range(limit.shape[0]):
            limit[j] = share * market.moves[bar, c.DOLLARS, j]


@jit
def meet(n, bar, hold, state, market, limit):
    """Carry holdings to the fill, and find how much may be traded; returns wealth at both ends."""
    real = limit.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings, moves = state.holdings, market.moves
    wealth, before = zero, zero
    for j in range(holdings.shape[1]):
        wealth += holdings[n, j]
        holdings[n, j] *= one + moves[bar, c.R_BEFORE, j]
        before += holdings[n, j]
    wealth += state.money[n, c.CASH]
    before += state.money[n, c.CASH]
    limit_orders(n, bar, hold, before, market, limit)
    return wealth, before


@jit
def pay(n, before, notional, net, rough, market, figures):
    """Write what orders of this size cost and what part of `before` they turn over."""
    half_spread = market.friction[n, c.HALF_SPREAD]
    commission = market.friction[n, c.FEE] * (notional + half_spread * net)
    spread, impact = half_spread * notional, market.friction[n, c.IMPACT] * rough
    zero = figures.dtype.type(0.0)
    figures[n, c.TURNOVER] = notional / before if before > zero else zero
    figures[n, c.COMMISSION] = commission
    figures[n, c.SPREAD] = spread
    figures[n, c.IMPACT_COST] = impact
    return commission + spread + impact


@jit
def accrue(n, bar, cash, short, state, market, figures):
    """Keep cash after interest and the borrow fee on shorts."""
    interest = cash * market.bars[bar, c.INTEREST]
    borrow = market.friction[n, c.BORROW] * market.bars[bar, c.YEARS] * short
    state.money[n, c.CASH] = cash + interest - borrow
    figures[n, c.BORROWED] = borrow
    figures[n, c.INTEREST_EARNED] = interest


@jit
def trade(x, before, n, bar, state, market, weights, limit, figures):
    """Trade to `weights` of `x` and let the market move; returns cost, and wealth at the close."""
    real = weights.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings, moves = state.holdings, market.moves
    notional, net, rough, short, after = zero, zero, zero, zero, zero
    for j in range(holdings.shape[1]):
        order = min(max(weights[j] * x - holdings[n, j], -limit[j]), limit[j])
        size = abs(order)
        notional += size
        net += order
        rough += size * (moves[bar, c.IMPACT_SCALE, j] * math.sqrt(size))
        held = holdings[n, j] + order
        short += max(-held, zero)
        held *= one + moves[bar, c.R_AFTER, j]
        holdings[n, j] = held
        after += held
    paid = pay(n, before, notional, net, rough, market, figures)
    accrue(n, bar, state.money[n, c.CASH] - net - paid, short, state, market, figures)
    return paid, after + state.money[n, c.CASH]


@jit
def advance(n, bar, hold, state, market, figures, weights, limit):
    """From the close of `bar` to the next; returns wealth at both and whether it is gone."""
    zero = weights.dtype.type(0.0)
    wealth, before = meet(n, bar, hold, state, market, limit)
    x = before
    if before > zero and not hold:
        x = post_cost_wealth(before, n, bar, state, market, weights, limit)
    paid, after = trade(x, before, n, bar, state, market, weights, limit, figures)
    figures[n, c.WEALTH_BEFORE] = wealth
    figures[n, c.WEALTH_AT_FILL] = before
    figures[n, c.WEALTH_TRADED] = before - paid
    figures[n, c.WEALTH] = after
    return wealth, after, not (before > zero and after > zero)


@jit
def measure_reward(n, before, after, peak_before, peak, market_return, state, rules):
    """Reward of environment `n`, whose memory moves on."""
    money = state.money
    real = money.dtype.type
    one = real(1.0)
    ratio = after / (before if before > real(0.0) else one)
    kind = rules.whole[c.REWARD_KIND]
    growth = max(math.log(max(ratio, real(SMALLEST))), real(RUIN_LOG_GROWTH))
    if kind == _LOG_GROWTH:
        return growth
    if kind == _EXCESS:
        return growth - math.log1p(market_return)
    if kind == _SIMPLE:
        return ratio - one
    if kind == _PENALIZED:
        deepening = (one - after / peak) - (one - before / peak_before)
        return growth - rules.real[c.DRAWDOWN_PENALTY] * max(deepening, real(0.0))
    gain, mean, square = ratio - one, money[n, c.MEAN], money[n, c.SQUARE]
    d_mean, d_square = gain - mean, gain * gain - square
    variance = max(square - mean * mean, real(1e-8))
    money[n, c.MEAN] = mean + rules.real[c.ADAPTATION] * d_mean
    money[n, c.SQUARE] = square + rules.real[c.ADAPTATION] * d_square
    return (square * d_mean - real(0.5) * mean * d_square) / (variance * math.sqrt(variance))


@jit
def world_of(n, counters, whole):
    """World of the episode: the next of the market's own, or any one, drawn."""
    key, number = counters[n, c.KEY], counters[n, c.NUMBER]
    if whole[c.SLOTS]:
        markets = whole[c.WORLDS] // whole[c.SLOTS]
        return n // whole[c.PLAYERS] + number % whole[c.SLOTS] * markets
    return draw_integer(key, number, WORLD_STREAM, whole[c.WORLDS])


@partial(jit, inline=False)  # seldom called, and in the way of what is called often
def restart(n, state, market, rules):
    """The start of the next episode; wealth is the peak."""
    real = state.money.dtype.type
    counters, money, whole = state.counters, state.money, rules.whole
    counters[n, c.NUMBER] += 1
    first = whole[c.FIRST]
    if whole[c.WORLDS] > 1:
        first += whole[c.SPAN] * world_of(n, counters, whole)
    start = first
    if whole[c.RANDOM_START]:
        room = whole[c.LAST] - whole[c.FIRST] - max(whole[c.HORIZON], 1)
        start += draw_integer(counters[n, c.KEY], counters[n, c.NUMBER], START_STREAM, room + 1)
    counters[n, c.BAR] = start
    steps = whole[c.LAST] - whole[c.FIRST]
    counters[n, c.END] = start + whole[c.HORIZON] if whole[c.HORIZON] else first + steps
    state.done[n] = False
    invested = market.moves.shape[1] > c.ENDOWMENT
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] = market.moves[start, c.ENDOWMENT, j] if invested else real(0.0)
    money[n, c.CASH] = market.bars[start, c.START_CASH]
    money[n, c.PEAK] = market.bars[start, c.START_WEALTH]
    money[n, c.MEAN] = real(0.0)
    money[n, c.SQUARE] = real(INITIAL_VOLATILITY**2)


@jit
def observe(n, wealth, state, market, rules, seen):
    """Write the features of the bar, if there is room for them, and the portfolio's columns."""
    real = state.money.dtype.type
    bound, one = real(FEATURE_LIMIT), real(1.0)
    features, bar = market.features, state.counters[n, c.BAR]
    width = features.shape[1] if rules.whole[c.FLAT] else 0
    assets = rules.whole[c.ASSETS]
    cash = width + assets
    for j in range(width):
        seen[n, j] = features[bar, j]
    positive = max(wealth, real(SMALLEST))
    scale = one / positive
    for j in range(assets):
        seen[n, width + j] = max(-bound, min(state.holdings[n, j] * scale, bound))
    drawdown, growth = one - wealth / state.money[n, c.PEAK], positive / rules.real[c.INITIAL_CASH]
    seen[n, cash] = max(-bound, min(state.money[n, c.CASH] * scale, bound))
    seen[n, cash + 1] = max(-bound, min(drawdown, bound))
    seen[n, cash + 2] = max(-bound, min(math.log(growth), bound))


@jit
def stand_still(n, wealth, figures):
    """Figures of an account to which nothing happened."""
    zero = figures.dtype.type(0.0)
    for column in range(figures.shape[1]):
        figures[n, column] = zero
    for column in (c.WEALTH_BEFORE, c.WEALTH_AT_FILL, c.WEALTH_TRADED, c.WEALTH):
        figures[n, column] = wealth


@jit
def be_paid(n, bar, before, wealth, ruined, state, market, rules, figures):
    """Write the reward of a step from one wealth to another; who had nothing gets nothing."""
    zero = state.money.dtype.type(0.0)
    peak = state.money[n, c.PEAK]
    state.money[n, c.PEAK] = max(peak, wealth)
    left = zero if ruined else wealth  # ruin is final
    reward = measure_reward(
        n,
        before,
        left,
        peak,
        state.money[n, c.PEAK],
        market.bars[bar, c.MARKET_RETURN],
        state,
        rules,
    )
    figures[n, c.REWARD] = reward if before > zero else zero


@jit
def end(n, bar, over, state):
    """Go on to the next bar, and end the episode there if it is `over` or was to end."""
    state.counters[n, c.BAR] = bar + 1
    state.done[n] = over or bar + 1 >= state.counters[n, c.END]


@jit
def move(n, action, state, market, rules, results, weights, limit):
    """Trade, be paid, and end the episode if it is over; returns wealth, and whether it is gone."""
    bar, figures = state.counters[n, c.BAR], results.figures
    hold = decide(n, action, state, rules, weights)
    before, wealth, ruined = advance(n, bar, hold, state, market, figures, weights, limit)
    be_paid(n, bar, before, wealth, ruined, state, market, rules, figures)
    end(n, bar, ruined, state)
    return wealth, ruined


@jit
def write_flags(n, ruined, restarted, state, rules, results):
    """Write how the step ended; who had nothing before it had been terminated then."""
    zero = results.figures.dtype.type(0.0)
    terminated = ruined or (state.done[n] and rules.whole[c.TERMINATES] != 0)
    alive = results.figures[n, c.WEALTH_BEFORE] > zero
    results.flags[n, c.TERMINATED] = terminated and alive
    results.flags[n, c.TRUNCATED] = state.done[n] and not terminated
    results.flags[n, c.RESTARTED] = restarted
    results.flags[n, c.RUINED] = ruined


@jit
def step_one(n, action, state, market, rules, results, weights, limit):
    """Step environment `n`."""
    same_step = rules.whole[c.SAME_STEP] != 0
    restarted = state.done[n] and not same_step
    wealth, ruined = state.money[n, c.PEAK], False
    if restarted:
        restart(n, state, market, rules)
        wealth = state.money[n, c.PEAK]
        stand_still(n, wealth, results.figures)
    else:
        wealth, ruined = move(n, action, state, market, rules, results, weights, limit)
    write_flags(n, ruined, restarted, state, rules, results)
    if same_step:
        results.final_bar[n] = state.counters[n, c.BAR]
        observe(n, wealth, state, market, rules, results.final_seen)
        if state.done[n]:
            restart(n, state, market, rules)
            wealth = state.money[n, c.PEAK]
    results.bar[n] = state.counters[n, c.BAR]
    observe(n, wealth, state, market, rules, results.seen)


@partial(jit, inline=False)
def step_block(start, stop, action, state, market, rules, results, weights, limit):
    """Step environments `start` to `stop`, one after the other."""
    for n in range(start, stop):
        step_one(n, action, state, market, rules, results, weights, limit)
