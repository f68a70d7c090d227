"""Windows from tables are those of the reference, whatever they show, on every front."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.adapters.gym_env import PortfolioGymEnv, PortfolioVectorEnv
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels.numba_window import NumbaWindows
from fastsim.env.observe import Observation, portfolio_width, window_observation
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.slots import View
from fastsim.env.window import BAR_COLUMNS, LOG_RETURN
from fastsim.env.window_tables import TorchWindows
from fastsim.errors import DataError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
CONFIG = TapeConfig(features=SHORT_FEATURES)
COLUMNS = ("low", LOG_RETURN, "volume", "log_volatility_4", "close", "scaled_log_return_1")


def pierced_bars(seed, length, assets, *, opens=True, volume=True):
    """Bars that are missing here and there, late or never again, and volumes of nothing."""
    bars = random_bars(length, assets, seed, opens=opens, volume=volume)
    rng = np.random.default_rng(seed)
    gone = rng.random(bars.close.shape) < 0.2
    gone[: length // 3, 0] = True
    gone[length // 2 :, assets // 2] = True
    for name in ("open", "high", "low", "close", "volume"):
        if (table := getattr(bars, name)) is not None:
            table[gone] = np.nan
    if volume:
        bars.volume[rng.random(bars.close.shape) < 0.3] = 0.0
        bars.volume[length // 2 :, -1] *= 0.0
    return bars


@st.composite
def tapes(draw, dtypes=(torch.float32, torch.float64)):
    """Markets of one world or of several."""
    assets, worlds = draw(st.integers(1, 6)), draw(st.sampled_from([1, 3]))
    bars = pierced_bars(
        draw(st.integers(0, 99)), 30, assets * worlds, opens=draw(st.booleans()),
        volume=draw(st.booleans()),
    )  # fmt: skip
    return make_tape(bars, CONFIG, dtype=draw(st.sampled_from(dtypes))).fold(worlds)


def names_on(tape):
    return st.lists(
        st.sampled_from([*BAR_COLUMNS, LOG_RETURN, *tape.feature_names]), min_size=1, unique=True
    ).map(tuple)


@st.composite
def views(draw, tape, rows):
    """None, or slots and volatilities as episodes draw them."""
    kind = draw(st.sampled_from(["none", "slots", "volatility", "both"]))
    if kind == "none":
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    slots, volatility = torch.empty(rows, 0, dtype=torch.int64), torch.ones(rows, dtype=tape.dtype)
    if kind != "volatility":
        order = torch.rand(rows, tape.num_assets, generator=generator).argsort(-1)
        kept = torch.randint(1, tape.num_assets + 1, (rows, 1), generator=generator)
        slots = torch.where(torch.arange(tape.num_assets) < kept, order, -1)
    if kind != "slots":
        volatility = 0.1 + 3 * torch.rand(rows, dtype=tape.dtype, generator=generator)
    return View(slots, volatility)


def rules(length, names, **others):
    others = {"episode": EpisodeConfig(horizon=12)} | others
    return EnvConfig(observation="window", window_length=length, window_columns=names, **others)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_windows_from_tables_are_those_of_the_law(data):
    tape = data.draw(tapes())
    config = rules(
        data.draw(st.sampled_from([1, 2, 5, 29, 30, 75, 200])), data.draw(names_on(tape))
    )
    bar = torch.arange(len(tape)).flip(0)
    own = 12 * torch.randn(len(bar), portfolio_width(tape, config), dtype=tape.dtype)
    seen = Observation(bar, own, view=data.draw(views(tape, len(bar))))
    law, close = window_observation(tape, seen, config), TOLERANCE[tape.dtype]
    assert not law.isnan().any()
    for windows in (NumbaWindows(tape, config), TorchWindows(tape, config)):
        shown = windows.show(seen)
        assert shown.dtype == tape.dtype
        torch.testing.assert_close(shown, law, rtol=1e-5, atol=close)


def test_windows_of_coarse_types_are_those_of_the_law_as_they_can_be():
    bars = pierced_bars(1, 30, 3)
    tape, exact = (make_tape(bars, CONFIG, dtype=kind) for kind in (torch.bfloat16, torch.float64))
    env = PortfolioEnv(tape, 4, rules(7, COLUMNS))
    seen = env.reset(0)
    law = window_observation(exact, seen._replace(portfolio=seen.portfolio.double()), env.config)
    shown = env.columns(seen)
    assert shown.dtype == torch.bfloat16
    torch.testing.assert_close(shown.double(), law, rtol=0.02, atol=0.02)


def both(market, num_envs=6, **arguments):
    """The same environment as it comes, and as the reference."""
    config = rules(arguments.pop("length", 9), arguments.pop("names", COLUMNS), **arguments)
    return [PortfolioEnv(market, num_envs, config, backend=name) for name in ("auto", "torch")]


def assert_alike(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize(
    "randomize",
    [RandomizeConfig(), RandomizeConfig(assets=(1, 3)), RandomizeConfig(volatility=(0.5, 2.0))],
    ids=["plain", "slots", "volatility"],
)
def test_runs_show_what_the_reference_shows_in_arrays_and_tensors(autoreset, randomize):
    tape = make_tape(random_bars(80, 4, seed=2, holes=True), CONFIG)
    rest = {"episode": EpisodeConfig(horizon=6), "autoreset": autoreset, "randomize": randomize}
    one, other = both(tape, **rest)
    arrays = both(tape, **rest)[0]
    assert_alike(one.columns(one.reset(3)), other.columns(other.reset(3)))
    arrays.reset(3)
    for step in range(20):
        action = torch.rand(6, 4, generator=torch.Generator().manual_seed(step))
        ours, law = one.step(action), other.step(action)
        stepped = arrays.step_arrays(action.numpy())
        shown = one.columns(ours.observation)
        assert_alike(shown, other.columns(law.observation))
        assert np.array_equal(stepped.seen, shown.numpy())
        if autoreset == "same_step":
            final = one.columns(ours.final_observation)
            assert_alike(final, other.columns(law.final_observation))
            assert np.array_equal(stepped.final_seen, final.numpy())


def test_fresh_worlds_are_shown_as_they_are_laid():
    market = FreshWorlds(model=Garch(assets=2), bars=40, config=CONFIG, batch=8)
    one, other = both(market, episode=EpisodeConfig(horizon=5), length=30)
    first = one.columns(one.reset(1))
    assert_alike(first, other.columns(other.reset(1)))
    for _ in range(30):
        for env in (one, other):
            env.renew()
        ours, law = (env.step(torch.full((6, 2), 0.3)) for env in (one, other))
        assert_alike(one.columns(ours.observation), other.columns(law.observation))
    assert not torch.equal(one.columns(one.reset(2)), first)
    assert torch.equal(one.columns(one.reset(1)), first)


def test_fresh_worlds_come_back_with_a_state():
    market = FreshWorlds(model=Garch(assets=2), bars=40, config=CONFIG, batch=8)
    one, other = (both(market, episode=EpisodeConfig(horizon=5))[0] for _ in range(2))
    one.reset(1), other.reset(2)
    other.load_state_dict(one.state_dict())
    ours, theirs = (env.step(torch.full((6, 2), 0.3)).observation for env in (one, other))
    assert torch.equal(one.columns(ours), other.columns(theirs))


FRONTS = {
    "make": PortfolioGymEnv,
    "make_vec": lambda **rest: PortfolioVectorEnv(3, **rest),
    "SB3VecEnv": lambda **rest: SB3VecEnv(3, **rest),
    "players": lambda **rest: SharedMarketParallelEnv(3, **rest),
}


def numbers(shown):
    """An observation as one array, whatever its front makes of it."""
    if isinstance(shown, dict):
        return np.stack([np.asarray(each) for each in shown.values()])
    return np.asarray(shown)


def run(front, backend):
    """Observations of a few steps."""
    env = FRONTS[front](
        market="tech4", backend=backend, observation="window", window_length=12,
        window_columns=("log_return", "volume", "high"), episode={"horizon": 4},
    )  # fmt: skip
    if front == "SB3VecEnv":
        env.seed(5)
        seen = [env.reset()]
        seen += [env.step(np.full((3, 4), 0.2, np.float32))[0] for _ in range(3)]
        *_, infos = env.step(np.full((3, 4), 0.2, np.float32))
        return np.stack([*seen, np.stack([info["terminal_observation"] for info in infos])])
    seen = [env.reset(seed=5)[0]]
    for _ in range(3):
        action = np.full((4,), 0.2, np.float32)
        if front == "make_vec":
            action = torch.full((3, 4), 0.2)
        if front == "players":
            action = dict.fromkeys(env.agents, action)
        seen.append(env.step(action)[0])
    return np.stack([numbers(each) for each in seen])


@pytest.mark.parametrize("front", list(FRONTS))
def test_every_front_shows_the_windows_of_the_law(front):
    shown, law = run(front, "auto"), run(front, "torch")
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, law, rtol=1e-4, atol=1e-5)
    assert np.unique(shown).size > shown.size / 4


def test_fused_steps_and_those_of_a_users_own_rules_copy_windows_from_tables(monkeypatch):
    def never(*_):
        raise AssertionError("the reference was asked")

    monkeypatch.setattr("fastsim.env.environment.window_observation", never)
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG, dtype=torch.float64)
    env = PortfolioEnv(tape, 2, rules(9, COLUMNS))
    assert env.stepper.name == "torch"
    assert env.columns(env.reset(0)).shape == (2, 9 * 3 * 6 + 3 + 3)
    env = gymnasium.make(fastsim.ENV_ID, market="tech4", observation="window")
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_shows_the_same_windows(duplicate):
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG)
    env = PortfolioEnv(tape, 5, rules(9, COLUMNS))
    env.reset(1)
    other = duplicate(env)
    ours, theirs = (each.step(torch.full((5, 3), 0.2)).observation for each in (env, other))
    assert torch.equal(env.columns(ours), other.columns(theirs))


def test_rows_do_not_depend_on_their_batch_or_its_threads():
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG)
    env = PortfolioEnv(tape, 1, rules(30, COLUMNS))
    bar = torch.randint(len(tape), (500,), generator=torch.Generator().manual_seed(0))
    own = torch.rand(500, portfolio_width(tape, env.config))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        many = env.columns(Observation(bar, own))
    finally:
        torch.set_num_threads(threads)
    for row in (0, 165, 166, 167, 499):
        alone = env.columns(Observation(bar[row : row + 1], own[row : row + 1]))
        assert torch.equal(alone[0], many[row])
    assert env.columns(Observation(bar[:0], own[:0])).shape == (0, many.shape[1])


def test_what_was_shown_stays_as_it_was():
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG)
    env = PortfolioEnv(tape, 4, rules(9, COLUMNS))
    shown = [env.columns(env.reset(0))]
    kept = [shown[0].clone()]
    for _ in range(5):
        shown.append(env.columns(env.step(torch.full((4, 3), 0.2)).observation))
        kept.append(shown[-1].clone())
    assert all(map(torch.equal, shown, kept))


def test_windows_pass_gradients_on_to_the_portfolio():
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG)
    env = PortfolioEnv(tape, 4, rules(9, COLUMNS))
    seen = env.reset(0)
    own = seen.portfolio.clone().requires_grad_()
    env.columns(seen._replace(portfolio=own)).sum().backward()
    assert torch.equal(own.grad, torch.ones_like(own))


def test_a_bar_of_another_market_is_refused():
    tape = make_tape(random_bars(60, 3, seed=2), CONFIG)
    env = PortfolioEnv(tape, 2, rules(9, COLUMNS))
    seen = env.reset(0)
    for bar in (-1, 60):
        with pytest.raises(DataError, match="of bars 0 to 59 of this market") as caught:
            env.columns(seen._replace(bar=torch.tensor([5, bar])))
        assert "\n" not in str(caught.value)
