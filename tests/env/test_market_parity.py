"""Fused steps of markets where players meet and move prices are the steps of the reference."""

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    TOLERANCE,
    assert_ruined_alone_and_together,
    assert_same_run,
    ruinous,
    run,
    shared_configs,
    soaring_tape,
    tapes,
)
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.numba_math import exp, mean_price
from fastsim.market.tape import TapeConfig, make_tape

ROWS, PLAYERS, ASSETS = 30, 3, 5
RULES = EnvConfig(
    players=PLAYERS,
    impact=ImpactConfig(transient=3.0, permanent=0.5),
    episode=EpisodeConfig(horizon=7),
)


def market(dtype=torch.float32, **options):
    bars = random_bars(60, ASSETS, seed=3, **options)
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)


def assert_steps_as_the_reference(tape, config, seed=0):
    runs = [run(tape, config, seed, backend, envs=ROWS) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])
    return runs[0]


def random_actions(steps, rows=ROWS, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.rand(steps, rows, ASSETS, generator=generator, dtype=dtype)


@pytest.mark.long
@settings(max_examples=40)
@given(tapes(torch.float64, volume=True), shared_configs(levels=True), st.integers(0, 2**40))
def test_numba_steps_markets_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=30)
@given(tapes(torch.float32, volume=True), shared_configs(shares=False), st.integers(0, 2**40))
def test_numba_steps_markets_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("transient", [0.0, 0.5])
def test_players_are_ruined_amid_others_and_together(autoreset, transient):
    config = ruinous(autoreset, transient, horizon=30)
    record = assert_steps_as_the_reference(soaring_tape(volume=True), config, 5)
    assert_ruined_alone_and_together(record)
    waiting = [step.ignored & ~step.restarted for _, step, _ in record[1:]]
    assert torch.stack(waiting).any()


@pytest.mark.long
@pytest.mark.parametrize("players", [1, PLAYERS])
@pytest.mark.parametrize("moved", [True, False])
def test_every_start_and_end_in_every_world(players, moved):
    episode = EpisodeConfig(horizon=4, liquidate_at_end=True, at_end="terminate")
    config = EnvConfig(
        players=players,
        impact=RULES.impact if moved else ImpactConfig(),
        initial_invested=0.8,
        episode=episode,
    )
    bars = random_bars(60, 2 * ASSETS, seed=3, holes=True)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64).fold(2)
    record = assert_steps_as_the_reference(tape, config)
    ended = sum(int(transition.terminated.sum()) for _, transition, _ in record[1:])
    assert ended > 5 * ROWS
    assert not any(transition.truncated.any() for _, transition, _ in record[1:])


def test_permuting_the_players_permutes_what_happens_to_them():
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(PLAYERS, generator=generator) for _ in range(10)])
    rows = (order + PLAYERS * torch.arange(10)[:, None]).flatten()
    one, other = (PortfolioEnv(market(torch.float64), ROWS, RULES, backend="numba") for _ in "ab")
    one.reset(0)
    other.reset(0)
    for action in random_actions(20, dtype=torch.float64):
        mine, theirs = one.step(action), other.step(action[rows])
        torch.testing.assert_close(theirs.reward, mine.reward[rows], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            theirs.observation.portfolio, mine.observation.portfolio[rows], rtol=1e-9, atol=1e-9
        )


def test_threads_share_the_markets_and_change_no_bit(threads):
    tape, count, ends = market(), 1367 * PLAYERS, []
    for number in (1, 2, 3):
        threads(number)
        env = PortfolioEnv(tape, count, RULES, backend="numba")
        env.reset(0)
        for action in random_actions(12, count):
            last = env.step(action)
        ends.append((last.observation, last.reward, env.state))
    assert_same_bits(ends[0], ends[1])
    assert_same_bits(ends[0], ends[2])


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_state_saved_midway_is_gone_on_from(backend):
    """From a state of its own to the bit, and from one of the reference."""
    tape = market(torch.float64)
    one, other = (PortfolioEnv(tape, ROWS, RULES, backend=name) for name in (backend, "numba"))
    one.reset(7)
    script = random_actions(12, dtype=torch.float64)
    for action in script[:5]:
        one.step(action)
    saved = one.state
    assert (saved.displacement.transient != 0).any()
    other.state = saved
    for action in script[5:]:
        mine, theirs = one.step(action), other.step(action)
        if backend == "numba":
            assert_same_bits(theirs, mine)
        else:
            torch.testing.assert_close(theirs.reward, mine.reward, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(
                other.state.displacement, one.state.displacement, rtol=1e-9, atol=1e-15
            )


@pytest.mark.parametrize("observation", ["flat", "index"])
def test_arrays_hold_what_tensors_do(observation):
    config = replace(RULES, observation=observation, autoreset="same_step")
    one, other = (PortfolioEnv(market(), ROWS, config, backend="numba") for _ in "ab")
    one.reset(0)
    other.reset(0)
    for action in random_actions(10):
        transition, arrays = one.step(action), other.step_arrays(action.numpy())
        assert np.array_equal(arrays.seen, one.columns(transition.observation).numpy())
        assert np.array_equal(arrays.final_seen, one.columns(transition.final_observation).numpy())
        assert np.array_equal(arrays.figures[:, c.FIGURE.wealth], transition.outcome.wealth.numpy())
    assert (arrays.final_seen[:, -ASSETS:] != 0).any()


def test_auto_takes_the_fused_step_of_a_market():
    assert PortfolioEnv(market(), ROWS, RULES).stepper.name == "numba"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponentials_are_exact_to_a_few_roundings(dtype):
    @numba.njit
    def both(x, real, grown, mean):
        for j in range(len(x)):
            grown[j], mean[j] = exp(x[j], real), mean_price(x[j], real)

    sizes = np.geomspace(1e-30, 86.0, 2000)
    x = np.concatenate([-sizes, [0.0], sizes]).astype(dtype)
    grown, mean = np.empty_like(x), np.empty_like(x)
    both(x, dtype, grown, mean)
    near = 16 * np.finfo(dtype).eps
    wide = x.astype(np.float64)
    safe = np.where(wide == 0, 1.0, wide)
    np.testing.assert_allclose(grown, np.exp(wide), rtol=near)
    np.testing.assert_allclose(mean, np.where(wide == 0, 1.0, np.expm1(safe) / safe), rtol=near)
