"""A window shows the columns that it is asked for, by name, on every backend."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.adapters.build import build_env
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.backtest.replay import replay
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.window import BAR_COLUMNS
from fastsim.errors import ConfigError
from fastsim.learn.config import LearningConfig
from fastsim.learn.rollout import CollectConfig, begin_policy
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

LENGTH = 7
BARS = random_bars(80, 4, seed=3, holes=True)
TAPE = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
NAMED = ("log_volatility_4", "log_return", "close", "scaled_log_return_1", "high")
FROM_THE_START = EpisodeConfig(random_start=False, horizon=None)


def rules(columns=NAMED, length=LENGTH, **others):
    return EnvConfig(
        observation="window",
        window_length=length,
        window_columns=columns,
        **{"episode": FROM_THE_START} | others,
    )


def by_name(env, observation, row=0):
    columns = env.columns(observation)[row].tolist()
    return dict(zip(env.observation_names, columns, strict=True))


def slow_column(tape, name, bar, asset, age, begun=0):
    """One number of a window, by hand."""
    row = bar - age
    if row < begun:
        return 0.0
    if name in tape.feature_names:
        return float(tape.known.features[row, asset, tape.feature_names.index(name)])
    bars = tape.known.bars[:, asset].double().numpy()
    if name == "log_return":
        earlier = [bars[k, 3] for k in range(max(begun, bar - LENGTH), row) if bars[k, 3] > 0]
        known = earlier and bars[row, 3] > 0
        return float(np.log(bars[row, 3] / earlier[-1])) if known else 0.0
    value = np.log(bars[row, BAR_COLUMNS.index(name)] / bars[bar, 3])
    return 0.0 if np.isnan(value) else float(value)


def slow_window(tape, names, bar, begun=0):
    return {
        f"{symbol}.{name}.{-age}": slow_column(tape, name, bar, asset, age, begun)
        for age in range(LENGTH)
        for asset, symbol in enumerate(tape.symbols)
        for name in names
    }


@pytest.mark.parametrize("steps", [0, 1, 30, 45])
def test_a_window_is_what_a_slow_construction_makes(steps):
    env = PortfolioEnv(TAPE, 2, rules())
    seen = env.reset(0)
    for _ in range(steps):
        seen = env.step(torch.full((2, 4), 0.2)).observation
    slow = slow_window(TAPE, NAMED, TAPE.first + steps)
    shown = by_name(env, seen, 1)
    assert {name: shown[name] for name in slow} == pytest.approx(slow, rel=1e-10, abs=1e-12)
    assert len(shown) == len(slow) + 4 + 1 + 2


def test_returns_over_a_halt_stand_where_the_price_is_known_again():
    close = TAPE.known.bars[:, 2, 3]
    halted = int(close[45:].isnan().nonzero()[0]) + 45
    env = PortfolioEnv(TAPE, 1, rules(("log_return",)))
    seen = env.reset(0)
    for _ in range(halted + 1 - TAPE.first):
        seen = env.step(torch.zeros(1, 4)).observation
    shown = by_name(env, seen)
    assert shown["S2.log_return.-1"] == 0.0
    assert shown["S2.log_return.0"] == pytest.approx(
        float((close[halted + 1] / close[halted - 1]).log()), rel=1e-12
    )
    total = sum(shown[f"S2.log_return.{-age}"] for age in range(LENGTH))
    first = close[halted + 1 - LENGTH]
    assert total == pytest.approx(float((close[halted + 1] / first).log()), rel=1e-9)


@pytest.mark.parametrize("names", [("close",), ("volume", "open"), ("low", "close", "high")])
def test_some_columns_are_those_among_all(names):
    some, every = (PortfolioEnv(TAPE, 5, rules(columns)) for columns in (names, BAR_COLUMNS))
    one, other = some.reset(1), every.reset(1)
    place = {name: number for number, name in enumerate(every.observation_names)}
    chosen = [place[name] for name in some.observation_names]
    assert torch.equal(some.columns(one), every.columns(other)[:, chosen])


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_fused_backend_shows_the_same(autoreset):
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES))
    config = rules(episode=EpisodeConfig(horizon=9), autoreset=autoreset)
    one, other = (PortfolioEnv(tape, 6, config, backend=name) for name in ("torch", "numba"))
    torch.testing.assert_close(one.columns(one.reset(2)), other.columns(other.reset(2)))
    for _ in range(25):
        ours, theirs = (env.step(torch.full((6, 4), 0.1)) for env in (one, other))
        torch.testing.assert_close(one.columns(ours.observation), other.columns(theirs.observation))
        if autoreset == "same_step":
            torch.testing.assert_close(
                one.columns(ours.final_observation), other.columns(theirs.final_observation)
            )


def test_a_window_ends_where_its_world_begins():
    tape = make_worlds(Garch(assets=2), worlds=3, bars=200, seed=1)
    env = PortfolioEnv(tape, 40, rules(("close", "log_return", tape.feature_names[0]), 190))
    seen = env.reset(0)
    begun = seen.bar // 200 * 200
    assert len(begun.unique()) == 3
    for row in range(0, 40, 7):
        shown, bar = by_name(env, seen, row), int(seen.bar[row])
        for age in range(190):
            inside = bar - age >= int(begun[row])
            first = bar - age == int(begun[row])
            assert (shown[f"{tape.symbols[0]}.close.{-age}"] != 0) == (inside and age > 0)
            assert (shown[f"{tape.symbols[0]}.log_return.{-age}"] != 0) == (inside and not first)
            known = shown[f"{tape.symbols[0]}.{tape.feature_names[0]}.{-age}"]
            past = float(tape.known.features[max(bar - age, 0), 0, 0])
            assert known == (past if inside else 0.0)


def test_a_window_sees_no_bar_after_its_last():
    later = random_bars(80, 4, seed=3, holes=True)
    for name in ("open", "high", "low", "close", "volume"):
        getattr(later, name)[50:] *= 1.7
    other = make_tape(later, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = rules((*NAMED, "volume"))
    envs = [PortfolioEnv(tape, 1, config) for tape in (TAPE, other)]
    seen = [env.reset(0) for env in envs]
    for bar in range(TAPE.first, 52):
        windows = [env.columns(each) for env, each in zip(envs, seen, strict=True)]
        width = LENGTH * 4 * 6
        assert torch.equal(*(window[:, :width] for window in windows)) == (bar < 50)
        seen = [env.step(torch.zeros(1, 4)).observation for env in envs]


def test_a_louder_episode_shows_the_window_of_louder_bars():
    quiet = random_bars(80, 3, seed=5)
    louder = random_bars(80, 3, seed=5)
    for name in ("open", "high", "low", "close"):
        prices, first = getattr(louder, name), quiet.close[0]
        prices[:] = first * (getattr(quiet, name) / first) ** 2.0
    config = TapeConfig(features=SHORT_FEATURES)
    one = PortfolioEnv(
        make_tape(quiet, config, dtype=torch.float64),
        3,
        rules(randomize=RandomizeConfig(volatility=(2.0, 2.0))),
    )
    other = PortfolioEnv(make_tape(louder, config, dtype=torch.float64), 3, rules())
    torch.testing.assert_close(
        one.columns(one.reset(0)), other.columns(other.reset(0)), rtol=1e-6, atol=1e-7
    )


def test_slots_show_the_windows_of_their_assets_and_masked_ones_nothing():
    drawn = PortfolioEnv(TAPE, 12, rules(randomize=RandomizeConfig(assets=(1, 3))))
    whole = PortfolioEnv(TAPE, 12, rules())
    seen, plain = drawn.reset(4), whole.reset(4)
    masked = 0
    for row, slots in enumerate(seen.view.slots.tolist()):
        shown, wanted = by_name(drawn, seen, row), by_name(whole, plain, row)
        for place, asset in enumerate(slots):
            for name in NAMED:
                for age in range(LENGTH):
                    value = shown[f"slot{place}.{name}.{-age}"]
                    masked += asset < 0
                    assert value == (wanted[f"S{asset}.{name}.{-age}"] if asset >= 0 else 0.0)
    assert masked > 0


def test_forecasts_of_every_bar_can_be_shown(tmp_path):
    names = ("forecast_rise_5", "scaled_forecast_dispersion_5", "log_return")
    env = build_env(
        3,
        BARS,
        tape={"features": SHORT_FEATURES},
        forecaster="random-walk-60",
        forecast={"horizons": (5,), "context_length": 20},
        forecasts_dir=tmp_path,
        observation="window",
        window_length=LENGTH,
        window_columns=names,
        episode={"horizon": 20},
    )
    seen = env.reset(0)
    for row in range(3):
        slow, shown = slow_window(env.tape, names, int(seen.bar[row])), by_name(env, seen, row)
        assert {name: shown[name] for name in slow} == pytest.approx(slow, rel=1e-5, abs=1e-6)
    assert shown["S0.scaled_forecast_dispersion_5.-3"] != 0


def test_policies_trained_here_look_at_the_bar_and_say_so():
    env = PortfolioEnv(TAPE, 4, rules(action="logits"))
    with pytest.raises(ConfigError, match='"window" is for policies of your own') as caught:
        begin_policy(env, PolicyConfig(hidden=8), 0)
    assert "\n" not in str(caught.value)
    for algorithm in ("ppo", "sac", "apg"):
        settings = LearningConfig(algorithm=algorithm)
        with pytest.raises(ConfigError, match='use "flat"'):
            Trainer(
                TAPE, rules(action="logits"), getattr(settings, algorithm), PolicyConfig(hidden=8),
                CollectConfig(num_envs=4), iterations=1, algorithm=algorithm,
            )  # fmt: skip


@pytest.mark.long
def test_a_policy_is_replayed_alike_under_rules_that_show_windows():
    flat = EnvConfig(action="logits")
    policy = new_policy(make_spec(TAPE, flat, PolicyConfig(hidden=8)), TAPE, seed=0)
    one = replay(TAPE, policy.double(), ["policy"], flat)
    other = replay(TAPE, policy, ["policy"], rules(action="logits"))
    assert torch.equal(one.wealth, other.wealth)


FRONTS = {
    "make": lambda **arguments: gymnasium.make(fastsim.ENV_ID, **arguments),
    "make_vec": lambda **arguments: gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, **arguments),
    "SB3VecEnv": lambda **arguments: SB3VecEnv(2, **arguments),
    "players": lambda **arguments: SharedMarketParallelEnv(2, **arguments),
}


@pytest.mark.parametrize("front", list(FRONTS))
@pytest.mark.parametrize(
    ("columns", "culprit"),
    [
        (("closes",), r"no column 'closes' here; there are open, high, .*log_return, scaled_log"),
        (("close", "forecast_rise_5"), "no column 'forecast_rise_5'"),
        (("close", "close"), r"each of them once.*'close', 'close'"),
        ((), r"window_columns must be names.*\(\)"),
        ([], r"window_columns must be names.*\(\)"),
        ("close", "window_columns"),
        ((1,), "window_columns"),
        (None, "window_columns"),
        (("weight.AAPL",), r"no column 'weight\.AAPL'"),
        (("amount",), "no column 'amount'"),
    ],
)
def test_wrong_columns_are_named_in_one_line(front, columns, culprit):
    with pytest.raises(ConfigError, match=culprit) as caught:
        FRONTS[front](market="tech4", observation="window", window_columns=columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("front", list(FRONTS))
@pytest.mark.parametrize("observation", ["flat", "index"])
def test_columns_of_a_window_need_one(front, observation):
    with pytest.raises(ConfigError, match='needs observation="window", got'):
        FRONTS[front](market="tech4", observation=observation, window_columns=("close",))


@pytest.mark.parametrize("columns", [["close"], "close", ("close", 1), None])
def test_a_configuration_takes_a_tuple_of_names(columns):
    with pytest.raises(ConfigError, match="must be names, each of them once"):
        EnvConfig(observation="window", window_columns=columns)


def test_gymnasium_finds_nothing_to_complain_about():
    env = gymnasium.make(
        fastsim.ENV_ID, market="tech4", observation="window", window_columns=["log_return"]
    )
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space.shape == (32 * 4 + 4 + 3,)
    assert env.unwrapped.observation_names[0] == "AAPL.log_return.-31"
