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
from fastsim.learn.ppo import PPOConfig

VALUES = {"num_envs": 64, "num_assets": 3, "total_timesteps": 100_000, "weights": "0.4,0.6"}


def test_every_spelling_is_tried_here():
    assert set(VALUES) == set(BROUGHT | MOVED)


@pytest.mark.parametrize("name", VALUES)
def test_a_spelling_is_the_field_that_it_names_on_every_front(name, tmp_path):
    path, value = (BROUGHT | MOVED)[name], VALUES[name]
    found = to_mapping(from_mapping(TrainConfig, {name: value}))
    for part in path.split("."):
        found = found[part]
    assert found == value
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({name: value}))
    wanted = from_mapping(TrainConfig, {name: value})
    assert load_yaml(TrainConfig, file) == wanted != TrainConfig()
    assert parse(["train", f"--{name.replace('_', '-')}", str(value)]).run == wanted
    assert parse(["train", "--config", str(file)]).run == wanted


def test_python_has_the_same_fields():
    assert TrainConfig(
        ppo=PPOConfig(num_envs=64),
        data=DataConfig(num_assets=3),
        total_steps=100_000,
        forecast=ForecastConfig(weights="0.4,0.6"),
    ) == from_mapping(TrainConfig, VALUES)


def test_a_configuration_of_an_earlier_release_is_read_with_a_warning(tmp_path, capsys):
    old = to_mapping(TrainConfig())
    del old["forecast"]["weights"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**old, "weights": "fit"}))
    assert load_yaml(TrainConfig, file).forecast == ForecastConfig(weights="fit")
    (line,) = capsys.readouterr().err.splitlines()
    assert "weights is now forecast.weights" in line


def test_settings_are_not_changed_where_they_are_given():
    given = {"num_envs": 8, "ppo": {"epochs": 1}}
    assert respelled_settings(given) == {"ppo": {"epochs": 1, "num_envs": 8}}
    assert given == {"num_envs": 8, "ppo": {"epochs": 1}}


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_given_once(name):
    path, value = (BROUGHT | MOVED)[name], VALUES[name]
    *parents, last = path.split(".")
    nested = {last: value}
    for parent in parents:
        nested = {parent: nested}
    with pytest.raises(ConfigError, match=f"{name} and {path} are one setting"):
        from_mapping(TrainConfig, {name: value, **nested})


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
