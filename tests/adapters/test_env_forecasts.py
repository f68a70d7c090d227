"""Forecasts wherever environments are made are those of a training run."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from forecasters import Counting, TinyModel

import fastsim
from fastsim.adapters import build
from fastsim.adapters.build import build_env
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError, DataError, FastsimError, ForecastError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.registry import load_forecaster
from fastsim.market.tape import make_tape
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

SETTINGS = {"horizons": (1, 5), "context_length": 48}
BARS = sample_bars("tech4").take(slice(0, 500))
START, END = "2006-01-03", "2006-06-30"
SHORT = {"episode": {"horizon": 40}}
FRONTS = {
    "make": lambda **arguments: gymnasium.make(fastsim.ENV_ID, **arguments).unwrapped.env,
    "make_vec": lambda **arguments: (
        gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, **arguments).unwrapped.env
    ),
    "SB3VecEnv": lambda **arguments: SB3VecEnv(2, **arguments).env,
    "players": lambda **arguments: SharedMarketParallelEnv(2, **arguments).env,
    "shared markets": lambda **arguments: (
        gymnasium.make_vec(fastsim.SHARED_MARKET_ID, num_envs=2, **arguments).unwrapped.env
    ),
}
if find_spec("torchrl"):
    FRONTS["TorchRL"] = lambda **arguments: torchrl().TorchRLEnv(2, **arguments).env
if find_spec("rsl_rl"):
    FRONTS["rsl_rl"] = lambda **arguments: rsl_rl().RslRlVecEnv(2, **arguments).env


def torchrl():
    return import_module("fastsim.adapters.torchrl")


def rsl_rl():
    return import_module("fastsim.adapters.rsl_rl")


@pytest.fixture(params=list(FRONTS))
def front(request):
    return FRONTS[request.param]


def tapes_alike(one, other):
    return one.feature_names == other.feature_names and torch.equal(
        one.known.features, other.known.features
    )


@pytest.mark.parametrize("forecaster", ["fastsim-prior", "random-walk-60,fastsim-prior"])
def test_the_columns_are_those_of_a_training_run_to_the_bit(tmp_path, forecaster):
    forecast = ForecastConfig(**SETTINGS, weights="0.3,0.7" if "," in forecaster else "")
    run = TrainConfig(
        data=DataConfig(source="tech4", end="2006-08-01"),
        runs_dir=str(tmp_path),
        forecaster=forecaster,
        forecast=forecast,
        env=EnvConfig(episode=EpisodeConfig(horizon=40)),
        validation_start="2005-06-01",
        test_start=START,
    )
    learned = load_markets(run).test
    kept = sorted((tmp_path / "forecasts").rglob("*"))
    for front in FRONTS.values():
        env = front(
            market=run.data,
            **SHORT,
            start=START,
            forecaster=forecaster,
            forecast=forecast,
            forecasts_dir=tmp_path / "forecasts",
        )
        assert tapes_alike(env.tape, learned)
        assert (env.tape.first, env.tape.last) == (learned.first, learned.last)
        seen = env.reset(0)
        shown = env.columns(seen)[:, : learned.num_assets * len(learned.feature_names)]
        assert torch.equal(shown, learned.known.features[seen.bar].flatten(1))
        assert f"AAPL.{learned.feature_names[-1]}" in env.observation_names
    assert sorted((tmp_path / "forecasts").rglob("*")) == kept, "tables are shared, not made again"


def test_tables_are_kept_where_training_keeps_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_env(1, BARS, forecaster="random-walk-60", forecast=SETTINGS)
    assert list((Path(TrainConfig().runs_dir) / "forecasts").glob("*/00000000.safetensors"))


def test_a_forecast_sees_no_bar_after_its_own(front, tmp_path):
    later = BARS.take(slice(None))
    row = int(np.searchsorted(BARS.timestamps, np.datetime64(START)))
    for name in ("open", "high", "low", "close", "volume"):
        getattr(later, name)[row + 20 :] *= np.linspace(1.2, 3.0, len(BARS) - row - 20)[:, None]
    arguments = SHORT | {
        "start": START,
        "end": END,
        "forecaster": "random-walk-60,random-walk-ewma-0.94",
        "forecast": {**SETTINGS, "weights": "fit"},
    }
    one = front(market=BARS, forecasts_dir=tmp_path / "one", **arguments).tape
    other = front(market=later, forecasts_dir=tmp_path / "other", **arguments).tape
    assert torch.equal(one.known.features[: row + 20], other.known.features[: row + 20])
    assert not torch.equal(one.known.features[row + 20], other.known.features[row + 20])


def test_fitted_weights_are_those_that_forecast_the_bars_before_the_start_best(tmp_path, capsys):
    names = ("random-walk-60", "random-walk-ewma-0.94")
    row = int(np.searchsorted(BARS.timestamps, np.datetime64(START)))
    members = [load_forecaster(name) for name in names]
    weights = fit_on_market(
        members, make_tape(BARS), slice(0, row), horizons=(1, 5), context_length=48
    )
    assert 0.0 < weights[0] < 1.0
    fitted, given = (
        build_env(
            1, BARS, start=START, forecaster=who, forecast=settings, forecasts_dir=tmp_path, **SHORT
        ).tape
        for who, settings in (
            (",".join(names), {**SETTINGS, "weights": "fit"}),
            (Ensemble(members, weights), SETTINGS),
        )
    )
    assert tapes_alike(fitted, given)
    assert f"Fitted weights: {weights[0]:.3f} random-walk-60" in capsys.readouterr().err


def test_weights_may_be_a_list_of_numbers(tmp_path):
    names = "random-walk-60,random-walk-ewma-0.94"
    tapes = [
        build_env(
            1, BARS, forecaster=names, forecast={**SETTINGS, "weights": weights},
            forecasts_dir=tmp_path,
        ).tape
        for weights in ("0.25,0.75", [0.25, 0.75], (1, 3))
    ]  # fmt: skip
    assert tapes_alike(tapes[0], tapes[1]) and tapes_alike(tapes[0], tapes[2])


def test_an_object_forecasts_and_is_asked_once(front, tmp_path):
    forecaster = Counting()
    arguments = {"forecaster": forecaster, "forecast": SETTINGS, "forecasts_dir": tmp_path}
    first = front(market=BARS, **arguments).tape
    asked = forecaster.asked
    assert asked > len(BARS)
    assert tapes_alike(front(market=BARS, **arguments).tape, first)
    assert forecaster.asked == asked
    named = first.feature_names.index("scaled_forecast_dispersion_5")
    assert (first.known.features[100, :, named] != 0).all()


def test_an_object_of_fastsims_own_has_the_table_of_its_name(tmp_path):
    named, given = (
        build_env(
            1, BARS, forecaster=who, forecast=SETTINGS, forecasts_dir=tmp_path
        ).tape
        for who in ("random-walk-60", load_forecaster("random-walk-60"))
    )  # fmt: skip
    assert tapes_alike(named, given)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_ready_tape_is_forecast_as_its_bars_are(front, tmp_path):
    arguments = {
        "forecaster": "random-walk-60", "forecast": SETTINGS, "forecasts_dir": tmp_path
    }  # fmt: skip
    tape = make_tape(BARS)
    ready = front(market=tape, **arguments).tape
    assert tapes_alike(ready, front(market=BARS, **arguments).tape)
    assert len(tape.feature_names) + 6 == len(ready.feature_names)
    with pytest.raises(DataError, match="has a feature 'scaled_forecast_return_1' already"):
        front(market=ready, **arguments)


def test_none_is_no_forecaster_and_lets_worlds_be(front):
    plain = front(market=BARS)
    none = front(market=BARS, forecaster="none", forecast=SETTINGS)
    assert none.tape.feature_names == plain.tape.feature_names
    assert front(market=BARS, forecaster="none", worlds={"model": "gbm"}).worlds is not None


def test_worlds_of_no_model_are_history(tmp_path):
    env = build_env(
        1, BARS, worlds={"model": "none"}, forecaster="random-walk-60", forecasts_dir=tmp_path
    )
    assert "forecast_rise_21" in env.tape.feature_names


def test_precision_reaches_the_model(tmp_path):
    full, half = (
        build_env(
            1,
            BARS,
            forecaster="fastsim-prior",
            forecast={**SETTINGS, "precision": precision},
            forecasts_dir=tmp_path,
        ).tape.known.features
        for precision in ("float32", "bfloat16")
    )
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.2, rtol=0.1)


class Speechless:
    card, key = Counting().card, "speechless@1"


class Failing(Counting):
    def forecast(self, context, horizon):
        raise AssertionError("asked too early")


class Unkeyed(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.key = ""


WRONG = [
    ({"forecaster": "fastsim-pror"}, ConfigError, "fastsim-pror"),
    ({"forecaster": "fastsim-prior,tyrex"}, ConfigError, "tyrex"),
    ({"forecaster": "none,fastsim-prior"}, ConfigError, "none"),
    ({"forecaster": ""}, ConfigError, "at least one model"),
    ({"forecaster": "gone.pt"}, ForecastError, "gone.pt: no such artefact; make it with"),
    ({"forecaster": Path("gone.onnx")}, ForecastError, "gone.onnx: no such artefact"),
    ({"forecaster": Path("gone.zip")}, ConfigError, r"gone.zip does not end in \.pt"),
    ({"forecaster": "no_module_of:mine"}, ConfigError, "no_module_of"),
    ({"forecaster": 7}, ConfigError, "got a int, which has no card"),
    ({"forecaster": ["tirex", "toto"]}, ConfigError, "got a list, which has no card"),
    ({"forecaster": TinyModel()}, ConfigError, "got a TinyModel, which has no key"),
    ({"forecaster": Speechless()}, ConfigError, "got a Speechless, which has no forecast"),
    ({"forecaster": Unkeyed}, ConfigError, "got a Unkeyed|use Unkeyed"),
    ({"forecaster": Unkeyed()}, ConfigError, "key is not a text"),
    ({"forecast": {}}, ConfigError, "none is named: give one"),
    ({"forecast": SETTINGS}, ConfigError, "none is named: give one"),
    ({"forecaster": "theta", "forecast": 5}, ConfigError, "forecast must be a ForecastConfig"),
    ({"forecaster": "theta", "forecast": "fit"}, ConfigError, "forecast must be .*'fit'"),
    ({"forecaster": "theta", "forecast": {"horizon": 5}}, ConfigError, "horizon"),
    ({"forecaster": "theta", "forecast": {"horizons": (0,)}}, ConfigError, r"from 1 up, got \[0\]"),
    ({"forecaster": "theta", "forecast": {"horizons": (1, 1)}}, ConfigError, r"got \[1, 1\]"),
    (
        {"forecaster": "theta", "forecast": {"horizons": ()}},
        ConfigError,
        r"horizons must be .* got \[\]",
    ),
    ({"forecaster": "theta", "forecast": {"horizons": (-5, 1)}}, ConfigError, "horizons"),
    ({"forecaster": "theta", "forecast": {"horizons": (1.5,)}}, ConfigError, "whole numbers"),
    ({"forecaster": "theta", "forecast": {"horizons": 5}}, ConfigError, "horizons"),
    ({"forecaster": "theta", "forecast": {"context_length": 0}}, ConfigError, "context_length"),
    ({"forecaster": "theta", "forecast": {"batch_size": 0}}, ConfigError, "batch_size"),
    ({"forecaster": "theta", "forecast": {"precision": "int4"}}, ConfigError, "int4"),
    ({"forecaster": "theta", "forecast": {"weights": "half"}}, ConfigError, "weights .*half"),
    ({"forecaster": "theta", "forecast": {"weights": ["a", "b"]}}, ConfigError, "weights .*a,b"),
    ({"forecaster": "theta", "forecast": {"weights": 0.5}}, ConfigError, "weights"),
    ({"forecaster": "theta", "forecast": {"weights": "1,2"}}, ConfigError, "1 forecasters need 1"),
    ({"forecaster": "theta,theta", "forecast": {"weights": "1"}}, ConfigError, "2 forecasters"),
    ({"forecaster": "theta,theta", "forecast": {"weights": "1,-1"}}, ConfigError, ">= 0"),
    ({"forecaster": "theta,theta", "forecast": {"weights": "0,0"}}, ConfigError, "not all 0"),
    ({"forecaster": "theta,theta", "forecast": {"weights": "fit"}}, ConfigError, "give start"),
    ({"forecaster": Counting(), "forecast": {"weights": "1"}}, ConfigError, "has its own"),
    ({"forecaster": Counting(), "forecast": {"precision": "float16"}}, ConfigError, "has its own"),
    ({"forecaster": "theta", "forecasts_dir": None}, ConfigError, "forecasts_dir must be"),
    ({"forecaster": "theta", "forecasts_dir": 3}, ConfigError, "forecasts_dir must be"),
    ({"forecaster": "theta", "worlds": {"model": "gbm"}}, ConfigError, "one history"),
    ({"forecaster": "theta", "worlds": "gbm"}, ConfigError, "worlds must be a WorldsConfig"),
    ({"forecaster": "theta", "action": "softmax"}, ConfigError, "softmax"),
]


@pytest.mark.parametrize(("arguments", "error", "culprit"), WRONG)
def test_wrong_arguments_are_named_alike_and_before_anything_is_read(
    front, monkeypatch, arguments, error, culprit
):
    def refuse(*_):
        raise AssertionError("bars are read before the names are checked")

    monkeypatch.setattr(build, "bars_of", refuse)
    with pytest.raises(error, match=culprit) as caught:
        front(market="tech4", **arguments)
    assert "\n" not in str(caught.value)


def test_what_the_market_refuses_is_named_alike(front, tmp_path):
    (tmp_path / "file").write_text("")
    short = {"horizons": (1,), "context_length": 4}
    worlds = FreshWorlds(model=Garch(assets=4), bars=200)
    cases = [
        ({"forecast": {"horizons": (600,)}}, ForecastError, "1 to 512 bars ahead"),
        (
            {"forecasts_dir": tmp_path / "file" / "x"},
            ConfigError,
            "another folder as forecasts_dir",
        ),
        ({"market": worlds}, ConfigError, "one history, not for worlds"),
        ({"market": make_worlds(Garch(assets=4), worlds=2, bars=200)}, ConfigError, "one history"),
        (
            {"forecaster": Counting(horizon=3), "forecast": {**short, "horizons": (4,)}},
            ForecastError,
            "counting forecasts 1 to 3 bars ahead",
        ),
        ({"market": "us21"}, DataError, "us21"),
        (
            {"episode": {"horizon": 10**6}, "forecaster": Failing()},
            ConfigError,
            "longer than the tape",  # before anybody is asked
        ),
        (
            {
                "forecaster": "random-walk-60,random-walk-ewma-0.94",
                "forecast": {"weights": "fit"},
                "start": "1990-01-01",
            },
            ForecastError,
            "weights need more",
        ),
    ]
    for arguments, error, culprit in cases:
        usual = {"market": BARS, "forecaster": "random-walk-60", "forecasts_dir": tmp_path / "kept"}
        with pytest.raises(error, match=culprit) as caught:
            front(**usual | arguments)
        assert "\n" not in str(caught.value)


def test_a_forecaster_that_fails_is_named_in_one_line(front, tmp_path):
    forecaster = Counting()
    forecaster.failing = True
    with pytest.raises(FastsimError, match="counting fails"):
        front(market=BARS, forecaster=forecaster, forecast=SETTINGS, forecasts_dir=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors")), "nothing is half-written"


def test_a_module_of_ones_own_is_put_behind_a_forecaster(tmp_path):
    tiny = ModuleForecaster(TinyModel())
    tape = build_env(1, BARS, forecaster=tiny, forecast=SETTINGS, forecasts_dir=tmp_path).tape
    shown = tape.known.features[-1, :, tape.feature_names.index("scaled_forecast_dispersion_5")]
    assert (shown > 0).all()


def test_a_run_takes_the_same_settings_and_refuses_the_same(tmp_path):
    with pytest.raises(ConfigError, match=r"got \[5, 5\]"):
        replace(TrainConfig().forecast, horizons=(5, 5))
    with pytest.raises(ConfigError, match="weights must be a text"):
        ForecastConfig(weights=0.5)


def test_nobody_waits_for_forecasters_that_were_not_asked_for():
    code = (
        "import sys, fastsim.adapters.gym_env, fastsim.adapters.sb3\n"
        "from fastsim.adapters.build import build_env\n"
        "build_env(1, 'tech4')\n"
        "print([name for name in sys.modules if name.startswith(('huggingface_hub', "
        "'fastsim.forecast.models', 'fastsim.forecast.registry'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
