"""The step of markets whose players meet and move prices, fused for a CPU.

One pass over each market: players decide, each alone; their orders meet and fill at one price; then
each settles. What does not concern others is `numba_kernel`'s, whose docstring says what looks odd.
Here n is a player, and m its market. Without impact prices stay put: there is no pit in which
orders would meet, and each player's step is that of `numba_kernel`, with all that closes positions
within bars; only episodes are shared.

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
from fastsim.env.kernels.numba_draws import meet_drawn, scale_rates, show_in_slots, show_view
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_kernel import (
    accrue,
    advance,
    be_paid,
    charge,
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
from fastsim.env.kernels.numba_orders import charge as charge_orders
from fastsim.env.kernels.numba_orders import (
    close_orders,
    cut,
    drop_orders,
    find_bounds,
    forget_closed,
    is_called,
    keep_no_call,
    lent,
    pay_call,
    place,
    want,
)
from fastsim.env.kernels.numba_turns import take_turns
from fastsim.market.features import FEATURE_LIMIT


class Pit(NamedTuple):
    """Where the orders of one market meet: room that a thread uses again and again.

    There is none where orders move no price, and what asks for it is not compiled.
    """

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
    commission, spread, impact = charge(n, notional, net, rough, market)
    receive(n, -pay(n, before, notional, commission, spread, impact, figures), state)


@jit
def order_by_rules(
    x, before, n, player, hold, state, market, rules, weights, limit, pit, figures, desk
):
    """`order` under further rules."""
    want(n, x, hold, before, state, market, rules, weights, limit, desk)
    place(n, hold, before, state, market, rules, figures, limit, desk)
    commission, spread, impact, notional, _ = charge_orders(n, market, rules, desk)
    receive(n, -pay(n, before, notional, commission, spread, impact, figures), state)
    add_orders(player, pit, desk)


@jit
def add_orders(player, pit, desk):
    """Bring the orders on the desk to the others'."""
    for j in range(pit.net.shape[0]):
        pit.orders[player, j] = desk[c.DESK.trade, j]
        pit.net[j] += desk[c.DESK.trade, j]


@jit
def multiply_orders(n, growth, state):
    """Let open orders, which are so many shares, grow with the price."""
    for j in range(state.open_orders.shape[1]):
        state.open_orders[n, j] *= growth[j]


@jit
def trade(
    n,
    player,
    m,
    bar,
    action,
    state,
    market,
    rules,
    figures,
    views,
    draws,
    weights,
    limit,
    desk,
    pit,
):
    """Let player `n` decide and place its orders."""
    hold = decide(n, action, state, rules, views, draws, weights, desk)
    wealth, before = meet(n, m, state, pit)
    if desk is None:
        limit_orders(n, bar, hold, before, market, limit)
    else:
        multiply_orders(n, pit.growth, state)
        find_bounds(n, bar, before, state, market, rules, limit, desk)
    x = before
    if before > weights.dtype.type(0.0) and not hold:
        x = post_cost_wealth(before, n, bar, state, market, rules, weights, limit, desk)
    if desk is None:
        order(x, before, n, player, bar, hold, state, market, weights, limit, pit, figures)
    else:
        order_by_rules(
            x, before, n, player, hold, state, market, rules, weights, limit, pit, figures, desk
        )
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
    for j in range(singles.holdings.shape[1]):
        held = state.holdings[n, j] + pit.orders[player, j]
        singles.holdings[n, j] = held * pit.lift[j]
    for j in range(singles.trade.shape[1] if singles.trade.shape[0] else 0):
        singles.trade[n, j] = pit.orders[player, j]


@jit
def settle(n, player, m, bar, state, market, rules, pit, figures, singles, desk):
    """Pay the price of the orders and let the market move; returns wealth at the next close."""
    real = pit.net.dtype.type
    zero, one = real(0.0), real(1.0)
    holdings = state.holdings
    paid, traded, short, after = zero, zero, zero, zero
    if singles is not None:
        keep_no_call(n, singles)
        keep_orders(n, player, state, pit, singles)
    fees, lends = zero, False
    if desk is not None:
        lends = rules.whole[c.WHOLE.lends] != 0
        fees = fees_of_assets(n, player, bar, state, market, pit) if lends else zero
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
    fees = fees if lends else market.friction[n, c.FRICTION.borrow] * short
    accrue(n, bar, fees, state, market, figures)
    figures[n, c.FIGURE.wealth] = after + state.money[n, c.MONEY.cash]
    if desk is not None:
        multiply_orders(n, pit.lift, state)
        close_orders(n, bar, rules, state, market)
        if rules.whole[c.WHOLE.delists]:
            pay_out(n, m, bar, state, market)


@jit
def fees_of_assets(n, player, bar, state, market, pit):
    """Fee per year on shorts right after the trade, asset by asset."""
    fees = state.money.dtype.type(0.0)
    for j in range(pit.net.shape[0]):
        held = (state.holdings[n, j] + pit.orders[player, j]) * pit.lift[j]
        fees += lent(n, bar, j, market) * max(-held, state.money.dtype.type(0.0))
    return fees


@jit
def growth_to_close(bar, j, rules, market, desk):
    """By how much a price grows from the fill to the close; what is delisted has been paid out."""
    one = market.moves.dtype.type(1.0)
    growth = one + market.moves[bar, c.MOVE.r_after, j]
    if desk is not None:
        gone = rules.whole[c.WHOLE.delists] and market.terms[bar, c.TERM.delisted, j] > one - one
        growth = one if gone else growth
    return growth


@partial(jit, inline=False)
def pay_out(n, m, bar, state, market):
    """Turn positions in what is delisted into the cash that selling them would bring."""
    real = state.money.dtype.type
    paid, one = real(0.0), real(1.0)
    for j in range(state.holdings.shape[1]):
        if market.terms[bar, c.TERM.delisted, j] > real(0.0):
            held, growth = state.holdings[n, j], one + market.moves[bar, c.MOVE.r_after, j]
            moved = state.displaced[c.DISPLACED.rate, m, j] * held
            paid += held * mean_price(-moved / growth if growth > real(0.0) else moved, real)
            state.holdings[n, j] = real(0.0)
    receive(n, paid, state)


@jit
def exposure(n, state):
    """Gross value of all positions."""
    gross = state.money.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        gross += abs(state.holdings[n, j])
    return gross


@jit
def is_any_called(m, state, rules, figures):
    """Whether the margin of any player of a market is not covered."""
    first = m * rules.whole[c.WHOLE.players]
    if not rules.real[c.REAL.maintenance_margin] > rules.real.dtype.type(0.0):
        return False
    for n in range(first, first + rules.whole[c.WHOLE.players]):
        if is_called(figures[n, c.FIGURE.wealth], exposure(n, state), rules):
            return True
    return False


@partial(jit, inline=False)
def call_margin(m, bar, state, market, rules, figures, singles, limit, pit, desk):
    """Cut the positions of players who are called; their sales meet at once, as all orders do."""
    zero, first = pit.net.dtype.type(0.0), m * rules.whole[c.WHOLE.players]
    pit.net[:] = zero
    for player in range(rules.whole[c.WHOLE.players]):
        n = first + player
        wealth, gross = figures[n, c.FIGURE.wealth], exposure(n, state)
        if is_called(wealth, gross, rules):
            cut(n, bar, wealth, gross, state, market, rules, limit, desk)
            paid, _ = pay_call(n, state, market, rules, figures, singles, desk)
            receive(n, -paid, state)
        else:
            for j in range(pit.net.shape[0]):
                desk[c.DESK.trade, j] = zero
        add_orders(player, pit, desk)
    push(m, state, rules, pit)
    for player in range(rules.whole[c.WHOLE.players]):
        settle_call(first + player, player, m, state, pit, figures)


@jit
def settle_call(n, player, m, state, pit, figures):
    """Pay the price of forced sales, at which all positions are worth what they then are."""
    real = pit.net.dtype.type
    paid, wealth = real(0.0), real(0.0)
    for j in range(pit.net.shape[0]):
        paid += pit.orders[player, j] * pit.price[j]
        held = (state.holdings[n, j] + pit.orders[player, j]) * pit.lift[j]
        wealth += held * mean_price(-state.displaced[c.DISPLACED.rate, m, j] * held, real)
        state.holdings[n, j] = held
    receive(n, -paid, state)
    multiply_orders(n, pit.lift, state)
    figures[n, c.FIGURE.wealth] = wealth + state.money[n, c.MONEY.cash]


@jit
def close_account(n, state, rules, desk):
    """Take all from the ruined, as the reference does."""
    zero = state.money.dtype.type(0.0)
    for j in range(state.holdings.shape[1]):
        state.holdings[n, j] = zero
    state.money[n, c.MONEY.cash] = zero
    state.money[n, c.MONEY.carry] = zero
    if desk is not None:
        drop_orders(n, state)
        forget_closed(n, state, rules)


@jit
def trade_apart(
    m, bar, action, state, market, rules, figures, singles, views, draws, weights, limit, desk
):
    """Let every player of a market trade, to the next close, where orders move no price."""
    first = m * rules.whole[c.WHOLE.players]
    for n in range(first, first + rules.whole[c.WHOLE.players]):
        hold = decide(n, action, state, rules, views, draws, weights, desk)
        advance(n, bar, hold, state, market, rules, figures, singles, weights, limit, desk)


@jit
def trade_together(
    m, bar, action, state, market, rules, figures, singles, views, draws, weights, limit, desk, pit
):
    """Let the players of a market trade at the price at which their orders meet."""
    players = rules.whole[c.WHOLE.players]
    first = m * players
    drift(m, bar, state, market, rules, pit)
    for player in range(players):
        trade(
            first + player, player, m, bar, action, state, market, rules, figures,
            views, draws, weights, limit, desk, pit,
        )  # fmt: skip
    push(m, state, rules, pit)
    for player in range(players):
        n = first + player
        settle(n, player, m, bar, state, market, rules, pit, figures, singles, desk)
    for j in range(pit.net.shape[0]):
        growth = growth_to_close(bar, j, rules, market, desk)
        state.displaced[c.DISPLACED.rate, m, j] /= growth
    if desk is not None and is_any_called(m, state, rules, figures):
        call_margin(m, bar, state, market, rules, figures, singles, limit, pit, desk)


@jit
def move(
    m, action, state, market, rules, results, singles, views, draws, weights, limit, desk, pit
):
    """Trade, be paid, and end the episode if it is over for all."""
    players, figures = rules.whole[c.WHOLE.players], results.figures
    first = m * players
    bar = state.counters[first, c.COUNTER.bar]
    met, row = market, bar
    if views is not None:
        meet_drawn(first, bar, market, rules, draws, desk)
        met, row = draws.met, 0
    if pit is None:
        trade_apart(
            m, row, action, state, met, rules, figures, singles, views, draws, weights, limit, desk
        )
    else:
        trade_together(
            m, row, action, state, met, rules, figures, singles,
            views, draws, weights, limit, desk, pit,
        )  # fmt: skip
    over = be_paid_all(m, row, state, met, rules, results, desk)
    for n in range(first, first + players):
        end(n, bar, over, state)


@jit
def be_paid_all(m, bar, state, market, rules, results, desk):
    """Pay the players of a market and close the accounts of the ruined; returns whether all are."""
    zero, figures = state.money.dtype.type(0.0), results.figures
    players, over = rules.whole[c.WHOLE.players], True
    for n in range(m * players, (m + 1) * players):
        wealth = figures[n, c.FIGURE.wealth]
        ruined = not (figures[n, c.FIGURE.wealth_at_fill] > zero and wealth > zero)
        before = figures[n, c.FIGURE.wealth_before]
        be_paid(n, bar, before, wealth, ruined, state, market, rules, figures)
        results.flags[n, c.FLAG.ruined] = ruined
        over = over and ruined
        if ruined and players > 1:
            close_account(n, state, rules, desk)
    return over


@partial(jit, inline=False)  # seldom called
def begin(m, state, market, rules, draws, desk, pit):
    """The start of the next episode of a market and its players."""
    players = rules.whole[c.WHOLE.players]
    for n in range(m * players, (m + 1) * players):
        restart(n, state, market, rules, draws, desk)
    if pit is not None:
        settle_down(m, state, market, rules, draws, pit)


@jit
def settle_down(m, state, market, rules, draws, pit):
    """Let prices be where they are when an episode begins: undisturbed."""
    zero = state.money.dtype.type(0.0)
    bar = state.counters[m * rules.whole[c.WHOLE.players], c.COUNTER.bar]
    for j in range(pit.net.shape[0]):
        state.displaced[c.DISPLACED.transient, m, j] = zero
        state.displaced[c.DISPLACED.rate, m, j] = market.moves[bar, c.MOVE.start_rate, j]
    if draws is not None:
        scale_rates(m, state, rules, draws)


@jit
def look(m, begun, state, market, rules, results, views, draws, seen, bars, desk, pit):
    """Write what the players of a market see, at its beginning or after a step."""
    real, players = state.money.dtype.type, rules.whole[c.WHOLE.players]
    if pit is not None:
        find_displacement(m, state, pit)
    for n in range(m * players, (m + 1) * players):
        wealth = results.figures[n, c.FIGURE.wealth]
        if begun:
            wealth = state.money[n, c.MONEY.peak]
        elif results.flags[n, c.FLAG.ruined] and players > 1:
            wealth = real(0.0)
        bars[n] = state.counters[n, c.COUNTER.bar]
        observe(n, wealth, state, market, rules, views, draws, seen, desk)
        if pit is not None:
            show_displacement(n, rules, views, draws, seen, pit)


@jit
def find_displacement(m, state, pit):
    """Put into the pit what the columns of displacement are to show."""
    real = state.money.dtype.type
    bound = real(FEATURE_LIMIT)
    for j in range(pit.net.shape[0]):
        moved = real(100.0) * state.displaced[c.DISPLACED.transient, m, j]
        pit.price[j] = max(-bound, min(moved, bound))


@jit
def show_displacement(n, rules, views, draws, seen, pit):
    """Write the columns that are there where trades move prices."""
    shown = rules.whole[c.WHOLE.displacement_at]
    if views is not None:
        show_in_slots(n, shown, pit.price, draws, seen)
    else:
        for j in range(rules.whole[c.WHOLE.assets]):
            seen[n, shown + j] = pit.price[j]


@jit
def step_one(
    m, action, state, market, rules, results, singles, views, draws, weights, limit, desk, pit
):
    """Step market `m`."""
    players, same_step = rules.whole[c.WHOLE.players], rules.whole[c.WHOLE.same_step] != 0
    first = m * players
    begun = state.done[first] and not same_step
    if begun:
        begin(m, state, market, rules, draws, desk, pit)
        for n in range(first, first + players):
            stand_still(n, state.money[n, c.MONEY.peak], results.figures)
            results.flags[n, c.FLAG.ruined] = False
            if singles is not None:
                keep_none(n, state, singles)
    else:
        move(
            m,
            action,
            state,
            market,
            rules,
            results,
            singles,
            views,
            draws,
            weights,
            limit,
            desk,
            pit,
        )
    for n in range(first, first + players):
        write_flags(n, results.flags[n, c.FLAG.ruined], begun, state, rules, results)
    if same_step:
        look(
            m, False, state, market, rules, results, views, draws,
            results.final_seen, results.final_bar, desk, pit,
        )  # fmt: skip
        if views is not None:
            for n in range(first, first + players):
                show_view(n, draws, views.final_slots, views.final_volatility)
        if state.done[first]:
            begin(m, state, market, rules, draws, desk, pit)
            begun = True
    look(
        m, begun, state, market, rules, results, views, draws, results.seen, results.bar, desk, pit
    )
    if views is not None:
        for n in range(first, first + players):
            show_view(n, draws, views.slots, views.volatility)


@partial(jit, inline=False)
def step_block(
    start,
    stop,
    action,
    state,
    market,
    rules,
    results,
    singles,
    views,
    draws,
    weights,
    limit,
    desk,
    pit,
):
    """Step markets `start` to `stop`, one after the other."""
    for m in range(start, stop):
        step_one(
            m,
            action,
            state,
            market,
            rules,
            results,
            singles,
            views,
            draws,
            weights,
            limit,
            desk,
            pit,
        )


@partial(jit, inline=False)
def step_turns(turns, bell, job, size, count, rest):
    """Take turns at all `count` markets; `rest` is what `step_block` is given beside."""
    take_turns(step_block, turns, bell, job, size, count, rest)
