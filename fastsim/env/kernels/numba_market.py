"""The step of markets whose players meet and move prices, fused for a CPU.

One pass over each market: players decide, each alone; their orders meet and fill at one price; then
each settles. What does not concern others is `numba_kernel`'s, whose docstring says what looks odd.
Here n is a player, and m its market. Without impact rates are zero, and prices stay put.

A position is worth the same share of its price before a move of the exogenous price as after it,
because impact is linear in shares. So one `mean_price` gives wealth at the close and at the fill,
and another that right after the fill and at the next close.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_kernel import (
    accrue,
    be_paid,
    decide,
    end,
    keep_none,
    limit_orders,
    observe,
    pay,
    post_cost_wealth,
    receive,
    restart,
    stand_still,
    write_flags,
)
from fastsim.env.kernels.numba_math import exp, mean_price
from fastsim.market.features import FEATURE_LIMIT


class Pit(NamedTuple):
    """Where the orders of one market meet: room that a thread uses again and again."""

    orders: NDArray[Any]  # [P, A']
    net: NDArray[Any]  # [A']  sum of the players' orders
    growth: NDArray[Any]  # [A']  of prices from the close to the fill
    price: NDArray[Any]  # [A']  that orders pay, relative to the price before them
    lift: NDArray[Any]  # [A']  price after them, likewise


@jit
def drift(m, bar, state, market, rules, pit):
    """Let displacement decay on the way to the fill, and find by how much prices grow."""
    real = pit.net.dtype.type
    one, retention = real(1.0), rules.real[c.REAL.retention]
    for j in range(pit.net.shape[0]):
        transient = state.displaced[c.DISPLACED.transient, m, j]
        growth = exp((retention - one) * transient, real)
        growth *= one + market.moves[bar, c.MOVE.r_before, j]
        pit.growth[j] = growth
        state.displaced[c.DISPLACED.transient, m, j] = retention * transient
        state.displaced[c.DISPLACED.rate, m, j] /= growth
    pit.net[:] = real(0.0)


@jit
def meet(n, m, state, pit):
    """Carry holdings to the fill; returns wealth at both ends."""
    real = state.money.dtype.type
    wealth, before = real(0.0), real(0.0)
    for j in range(state.holdings.shape[1]):
        held = state.holdings[n, j]
        grown = held * pit.growth[j]
        price = mean_price(-state.displaced[c.DISPLACED.rate, m, j] * grown, real)
        wealth += held * price
        before += grown * price
        state.holdings[n, j] = grown
    return wealth + state.money[n, c.MONEY.cash], before + state.money[n, c.MONEY.cash]


@jit
def order(x, before, n, player, bar, hold, state, market, weights, limit, pit, figures):
    """Add the orders that lead to `weights` of `x`; their cost, not their price, is paid now."""
    real = weights.dtype.type
    notional, net, rough, lacking = real(0.0), real(0.0), real(0.0), real(0.0)
    for j in range(weights.shape[0]):
        wanted = weights[j] * x - state.holdings[n, j]
        order = min(max(wanted, -limit[j]), limit[j])
        size = abs(order)
        lacking += abs(wanted) - size
        notional += size
        net += order
        rough += size * (market.moves[bar, c.MOVE.impact_scale, j] * math.sqrt(size))
        pit.orders[player, j] = order
    for j in range(weights.shape[0]):
        pit.net[j] += pit.orders[player, j]
    figures[n, c.FIGURE.unfilled] = real(0.0) if hold or before <= real(0.0) else lacking
    receive(n, -pay(n, before, notional, net, rough, market, figures), state)


@jit
def trade(n, player, m, bar, action, state, market, rules, figures, weights, limit, pit):
    """Let player `n` decide and place its orders."""
    hold = decide(n, action, state, rules, weights)
    wealth, before = meet(n, m, state, pit)
    limit_orders(n, bar, hold, before, market, limit)
    x = before
    if before > weights.dtype.type(0.0) and not hold:
        x = post_cost_wealth(before, n, bar, state, market, weights, limit)
    order(x, before, n, player, bar, hold, state, market, weights, limit, pit, figures)
    figures[n, c.FIGURE.wealth_before] = wealth
    figures[n, c.FIGURE.wealth_at_fill] = before


@jit
def push(m, state, rules, pit):
    """Let the net orders move prices."""
    real = pit.net.dtype.type
    for j in range(pit.net.shape[0]):
        moved = state.displaced[c.DISPLACED.rate, m, j] * pit.net[j]
        pit.price[j] = mean_price(moved, real)
        pit.lift[j] = exp(moved, real)
    share = rules.real[c.REAL.transient_share]
    for j in range(pit.net.shape[0]):
        state.displaced[c.DISPLACED.transient, m, j] += share * (
            state.displaced[c.DISPLACED.rate, m, j] * pit.net[j]
        )
        state.displaced[c.DISPLACED.rate, m, j] /= pit.lift[j]


@jit
def keep_orders(n, player, state, pit, singles):
    """Tell the orders of a player, and what is held after all of them."""
    for j in range(singles.trade.shape[1]):
        order = pit.orders[player, j]
        singles.trade[n, j] = order
        singles.holdings[n, j] = (state.holdings[n, j] + order) * pit.lift[j]


@jit
def settle(n, player, m, bar, state, market, pit, figures, singles):
    """Pay the price of the orders and let the market move; returns wealth at the next close."""
    real = pit.net.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings = state.holdings
    paid, traded, short, after = zero, zero, zero, zero
    if singles is not None:
        keep_orders(n, player, state, pit, singles)
    for j in range(holdings.shape[1]):
        order = pit.orders[player, j]
        held = (holdings[n, j] + order) * pit.lift[j]
        price = mean_price(-state.displaced[c.DISPLACED.rate, m, j] * held, real)
        moved = held * (one + market.moves[bar, c.MOVE.r_after, j])
        paid += order * pit.price[j]
        traded += held * price
        short += max(-held, zero)
        after += moved * price
        holdings[n, j] = moved
    receive(n, -paid, state)
    figures[n, c.FIGURE.wealth_traded] = traded + state.money[n, c.MONEY.cash]
    accrue(n, bar, short, state, market, figures)
    figures[n, c.FIGURE.wealth] = after + state.money[n, c.MONEY.cash]
    return figures[n, c.FIGURE.wealth]


@jit
def close_account(n, state):
    """Take all from the ruined, as the reference does."""
    zero = state.money.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] = zero
    state.money[n, c.MONEY.cash] = zero
    state.money[n, c.MONEY.carry] = zero


@jit
def move(m, action, state, market, rules, results, singles, weights, limit, pit):
    """Trade, be paid, and end the episode if it is over for all."""
    real, figures = weights.dtype.type, results.figures
    zero, one = real(0.0), real(1.0)
    players = rules.whole[c.WHOLE.players]
    first = m * players
    bar, over = state.counters[first, c.COUNTER.bar], True
    drift(m, bar, state, market, rules, pit)
    for player in range(players):
        trade(
            first + player, player, m, bar, action, state, market, rules, figures,
            weights, limit, pit,
        )  # fmt: skip
    push(m, state, rules, pit)
    for player in range(players):
        n = first + player
        wealth = settle(n, player, m, bar, state, market, pit, figures, singles)
        ruined = not (figures[n, c.FIGURE.wealth_at_fill] > zero and wealth > zero)
        before = figures[n, c.FIGURE.wealth_before]
        be_paid(n, bar, before, wealth, ruined, state, market, rules, figures)
        results.flags[n, c.FLAG.ruined] = ruined
        over = over and ruined
        if ruined and players > 1:
            close_account(n, state)
    for j in range(pit.net.shape[0]):
        state.displaced[c.DISPLACED.rate, m, j] /= one + market.moves[bar, c.MOVE.r_after, j]
    for n in range(first, first + players):
        end(n, bar, over, state)


@partial(jit, inline=False)  # seldom called
def begin(m, state, market, rules, pit):
    """The start of the next episode of a market and its players."""
    players = rules.whole[c.WHOLE.players]
    for n in range(m * players, (m + 1) * players):
        restart(n, state, market, rules)
    zero, bar = state.money.dtype.type(0.0), state.counters[m * players, c.COUNTER.bar]
    moved = market.moves.shape[1] > c.MOVE.start_rate
    for j in range(pit.net.shape[0]):
        state.displaced[c.DISPLACED.transient, m, j] = zero
        state.displaced[c.DISPLACED.rate, m, j] = (
            market.moves[bar, c.MOVE.start_rate, j] if moved else zero
        )


@jit
def look(m, begun, state, market, rules, results, seen, bars, pit):
    """Write what the players of a market see, at its beginning or after a step."""
    real = state.money.dtype.type
    bound, players = real(FEATURE_LIMIT), rules.whole[c.WHOLE.players]
    assets, shown_at = rules.whole[c.WHOLE.assets], rules.whole[c.WHOLE.displacement_at]
    for j in range(pit.net.shape[0]):
        moved = real(100.0) * state.displaced[c.DISPLACED.transient, m, j]
        pit.price[j] = max(-bound, min(moved, bound))
    for n in range(m * players, (m + 1) * players):
        wealth = results.figures[n, c.FIGURE.wealth]
        if begun:
            wealth = state.money[n, c.MONEY.peak]
        elif results.flags[n, c.FLAG.ruined] and players > 1:
            wealth = real(0.0)
        bars[n] = state.counters[n, c.COUNTER.bar]
        observe(n, wealth, state, market, rules, seen)
        for j in range(assets if shown_at else 0):
            seen[n, shown_at + j] = pit.price[j]


@jit
def step_one(m, action, state, market, rules, results, singles, weights, limit, pit):
    """Step market `m`."""
    players, same_step = rules.whole[c.WHOLE.players], rules.whole[c.WHOLE.same_step] != 0
    first = m * players
    begun = state.done[first] and not same_step
    if begun:
        begin(m, state, market, rules, pit)
        for n in range(first, first + players):
            stand_still(n, state.money[n, c.MONEY.peak], results.figures)
            results.flags[n, c.FLAG.ruined] = False
            if singles is not None:
                keep_none(n, state, singles)
    else:
        move(m, action, state, market, rules, results, singles, weights, limit, pit)
    for n in range(first, first + players):
        write_flags(n, results.flags[n, c.FLAG.ruined], begun, state, rules, results)
    if same_step:
        look(m, False, state, market, rules, results, results.final_seen, results.final_bar, pit)
        if state.done[first]:
            begin(m, state, market, rules, pit)
            begun = True
    look(m, begun, state, market, rules, results, results.seen, results.bar, pit)


@partial(jit, inline=False)
def step_block(start, stop, action, state, market, rules, results, singles, weights, limit, pit):
    """Step markets `start` to `stop`, one after the other."""
    for m in range(start, stop):
        step_one(m, action, state, market, rules, results, singles, weights, limit, pit)
