"""Every backend makes the steps of the reference: same restarts, same draws, same books."""

import logging
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import ENVS, TOLERANCE, actions, assert_same_run, configs, run, soaring_tape, tapes
from worlds import SHORT_FEATURES, grid, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig, make_friction
from fastsim.market.tape import TapeConfig, make_tape

WHOLE = EnvConfig(episode=EpisodeConfig(horizon=None))


@settings(max_examples=60)
@given(tapes(torch.float64), configs(levels=True), st.integers(0, 2**40))
def test_numba_steps_as_the_reference(tape, config, seed):
    runs = (run(tape, config, seed, backend) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@pytest.mark.long
@settings(max_examples=40)
@given(tapes(torch.float32), configs(shares=False), st.integers(0, 2**40))
def test_numba_steps_as_the_reference_in_float32(tape, config, seed):
    runs = (run(tape, config, seed, backend) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@settings(max_examples=15)
@given(tapes(torch.float32), configs(), st.integers(0, 2**40))
def test_whole_shares_in_float32_are_those_of_the_reference_or_one_apart(tape, config, seed):
    """Step by step from the same state, and seldom apart: where an order is on a knife's edge."""
    orders = replace(config.orders, whole_shares=True)
    config = replace(config, orders=orders, costs=replace(config.costs, minimum_fee=0.0))
    one, other = (
        PortfolioEnv(tape, ENVS, config, seed=seed, backend=name, single_orders=True)
        for name in ("torch", "numba")
    )
    edges, wealth = 0, 1e-5 * config.initial_cash
    script = actions(tape, config, seed)
    for action in script:
        other.state = state = one.state
        mine, theirs = (env.step(action) for env in (one, other))
        apart = (theirs.outcome.trade - mine.outcome.trade).abs()
        edge = apart > wealth
        price = tape.next["price"][state.episode.bar]
        assert ((apart - price).abs()[edge] <= wealth).all()
        same = ~edge.any(-1)
        if config.orders.maintenance_margin > 0:
            called = theirs.outcome.margin_call.trade - mine.outcome.margin_call.trade
            same &= (called.abs() <= wealth).all(-1)
        edges += int((~same).sum())
        for name in ("wealth", "unfilled", "borrow", "interest"):
            figures = (getattr(step.outcome, name)[same] for step in (theirs, mine))
            torch.testing.assert_close(*figures, rtol=1e-5, atol=wealth)
    assert edges <= 0.1 * ENVS * len(script)


@given(tapes(torch.float64), st.lists(grid(0, 100), min_size=ENVS, max_size=ENVS))
@settings(max_examples=10)
def test_every_environment_pays_its_own_costs(tape, fees):
    friction = make_friction(CostConfig(), ENVS, dtype=tape.dtype, fee_bps=torch.tensor(fees))
    config = EnvConfig(episode=EpisodeConfig(horizon=7))
    runs = (run(tape, config, 1, backend, friction) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_ruin_ends_an_episode_in_every_backend(autoreset):
    config = EnvConfig(
        action="signed", max_gross=4.0, autoreset=autoreset, episode=EpisodeConfig(horizon=30)
    )
    runs = [run(soaring_tape(), config, 5, backend) for backend in ("torch", "numba")]
    assert any(transition.terminated.any() for _, transition, _ in runs[0][1:])
    assert_same_run(*runs, config.initial_cash, TOLERANCE[torch.float64])


def test_threads_share_the_environments_and_change_no_bit(threads):
    tape = make_tape(random_bars(120, 8, seed=3), TapeConfig(features=SHORT_FEATURES))
    config, count = EnvConfig(action="logits", episode=EpisodeConfig(horizon=9)), 4097
    ends = []
    for number in (1, 2, 3):
        threads(number)
        env = PortfolioEnv(tape, count, config, backend="numba")
        env.reset(0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            last = env.step(torch.randn(count, 9, generator=generator))
        ends.append(torch.cat([last.observation.portfolio, last.reward[:, None]], dim=1))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


def test_what_a_step_returns_is_the_callers_to_keep():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    env = PortfolioEnv(tape, 2, EnvConfig(episode=EpisodeConfig(horizon=20)), backend="numba")
    env.reset(0)
    first = env.step(torch.full((2, 3), 0.3))
    kept = first.observation.portfolio.clone(), first.reward.clone()
    env.step(torch.zeros(2, 3))
    assert torch.equal(first.observation.portfolio, kept[0]) and torch.equal(first.reward, kept[1])


def test_single_orders_are_told_where_they_are_asked_for():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    config = EnvConfig(episode=EpisodeConfig(horizon=20))
    for asked in (False, True):
        env = PortfolioEnv(tape, 2, config, backend="numba", single_orders=asked)
        env.stepper = pickle.loads(pickle.dumps(env.stepper))
        outcome = env.step(torch.full((2, 3), 0.3)).outcome
        assert (outcome.trade is not None) == (outcome.holdings is not None) == asked
    assert torch.equal(outcome.trade, outcome.holdings) and (outcome.trade > 0).all()


def test_a_loaded_state_is_gone_on_from():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(episode=EpisodeConfig(horizon=20))
    one, other = (PortfolioEnv(tape, 2, config, backend=name) for name in ("torch", "numba"))
    one.reset(7)
    one.step(torch.full((2, 3), 0.3))
    other.state = one.state
    last = [env.step(torch.full((2, 3), 0.2)) for env in (one, other)]
    torch.testing.assert_close(last[0].reward, last[1].reward, rtol=1e-10, atol=1e-13)
    assert torch.equal(last[0].observation.bar, last[1].observation.bar)


def test_auto_takes_the_fused_step_and_says_when_it_cannot(caplog):
    bars = random_bars(60, 3)
    with caplog.at_level(logging.INFO):
        for dtype, name in ((torch.float32, "numba"), (torch.float64, "torch")):
            tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)
            assert PortfolioEnv(tape, 2, WHOLE).stepper.name == name
    assert caplog.messages == [
        "environment steps run on numba",
        "environment steps run on torch: the market is torch.float64, fused steps are for float32",
    ]


def test_a_backend_that_does_not_exist_or_fit_is_refused():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    with pytest.raises(ConfigError, match=r"backend must be one of .*\"numba\".*got 'cuda'"):
        PortfolioEnv(tape, 2, WHOLE, backend="cuda")
    with pytest.raises(ConfigError, match='"numba" runs on a CPU, not on meta'):
        PortfolioEnv(tape.to("meta"), 2, WHOLE, backend="numba")
