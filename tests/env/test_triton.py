"""The kernel for GPUs makes the steps of the reference, too; without a GPU it is interpreted."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    ENVS,
    TOLERANCE,
    assert_ruined_alone_and_together,
    assert_same_run,
    configs,
    drawn_configs,
    ruinous,
    run,
    shared_configs,
    soaring_tape,
    tapes,
)
from waiting import without_waiting
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.actions import ACTIONS
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels.choose import _fastest
from fastsim.env.kernels.columns import FIGURE
from fastsim.env.kernels.coverage import COVERAGE
from fastsim.env.nested import take
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import REWARDS, RewardConfig
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig, make_friction
from fastsim.market.tape import TapeConfig, make_tape

pytest.importorskip("triton", reason="triton is for Linux")
from interpreted import quick_interpreter

from fastsim.env.kernels import triton_step

DRAWN = RandomizeConfig(volatility=(0.5, 2.0), assets=(1, 3))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTH, STEPS = 18, 10  # horizons of 7 bars or fewer end, and begin anew, within the steps
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
# The interpreter does what a GPU does with infinities and empty lanes; NumPy remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


@pytest.fixture(scope="module", autouse=True)
def quickly():
    with quick_interpreter():
        yield


def small_tape(assets=3, dtype=torch.float64, length=LENGTH, holes=False):
    config = TapeConfig(features=SHORT_FEATURES, risk_free_rate=0.05)
    return make_tape(random_bars(length, assets, seed=2, holes=holes), config, dtype=dtype)


def assert_same_step(in_room, alone):
    """Bit for bit, but for features of the market, which a room leaves out."""
    observation, final = alone.observation._replace(flat=None), alone.final_observation
    if final is not None:
        final = final._replace(flat=None)
    assert_same_bits(in_room, alone._replace(observation=observation, final_observation=final))


def assert_steps_as_the_reference(tape, config, seed=3, friction=None, steps=STEPS, envs=ENVS):
    size = {"envs": envs, "steps": steps}
    reference = run(tape, config, seed, "torch", friction, **size)
    fused = run(tape, config, seed, "triton", friction, **size, device=DEVICE)
    assert_same_run(reference, fused, config.initial_cash, TOLERANCE[tape.dtype])
    return reference


@pytest.mark.long
@settings(max_examples=8)
@given(tapes(torch.float32, LENGTH), configs(shares=False), st.integers(0, 2**40))
def test_triton_steps_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=8)
@given(tapes(torch.float64, LENGTH), configs(), st.integers(0, 2**40))
def test_triton_steps_as_the_reference_in_float64(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=8)
@given(
    tapes(torch.float32, LENGTH, volume=True),
    shared_configs(shares=False),
    st.integers(0, 2**40),
)
def test_triton_steps_markets_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed, envs=30)


@pytest.mark.long
@settings(max_examples=8)
@given(
    tapes(torch.float64, LENGTH, volume=True),
    shared_configs(),
    st.integers(0, 2**40),
)
def test_triton_steps_markets_as_the_reference_in_float64(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed, envs=30)


@pytest.mark.long
@settings(max_examples=5)
@given(tapes(torch.float32, LENGTH), drawn_configs(configs()), st.integers(0, 2**40))
def test_triton_draws_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=5)
@given(
    tapes(torch.float64, LENGTH, volume=True),
    drawn_configs(shared_configs()),
    st.integers(0, 2**40),
)
def test_triton_draws_for_markets_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed, envs=30)


@pytest.mark.long
@settings(max_examples=8)
@given(tapes(torch.float64, LENGTH), configs(levels=True), st.integers(0, 2**40))
def test_triton_closes_positions_as_the_reference(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=8)
@given(tapes(torch.float32, LENGTH), configs(levels=True, shares=False), st.integers(0, 2**40))
def test_triton_closes_positions_as_the_reference_in_float32(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


@pytest.mark.long
@settings(max_examples=5)
@given(tapes(torch.float64, LENGTH), drawn_configs(configs(levels=True)), st.integers(0, 2**40))
def test_triton_closes_positions_at_volatilities_that_are_drawn(tape, config, seed):
    assert_steps_as_the_reference(tape, config, seed)


NEAR = OrderConfig(stop=0.008, target=0.012, trailing=0.01)
"""Levels that bars of a hundredth reach now and then."""
THIN = PerpetualConfig(leverage=25, maintenance_rate=0.03, liquidation_fee_bps=30.0)
"""A margin of a hundredth, which they use up likewise."""
ORDERS = {
    "signed": {"orders": replace(NEAR, unfilled="carry", maintenance_margin=0.3)},
    "bracketed": {"orders": NEAR, "autoreset": "same_step"},
    "leveraged": {"orders": replace(NEAR, trailing=0.0)},
}


@pytest.mark.parametrize(
    ("action", "rules"),
    [
        ("bracketed", {}),
        pytest.param("signed", {}, marks=pytest.mark.long),
        pytest.param("signed", {"players": 3}, marks=pytest.mark.long),
        pytest.param("bracketed", {"players": 2}, marks=pytest.mark.long),
        pytest.param("signed", {"randomize": DRAWN}, marks=pytest.mark.long),
        pytest.param("bracketed", {"randomize": DRAWN, "players": 2}, marks=pytest.mark.long),
        ("leveraged", {"perpetual": THIN}),
        pytest.param(
            "signed",
            {"perpetual": THIN, "players": 3, "orders": replace(NEAR, unfilled="carry")},
            marks=pytest.mark.long,
        ),
        pytest.param(
            "bracketed",
            {"perpetual": THIN, "randomize": DRAWN, "players": 2},
            marks=pytest.mark.long,
        ),
    ],
)
def test_positions_are_closed_within_bars(action, rules):
    config = EnvConfig(
        action=action,
        max_gross=2.0,
        episode=EpisodeConfig(horizon=9, staggered=False),
        costs=CostConfig(minimum_fee=2.0),
        initial_invested=0.5,
        **ORDERS[action] | rules,
    )
    record = assert_steps_as_the_reference(small_tape(), config, envs=6)
    told = ("stopped", "taken") + ("liquidated",) * config.perpetual.trades
    for name in told:
        assert any((state[f"info.{name}"] > 0).any() for _, _, state in record[1:]), name


@pytest.mark.parametrize("kind", REWARDS)
def test_every_reward_is_paid(kind):
    reward = RewardConfig(kind=kind, adaptation=0.05, drawdown_penalty=2.0)
    config = EnvConfig(reward=reward, episode=EpisodeConfig(horizon=4))
    assert_steps_as_the_reference(small_tape(), config)


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("action", COVERAGE["triton"].settings["action"].known)
def test_every_action_is_understood_and_every_episode_ends(action, autoreset):
    mode = ACTIONS[action]
    config = EnvConfig(
        action=action,
        max_gross=2.0 if mode.levered else 1.0,
        autoreset=autoreset,
        episode=EpisodeConfig(horizon=3),
        orders=NEAR if mode.brackets else OrderConfig(),
        perpetual=THIN if mode.owes else PerpetualConfig(),
    )
    record = assert_steps_as_the_reference(small_tape(), config)
    assert sum(int(transition.truncated.sum()) for _, transition, _ in record[1:]) > 5


@pytest.mark.parametrize("action", ["weights", "logits"])
def test_an_action_that_is_not_finite_holds_and_is_counted(action):
    tape = small_tape().to(DEVICE)
    config = EnvConfig(action=action, episode=EpisodeConfig(horizon=9, random_start=False))
    env = PortfolioEnv(tape, 4, config, backend="triton")
    env.reset(0)
    rows = torch.full((4, env.action_width), 0.2, dtype=tape.dtype, device=DEVICE)
    env.step(rows)
    rows[0, 0], rows[1, -1], rows[2, 1] = torch.nan, torch.inf, -torch.inf
    outcome = env.step(rows).outcome
    assert (outcome.turnover[:3] == 0).all() and outcome.turnover[3] > 0
    assert env.state.invalid_actions.tolist() == [1, 1, 1, 0]


def test_a_huge_logit_of_cash_buys_nothing():
    tape = small_tape(32).to(DEVICE)  # a power of two: cash has no empty lane to hide in
    config = EnvConfig(action="logits", episode=EpisodeConfig(horizon=4))
    env = PortfolioEnv(tape, 1, config, backend="triton")
    env.reset(0)
    action = torch.zeros(1, 33, dtype=tape.dtype, device=DEVICE)
    action[0, -1] = 1e4
    assert env.step(action).observation.portfolio[0, :33].tolist() == [0.0] * 32 + [1.0]


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_ruin_is_final(autoreset):
    config = EnvConfig(
        action="signed",
        max_gross=4.0,
        reward=RewardConfig(kind="simple_return"),
        autoreset=autoreset,
        episode=EpisodeConfig(horizon=10),
    )
    record = assert_steps_as_the_reference(soaring_tape(LENGTH, 10), config, 5)
    assert any(transition.terminated.any() for _, transition, _ in record[1:])


@pytest.mark.long
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("transient", [0.0, 0.5])
def test_players_are_ruined_amid_others_and_together(autoreset, transient):
    config, tape = ruinous(autoreset, transient, horizon=10), soaring_tape(LENGTH, 10, volume=True)
    assert_ruined_alone_and_together(assert_steps_as_the_reference(tape, config, 5, envs=40))


@pytest.mark.parametrize("players", [1, 3])
def test_episodes_begin_invested_and_end_sold_and_for_good(players):
    episode = EpisodeConfig(horizon=3, liquidate_at_end=True, at_end="terminate")
    config = EnvConfig(
        players=players,
        impact=ImpactConfig(transient=3.0 if players > 1 else 0.0),
        initial_invested=0.8,
        episode=episode,
    )
    record = assert_steps_as_the_reference(small_tape(6, holes=True).fold(2), config, envs=6)
    assert any(transition.terminated.all() for _, transition, _ in record[1:])


def test_every_environment_pays_its_own_costs():
    fees, limits = torch.tensor([0.0, 1.0, 10.0, 50.0, 100.0]), torch.full((5,), 0.01)
    friction = make_friction(
        CostConfig(), 5, dtype=torch.float64, fee_bps=fees, participation=limits
    )
    config = EnvConfig(episode=EpisodeConfig(horizon=7))
    assert_steps_as_the_reference(small_tape(), config, friction=friction)


@pytest.mark.parametrize("assets", [1, 17, 33])
def test_any_number_of_assets_fits(assets):
    config = EnvConfig(action="logits", episode=EpisodeConfig(horizon=4))
    assert_steps_as_the_reference(small_tape(assets), config, steps=8)


def test_thousands_of_assets_fit():
    config = EnvConfig(episode=EpisodeConfig(horizon=4))
    assert_steps_as_the_reference(small_tape(1030, torch.float64), config, steps=7)


def test_assets_that_are_unlisted_or_halted_do_not_trade():
    config = EnvConfig(action="signed", episode=EpisodeConfig(horizon=None, random_start=False))
    assert_steps_as_the_reference(small_tape(holes=True), config)


@pytest.mark.parametrize("horizon", [3, None])
def test_episodes_begin_in_every_world_and_stay_in_it(horizon):
    config = EnvConfig(action="logits", episode=EpisodeConfig(horizon=horizon))
    record = assert_steps_as_the_reference(small_tape(6).fold(2), config)
    bars = torch.cat([transition.observation.bar for _, transition, _ in record[1:]])
    assert set((bars // LENGTH).tolist()) == {0, 1}


def test_restarts_draw_the_bits_of_the_reference():
    config = EnvConfig(autoreset="same_step", episode=EpisodeConfig(horizon=1))
    tape, count = small_tape(length=500), 32
    envs = [
        PortfolioEnv(tape.to(device), count, config, seed=2**63 - 1, backend=backend)
        for backend, device in (("torch", "cpu"), ("triton", DEVICE))
    ]
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 2**40, (count,), generator=generator)
    ends = []
    for env in envs:
        state = env.state
        env.state = state._replace(
            episode=state.episode._replace(number=numbers.to(state.key.device))
        )
        env.step(torch.zeros(count, 3, device=state.key.device))
        ends.append(tuple(leaf.cpu() for leaf in env.state.episode))
    assert_same_bits(*ends)
    assert len(ends[1][0].unique()) > 16


def test_what_a_step_returns_is_the_callers_to_keep():
    env = PortfolioEnv(small_tape().to(DEVICE), 2, backend="triton", config=EnvConfig(
        episode=EpisodeConfig(horizon=9)
    ))  # fmt: skip
    env.reset(0)
    first = env.step(torch.full((2, 3), 0.3, device=DEVICE))
    kept = first.observation.portfolio.clone(), first.reward.clone()
    env.step(torch.zeros(2, 3, device=DEVICE))
    assert torch.equal(first.observation.portfolio, kept[0]) and torch.equal(first.reward, kept[1])


@pytest.mark.parametrize("observation", ["index", "flat"])
@pytest.mark.parametrize("action", ["weights", "logits"])
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_steps_write_what_they_return_into_a_room_that_they_are_given(backend, action, observation):
    rules = EnvConfig(
        action=action, observation=observation, episode=EpisodeConfig(horizon=4, staggered=True)
    )
    backends = {"numba": "cpu", "triton": DEVICE}
    tape = small_tape(3, torch.float32).to(backends[backend])
    alone, given = (PortfolioEnv(tape, 2, rules, backend=backend, seed=4) for _ in range(2))
    room = given.room(6)
    actions = torch.rand(6, 2, alone.action_width, device=tape.device)
    stepped = [alone.step(action) for action in actions]
    for number, asked in enumerate(actions):
        assert_same_step(given.step(asked, take(room, number)), stepped[number])
    assert any(transition.restarted.any() for transition in stepped)
    for number, transition in enumerate(stepped):
        assert torch.equal(room.seen[number], transition.observation.portfolio)
        assert torch.equal(room.figures[number, :, FIGURE.wealth], transition.outcome.wealth)
    assert given.room(6).seen.shape == (6, 2, alone.portfolio_width)


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_room_keeps_what_was_seen_before_a_restart(autoreset):
    rules = EnvConfig(autoreset=autoreset, episode=EpisodeConfig(horizon=3))
    alone, given = (PortfolioEnv(small_tape(), 2, rules, backend="numba") for _ in range(2))
    room = given.room(5)
    for number in range(5):
        action = torch.full((2, 3), 0.1 * number)
        assert_same_step(given.step(action, take(room, number)), alone.step(action))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the compiler is for Linux")
def test_the_kernel_compiles_for_a_gpu(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    # Another fastsim may be installed, or come first otherwise.
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (root, root / "tests")))
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("triton_compile.py")
    result = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == f"{root}\n18 kernels\n", result.stderr


def test_auto_takes_triton_on_cuda_and_says_when_it_cannot(monkeypatch):
    def choice(device, dtype=torch.float32):
        env = PortfolioEnv(small_tape(), 1, EnvConfig(episode=EpisodeConfig(horizon=4)))
        tape = SimpleNamespace(device=device, dtype=dtype, next=env.tape.next)
        return _fastest(env.params._replace(tape=tape), env.state)

    cuda = torch.device("cuda")
    assert choice(cuda) == ("triton", "")
    assert choice(cuda, torch.float64)[0] == "torch"
    assert choice(torch.device("meta")) == ("torch", ": the market lies on meta")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert choice(cuda) == (
        "torch", ": the package triton, which comes with CUDA builds of torch, is missing",
    )  # fmt: skip


def test_a_market_or_machine_without_cuda_is_told_what_would_help(monkeypatch):
    tape, config = small_tape(), EnvConfig(episode=EpisodeConfig(horizon=4))
    with monkeypatch.context() as patch:
        patch.setattr(triton_step, "INTERPRETED", False)
        with pytest.raises(ConfigError, match=r'on CUDA, not on cpu: .*tape\.to\("cuda"\)'):
            PortfolioEnv(tape, 2, config, backend="triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match=r'needs the package triton, .*backend="auto"'):
        PortfolioEnv(tape, 2, config, backend="triton")


@gpu
@needs_gpu
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thousands_of_environments_step_as_the_reference_on_cuda(autoreset, dtype):
    tape = small_tape(100, dtype, length=60)
    config = EnvConfig(action="logits", autoreset=autoreset, episode=EpisodeConfig(horizon=7))
    runs = [
        run(tape, config, 1, backend, envs=4096, steps=20, device="cuda")
        for backend in ("torch", "triton")
    ]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[dtype])


@gpu
@needs_gpu
def test_steps_on_cuda_neither_wait_nor_grow():
    tape = small_tape(30, torch.float32, length=60).to("cuda")
    env = PortfolioEnv(tape, 1024, EnvConfig(episode=EpisodeConfig(horizon=7)), backend="auto")
    assert env.stepper.name == "triton"
    env.reset(0)
    action = torch.full((1024, 30), 0.02, device="cuda")
    transition = env.step(action)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with without_waiting():
        for _ in range(100):
            transition = env.step(action)
    assert torch.cuda.memory_allocated() == before
    assert transition.reward.isfinite().all()


@gpu
@needs_gpu
@pytest.mark.parametrize("steps", [1, 16])
def test_captured_steps_are_the_eager_ones(steps):
    tape = small_tape(30, torch.float32, length=60).to("cuda")
    config = EnvConfig(action="logits", episode=EpisodeConfig(horizon=7))
    eager, other = (PortfolioEnv(tape, 64, config, backend="triton") for _ in range(2))
    eager.reset(0), other.reset(0)
    captured = triton_step.CapturedSteps(other.stepper, steps)
    generator = torch.Generator("cuda").manual_seed(0)
    for _ in range(20 // steps + 1):
        actions = torch.randn(steps, 64, 31, device="cuda", generator=generator)
        for number, transition in enumerate(captured(actions)):
            assert_same_step(transition, eager.step(actions[number]))
        assert_same_bits(other.state, eager.state)
