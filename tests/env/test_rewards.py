"""Rewards: each against a plain computation with Python numbers over a short path."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.env.accounting import Outcome
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import (
    INITIAL_VOLATILITY,
    REWARDS,
    RUIN_LOG_GROWTH,
    RewardConfig,
    fresh_memory,
    measure_growth,
)
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig, make_tape

PATHS = [
    [100.0, 103.0, 101.0, 99.5, 104.0, 104.0, 98.0, 107.0],
    [100.0, 99.0, 97.0, 98.0, 96.0, 99.0, 101.0, 100.5],
]
MARKET = [0.01, -0.02, 0.0, 0.03, -0.01, 0.005, 0.02]


def happened(before, after):
    """A step from one wealth [N] to another, at no cost."""
    still = torch.zeros_like(before)
    return Outcome(
        wealth_before=before,
        wealth_at_fill=before,
        wealth_traded=before,
        wealth=after,
        turnover=still,
        unfilled=still,
        cost={"commission": still},
        borrow=still,
        interest=still,
        ruined=after <= 0,
    )


def rewards_of(kind, paths=PATHS, market=MARKET, **parameters):
    """What the library pays along each path of wealth: a list per path."""
    wealth = torch.tensor(paths, dtype=torch.float64)
    config, memory = RewardConfig(kind=kind, **parameters), fresh_memory(wealth[:, 0])
    peak, paid = wealth[:, 0], []
    for bar in range(wealth.shape[1] - 1):
        before, after = wealth[:, bar], wealth[:, bar + 1]
        highest = torch.maximum(peak, after)
        moved = torch.full_like(after, market[bar])
        growth = measure_growth(happened(before, after), peak, highest, moved)
        reward, memory = REWARDS[kind].measure(growth, memory, config)
        paid.append(reward)
        peak = highest
    return torch.stack(paid, dim=1).tolist()


def steps(path):
    return list(pairwise(path))


def test_log_growth_is_the_log_of_the_wealth_ratio():
    for path, paid in zip(PATHS, rewards_of("log_growth"), strict=True):
        assert paid == pytest.approx([math.log(b / a) for a, b in steps(path)], rel=1e-13)


def test_log_growth_sums_to_the_log_of_total_growth():
    for path, paid in zip(PATHS, rewards_of("log_growth"), strict=True):
        assert sum(paid) == pytest.approx(math.log(path[-1] / path[0]), rel=1e-12)


def test_excess_log_growth_is_log_growth_less_that_of_the_market():
    for path, paid in zip(PATHS, rewards_of("excess_log_growth"), strict=True):
        pairs = zip(steps(path), MARKET, strict=True)
        expected = [math.log(b / a) - math.log(1 + market) for (a, b), market in pairs]
        assert paid == pytest.approx(expected, rel=1e-12)


def test_simple_return_is_the_relative_change_of_wealth():
    for path, paid in zip(PATHS, rewards_of("simple_return"), strict=True):
        assert paid == pytest.approx([b / a - 1 for a, b in steps(path)], rel=1e-12)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_differential_sharpe_follows_the_recursion_of_moody_and_saffell(rate):
    for path, paid in zip(PATHS, rewards_of("differential_sharpe", adaptation=rate), strict=True):
        mean, square = 0.0, INITIAL_VOLATILITY**2
        expected = []
        for before, after in steps(path):
            gain = after / before - 1
            change_of_mean, change_of_square = gain - mean, gain**2 - square
            numerator = square * change_of_mean - 0.5 * mean * change_of_square
            expected.append(numerator / (square - mean**2) ** 1.5)
            mean += rate * change_of_mean
            square += rate * change_of_square
        assert paid == pytest.approx(expected, rel=1e-12)


def test_differential_sharpe_is_the_slope_of_the_sharpe_ratio_in_the_adaptation_rate():
    mean, square, gain = 0.002, 0.0004, 0.013
    slope = 1e-7

    def sharpe(rate):
        moved = mean + rate * (gain - mean), square + rate * (gain**2 - square)
        return moved[0] / math.sqrt(moved[1] - moved[0] ** 2)

    expected = (sharpe(slope) - sharpe(-slope)) / (2 * slope)
    wealth = torch.tensor([100.0, 100.0 * (1 + gain)], dtype=torch.float64)
    growth = measure_growth(
        happened(wealth[:1], wealth[1:]), wealth[:1], wealth[1:], torch.zeros(1)
    )
    memory = fresh_memory(wealth[:1])._replace(
        mean=torch.tensor([mean]).double(), square=torch.tensor([square]).double()
    )
    paid, _ = REWARDS["differential_sharpe"].measure(growth, memory, RewardConfig())
    assert float(paid) == pytest.approx(expected, rel=1e-6)


def test_drawdown_penalized_growth_charges_only_for_a_deepening_drawdown():
    penalty = 0.5
    paid_by_path = rewards_of("drawdown_penalized_growth", drawdown_penalty=penalty)
    for path, paid in zip(PATHS, paid_by_path, strict=True):
        expected = []
        for bar, (before, after) in enumerate(steps(path)):
            old = 1 - before / max(path[: bar + 1])
            new = 1 - after / max(path[: bar + 2])
            expected.append(math.log(after / before) - penalty * max(0.0, new - old))
        assert paid == pytest.approx(expected, rel=1e-11)
        assert any(
            a < math.log(after / before)
            for a, (before, after) in zip(paid, steps(path), strict=True)
        )


@pytest.mark.parametrize("kind", ["log_growth", "drawdown_penalized_growth", "excess_log_growth"])
@pytest.mark.parametrize("left", [0.0, -50.0, 1e-9])
def test_ruin_pays_the_floor_of_log_growth(kind, left):
    paid = rewards_of(
        kind,
        [[100.0, left]],
        [0.0],
        **({"drawdown_penalty": 0.0} if kind == "drawdown_penalized_growth" else {}),
    )
    assert paid == [[RUIN_LOG_GROWTH]]


@pytest.mark.parametrize("kind", list(REWARDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_reward_is_finite_whatever_happens(kind, dtype):
    before = torch.full((5,), 100.0, dtype=dtype)
    after = torch.tensor([100.0, 0.0, -1e6, 1e-30, 1e8], dtype=dtype)
    growth = measure_growth(
        happened(before, after), before, torch.maximum(before, after), before * 0
    )
    memory = fresh_memory(before)
    for _ in range(3):
        reward, memory = REWARDS[kind].measure(growth, memory, RewardConfig())
        assert reward.isfinite().all() and reward.dtype == dtype


@pytest.mark.parametrize("kind", list(REWARDS))
def test_the_environment_pays_the_reward_it_is_asked_for(kind):
    tape = make_tape(random_bars(20, 3), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(
        reward=RewardConfig(kind=kind),
        costs=FREE,
        initial_cash=100.0,
        episode=EpisodeConfig(horizon=None, random_start=False, staggered=False),
    )
    env = PortfolioEnv(tape, 1, config)
    path, paid, market = [100.0], [], []
    for bar in range(tape.first, tape.last):
        transition = env.step(torch.tensor([[0.5, 0.3, 0.2]]))
        path.append(float(transition.outcome.wealth))
        paid.append(float(transition.reward))
        total = (1 + tape.next["r_before"][bar]) * (1 + tape.next["r_after"][bar]) - 1
        market.append(float(total.mean()))
    assert paid == pytest.approx(rewards_of(kind, [path], market)[0], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "sharpe"), ("adaptation", 0.0), ("adaptation", 1.5), ("drawdown_penalty", -1.0)],
)
def test_a_setting_out_of_range_is_named(field, value):
    with pytest.raises(ConfigError, match=f"RewardConfig.{field} must be"):
        RewardConfig(**{field: value})
