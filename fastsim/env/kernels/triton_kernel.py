"""The step on a GPU, fused: one program per environment, from its action to its observation.

Functions have the names of the reference. A program holds its environment in registers, an asset to
a lane, with lanes padded to a power of two: it reads its rows once, and writes them once at the
end. What is fixed for an environment is a compile-time constant, so that no branch on it is left.
Arithmetic is that of the tables' floating-point type.

Annotations are not deferred in this file, because the compiler reads them.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from fastsim.env.actions import LARGEST
from fastsim.env.episode import START_STREAM, WORLD_STREAM, Episode
from fastsim.env.kernels import columns as c
from fastsim.env.orders import NEWTON_STEPS
from fastsim.env.random import GOLDEN
from fastsim.env.reward import INITIAL_VOLATILITY, RUIN_LOG_GROWTH, RewardMemory
from fastsim.market.costs import Friction, TradeCost
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
_WEIGHTS = tl.constexpr(c.ACTION_CODES["weights"])
_LOGITS = tl.constexpr(c.ACTION_CODES["logits"])
_LOG_GROWTH = tl.constexpr(c.REWARD_CODES["log_growth"])
_EXCESS = tl.constexpr(c.REWARD_CODES["excess_log_growth"])
_SIMPLE = tl.constexpr(c.REWARD_CODES["simple_return"])
_PENALIZED = tl.constexpr(c.REWARD_CODES["drawdown_penalized_growth"])
_CHUNK = tl.constexpr(1024)  # features that are copied at a time


class Account(NamedTuple):
    """What a step changes, apart from where the episode is."""

    held: tl.tensor  # [A']
    cash: tl.tensor
    peak: tl.tensor
    memory: RewardMemory


class Figures(NamedTuple):
    """What a row of `Results.figures` holds, less the reward."""

    wealth_before: tl.tensor
    wealth_at_fill: tl.tensor
    wealth_traded: tl.tensor
    wealth: tl.tensor
    turnover: tl.tensor
    commission: tl.tensor
    spread: tl.tensor
    impact: tl.tensor
    borrow: tl.tensor
    interest: tl.tensor


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
    row = action + n * (assets + (mode == _LOGITS))
    asked = tl.load(row + lanes, mask=inside, other=0.0)
    odd = tl.max(not_finite(asked), 0)
    if mode == _LOGITS:
        cash = tl.load(row + assets)
        hold = (odd + not_finite(cash)) > 0
        asked = tl.where(hold, 0.0, cut(asked, _LARGEST))
        cash = tl.where(hold, 0.0, cut(cash, _LARGEST))
        top = tl.max(tl.where(inside, asked, cash), 0)
        top = tl.maximum(top, cash)
        raised = tl.where(inside, tl.exp(asked - top), 0.0)
        weights = raised / (tl.sum(raised, 0) + tl.exp(cash - top))
    else:
        hold = odd > 0
        asked = tl.where(hold, 0.0, cut(asked, _LARGEST))
        if mode == _WEIGHTS:
            asked = tl.maximum(asked, 0.0)
            excess = tl.sum(asked, 0)
        else:
            excess = tl.maximum(tl.sum(tl.abs(asked), 0) / max_gross, tl.sum(asked, 0))
        weights = asked / tl.maximum(excess, 1.0)
    return weights, hold


@triton.jit
def load_friction(row):
    """What trading costs this environment."""
    return Friction(
        fee=tl.load(row + c.FEE),
        half_spread=tl.load(row + c.HALF_SPREAD),
        impact=tl.load(row + c.IMPACT),
        participation=tl.load(row + c.PARTICIPATION),
        borrow=tl.load(row + c.BORROW),
    )


@triton.jit
def load_account(state, n, lanes, padded: tl.constexpr):
    """The account as the last step left it; empty lanes hold nothing."""
    money = state.money + n * 4
    return Account(
        held=tl.load(state.holdings + n * padded + lanes, mask=lanes < padded, other=0.0),
        cash=tl.load(money + c.CASH),
        peak=tl.load(money + c.PEAK),
        memory=RewardMemory(tl.load(money + c.MEAN), tl.load(money + c.SQUARE)),
    )


@triton.jit
def store_account(account, state, n, lanes, padded: tl.constexpr):
    """Keep the account for the next step."""
    money = state.money + n * 4
    tl.store(state.holdings + n * padded + lanes, account.held, lanes < padded)
    tl.store(money + c.CASH, account.cash)
    tl.store(money + c.PEAK, account.peak)
    tl.store(money + c.MEAN, account.memory.mean)
    tl.store(money + c.SQUARE, account.memory.square)


@triton.jit
def orders(x, held, weights, limit):
    """Trades that bring holdings to `weights` of x, within +-limit."""
    return cut(weights * x - held, limit)


@triton.jit
def trade_cost(order, scale, friction):
    """Cost of the orders of one environment."""
    size = tl.abs(order)
    notional = tl.sum(size, 0)
    return TradeCost(
        commission=friction.fee * (notional + friction.half_spread * tl.sum(order, 0)),
        spread=friction.half_spread * notional,
        impact=friction.impact * tl.sum(size * (scale * tl.sqrt(size)), 0),
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
    return 1.0 + tl.sum(tl.where(size < limit, marginal * weights, 0.0), 0)


@triton.jit
def post_cost_wealth(before, held, weights, limit, scale, friction, enough: tl.constexpr):
    """Solve V+ = V- - C(w V+ - h') by Newton's method from V-.

    A step below `enough` of x is the last, as in the kernel for CPUs: mostly the second. One
    environment is one program, so all its threads leave the loop together and wait for no other.
    """
    x = before
    left = tl.full((), _NEWTON_STEPS, tl.int32)
    while left > 0:
        order = orders(x, held, weights, limit)
        cost = trade_cost(order, scale, friction)
        excess = x + (cost.commission + cost.spread + cost.impact) - before
        step = excess / slope(order, weights, limit, scale, friction)
        x = x - step
        left = tl.where(tl.abs(step) > enough * tl.abs(x), left - 1, 0)
    return x


@triton.jit
def advance(
    account, weights, hold, market, bar, friction, lanes,
    padded: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """From the close of `bar` to the next: holdings, cash, figures and ruin."""
    room = lanes < padded
    moves = market.moves + bar * (4 * padded) + lanes
    bars = market.bars + bar * 3
    scale = tl.load(moves + c.IMPACT_SCALE * padded, mask=room, other=0.0)
    held = account.held * (1.0 + tl.load(moves + c.R_BEFORE * padded, mask=room, other=0.0))
    before = tl.sum(held, 0) + account.cash
    limit = friction.participation * tl.load(moves + c.DOLLARS * padded, mask=room, other=0.0)
    limit = tl.where(hold | (before <= 0.0), 0.0, limit)
    x = post_cost_wealth(before, held, weights, limit, scale, friction, enough)

    order = orders(x, held, weights, limit)
    cost = trade_cost(order, scale, friction)
    paid = cost.commission + cost.spread + cost.impact
    held = held + order
    cash = account.cash - tl.sum(order, 0) - paid
    interest = cash * tl.load(bars + c.INTEREST)
    short = tl.sum(tl.maximum(-held, 0.0), 0)
    borrow = friction.borrow * tl.load(bars + c.YEARS) * short
    cash = cash + interest - borrow
    held = held * (1.0 + tl.load(moves + c.R_AFTER * padded, mask=room, other=0.0))
    wealth = tl.sum(held, 0) + cash
    solvent = before > 0.0
    turnover = tl.sum(tl.abs(order), 0) / tl.where(solvent, before, 1.0)
    figures = Figures(
        wealth_before=tl.sum(account.held, 0) + account.cash,
        wealth_at_fill=before,
        wealth_traded=before - paid,
        wealth=wealth,
        turnover=tl.where(solvent, turnover, 0.0),
        commission=cost.commission,
        spread=cost.spread,
        impact=cost.impact,
        borrow=borrow,
        interest=interest,
    )
    return held, cash, figures, (before <= 0.0) | (wealth <= 0.0)


@triton.jit
def measure_reward(
    before, after, peak_before, peak, market_return, memory, real, kind: tl.constexpr
):
    """Reward, and what it remembers."""
    ratio = divide(after, before)
    growth = tl.maximum(tl.log(tl.maximum(ratio, _SMALLEST)), _RUIN_LOG_GROWTH)
    gain = ratio - 1.0
    mean = memory.mean
    square = memory.square
    if kind == _LOG_GROWTH:
        reward = growth
    elif kind == _EXCESS:
        reward = growth - log1p(market_return)
    elif kind == _SIMPLE:
        reward = gain
    elif kind == _PENALIZED:
        deepening = (1.0 - divide(after, peak)) - (1.0 - divide(before, peak_before))
        reward = growth - tl.load(real + c.DRAWDOWN_PENALTY) * tl.maximum(deepening, 0.0)
    else:
        rate = tl.load(real + c.ADAPTATION)
        d_mean = gain - mean
        d_square = gain * gain - square
        variance = tl.maximum(square - mean * mean, 1e-8)
        reward = divide(square * d_mean - 0.5 * mean * d_square, variance * tl.sqrt(variance))
        mean = mean + rate * d_mean
        square = square + rate * d_square
    return reward, RewardMemory(mean, square)


@triton.jit
def move(
    account, weights, hold, market, bar, friction, real, lanes,
    padded: tl.constexpr, kind: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """Trade and be paid; returns account, reward, figures, and whether all is gone.

    Ruin is final: the reward is that of having nothing left, whatever comes after.
    """
    held, cash, figures, ruined = advance(
        account, weights, hold, market, bar, friction, lanes, padded, enough
    )
    peak = tl.maximum(account.peak, figures.wealth)
    reward, memory = measure_reward(
        figures.wealth_before,
        tl.where(ruined, 0.0, figures.wealth),
        account.peak,
        peak,
        tl.load(market.bars + bar * 3 + c.MARKET_RETURN),
        account.memory,
        real,
        kind,
    )
    return Account(held, cash, peak, memory), reward, figures, ruined


@triton.jit
def load_episode(state, n):
    """Where the environment is."""
    row = state.counters + n * 5
    return Episode(
        bar=tl.load(row + c.BAR),
        end=tl.load(row + c.END),
        number=tl.load(row + c.NUMBER),
        done=tl.load(state.done + n) != 0,
    )


@triton.jit
def store_episode(episode, state, n):
    """Keep where the environment is for the next step."""
    row = state.counters + n * 5
    tl.store(row + c.BAR, episode.bar)
    tl.store(row + c.END, episode.end)
    tl.store(row + c.NUMBER, episode.number)
    tl.store(state.done + n, episode.done)


@triton.jit
def begin(
    over, episode, key, market, first: tl.constexpr, starts: tl.constexpr, horizon: tl.constexpr,
    last: tl.constexpr, worlds: tl.constexpr, span: tl.constexpr, slots: tl.constexpr,
):  # fmt: skip
    """The episode, or where it is `over` the next, in one of `worlds` of `span` bars each.

    It is the next of the market's own `slots`, or with none any one, drawn. The episode starts at
    one of `starts` bars, `first` and later, and runs to `last` without a horizon.
    """
    number = episode.number + tl.where(over, 1, 0)
    first_bar = key * 0 + first
    if slots > 0:
        first_bar += span * (market + number % slots * (worlds // slots))
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
def renew(over, account, initial):
    """The account, or where its episode is `over` one that is all cash."""
    return Account(
        held=tl.where(over, 0.0, account.held),
        cash=tl.where(over, initial, account.cash),
        peak=tl.where(over, initial, account.peak),
        memory=RewardMemory(
            tl.where(over, 0.0, account.memory.mean),
            tl.where(over, _INITIAL_SQUARE, account.memory.square),
        ),
    )


@triton.jit
def observe(
    seen, n, bar, account, wealth, initial, table, lanes,
    assets: tl.constexpr, features: tl.constexpr,
):  # fmt: skip
    """Write the bar's features, if any are wanted, and the portfolio's columns."""
    seen += n * (features + assets + 3)
    for start in range(0, features, _CHUNK):
        columns = start + tl.arange(0, _CHUNK)
        inside = columns < features
        tl.store(seen + columns, tl.load(table + bar * features + columns, mask=inside), inside)
    seen += features
    positive = tl.maximum(wealth, _SMALLEST)
    scale = 1.0 / positive
    tl.store(seen + lanes, cut(account.held * scale, _LIMIT), lanes < assets)
    tl.store(seen + assets, cut(account.cash * scale, _LIMIT))
    tl.store(seen + assets + 1, cut(1.0 - divide(wealth, account.peak), _LIMIT))
    tl.store(seen + assets + 2, cut(tl.log(divide(positive, initial)), _LIMIT))


@triton.jit
def write_figures(row, live, initial, reward, figures):
    """Write what happened; where not `live`, the figures of an account that stood still."""
    tl.store(row + c.REWARD, tl.where(live, reward, 0.0))
    tl.store(row + c.WEALTH_BEFORE, tl.where(live, figures.wealth_before, initial))
    tl.store(row + c.WEALTH_AT_FILL, tl.where(live, figures.wealth_at_fill, initial))
    tl.store(row + c.WEALTH_TRADED, tl.where(live, figures.wealth_traded, initial))
    tl.store(row + c.WEALTH, tl.where(live, figures.wealth, initial))
    tl.store(row + c.TURNOVER, tl.where(live, figures.turnover, 0.0))
    tl.store(row + c.COMMISSION, tl.where(live, figures.commission, 0.0))
    tl.store(row + c.SPREAD, tl.where(live, figures.spread, 0.0))
    tl.store(row + c.IMPACT_COST, tl.where(live, figures.impact, 0.0))
    tl.store(row + c.BORROWED, tl.where(live, figures.borrow, 0.0))
    tl.store(row + c.INTEREST_EARNED, tl.where(live, figures.interest, 0.0))


@triton.jit
def write_flags(row, terminated, truncated, restarted):
    """Write how the step ended."""
    tl.store(row + c.TERMINATED, terminated)
    tl.store(row + c.TRUNCATED, truncated)
    tl.store(row + c.RESTARTED, restarted)
    tl.store(row + c.RUINED, terminated)


@triton.jit
def step_kernel(
    action, state, market, real, results,
    assets: tl.constexpr, padded: tl.constexpr, block: tl.constexpr, features: tl.constexpr,
    mode: tl.constexpr, kind: tl.constexpr, same_step: tl.constexpr, first: tl.constexpr,
    starts: tl.constexpr, horizon: tl.constexpr, last: tl.constexpr, worlds: tl.constexpr,
    span: tl.constexpr, slots: tl.constexpr, players: tl.constexpr, enough: tl.constexpr,
):  # fmt: skip
    """Step the environment that has this program's number."""
    n, lanes = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    initial, gross = tl.load(real + c.INITIAL_CASH), tl.load(real + c.MAX_GROSS)
    counters = state.counters + n * 5
    key, invalid = tl.load(counters + c.KEY), tl.load(counters + c.INVALID)
    old, account = load_episode(state, n), load_account(state, n, lanes, padded)
    friction = load_friction(market.friction + n * 5)
    weights, hold = target_weights(action, n, gross, lanes, assets, mode)
    tl.debug_barrier()  # all threads have read before one writes

    account, reward, figures, ruined = move(
        account, weights, hold, market, old.bar, friction, real, lanes, padded, kind, enough
    )
    done = ruined | (old.bar + 1 >= old.end)
    moved = Episode(old.bar + 1, old.end, old.number, done)
    live = (old.done == 0) | same_step  # else the episode had ended, and begins anew
    write_figures(results.figures + n * c.NUM_FIGURES, live, initial, reward, figures)
    write_flags(results.flags + n * 4, live & ruined, live & done & (ruined == 0), live == 0)
    tl.store(counters + c.INVALID, invalid + tl.where(hold & live, 1, 0))
    over, wealth, table = live == 0, figures.wealth, market.features
    if same_step:
        over = done
        tl.store(results.final_bar + n, moved.bar)
        observe(
            results.final_seen, n, moved.bar, account, wealth, initial, table, lanes, assets,
            features,
        )  # fmt: skip

    episode = begin(
        over, moved, key, n // players, first, starts, horizon, last, worlds, span, slots
    )
    account = renew(over, account, initial)
    store_episode(episode, state, n)
    store_account(account, state, n, lanes, padded)
    wealth = tl.where(over, initial, wealth)
    tl.store(results.bar + n, episode.bar)
    observe(results.seen, n, episode.bar, account, wealth, initial, table, lanes, assets, features)
