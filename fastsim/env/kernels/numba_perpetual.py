"""Perpetual futures, fused for a CPU: what `fastsim.env.perpetual` does, position by position.

They are further rules, so that it is compiled with a desk alone; where spot is traded the tables
here have no rows, and `rules.whole[c.WHOLE.perpetual]` lets nobody in. `numba_kernel`'s docstring
says what looks odd.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fastsim.env.brackets import LARGEST_TOUCH, TOUCH
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_jit import jit


@jit
def touch(real):
    """Part by which a price may miss a level and still touch it."""
    return real(min(TOUCH * np.finfo(real).eps, LARGEST_TOUCH))


@jit
def within_leverage(before, market, weights):
    """Cut weights to the value up to which the leverage is offered."""
    for j in range(weights.shape[0]):
        most = market.tiers[0, c.TIER.largest, j] / before
        weights[j] = max(-most, min(weights[j], most))


@jit
def liquidation_level(n, j, state, market, rules):
    """Price over that of now at which a position is liquidated, by the tier that is met first."""
    real = state.holdings.dtype.type
    one, held = real(1.0), state.holdings[n, j]
    size = abs(held)
    value = size / state.since[n, c.SINCE.entry, j]
    backing = value / rules.real[c.REAL.leverage]
    level = real(-np.inf) if held > real(0.0) else real(np.inf)
    for k in range(market.tiers.shape[0]):
        rate, amount = market.tiers[k, c.TIER.rate, j], market.tiers[k, c.TIER.amount, j]
        if held > real(0.0):
            level = max(level, (value - backing - amount) / (one - rate))
        else:
            level = min(level, (value + backing + amount) / (one + rate))
    return level / size


@jit
def seize(n, j, growth, state, market, rules, singles):
    """Close a position by force at `growth` times the price now; returns what is received."""
    real = state.holdings.dtype.type
    zero, held = real(0.0), state.holdings[n, j]
    value, bought = growth * held, held / state.since[n, c.SINCE.entry, j]
    left = abs(bought) / rules.real[c.REAL.leverage] + value - bought  # of the margin
    fee = min(rules.real[c.REAL.liquidation_fee] * abs(value), max(left, zero))
    insured = max(-left, zero)
    state.holdings[n, j] = zero
    if rules.whole[c.WHOLE.carries]:
        state.open_orders[n, j] = zero
    if singles is not None:
        singles.settled[n, c.SETTLED.liquidated] += abs(value)
        singles.settled[n, c.SETTLED.liquidation_fee] += fee
        singles.settled[n, c.SETTLED.insured] += insured
        singles.seized[n, j] -= value
    return value - fee + insured


@partial(jit, inline=False)
def liquidate_beyond(n, state, market, rules, singles):
    """Liquidate at the fill what a gap has gone beyond; returns what is received.

    Nothing has been told of the step so far.
    """
    real = state.holdings.dtype.type
    zero, one, slack, received = real(0.0), real(1.0), touch(real), real(0.0)
    if singles is not None:
        keep_none(n, singles)
    for j in range(state.since.shape[2]):
        held = state.holdings[n, j]
        if held != zero:
            level = liquidation_level(n, j, state, market, rules)
            below, above = level * (one + slack) >= one, level * (one - slack) <= one
            if (held > zero and below) or (held < zero and above):
                received += seize(n, j, one, state, market, rules, singles)
    return received


@jit
def wealth_now(n, state):
    """Value of everything held."""
    wealth = state.money.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        wealth += state.holdings[n, j]
    return wealth + state.money[n, c.MONEY.cash]


@jit
def funding_of(n, bar, state, market, singles):
    """What is paid for what is held until the close; negative where it is received."""
    funding = state.holdings.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        funding += state.holdings[n, j] * market.funding[bar, j]
    if singles is not None:
        singles.settled[n, c.SETTLED.funding] = funding
    return funding


@jit
def keep_none(n, singles):
    """Tell that nothing was paid and nothing liquidated, where that may be."""
    if singles.settled.shape[0] > 0:
        for j in range(singles.settled.shape[1]):
            singles.settled[n, j] = singles.settled.dtype.type(0.0)
        for j in range(singles.seized.shape[1]):
            singles.seized[n, j] = singles.seized.dtype.type(0.0)
