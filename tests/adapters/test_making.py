"""Environments made as Gymnasium spells it: restarts, limits, seeds, pictures, JSON, processes."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from matplotlib import pyplot

import fastsim
from fastsim.adapters import sources
from fastsim.adapters.arguments import as_rules, seeds_of
from fastsim.adapters.build import build_env
from fastsim.data.read import write_bars
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.config import WorldsConfig

SHORT = {"market": "tech4", "episode": {"horizon": 6}}
STILL = np.zeros(4, dtype=np.float32)


def vec(num_envs=3, **arguments):
    return gymnasium.make_vec(fastsim.ENV_ID, num_envs=num_envs, **SHORT | arguments)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Restarts and limits


@pytest.mark.parametrize("name", ["autoreset", "autoreset_mode"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_restarts_are_spelled_as_gymnasium_does(name, mode):
    for spelling in (mode, mode.value, mode.name, mode.name.lower()):
        env = vec(**{name: spelling})
        assert env.metadata["autoreset_mode"] is env.autoreset_mode is mode
        assert env.env.config.autoreset == mode.name.lower()


def test_both_spellings_of_one_setting_must_agree():
    assert (
        vec(autoreset="same_step", autoreset_mode="SAME_STEP").env.config.autoreset == "same_step"
    )
    with pytest.raises(ConfigError, match="are one setting") as caught:
        vec(autoreset="same_step", autoreset_mode="NEXT_STEP")
    one_line(caught)


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, "DISABLED", "Disabled", "disabled"])
def test_a_batch_restarts_by_itself_and_one_environment_does_not(mode):
    with pytest.raises(
        ConfigError, match=r"DISABLED .* use NEXT_STEP or SAME_STEP, or gymnasium\.make"
    ):
        vec(autoreset_mode=mode)
    env = gymnasium.make(fastsim.ENV_ID, autoreset_mode=mode, **SHORT)
    env.reset(seed=0)
    assert [env.step(STILL)[3] for _ in range(6)] == [False] * 5 + [True]


@pytest.mark.parametrize("mode", ["never", 1, None, True, ("SAME_STEP",)])
def test_other_restarts_are_refused(mode):
    with pytest.raises(ConfigError, match="autoreset_mode must be one of 'next_step', 'same_step'"):
        vec(autoreset_mode=mode)


@pytest.mark.parametrize(
    ("rules", "ends"),
    [
        ({}, 4),
        ({"episode": {"horizon": 9}}, 4),
        ({"episode": {"horizon": 2}}, 2),
        ({"episode": {"horizon": None}}, 4),
        ({"episode": EpisodeConfig(horizon=9)}, 4),
        ({"config": EnvConfig(episode=EpisodeConfig(horizon=9))}, 4),
        ({"config": EnvConfig(episode=EpisodeConfig(horizon=None))}, 4),
    ],
)
def test_max_episode_steps_bounds_the_horizon_as_the_time_limit_of_make(rules, ends):
    many = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=2, market="tech4", max_episode_steps=4, **rules
    )
    alone = gymnasium.make(fastsim.ENV_ID, market="tech4", max_episode_steps=4, **rules)
    many.reset(seed=0)
    alone.reset(seed=0)
    for step in range(1, ends + 1):
        assert many.step(torch.zeros(2, 4))[3].tolist() == [step == ends] * 2
        assert alone.step(STILL)[3] == (step == ends)


def test_minus_one_is_no_limit_and_more_than_the_horizon_a_longer_episode():
    assert vec(max_episode_steps=-1).env.config.episode.horizon == 6
    long = gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, market="tech4", max_episode_steps=500)
    assert long.env.config.episode.horizon == 500


@pytest.mark.parametrize("steps", [0, -2, 1.5, "4", True, [4]])
def test_limits_that_are_none_are_refused(steps):
    with pytest.raises(
        ConfigError, match="max_episode_steps must be a whole number >= 1, got"
    ) as e:
        vec(max_episode_steps=steps)
    one_line(e)


def test_what_is_wrong_with_an_episode_is_said_beside_a_limit_too():
    for episode in (3, {"horizon": True}, {"horizon": "long"}):
        with pytest.raises(ConfigError, match=r"(?i)episode"):
            vec(max_episode_steps=4, episode=episode)


# Seeds


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_list_of_seeds_gives_each_row_the_environment_of_its_seed(backend):
    seeds = [3, 2**40 + 1, 3, 0]
    many = vec(4, backend=backend)
    together, _ = many.reset(seed=seeds)
    singles = [gymnasium.make(fastsim.ENV_ID, backend=backend, **SHORT) for _ in seeds]
    alone = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    for step in range(1, 15):
        assert np.array_equal(together.numpy(), alone)
        together, *_ = many.step(torch.full((4, 4), 0.25))
        if step % 7 == 0:  # the restart takes a step of its own
            alone = [env.reset()[0] for env in singles]
        else:
            alone = [env.step(np.full(4, 0.25, np.float32))[0] for env in singles]
    assert not np.array_equal(alone[0], alone[1])
    assert np.array_equal(alone[0], alone[2])


def test_seeds_come_in_any_sequence_and_none_goes_on():
    assert seeds_of(np.array([1, 2]), 2) == seeds_of((1, 2), 2) == [1, 2]
    assert seeds_of([None, None], 2) is None
    assert seeds_of(np.int64(5), 2) == 5
    first = vec().reset(seed=5)[0]
    assert torch.equal(first, vec().reset(seed=np.int64(5))[0])


@pytest.mark.parametrize(
    "seed", [-1, 1.5, "7", True, [1, 2], [1, 2, -3], [1, 2, 3.0], [1, None, 2]]
)
def test_seeds_that_are_none_are_refused_by_a_batch(seed):
    with pytest.raises(ConfigError, match="seed must be") as caught:
        vec().reset(seed=seed)
    one_line(caught)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, [1]])
def test_seeds_that_are_none_are_refused_by_one_environment(seed):
    env = gymnasium.make(fastsim.ENV_ID, **SHORT).unwrapped
    with pytest.raises(ConfigError, match="seed must be a whole number >= 0, got"):
        env.reset(seed=seed)


def test_players_of_one_market_have_one_seed():
    with pytest.raises(ConfigError, match="seeds as a list are for players=1"):
        gymnasium.make_vec(fastsim.SHARED_MARKET_ID, num_envs=2, market="tech4").reset(seed=[1, 2])


# Pictures


@pytest.mark.filterwarnings("ignore:.*needs a display")
def test_gymnasium_finds_nothing_wrong_with_pictures():
    check_env(gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT).unwrapped)


def test_a_picture_is_drawn_of_what_happened_since_the_start():
    env = gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT)
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(3):
        env.step(np.full(4, 0.25, np.float32))
        pictures.append(env.render())
    assert all(p.shape == (480, 640, 3) and p.dtype == np.uint8 for p in pictures)
    assert all((a != b).any() for a, b in pairwise(pictures))
    track = env.unwrapped._screen._tracks[0]
    state = env.unwrapped.env.state
    assert track.wealth[0] == 1e6
    assert track.wealth[-1] == pytest.approx(float(state.wealth[0]))
    assert len(track.wealth) == 4
    assert track.weights.sum() == pytest.approx(1.0)
    held = (state.portfolio.holdings / state.wealth[:, None])[0].numpy()
    np.testing.assert_allclose(track.weights[:-1], held, rtol=1e-5)


def test_a_new_episode_begins_a_new_picture():
    for restarts in ("NEXT_STEP", "SAME_STEP"):
        env = vec(2, render_mode="rgb_array", autoreset_mode=restarts, episode={"horizon": 3})
        env.reset(seed=0)
        lengths = []
        for _ in range(5):
            env.step(torch.full((2, 4), 0.25))
            lengths.append(len(env._screen._tracks[1].wealth))
        assert lengths == ([2, 3, 4, 1, 2] if restarts == "NEXT_STEP" else [2, 3, 1, 2, 3])


def test_a_batch_is_drawn_row_by_row_like_single_environments():
    many = vec(2, render_mode="rgb_array")
    many.reset(seed=[4, 9])
    many.step(torch.full((2, 4), 0.25))
    frames = many.render()
    assert isinstance(frames, tuple)
    alone = gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT)
    for seed, frame in zip((4, 9), frames, strict=True):
        alone.reset(seed=seed)
        alone.step(np.full(4, 0.25, np.float32))
        assert np.array_equal(alone.render(), frame)


def test_gymnasium_collects_pictures_in_lists():
    env = gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array_list", **SHORT)
    env.reset(seed=0)
    for _ in range(3):
        env.step(STILL)
    assert len(env.render()) == 4
    collected = gymnasium.wrappers.RenderCollection(
        gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT)
    )
    collected.reset(seed=0)
    collected.step(STILL)
    assert len(collected.render()) == 2


WINDOW = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg


class FigureManager(FigureManagerBase):
    def show(self):
        print("shown")


class FigureCanvas(FigureCanvasAgg):
    required_interactive_framework = "headless"
    manager_class = FigureManager

    def draw_idle(self, *args, **kwargs):
        print("drawn")
"""


@pytest.mark.parametrize("many", [False, True])
def test_a_window_shows_every_step(tmp_path, many):
    (tmp_path / "window.py").write_text(WINDOW)
    make = "make_vec(id, num_envs=2, " if many else "make(id, "
    action = "numpy.zeros((2, 4))" if many else "numpy.zeros(4, 'f')"
    code = textwrap.dedent(f"""
        import gymnasium, fastsim, numpy
        id = fastsim.ENV_ID
        env = gymnasium.{make}market="tech4", render_mode="human")
        env.reset(seed=0)
        env.step({action})
        print(env.render())
        env.close()
    """)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "MPLBACKEND": "module://window", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["shown", "drawn", "drawn", "None"]


def test_a_window_without_a_display_is_warned_of():
    pyplot.switch_backend("agg")
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.warns(UserWarning, match=r"no window .* needs a display"):
            env = make(fastsim.ENV_ID, render_mode="human", **SHORT)
        env.reset(seed=0)
        assert env.render() is None
        env.close()


@pytest.mark.parametrize("mode", ["rgb", "ansi", "rgb_array_list", 3, ""])
def test_modes_that_do_not_exist_are_refused_by_a_batch(mode):
    with pytest.raises(
        ConfigError, match="render_mode must be None or one of 'human', 'rgb_array'"
    ):
        vec(render_mode=mode)


@pytest.mark.parametrize("mode", ["rgb", "ansi"])
def test_modes_that_do_not_exist_are_refused_by_one_environment(mode):
    with (
        pytest.warns(UserWarning, match="not in the possible render_modes"),
        pytest.raises(ConfigError, match="render_mode must be None or one of") as caught,
    ):
        gymnasium.make(fastsim.ENV_ID, render_mode=mode, **SHORT)
    one_line(caught)


def test_more_rows_than_can_be_drawn_are_refused():
    with pytest.raises(ConfigError, match="at most 64; got num_envs = 65"):
        vec(65, render_mode="rgb_array")


def test_nothing_is_rendered_without_a_mode_nor_before_reset():
    for env in (gymnasium.make(fastsim.ENV_ID, **SHORT).unwrapped, vec()):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match='render_mode="rgb_array"'):
            assert env.render() is None
    with pytest.raises(ActionError, match=r"call reset\(\) before render\(\)"):
        vec(render_mode="rgb_array").render()


def test_pictures_without_matplotlib_say_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import gymnasium, fastsim\n"
        "gymnasium.make(fastsim.ENV_ID, market='tech4').reset(seed=0)\n"
        "try: gymnasium.make(fastsim.ENV_ID, market='tech4', render_mode='rgb_array')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = "render_mode='rgb_array' needs matplotlib: pip install 'fastsim-rl[plot]'"
    assert done.stdout.strip() == wanted


# JSON


SPELLED = {
    "plain": {"market": "tech4", "action": "logits", "costs": {"fee_bps": 5}},
    "path": {"market": Path("bars.parquet")},
    "data": {"market": DataConfig(source="tech4", symbols=("IBM", "MSFT"))},
    "config": {"market": "tech4", "config": EnvConfig(action="signed", max_gross=2.0)},
    "tape": {
        "market": "tech4",
        "tape": TapeConfig(risk_free_rate=0.02),
        "device": torch.device("cpu"),
    },
    "worlds": {"market": "tech4", "worlds": WorldsConfig(model="garch", bars=400)},
    "numbers": {"market": "tech4", "initial_cash": np.float64(5e5), "players": np.int64(1)},
}


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("many", [False, True])
def test_a_specification_comes_back_from_json(name, many, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bars(sample_bars("tech4"), Path("bars.parquet"))
    make = gymnasium.make_vec if many else gymnasium.make
    first = make(fastsim.ENV_ID, **SPELLED[name])
    again = make(EnvSpec.from_json(first.spec.to_json()))
    one, other = first.unwrapped.env, again.unwrapped.env
    assert one.config == other.config
    assert one.tape.symbols == other.tape.symbols
    assert torch.equal(one.tape.known.features, other.tape.known.features)
    for env in (first, again):
        env.action_space.seed(0)
    pairs = zip(played(first), played(again), strict=True)
    assert all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def played(env) -> list[np.ndarray]:
    seen = [np.asarray(env.reset(seed=2)[0])]
    return seen + [np.asarray(env.step(env.action_space.sample())[0]) for _ in range(3)]


def test_wrappers_stay_in_the_specification():
    env = gymnasium.make(fastsim.ENV_ID, max_episode_steps=3, render_mode="rgb_array", **SHORT)
    env = gymnasium.wrappers.TimeAwareObservation(gymnasium.wrappers.FlattenObservation(env))
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
    assert again.render_mode == "rgb_array"


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("name", ["market", "costs_per_env"])
def test_what_json_cannot_hold_is_named(name, many):
    make = gymnasium.make_vec if many else gymnasium.make
    given = {
        "market": {"market": make_tape(sample_bars("tech4"))},
        "costs_per_env": {"market": "tech4", "costs_per_env": {"fee_bps": torch.zeros(1)}},
    }[name]
    with pytest.raises(ConfigError, match=rf"^{name}.* is a .*, which JSON cannot hold: give") as e:
        make(fastsim.ENV_ID, **given).spec.to_json()
    one_line(e)


def test_bars_are_named_too():
    with pytest.raises(ConfigError, match=r"market is a Bars, .* the path of a file of bars"):
        gymnasium.make(fastsim.ENV_ID, market=sample_bars("tech4")).spec.to_json()


# Processes


def in_a_process(code: str, threads: int = 2) -> str:
    """What a script prints that must not hang, under a pool of threads."""
    code = "import gymnasium, numpy, torch, fastsim\n" + textwrap.dedent(code)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    return done.stdout + done.stderr


MARKETS = {
    "name": '"tech4"',
    "bars": 'fastsim.data.sample.sample_bars("tech4")',
    "tape": 'fastsim.market.tape.make_tape(fastsim.data.sample.sample_bars("tech4"))',
    "worlds": "fastsim.synthetic.fresh.FreshWorlds(model=Garch(assets=4), bars=300)",
}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("market", MARKETS)
def test_forked_environments_step_as_those_side_by_side(market, backend):
    told = in_a_process(f"""
        import fastsim.data.sample, fastsim.market.tape
        import fastsim.synthetic.fresh
        from fastsim.synthetic.garch import Garch
        torch.set_num_threads(2)
        torch.randn(2000, 2000).sum()
        rules = dict(market={MARKETS[market]}, backend="{backend}", episode=dict(horizon=5))
        runs = []
        for mode in ("async", "sync"):
            env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, vectorization_mode=mode, **rules)
            seen = [env.reset(seed=[1, 2])[0].copy()]
            action = numpy.full((2, 4), 0.25, dtype="f")
            seen += [env.step(action)[0].copy() for _ in range(12)]
            runs.append(numpy.array(seen))
            env.close()
        print("the same", numpy.array_equal(*runs))
    """)
    assert "the same True" in told, told


@pytest.mark.long
def test_spawned_environments_step():
    told = in_a_process("""
        env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, vectorization_mode="async",
            vector_kwargs={"context": "spawn"}, market="tech4")
        env.reset(seed=0)
        print("seen", env.step(numpy.zeros((2, 4), dtype="f"))[0].shape)
        env.close()
    """)
    assert "seen (2, 43)" in told, told


def test_what_was_not_read_before_a_fork_is_refused_in_words_and_not_hung_on():
    told = in_a_process("""
        import multiprocessing
        from fastsim.adapters.build import build_env
        build_env(1, "tech4")
        def child():
            build_env(1, "tech4")
            try: build_env(1, "us20")
            except fastsim.errors.ConfigError as error: print(error, flush=True)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
    """)
    assert told.splitlines()[-1] == (
        "market 'us20' cannot be read in a process that was forked after bars were read: use "
        'vector_kwargs={"context": "spawn"}, or give Bars or a ready tape as market'
    )


def test_bars_are_read_once_and_again_when_their_file_changes(tmp_path, monkeypatch):
    reads = []
    load = sources.load_bars
    monkeypatch.setattr(sources, "load_bars", lambda config: reads.append(config) or load(config))
    path, bars = tmp_path / "mine.parquet", sample_bars("tech4")
    write_bars(bars, path)
    assert sources.bars_of(path) is sources.bars_of(str(path))
    assert sources.bars_of({"source": str(path)}) is sources.bars_of(path)
    assert len(reads) == 1
    write_bars(bars.take(slice(100, None)), path)
    os.utime(path, ns=(0, 0))
    assert len(sources.bars_of(path).timestamps) == len(bars.timestamps) - 100
    assert len(reads) == 2


# Unknown and ill-typed arguments


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ({"actoin": "logits"}, "action"),
        ({"cost": {}}, "costs"),
        ({"rewards": {}}, "reward"),
        ({"initial_cahs": 1}, "initial_cash"),
        ({"backends": "torch"}, "backend"),
        ({"world": {}}, "worlds"),
        ({"render_modes": "rgb_array"}, "render_mode"),
        ({"max_episode_step": 4}, "max_episode_steps"),
        ({"autoreset_modes": "SAME_STEP"}, "autoreset_mode"),
        ({"cost_per_env": {}}, "costs_per_env"),
        ({"costs": {"fee_bp": 1}}, "fee_bps"),
        ({"episode": {"horizont": 4}}, "horizon"),
        ({"reward": {"kinds": "x"}}, "kind"),
        ({"tape": {"fils": "close"}}, "fill"),
        ({"tape": {"features": {"momentum_windw": 9}}}, "momentum_window"),
        ({"orders": {"whole_share": True}}, "whole_shares"),
        ({"worlds": {"modle": "garch"}}, "model"),
        ({"market": {"sorce": "tech4"}}, "source"),
        ({"config": {"acton": "logits"}}, "action"),
        ({"action": "logit"}, "logits"),
        ({"reward": {"kind": "log_grwth"}}, "log_growth"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_the_nearest_name_is_told(given, nearest, many):
    make = gymnasium.make_vec if many else gymnasium.make
    with pytest.raises(ConfigError, match=f"did you mean '{nearest}'") as caught:
        make(fastsim.ENV_ID, **{"market": "tech4"} | given)
    one_line(caught)


def test_what_is_near_nothing_is_told_what_there_is():
    with pytest.raises(ConfigError, match=r"no rule 'zzz'; the rules are action, max_gross") as e:
        gymnasium.make(fastsim.ENV_ID, zzz=1)
    assert "did you mean" not in one_line(e)
    with pytest.raises(ConfigError, match=r"CostConfig has no field 'zzz'; it has fee_bps, "):
        gymnasium.make(fastsim.ENV_ID, costs={"zzz": 1})


def test_a_name_that_is_for_others_is_told_whose_it_is():
    with pytest.raises(ConfigError, match=r"render_mode is for gymnasium\.make and make_vec$") as e:
        build_env(1, "tech4", render_mode="rgb_array")
    assert "did you mean" not in one_line(e)


def test_an_unknown_argument_that_torchrl_tries_is_refused_in_pythons_words():
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'frameskip'"):
        gymnasium.make(fastsim.ENV_ID, frameskip=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a whole number >= 1, got 0"),
        ({"num_envs": -1}, "num_envs must be a whole number >= 1, got -1"),
        ({"num_envs": 1.5}, "num_envs must be a whole number >= 1, got 1.5"),
        ({"num_envs": "4"}, "num_envs must be a whole number >= 1, got '4'"),
        ({"num_envs": True}, "num_envs must be a whole number >= 1, got True"),
        ({"num_envs": None}, "num_envs must be a whole number >= 1, got None"),
        ({"market": None}, "market must be a sample's name.*, got NoneType"),
        ({"market": ["tech4"]}, "market must be a sample's name.*, got list"),
        ({"market": torch.zeros(3)}, "market must be a sample's name.*, got Tensor"),
        ({"config": 3}, "config must be a EnvConfig or a mapping of its fields, got 3"),
        ({"config": "logits"}, "config must be a EnvConfig or a mapping of its fields"),
        ({"tape": 3}, "tape must be a TapeConfig or a mapping of its fields, got 3"),
        ({"worlds": "garch"}, "worlds must be a WorldsConfig or a mapping of its fields"),
        ({"costs_per_env": 3}, "costs_per_env must map costs to tensors, got 3"),
        ({"costs": 3}, "costs"),
        ({"episode": [4]}, "episode"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
        ({"device": None}, "there is no device None"),
        ({"device": 1.5}, "there is no device 1.5"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"device": "xpu"}, "device 'xpu' cannot be used"),
        ({"config": EnvConfig(), "action": "logits"}, "give a config or the rule 'action'"),
        (
            {"config": EnvConfig(), "autoreset": "same_step"},
            "give a config or the rule 'autoreset'",
        ),
    ],
)
def test_arguments_of_other_types_are_named(given, message):
    arguments = {"num_envs": 2, "market": "tech4"} | given
    with pytest.raises(ConfigError, match=message) as caught:
        gymnasium.make_vec(fastsim.ENV_ID, **arguments)
    one_line(caught)


def test_rules_are_left_as_they_were_given():
    given = {"episode": {"horizon": 9}, "autoreset_mode": "SAME_STEP", "max_episode_steps": 4}
    kept = {**given, "episode": dict(given["episode"])}
    rules = as_rules(given)
    assert rules == {"episode": {"horizon": 4}, "autoreset": "same_step"}
    assert given == kept
    config = EnvConfig(episode=EpisodeConfig(horizon=9))
    limited = as_rules({"config": config, "max_episode_steps": 4})["config"]
    assert limited == replace(config, episode=EpisodeConfig(horizon=4))
    assert build_env(1, "tech4", config={"action": "logits"}).config == EnvConfig(action="logits")


# Actions, and steps out of turn


ACTIONS = [
    ("buy", "real numbers"),
    (None, "real numbers"),
    ({"AAPL": 1.0}, "real numbers"),
    ([[0.1, 0.2], [0.3]], "real numbers"),
    (np.zeros((3, 4), dtype=complex), "real numbers"),
    (np.array([["a"] * 4] * 3), "real numbers"),
    (np.zeros((3, 4), dtype="datetime64[s]"), "real numbers"),
]


@pytest.mark.parametrize(("action", "message"), ACTIONS)
def test_actions_that_are_no_numbers_are_refused(action, message):
    many = vec(3)
    many.reset(seed=0)
    alone = gymnasium.make(fastsim.ENV_ID, disable_env_checker=True, **SHORT).unwrapped
    alone.reset(seed=0)
    for env in (many, alone):
        with pytest.raises(ActionError, match=message) as caught:
            env.step(action)
        one_line(caught)


@pytest.mark.parametrize("shape", [(4,), (3,), (2, 4), (3, 5), (3, 4, 1), (0, 4)])
def test_actions_of_another_shape_are_refused_by_a_batch(shape):
    env = vec(3)
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"must have shape \(3, 4\), got"):
        env.step(torch.zeros(shape))


def test_lists_whole_numbers_and_flags_are_actions():
    env = vec(3)
    for action in ([[0.25] * 4] * 3, np.ones((3, 4), dtype=np.int64), torch.ones(3, 4).bool()):
        env.reset(seed=0)
        env.step(action)
        assert int(env.env.state.invalid_actions.sum()) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_holds_and_is_counted(value):
    env = vec(3)
    env.reset(seed=0)
    action = torch.full((3, 4), 0.25)
    action[1, 2] = value
    assert env.step(action)[4]["invalid_actions"].tolist() == [0, 1, 0]
    assert env.env.state.portfolio.holdings[1].tolist() == [0.0] * 4


def test_a_batch_is_reset_before_it_is_stepped_and_not_used_once_closed():
    env = vec()
    with pytest.raises(ActionError, match=r"call reset\(\) before step\(\)"):
        env.step(torch.zeros(3, 4))
    env.reset(seed=0)
    env.close()
    env.close()
    for use in (env.reset, env.render, lambda: env.step(torch.zeros(3, 4))):
        with pytest.raises(ActionError, match="the environment is closed: make another"):
            use()


def test_one_environment_is_reset_before_it_is_used_again_once_closed():
    env = gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT).unwrapped
    env.reset(seed=0)
    env.close()
    for use in (env.render, lambda: env.step(STILL)):
        with pytest.raises(ActionError, match=r"call reset\(\) before"):
            use()
    env.reset(seed=0)
    env.step(STILL)


def test_rows_of_a_batch_offer_nothing_to_call_but_render():
    env = vec(2, render_mode="rgb_array")
    env.reset(seed=0)
    assert len(env.call("render")) == 2
    with pytest.raises(ConfigError, match="cannot call 'reset_to'"):
        env.call("reset_to", 3)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_environments_side_by_side_restart_as_gymnasium_says(mode):
    env = gymnasium.make_vec(
        fastsim.ENV_ID,
        num_envs=2,
        vectorization_mode=mode,
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **SHORT,
    )
    env.reset(seed=0)
    for step in range(1, 13):
        *_, truncated, info = env.step(np.zeros((2, 4), dtype=np.float32))
        assert truncated.all() == (step % 6 == 0)
        assert ("final_obs" in info) == (step % 6 == 0)
    env.close()
