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

from fastsim.env.actions import LARGEST
from fastsim.env.episode import START_STREAM, WORLD_STREAM, Episode
from fastsim.env.impact import Displacement
from fastsim.env.kernels import columns as c
from fastsim.env.orders import NEWTON_STEPS
from fastsim.env.random import GOLDEN
from fastsim.env.reward import INITIAL_VOLATILITY, RUIN_LOG_GROWTH, RewardMemory
from fastsim.market.features import FEATURE_LIMIT

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Python, on tensors anywhere: TRITON_INTERPRET=1 when this was imported."""

_NEWTON_STEPS = tl.constexpr(NEWTON_STEPS)
_LARGEST = tl.constexpr(LARGEST)
_SMALLEST = tl.constexpr(1e-37)  # wealth and its ratios are raised to this before a logarithm
_START_STREAM = tl.constexpr(START_STREAM)
_WORLD_STREAM = tl.constexpr(WORLD_STREAM)
_GOLDEN = tl.constexpr(GOLDEN)
_RUIN_LOG_GROWTH = tl.constexpr(RUIN_LOG_GROWTH)
_INITIAL_SQUARE = tl.constexpr(INITIAL_VOLATILITY**2)
_LIMIT = tl.constexpr(FEATURE_LIMIT)
_STEEPEST = tl.constexpr(87.0)  # float32 holds e to the power of this


class Account(NamedTuple):
    """What a step changes, apart from where the episode is; in a market of every player."""

    held: tl.tensor  # [A'] or [P', A']
    cash: tl.tensor
    carry: tl.tensor
    peak: tl.tensor
    memory: RewardMemory


class Friction(NamedTuple):
    """What trading costs, as `columns.FRICTION` names it."""

    fee: tl.tensor
    half_spread: tl.tensor
    impact: tl.tensor
    participation: tl.tensor
    borrow: tl.tensor


class TradeCost(NamedTuple):
    """What orders cost, as `columns.COSTS` names it."""

    commission: tl.tensor
    spread: tl.tensor
    impact: tl.tensor


class Singles(NamedTuple):
    """Orders one by one, as in `buffers.Singles`."""

    trade: tl.tensor
    holdings: tl.tensor


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


assert Friction._fields == c.FRICTION._fields
assert TradeCost._fields == c.COSTS


@triton.jit
def divide(one, other):
    """Quotient to the last bit: what has not changed has a ratio of exactly one."""
    return tl.div_rn(one, other) if one.dtype == tl.float32 else one / other


@triton.jit
def log1p(x):
    """Logarithm of 1 + x for small x (Goldberg 1991, theorem 4)."""
    raised = 1.0 + x
    lost = raised - 1.0
    exact = lost == 0.0
    return tl.where(exact, x, tl.log(raised) * divide(x, tl.where(exact, 1.0, lost)))


@triton.jit
def total(x):
    """Sum over assets."""
    return tl.sum(x, len(x.shape) - 1, keep_dims=len(x.shape) > 1)


@triton.jit
def largest(x):
    """Maximum over assets."""
    return tl.max(x, len(x.shape) - 1, keep_dims=len(x.shape) > 1)


@triton.jit
def anyone(is_so):
    """Whether it is so for any account of the program."""
    return is_so if len(is_so.shape) == 0 else tl.max(is_so.to(tl.int32)) > 0


@triton.jit
def common(x):
    """What is the same for all accounts of the program."""
    return x if len(x.shape) == 0 else tl.max(x)


@triton.jit
def mean_price(x):
    """(exp(x) - 1) / x: rounding e^x moves both alike (Higham 2002, 1.14.1)."""
    raised = tl.exp(tl.minimum(x, _STEEPEST))
    still = raised == 1.0
    return tl.where(still, 1.0, (raised - 1.0) / tl.where(still, 1.0, tl.log(raised)))


@triton.jit
def cut(x, limit):
    """The nearest number within +-limit."""
    return tl.minimum(tl.maximum(x, -limit), limit)


@triton.jit
def mix(bits):
    """Finalise the low 32 bits of an int64, as `fastsim.env.random` does."""
    bits = bits & 0xFFFFFFFF
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x85EBCA6B) & 0xFFFFFFFF
    bits = bits ^ (bits >> 13)
    bits = (bits * 0xC2B2AE35) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


@triton.jit
def draw_integer(key, number, stream, bound):
    """An integer in [0, bound)."""
    bits = mix(mix(key + number * _GOLDEN) + stream)
    return (bits * bound) >> 32


@triton.jit
def not_finite(x):
    """1 for NaN and infinities, else 0."""
    return tl.where(tl.abs(x) < float("inf"), 0, 1)


@triton.jit
def target_weights(action, n, max_gross, lanes, assets: tl.constexpr, mode: tl.constexpr):
    """Admissible weights, zero in empty lanes, and whether the row is not finite and holds."""
    inside = lanes < assets
    row = action + n * (assets + (mode == c.ACTION.logits))
    asked = tl.load(row + lanes, mask=inside, other=0.0)
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
        else:
            tl.static_assert(mode == c.ACTION.signed, "no such action mode")
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
def load_account(state, n, lanes, padded: tl.constexpr):
    """The account as the last step left it; empty lanes hold nothing."""
    money = state.money + n * c.NUM_MONEY
    return Account(
        held=tl.load(state.holdings + n * padded + lanes, mask=lanes < padded, other=0.0),
        cash=tl.load(money + c.MONEY.cash),
        carry=tl.load(money + c.MONEY.carry),
        peak=tl.load(money + c.MONEY.peak),
        memory=RewardMemory(
            mean=tl.load(money + c.MONEY.mean), square=tl.load(money + c.MONEY.square)
        ),
    )


@triton.jit
def store_account(account, state, n, lanes, padded: tl.constexpr):
    """Keep the account for the next step."""
    money = state.money + n * c.NUM_MONEY
    tl.store(state.holdings + n * padded + lanes, account.held, lanes < padded)
    tl.store(money + c.MONEY.cash, account.cash)
    tl.store(money + c.MONEY.carry, account.carry)
    tl.store(money + c.MONEY.peak, account.peak)
    tl.store(money + c.MONEY.mean, account.memory.mean)
    tl.store(money + c.MONEY.square, account.memory.square)


@triton.jit
def orders(x, held, weights, limit):
    """Trades that bring holdings to `weights` of x, within +-limit."""
    return cut(weights * x - held, limit)


@triton.jit
def trade_cost(order, scale, friction):
    """Cost of the orders of one environment."""
    size = tl.abs(order)
    notional = total(size)
    return TradeCost(
        commission=friction.fee * (notional + friction.half_spread * total(order)),
        spread=friction.half_spread * notional,
        impact=friction.impact * total(size * (scale * tl.sqrt(size))),
    )


@triton.jit
def slope(order, weights, limit, scale, friction):
    """Derivative of g(x) = x + C(w x - h') - V-."""
    fee = friction.fee
    half_spread = friction.half_spread
    buy = fee + half_spread + fee * half_spread
    sell = fee + half_spread - fee * half_spread
    size = tl.abs(order)
    curve = 1.5 * friction.impact * (scale * tl.sqrt(size))
    marginal = tl.where(order >= 0.0, buy + curve, -sell - curve)
    return 1.0 + total(tl.where(size < limit, marginal * weights, 0.0))


@triton.jit
def post_cost_wealth(before, held, weights, limit, scale, friction, enough: tl.constexpr):
    """Solve V+ = V- - C(w V+ - h') by Newton's method from V-.

    A step below `enough` of x is the last, as in the kernel for CPUs: mostly the second. All
    threads of a program leave the loop together and wait for no other.
    """
    x = before
    left = tl.full((), _NEWTON_STEPS, tl.int32)
    while left > 0:
        order = orders(x, held, weights, limit)
        cost = trade_cost(order, scale, friction)
        excess = x + (cost.commission + cost.spread + cost.impact) - before
        step = excess / slope(order, weights, limit, scale, friction)
        x = x - step
        left = tl.where(anyone(tl.abs(step) > enough * tl.abs(x)), left - 1, 0)
    return x


@triton.jit
def rebalance(
    before, held, weights, hold, moves, friction, room,
    padded: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """Orders that lead to `weights` of what their cost leaves of `before`.

    Returns also their cost, and how much more was asked for.
    """
    scale = tl.load(moves + c.MOVE.impact_scale * padded, mask=room, other=0.0)
    limit = friction.participation * tl.load(moves + c.MOVE.dollars * padded, mask=room, other=0.0)
    still = hold | (before <= 0.0)
    limit = tl.where(still, 0.0, limit)
    x = post_cost_wealth(before, held, weights, limit, scale, friction, enough)
    order = orders(x, held, weights, limit)
    lacking = total(tl.abs(weights * x - held) - tl.abs(order))
    return order, trade_cost(order, scale, friction), tl.where(still, 0.0, lacking)


@triton.jit
def receive(cash, carry, amount):
    """Cash with an amount added, and carry with what rounding loses of it; see the reference."""
    raised = cash + amount
    added = raised - cash
    carry = carry + ((cash - (raised - added)) + (amount - added))
    whole = raised + carry
    return whole, carry - (whole - raised)


@triton.jit
def accrue(cash, carry, held, bars, friction):
    """Cash and carry after interest and the borrow fee on shorts, and both of them."""
    interest = cash * tl.load(bars + c.BARS.interest)
    borrow = friction.borrow * tl.load(bars + c.BARS.years) * total(tl.maximum(-held, 0.0))
    cash, carry = receive(cash, carry, interest - borrow)
    return cash, carry, interest, borrow


@triton.jit
def figures_of(start, before, traded, wealth, order, lacking, cost, borrow, interest):
    """What happened, and whether all is gone."""
    solvent = before > 0.0
    turnover = total(tl.abs(order)) / tl.where(solvent, before, 1.0)
    figures = Figures(
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
    return figures, (before <= 0.0) | (wealth <= 0.0)


@triton.jit
def advance(
    account, weights, hold, moves, bars, friction, lanes,
    padded: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """From a close to the next: holdings, cash, carry, figures and ruin."""
    room = lanes < padded
    held = account.held * (1.0 + tl.load(moves + c.MOVE.r_before * padded, mask=room, other=0.0))
    before = total(held) + account.cash
    order, cost, lacking = rebalance(
        before, held, weights, hold, moves, friction, room, padded, enough
    )
    paid = cost.commission + cost.spread + cost.impact
    held = held + order
    bought = held
    cash, carry = receive(account.cash, account.carry, -total(order) - paid)
    cash, carry, interest, borrow = accrue(cash, carry, held, bars, friction)
    held = held * (1.0 + tl.load(moves + c.MOVE.r_after * padded, mask=room, other=0.0))
    wealth = total(held) + cash
    start = total(account.held) + account.cash
    figures, ruined = figures_of(
        start, before, before - paid, wealth, order, lacking, cost, borrow, interest
    )
    return held, cash, carry, figures, ruined, Singles(order, bought)


@triton.jit
def advance_with_impact(
    account, displacement, weights, hold, moves, bars, friction, real, row, lanes,
    players: tl.constexpr, padded: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """`advance` of a market in which trades move prices: displacement, too.

    A move of the exogenous price leaves the mean price of a sale alone, relative to that price.
    """
    room = lanes < padded
    retention = tl.load(real + c.REAL.retention)
    growth = 1.0 + tl.load(moves + c.MOVE.r_before * padded, mask=room, other=0.0)
    growth = growth * tl.exp((retention - 1.0) * displacement.transient)
    price = mean_price(-displacement.rate * account.held)
    rate = displacement.rate / growth
    held = account.held * growth
    before = total(held * price) + account.cash
    order, cost, lacking = rebalance(
        before, held, weights, hold, moves, friction, room, padded, enough
    )

    net = tl.sum(tl.where(row < players, order, 0.0), 0, keep_dims=True)
    moved = rate * net
    lift = tl.exp(moved)
    transient = displacement.transient * retention + tl.load(real + c.REAL.transient_share) * moved
    rate = rate / lift
    paid = cost.commission + cost.spread + cost.impact
    spent = total(order * mean_price(moved)) + paid
    cash, carry = receive(account.cash, account.carry, -spent)
    held = (held + order) * lift
    bought = held
    later = mean_price(-rate * held)
    traded = total(held * later) + cash
    cash, carry, interest, borrow = accrue(cash, carry, held, bars, friction)
    gross_return = 1.0 + tl.load(moves + c.MOVE.r_after * padded, mask=room, other=0.0)
    held = held * gross_return
    wealth = total(held * later) + cash
    start = total(account.held * price) + account.cash
    figures, ruined = figures_of(
        start, before, traded, wealth, order, lacking, cost, borrow, interest
    )
    displacement = Displacement(transient, rate / gross_return)
    return held, cash, carry, displacement, figures, ruined, Singles(order, bought)


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
def be_paid(account, held, cash, carry, figures, ruined, market_return, real, kind: tl.constexpr):
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
    account = Account(held, cash, carry, peak, memory)
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
def renew(over, account, endowment, bars):
    """The account, or where its episode is `over` that of the next."""
    return Account(
        held=tl.where(over, endowment, account.held),
        cash=tl.where(over, tl.load(bars + c.BARS.start_cash), account.cash),
        carry=tl.where(over, 0.0, account.carry),
        peak=tl.where(over, tl.load(bars + c.BARS.start_wealth), account.peak),
        memory=RewardMemory(
            mean=tl.where(over, 0.0, account.memory.mean),
            square=tl.where(over, _INITIAL_SQUARE, account.memory.square),
        ),
    )


@triton.jit
def observe(
    seen, n, bar, account, wealth, initial, table, lanes, transient,
    assets: tl.constexpr, features: tl.constexpr, chunk: tl.constexpr, width: tl.constexpr,
    weight_at: tl.constexpr, drawdown_at: tl.constexpr, log_growth_at: tl.constexpr,
    displacement_at: tl.constexpr,
):  # fmt: skip
    """Write the bar's features, if any are wanted, and the portfolio's columns."""
    seen += n * width
    for start in range(0, features, chunk):
        columns = start + tl.arange(0, chunk)
        inside = columns < features
        tl.store(seen + columns, tl.load(table + bar * features + columns, mask=inside), inside)
    positive = tl.maximum(wealth, _SMALLEST)
    scale = 1.0 / positive
    tl.store(seen + weight_at + lanes, cut(account.held * scale, _LIMIT), lanes < assets)
    tl.store(seen + weight_at + assets, cut(account.cash * scale, _LIMIT))
    tl.store(seen + drawdown_at, cut(1.0 - divide(wealth, account.peak), _LIMIT))
    tl.store(seen + log_growth_at, cut(tl.log(divide(positive, initial)), _LIMIT))
    if displacement_at > 0:
        displaced = account.held * 0.0 + cut(100.0 * transient, _LIMIT)
        tl.store(seen + displacement_at + lanes, displaced, lanes < assets)


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
def decide(
    action, n, episode, max_gross, lanes,
    assets: tl.constexpr, mode: tl.constexpr, liquidates: tl.constexpr,
):  # fmt: skip
    """Weights to trade to, whether the row holds, and whether it is not finite.

    At the last fill of an episode everything may have to be sold.
    """
    weights, odd = target_weights(action, n, max_gross, lanes, assets, mode)
    hold = odd
    if liquidates:
        ending = episode.bar + 1 >= episode.end
        weights, hold = tl.where(ending, 0.0, weights), odd & (ending == 0)
    return weights, hold, odd


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
def move(
    account, displacement, weights, hold, market, bar, friction, real, seat, lanes,
    padded: tl.constexpr, rows: tl.constexpr, kind: tl.constexpr, enough: tl.constexpr,
    by_market: tl.constexpr, players: tl.constexpr,
):  # fmt: skip
    """Trade and be paid; returns account, displacement, reward, figures, ruin and orders."""
    moves = market.moves + bar * (rows * padded) + lanes
    bars = market.bars + bar * c.NUM_BARS
    if by_market:
        held, cash, carry, displacement, figures, ruined, singles = advance_with_impact(
            account, displacement, weights, hold, moves, bars, friction, real, seat, lanes,
            players, padded, enough,
        )  # fmt: skip
    else:
        held, cash, carry, figures, ruined, singles = advance(
            account, weights, hold, moves, bars, friction, lanes, padded, enough
        )
    if players > 1:  # the reference closes the accounts of the ruined, who wait for the others
        held, cash = tl.where(ruined, 0.0, held), tl.where(ruined, 0.0, cash)
        carry = tl.where(ruined, 0.0, carry)
    market_return = tl.load(bars + c.BARS.market_return)
    account, reward = be_paid(
        account, held, cash, carry, figures, ruined, market_return, real, kind
    )
    return account, displacement, reward, figures, ruined, singles


@triton.jit
def step_kernel(
    action, state, market, real, results, singles,
    assets: tl.constexpr, padded: tl.constexpr, block: tl.constexpr, features: tl.constexpr,
    chunk: tl.constexpr, mode: tl.constexpr, kind: tl.constexpr, same_step: tl.constexpr,
    first: tl.constexpr, starts: tl.constexpr, horizon: tl.constexpr, last: tl.constexpr,
    worlds: tl.constexpr, span: tl.constexpr, worlds_per_market: tl.constexpr, enough: tl.constexpr,
    rows: tl.constexpr, liquidates: tl.constexpr, terminates: tl.constexpr, by_market: tl.constexpr,
    players: tl.constexpr, seats: tl.constexpr, width: tl.constexpr, weight_at: tl.constexpr,
    drawdown_at: tl.constexpr, log_growth_at: tl.constexpr, displacement_at: tl.constexpr,
):  # fmt: skip
    """Step the environment, or the market, that has this program's number."""
    program, lanes = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    n, seat, displacement, place = program, 0, Displacement(0.0, 0.0), state.displaced
    if by_market:
        seat, lanes = tl.arange(0, seats)[:, None], lanes[None, :]
        n = program * players + tl.minimum(seat, players - 1)
        displacement, place = load_displacement(state, program, lanes, padded)
    initial, gross = tl.load(real + c.REAL.initial_cash), tl.load(real + c.REAL.max_gross)
    counters = state.counters + n * c.NUM_COUNTERS
    key, invalid = tl.load(counters + c.COUNTER.key), tl.load(counters + c.COUNTER.invalid_actions)
    old, account = load_episode(state, n), load_account(state, n, lanes, padded)
    friction = load_friction(market.friction + n * c.NUM_FRICTIONS)
    weights, hold, odd = decide(action, n, old, gross, lanes, assets, mode, liquidates)
    tl.debug_barrier()  # all threads have read before one writes

    account, displacement, reward, figures, ruined, kept = move(
        account, displacement, weights, hold, market, common(old.bar), friction, real, seat, lanes,
        padded, rows, kind, enough, by_market, players,
    )  # fmt: skip
    wealth = tl.where(ruined, 0.0, figures.wealth) if players > 1 else figures.wealth
    done = (anyone(ruined == 0) == 0) | (old.bar + 1 >= old.end)
    now = Episode(old.bar + 1, old.end, old.number, done)
    live = (old.done == 0) | same_step  # else the episode had ended, and begins anew
    over, table = live == 0, market.features
    if same_step:
        over = done
        tl.store(results.final_bar + n, now.bar)
        observe(
            results.final_seen, n, now.bar, account, wealth, initial, table, lanes,
            displacement.transient, assets, features, chunk, width, weight_at, drawdown_at,
            log_growth_at, displacement_at,
        )  # fmt: skip

    episode = begin(
        over, now, key, program, first, starts, horizon, last, worlds, span, worlds_per_market
    )
    moves = market.moves + common(episode.bar) * (rows * padded) + lanes
    bars = market.bars + common(episode.bar) * c.NUM_BARS
    account = renew(
        over, account, load_start(moves, lanes, c.MOVE.start_holdings, rows, padded), bars
    )
    wealth = tl.where(over, account.peak, wealth)
    if by_market:
        rate = load_start(moves, lanes, c.MOVE.start_rate, rows, padded)
        displacement = Displacement(
            tl.where(anyone(over), 0.0, displacement.transient),
            tl.where(anyone(over), rate, displacement.rate),
        )
        tl.store(place.transient, displacement.transient, lanes < padded)
        tl.store(place.rate, displacement.rate, lanes < padded)
    alive = figures.wealth_before > 0.0
    write_figures(results.figures + n * c.NUM_FIGURES, live, account.peak, reward, figures)
    write_flags(results.flags + n * c.NUM_FLAGS, live, ruined, done, alive, terminates)
    tl.store(counters + c.COUNTER.invalid_actions, invalid + tl.where(odd & live, 1, 0))
    if singles is not None:
        at, inside = n * assets + lanes, lanes < assets
        tl.store(singles.trade + at, tl.where(live, kept.trade, 0.0), inside)
        tl.store(singles.holdings + at, tl.where(live, kept.holdings, account.held), inside)
    store_episode(episode, state, n)
    store_account(account, state, n, lanes, padded)
    tl.store(results.bar + n, episode.bar)
    observe(
        results.seen, n, episode.bar, account, wealth, initial, table, lanes,
        displacement.transient, assets, features, chunk, width, weight_at, drawdown_at,
            log_growth_at, displacement_at,
    )  # fmt: skip
