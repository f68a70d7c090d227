"""What a row draws for an episode, and what a bar is to it then, on a CPU.

Draws are those of `fastsim.env.random`, bit for bit. Costs go into the row's own friction, so that
a step knows nothing of them; factors are kept beside it, and slots are part of the state. Where
agents see another market than the tape's, what a row meets at a bar is laid out in a market of one
bar, `Drawn.met`, and the step goes on from there as in any other.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.env.kernels import columns as c
from fastsim.env.kernels.buffers import MarketBlocks
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_math import exp, mean_price
from fastsim.env.random import GOLDEN
from fastsim.env.randomize import RANDOMIZE_STREAM
from fastsim.env.slots import COUNT_STREAM, ORDER_STREAM, RESOLUTION
from fastsim.market.features import FEATURE_LIMIT

_STEPS = 1 << 24
whole = np.uintp
"""Places without a sign: any other is asked, at every number, if it counts from the end."""


class Drawn(NamedTuple):
    """What rows draw, as in `buffers.Draws`, their slots, and room that a thread uses for each."""

    ranges: NDArray[Any]
    rising: NDArray[Any]
    factors: NDArray[Any]
    shown: NDArray[Any]
    slots: NDArray[Any]  # [N, A] or [N, 0], the state's
    order: NDArray[Any]  # [A]  int64, of the assets
    spare: NDArray[Any]  # [A']
    met: MarketBlocks  # of one bar


_GAPS = np.array([701, 301, 132, 57, 23, 10, 4, 1])
"""Of Shell's sort (Ciura 2001)."""


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


@partial(jit, inline=False, fastmath=set())
def draw_number(key, episode, name, low, high, log_spacing):
    """A number from `low` to `high`, float64, in the operations of the reference and no others."""
    drawn = draw_integer(key, episode, RANDOMIZE_STREAM + name, _STEPS)
    share = (np.float64(drawn) + 0.5) / np.float64(_STEPS)
    if log_spacing:
        return low * math.exp(math.log(high / low) * share)
    return low + (high - low) * share


@partial(jit, inline=False)
def draw_terms(n, state, market, rules, draws):
    """Write the costs and the factors of row `n` in its episode."""
    real = market.friction.dtype.type
    key, number = state.counters[n, c.COUNTER.key], state.counters[n, c.COUNTER.number]
    volatility, rate = real(1.0), real(1.0)
    for name in range(len(c.DRAWN)):
        low, high, unit = draws.ranges[name, 0], draws.ranges[name, 1], draws.ranges[name, 2]
        if math.isnan(low):  # it is not drawn
            continue
        log_spacing = rules.whole[c.WHOLE.log_spacing] != 0
        drawn = real(unit * draw_number(key, number, name, low, high, log_spacing))
        if name == c.DRAWN.price_impact:
            rate *= drawn
        elif name == c.DRAWN.volatility:
            volatility = drawn
            rate *= drawn
        else:
            market.friction[n, name] = drawn
    draws.factors[n, c.FACTOR.volatility] = volatility
    draws.factors[n, c.FACTOR.log_volatility] = math.log(volatility)
    draws.factors[n, c.FACTOR.rate] = rate


@jit
def sort(numbers):
    """Sort numbers, which differ, in place."""
    for gap in _GAPS:
        for i in range(gap, numbers.shape[0]):
            moved, place = numbers[i], i
            while place >= gap and numbers[place - gap] > moved:
                numbers[place] = numbers[place - gap]
                place -= gap
            numbers[place] = moved


@partial(jit, inline=False)
def draw_slots(n, state, rules, draws):
    """Write the slots of row `n` in its episode: its first are a random permutation's."""
    key, number = state.counters[n, c.COUNTER.key], state.counters[n, c.COUNTER.number]
    fewest, most = rules.whole[c.WHOLE.fewest], rules.whole[c.WHOLE.most]
    shown = fewest + draw_integer(key, number, COUNT_STREAM, most - fewest + 1)
    for j in range(draws.order.shape[0]):  # hashes, and among equal ones the places
        hashed = draw_integer(key, number, ORDER_STREAM + j, RESOLUTION)
        draws.order[j] = hashed * RESOLUTION + j
    sort(draws.order)
    for j in range(draws.order.shape[0]):
        draws.slots[n, j] = draws.order[j] % RESOLUTION if j < shown else -1
    draws.shown[n] = shown


@partial(jit, inline=False)
def endow(n, state, market, rules, draws):
    """Begin with equal parts of what is drawn and listed, and with cash."""
    real = state.money.dtype.type
    zero, one, initial = real(0.0), real(1.0), rules.real[c.REAL.initial_cash]
    start, listed = state.counters[n, c.COUNTER.bar], real(0.0)
    for j in range(draws.shown[n]):
        there = market.moves[start, c.MOVE.start_holdings, draws.slots[n, j]] > zero
        listed += one if there else zero
    each, held = rules.real[c.REAL.initial_invested] * initial / max(listed, one), zero
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] = zero
    for j in range(draws.shown[n]):
        asset = draws.slots[n, j]
        if market.moves[start, c.MOVE.start_holdings, asset] > zero:
            state.holdings[n, asset] = each
            held += each
    state.money[n, c.MONEY.cash] = initial - held
    state.money[n, c.MONEY.peak] = held + state.money[n, c.MONEY.cash]


@partial(jit, inline=False)
def draw_episode(n, state, market, rules, draws):
    """Let row `n`, whose episode begins, draw what holds in it."""
    draw_terms(n, state, market, rules, draws)
    if draws.slots.shape[1] > 0:
        draw_slots(n, state, rules, draws)
        if market.moves.shape[1] > c.MOVE.start_holdings:
            endow(n, state, market, rules, draws)


@partial(jit, inline=False)
def scale_rates(m, state, rules, draws):
    """Let trades move prices by the factor of this episode, and value what it begins with."""
    real = state.money.dtype.type
    players = rules.whole[c.WHOLE.players]
    for j in range(state.displaced.shape[2]):
        state.displaced[c.DISPLACED.rate, m, j] *= draws.factors[m * players, c.FACTOR.rate]
    for n in range(m * players, (m + 1) * players):
        wealth = real(0.0)
        for j in range(state.displaced.shape[2]):
            held, rate = state.holdings[n, j], state.displaced[c.DISPLACED.rate, m, j]
            wealth += held * mean_price(-rate * held, real)
        state.money[n, c.MONEY.peak] = wealth + state.money[n, c.MONEY.cash]


@partial(jit, inline=False)
def draw_block(start, stop, state, market, rules, draws):
    """Draw again what follows from the episodes that rows `start` to `stop` are in."""
    for n in range(start, stop):
        draw_terms(n, state, market, rules, draws)
        shown = 0 if draws.slots.shape[1] > 0 else rules.whole[c.WHOLE.assets]
        for j in range(draws.slots.shape[1]):
            shown += draws.slots[n, j] >= 0
        draws.shown[n] = shown


@jit
def mean_return(n, draws):
    """Mean simple return of what row `n` can trade, from what it meets."""
    moves = draws.met.moves
    real = moves.dtype.type
    one, total, count = real(1.0), real(0.0), real(0.0)
    for j in range(draws.shown[n]):
        asset = draws.slots[n, j] if draws.slots.shape[1] > 0 else j
        gross = (one + moves[0, c.MOVE.r_before, asset]) * (one + moves[0, c.MOVE.r_after, asset])
        if moves[0, c.MOVE.tradable, asset] > real(0.0):
            total += gross - one
            count += one
    return total / max(count, one)


@jit
def meet_drawn(n, bar, market, rules, draws, desk):
    """Lay out what row `n` meets at a bar: returns and volatilities of its episode."""
    met, moves = draws.met, market.moves
    real, factor = moves.dtype.type, draws.factors[n, c.FACTOR.volatility]
    one = real(1.0)
    for row in range(moves.shape[1]):
        for j in range(moves.shape[2]):
            met.moves[0, row, j] = moves[bar, row, j]
    for column in range(c.NUM_BARS):
        met.bars[0, column] = market.bars[bar, column]
    if not math.isnan(draws.ranges[c.DRAWN.volatility, 0]):
        for j in range(moves.shape[2]):
            met.moves[0, c.MOVE.r_before, j] = (
                exp(factor * moves[bar, c.MOVE.r_before, j], real) - one
            )
            met.moves[0, c.MOVE.r_after, j] = (
                exp(factor * moves[bar, c.MOVE.r_after, j], real) - one
            )
            met.moves[0, c.MOVE.impact_scale, j] = factor * moves[bar, c.MOVE.impact_scale, j]
    if desk is not None:
        meet_terms(n, bar, market, rules, draws)
    if rules.whole[c.WHOLE.reward] == c.REWARD.excess_log_growth:  # no other asks for it
        met.bars[0, c.BARS.market_return] = mean_return(n, draws)


@jit
def meet_ranges(n, bar, market, draws):
    """The same of how far prices go within the bar."""
    met, ranges, factor = draws.met, market.ranges, draws.factors[n, c.FACTOR.volatility]
    real, drawn = ranges.dtype.type, not math.isnan(draws.ranges[c.DRAWN.volatility, 0])
    for row in range(ranges.shape[1]):
        for j in range(ranges.shape[2]):
            reached = ranges[bar, row, j]
            met.ranges[0, row, j] = exp(factor * reached, real) - real(1.0) if drawn else reached


@jit
def meet_terms(n, bar, market, rules, draws):
    """The same of what further rules need; what is delisted loses what it loses."""
    met, terms, factor = draws.met, market.terms, draws.factors[n, c.FACTOR.volatility]
    real = terms.dtype.type
    for row in range(terms.shape[1]):
        for j in range(terms.shape[2]):
            met.terms[0, row, j] = terms[bar, row, j]
    if rules.whole[c.WHOLE.entries]:
        meet_ranges(n, bar, market, draws)
    if rules.whole[c.WHOLE.perpetual]:
        for j in range(met.funding.shape[1]):
            met.funding[0, j] = market.funding[bar, j]
    if math.isnan(draws.ranges[c.DRAWN.volatility, 0]):
        return
    for j in range(terms.shape[2]):
        met.terms[0, c.TERM.closing_scale, j] = factor * terms[bar, c.TERM.closing_scale, j]
        if rules.whole[c.WHOLE.delists] and terms[bar, c.TERM.delisted, j] > real(0.0):
            lost = exp(market.moves[bar, c.MOVE.r_after, j], real)
            met.moves[0, c.MOVE.r_after, j] = lost - real(1.0)


@jit
def by_asset(n, weights, draws):
    """Bring weights from the order of the slots into that of the assets."""
    if draws.slots.shape[1] > 0:
        for j in range(draws.shown[n]):
            draws.spare[j] = weights[j]
            weights[j] = weights.dtype.type(0.0)
        for j in range(draws.shown[n]):
            weights[whole(draws.slots[n, j])] = draws.spare[j]


@jit
def show_in_slots(n, at, values, draws, seen):
    """Write values [A'] of the assets, by slot, from column `at` on; 0 where masked."""
    shown, slots = draws.shown[n], draws.slots
    if slots.shape[1] == 0:
        for j in range(shown):
            seen[n, at + j] = values[j]
    for j in range(slots.shape[1]):
        value = values[whole(max(slots[n, j], 0))]
        seen[n, at + j] = value if j < shown else seen.dtype.type(0.0)


@jit
def show_features(n, bar, market, draws, seen):
    """Write the features of a bar, by slot, at the volatility of the episode; 0 where masked."""
    real, features, slots = seen.dtype.type, market.features, draws.slots
    bound, zero, rise = real(FEATURE_LIMIT), real(0.0), draws.factors[n, c.FACTOR.log_volatility]
    shown, width = draws.shown[n], features.shape[1] // draws.order.shape[0]
    for j in range(shown if slots.shape[1] > 0 else 0):
        first, place = whole(slots[n, j]) * whole(width), whole(j) * whole(width)
        for k in range(width):
            seen[n, place + whole(k)] = features[bar, first + whole(k)]
    for place in range(0 if slots.shape[1] > 0 else features.shape[1]):
        seen[n, place] = features[bar, place]
    last = shown * width
    for place in range(features.shape[1]):
        risen = max(-bound, min(seen[n, place] + rise * draws.rising[place], bound))
        seen[n, place] = risen if place < last else zero
    for j in range(shown):
        asset = whole(slots[n, j] if slots.shape[1] > 0 else j)
        if market.moves[bar, c.MOVE.present, asset] == zero:  # seldom: its volatility is unknown
            for k in range(width):
                feature = features[bar, asset * whole(width) + whole(k)]
                seen[n, j * width + k] = max(-bound, min(feature, bound))


@jit
def show_view(n, draws, slots, volatility):
    """Write in what the market of the row's episode differs from the tape."""
    for j in range(slots.shape[1]):
        slots[n, j] = draws.slots[n, j]
    volatility[n] = draws.factors[n, c.FACTOR.volatility]
