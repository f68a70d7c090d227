"""Configuration: what a field may hold, wherever it is given."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import numpy as np
import pytest

import fastsim
from fastsim.config import configuration, from_mapping, load_yaml, save_yaml
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import TapeConfig
from fastsim.policy.spec import PolicyConfig

UNCHECKED = {
    "Bars",  # arrays, checked where they are read
    "MarketTape",
    "ModelCard",  # records of what there is, not choices
    "Release",
    "_Batch",
    "KronosConfig",  # files of others, which say 1 for true
    "TokenizerConfig",
}
"""Dataclasses that are not configuration."""
SKIPPED = ("fastsim.cli", "fastsim.adapters", "fastsim.data.samples")
"""Commands, whose types tyro reads; what needs other packages; a script."""


def package_dataclasses():
    for module in pkgutil.walk_packages(fastsim.__path__, "fastsim.", _not_here):
        if module.name.startswith(SKIPPED):
            continue
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and is_dataclass(found) and found.__module__ == module.name:
                yield found


def _not_here(name):
    """A package is not to be imported, for want of another."""
    assert name.startswith(SKIPPED), f"{name} cannot be imported"


def counts_and_flags():
    for found in package_dataclasses():
        if inspect.isabstract(found):
            continue
        hints = get_type_hints(found)
        for entry in fields(found):
            if found.__name__ not in UNCHECKED and hints[entry.name] in (int, bool):
                yield pytest.param(found, entry, id=f"{found.__name__}.{entry.name}")


@pytest.mark.parametrize(("kind", "entry"), list(counts_and_flags()))
@pytest.mark.parametrize("wrong", [1.5, "no", None])
def test_every_count_and_flag_of_the_package_is_checked(kind, entry, wrong):
    hints = get_type_hints(kind)
    needed = {
        other.name: 1 if hints[other.name] is int else object()
        for other in fields(kind)
        if other.default is other.default_factory
    }
    with pytest.raises(ConfigError, match=rf"^{kind.__name__}\.{entry.name} must be .*got"):
        kind(**needed | {entry.name: wrong})


def test_the_faults_that_were_found_are_named():
    with pytest.raises(ConfigError, match=r"EnvConfig\.players must be a whole number, got 1\.5"):
        EnvConfig(players=1.5)
    with pytest.raises(ConfigError, match="random_start must be true or false, got 'no'"):
        EpisodeConfig(random_start="no")
    with pytest.raises(ConfigError, match="players must be a whole number, got True"):
        EnvConfig(players=True)
    with pytest.raises(ConfigError, match="staggered must be true or false, got 1"):
        EpisodeConfig(staggered=1)
    with pytest.raises(ConfigError, match=r"assets must be whole numbers, got \(1, 2\.5\)"):
        RandomizeConfig(assets=(1, 2.5))
    with pytest.raises(ConfigError, match="return_windows must be whole numbers, got 5"):
        FeatureConfig(return_windows=5)


def test_a_changed_copy_is_checked_too():
    with pytest.raises(ConfigError, match="hidden must be a whole number"):
        replace(PolicyConfig(), hidden=8.0)


def test_none_stays_where_it_may_stand():
    assert EpisodeConfig(horizon=None).horizon is None
    with pytest.raises(ConfigError, match="horizon must be a whole number"):
        EpisodeConfig(horizon="all")


def test_whole_numbers_of_numpy_are_those_of_python(tmp_path):
    config = PolicyConfig(hidden=np.int64(8))
    assert type(config.hidden) is int
    save_yaml(config, tmp_path / "policy.yaml")
    assert load_yaml(PolicyConfig, tmp_path / "policy.yaml") == config
    windows = FeatureConfig(return_windows=(np.int32(1), 5)).return_windows
    assert [type(window) for window in windows] == [int, int]


@pytest.mark.parametrize("wrong", [2.5, "three", True])
def test_yaml_and_python_are_told_the_same(wrong):
    said = rf"PolicyConfig\.hidden must be a whole number, got {wrong!r}"
    with pytest.raises(ConfigError, match=said):
        from_mapping(PolicyConfig, {"hidden": wrong})
    with pytest.raises(ConfigError, match=said):
        PolicyConfig(hidden=wrong)
    with pytest.raises(
        ConfigError, match=r"EnvConfig\.episode\.random_start must be true or false"
    ):
        from_mapping(EnvConfig, {"episode": {"random_start": "no"}})


def test_types_come_before_the_checks_of_a_class_and_once_for_each_of_its_bases():
    told = []

    @configuration(slots=False)
    class Base:
        count: int = 1

        def __post_init__(self) -> None:
            told.append(f"base {self.count}")

    @configuration(slots=False)
    class Derived(Base):
        flag: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            told.append(f"derived {self.flag}")

    Derived(count=2, flag=True)
    assert told == ["base 2", "derived True"]
    with pytest.raises(ConfigError, match=r"Derived\.flag"):
        Derived(flag="yes")
    with pytest.raises(ConfigError, match=r"Derived\.count"):
        Derived(count=0.5)
    assert len(told) == 2


TICKERS = ("ON", "NO", "Y", "TRUE", "NULL", "OFF", "000001", "0700", "1E5X", "2018-01-01", "1:30")


def test_words_of_yaml_are_text_where_text_is_meant(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"data:\n  symbols: [{', '.join(TICKERS)}]\n  start: 2018-01-01\n")
    config = load_yaml(TrainConfig, path)
    assert config.data.symbols == TICKERS
    assert config.data.start == "2018-01-01"


@pytest.mark.parametrize(
    "name",
    [*TICKERS, "yes", "null", "~", "1e5", ".5", "1_0", "0x1F", "+.inf", ".nan", "-1", "<<", ""],
)
def test_text_that_looks_like_something_else_is_written_so_that_it_is_read_back(name, tmp_path):
    config = TrainConfig(data=DataConfig(symbols=(name,)))
    save_yaml(config, tmp_path / "config.yaml")
    assert load_yaml(TrainConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {symbols: [600519]}", "data.symbols must be text, got 600519: put it in quotes"),
        ("data: {symbols: [true]}", "data.symbols must be text, got True: put it in quotes"),
        ("data: {symbols: [1.5, A]}", "data.symbols must be text, got 1.5: put it in quotes"),
        ("data: {symbols: AAPL}", "data.symbols must be a list of values, got 'AAPL'"),
        ("data: {source: 5}", "data.source must be text, got 5: put it in quotes, as '5'"),
        ("name: 7", "name must be text, got 7: put it in quotes, as '7'"),
        ("data: {repair: yes}", "data.repair must be true or false, got 'yes'"),
        ("data: {ignore_volume: 1}", "data.ignore_volume must be true or false, got 1"),
        ("validation_start: 2018-02-30", "validation_start must be an ISO date"),
        ("total_steps: 1e6", "total_steps must be a whole number, got 1000000.0"),
    ],
)
def test_what_yaml_reads_as_something_else_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(TrainConfig, path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnvConfig(costs="free"), "EnvConfig.costs must be a CostConfig, got 'free'"),
        (
            lambda: EnvConfig(episode={"horizon": 5}),
            "EnvConfig.episode must be a EpisodeConfig, got",
        ),
        (lambda: EnvConfig(orders=None), "EnvConfig.orders must be a OrderConfig, got None"),
        (lambda: TrainConfig(ppo=0.5), "TrainConfig.ppo must be a PPOConfig, got 0.5"),
        (lambda: TrainConfig(data="us20"), "TrainConfig.data must be a DataConfig, got 'us20'"),
        (lambda: TrainConfig(name=5), "TrainConfig.name must be text, got 5"),
        (lambda: TrainConfig(forecaster=None), "TrainConfig.forecaster must be text, got None"),
        (lambda: TapeConfig(features=("a",)), "TapeConfig.features must be a FeatureConfig, got"),
        (lambda: TapeConfig(tables=(5,)), "TapeConfig.tables must be a known column"),
        (
            lambda: TapeConfig(risk_free_rate="low"),
            "TapeConfig.risk_free_rate is a yearly fraction",
        ),
        (lambda: RandomizeConfig(fee_bps=2.5), "RandomizeConfig.fee_bps must be (lowest, highest)"),
        (lambda: RandomizeConfig(fee_bps=("a", "b")), "RandomizeConfig.fee_bps must be (lowest"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_its_name(make, message):
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value) and "\n" not in str(caught.value)
