"""Other names of a run's settings mean the same from the command line, YAML and Python."""

import pytest
import yaml

from fastsim.cli import parse
from fastsim.config import from_mapping, load_yaml, to_mapping
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.spellings import BROUGHT, MOVED, respelled_settings
from fastsim.forecast.features import ForecastConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig

VALUES = {
    "num_envs": 64,
    "num_assets": 3,
    "total_timesteps": 100_000,
    "weights": "0.4,0.6",
    "ppo.num_envs": 64,
    "ppo.rollout_steps": 8,
    "worlds.slots": 3,
}


def nested(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def test_every_spelling_is_tried_here():
    assert set(VALUES) == set(BROUGHT | MOVED)


@pytest.mark.parametrize("name", VALUES)
def test_a_spelling_is_the_field_that_it_names_on_every_front(name, tmp_path):
    path, value = (BROUGHT | MOVED)[name], VALUES[name]
    found = to_mapping(from_mapping(TrainConfig, nested(name, value)))
    for part in path.split("."):
        found = found[part]
    assert found == value
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(nested(name, value)))
    wanted = from_mapping(TrainConfig, nested(name, value))
    assert load_yaml(TrainConfig, file) == wanted != TrainConfig()
    assert parse(["train", f"--{name.replace('_', '-')}", str(value)]).run == wanted
    assert parse(["train", "--config", str(file)]).run == wanted


@pytest.mark.parametrize("other", ["ppo.num_envs", "collect.num_envs"])
def test_one_setting_under_two_names_is_refused_on_every_front(other):
    with pytest.raises(ConfigError, match="are one setting: give one of them"):
        from_mapping(TrainConfig, {"num_envs": 4, **nested(other, 8)})
    with pytest.raises(ConfigError, match="are one setting: give one of them"):
        parse(["train", "--num-envs", "4", f"--{other.replace('_', '-')}", "8"])


def test_python_has_the_same_fields():
    assert TrainConfig(
        collect=CollectConfig(num_envs=64),
        data=DataConfig(num_assets=3),
        total_steps=100_000,
        forecast=ForecastConfig(weights="0.4,0.6"),
    ) == from_mapping(TrainConfig, {n: v for n, v in VALUES.items() if "." not in n})


def test_a_configuration_of_an_earlier_release_is_read_with_a_warning(tmp_path, capsys):
    old = to_mapping(TrainConfig())
    del old["forecast"]["weights"]
    file = tmp_path / "config.yaml"
    del old["collect"]
    old["ppo"] |= {"num_envs": 8, "rollout_steps": 4, "epochs": 2}
    file.write_text(yaml.safe_dump({**old, "weights": "fit"}))
    read = load_yaml(TrainConfig, file)
    assert read.forecast == ForecastConfig(weights="fit")
    assert read.collect == CollectConfig(num_envs=8, rollout_steps=4)
    assert read.ppo == PPOConfig(epochs=2)
    first, second, third = capsys.readouterr().err.splitlines()
    assert "weights is now forecast.weights" in first
    assert "ppo.num_envs is now collect.num_envs" in second
    assert "ppo.rollout_steps is now collect.rollout_steps" in third


def test_settings_are_not_changed_where_they_are_given():
    given = {"num_envs": 8, "collect": {"rollout_steps": 1}}
    assert respelled_settings(given) == {"collect": {"rollout_steps": 1, "num_envs": 8}}
    assert given == {"num_envs": 8, "collect": {"rollout_steps": 1}}


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_given_once(name):
    path, value = (BROUGHT | MOVED)[name], VALUES[name]
    both = nested(name, value)
    for section, inner in nested(path, value).items():
        both[section] = both[section] | inner if section in both else inner
    with pytest.raises(ConfigError, match=f"{name} and {path} are one setting"):
        from_mapping(TrainConfig, both)


def test_the_first_assets_are_those_of_the_data():
    everything = load_bars(DataConfig())
    some = load_bars(DataConfig(num_assets=4))
    assert some.symbols == everything.symbols[:4]
    named = load_bars(DataConfig(symbols=some.symbols))
    assert (some.close == named.close).all()


def test_assets_that_are_not_there_are_not_invented():
    with pytest.raises(DataError, match="num_assets = 5 is more than the 4 symbols of the data"):
        load_bars(DataConfig(source="tech4", num_assets=5))
    for wrong in (0, -1, 2.5, True, "2"):
        with pytest.raises(ConfigError, match=r"DataConfig\.num_assets must be"):
            DataConfig(num_assets=wrong)
    with pytest.raises(ConfigError, match=r"num_assets = 1 keeps the first .* names KO"):
        DataConfig(num_assets=1, symbols=("KO",))
