"""Rules that are drawn for every episode: fused steps draw them as the reference does."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, assert_same_run, configs, drawn_configs, run, shared_configs, tapes
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import take
from fastsim.env.randomize import RandomizeConfig, draw
from fastsim.env.reward import RewardConfig
from fastsim.market.tape import TapeConfig, make_tape

ROWS, ASSETS = 30, 6
COSTS = {
    "fee_bps": (0.5, 20.0),
    "half_spread_bps": (1.0, 10.0),
    "impact": (0.5, 2.0),
    "participation": (0.01, 0.1),
    "borrow_bps_per_year": (10.0, 500.0),
}
EVERYTHING = RandomizeConfig(
    **COSTS, price_impact=(0.5, 2.0), volatility=(0.5, 2.0), assets=(1, ASSETS), spacing="log"
)
MOVING = ImpactConfig(transient=3.0, permanent=0.5)


def market(dtype=torch.float64, assets=ASSETS, **options):
    bars = random_bars(60, assets, seed=3, **options)
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)


def assert_steps_as_the_reference(tape, config, seed=0):
    runs = [run(tape, config, seed, backend, envs=ROWS) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])
    return runs[0]


@pytest.mark.long
@settings(max_examples=40)
@given(tapes(torch.float64), drawn_configs(configs(levels=True)), st.integers(0, 2**40))
def test_numba_draws_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=20)
@given(tapes(torch.float32), drawn_configs(configs(shares=False)), st.integers(0, 2**40))
def test_numba_draws_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=40)
@given(
    tapes(torch.float64, volume=True),
    drawn_configs(shared_configs(levels=True)),
    st.integers(0, 2**40),
)
def test_numba_draws_for_markets_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=20)
@given(
    tapes(torch.float32, volume=True),
    drawn_configs(shared_configs(shares=False)),
    st.integers(0, 2**40),
)
def test_numba_draws_for_markets_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@pytest.mark.parametrize(
    "drawn",
    [
        *({name: bounds} for name, bounds in COSTS.items()),
        {"price_impact": (0.5, 2.0)},
        {"volatility": (0.5, 2.0)},
        {"assets": (1, ASSETS)},
        {"assets": (ASSETS, ASSETS)},
    ],
)
def test_each_alone_in_many_episodes(drawn):
    config = EnvConfig(
        randomize=RandomizeConfig(**drawn),
        impact=MOVING if "price_impact" in drawn else ImpactConfig(),
        reward=RewardConfig(kind="excess_log_growth"),
        episode=EpisodeConfig(horizon=3, liquidate_at_end=True),
        initial_invested=0.6,
    )
    record = assert_steps_as_the_reference(market(holes=True), config)
    assert sum(int(transition.restarted.sum()) for _, transition, _ in record[1:]) > 5 * ROWS


@pytest.mark.long
@pytest.mark.parametrize("players", [1, 3])
def test_everything_in_every_world_at_both_ends(players):
    config = EnvConfig(
        randomize=EVERYTHING,
        players=players,
        impact=MOVING,
        initial_invested=0.8,
        autoreset="same_step",
        episode=EpisodeConfig(horizon=4, liquidate_at_end=True, at_end="terminate"),
    )
    assert_steps_as_the_reference(market(assets=2 * ASSETS, holes=True).fold(2), config)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("players", [1, 3])
def test_a_state_is_gone_on_from_with_what_its_episode_drew(backend, players):
    """From a state of its own to the bit, and from one of the reference."""
    config = EnvConfig(
        randomize=EVERYTHING,
        players=players,
        impact=MOVING,
        observation="index",
        episode=EpisodeConfig(horizon=7, staggered=True),
    )
    one, other = (PortfolioEnv(market(), ROWS, config, backend=name) for name in (backend, "numba"))
    one.reset(7)
    generator = torch.Generator().manual_seed(0)
    script = torch.rand(14, ROWS, ASSETS, generator=generator, dtype=torch.float64) / 3
    for action in script[:5]:
        one.step(action)
    other.state = one.state
    for action in script[5:]:
        mine, theirs = one.step(action), other.step(action)
        if backend == "numba":
            assert_same_bits(theirs, mine)
        else:
            torch.testing.assert_close(theirs.reward, mine.reward, rtol=1e-9, atol=1e-12)
            assert torch.equal(other.state.slots, one.state.slots)


@pytest.mark.long
def test_some_rows_begin_anew_and_the_others_keep_what_they_drew():
    config = EnvConfig(randomize=EVERYTHING, impact=MOVING, episode=EpisodeConfig(horizon=9))
    envs = [PortfolioEnv(market(), ROWS, config, backend=name) for name in ("torch", "numba")]
    action = torch.full((ROWS, ASSETS), 0.1, dtype=torch.float64)
    for env in envs:
        env.reset(3)
        env.step(action)
        env.reset(mask=torch.arange(ROWS) % 3 == 0)
    one, other = (env.step(action) for env in envs)
    torch.testing.assert_close(other.outcome.wealth, one.outcome.wealth, rtol=1e-10, atol=0)
    assert torch.equal(other.observation.view.slots, one.observation.view.slots)


@pytest.mark.long
def test_many_assets_are_in_the_order_of_the_reference():
    tape = market(torch.float32, 300)
    config = EnvConfig(
        randomize=RandomizeConfig(assets=(200, 300)),
        observation="index",
        episode=EpisodeConfig(horizon=1),
    )
    envs = [PortfolioEnv(tape, 8, config, backend=name) for name in ("torch", "numba")]
    for env in envs:
        env.reset(1)
        for _ in range(4):
            env.step(torch.zeros(8, 300))
    assert torch.equal(envs[0].state.slots, envs[1].state.slots)


@pytest.mark.long
def test_threads_share_the_rows_and_change_no_bit(threads):
    tape, count, ends = market(torch.float32), 4098, []
    config = EnvConfig(
        randomize=replace(EVERYTHING, price_impact=()), episode=EpisodeConfig(horizon=5)
    )
    for number in (1, 2):
        threads(number)
        env = PortfolioEnv(tape, count, config, backend="numba")
        env.reset(0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            last = env.step(torch.rand(count, ASSETS, generator=generator))
        ends.append((last.observation, last.reward, env.state))
    assert_same_bits(*ends)


@pytest.mark.long
def test_what_was_seen_is_the_callers_to_keep():
    config = EnvConfig(randomize=EVERYTHING, impact=MOVING, episode=EpisodeConfig(horizon=1))
    env = PortfolioEnv(market(torch.float32), 4, config)
    assert env.stepper.name == "numba"
    env.reset(0)
    action = torch.full((4, ASSETS), 0.1)
    first = env.step(action).observation
    kept = take(first.view, torch.arange(4))
    for _ in range(3):
        last = env.step(action).observation
    assert_same_bits(first.view, kept)
    factor = draw(EVERYTHING, "volatility", env.state.key, env.state.episode.number)
    assert torch.equal(last.view.volatility, factor.float())
    assert (last.view.slots != kept.slots).any()
