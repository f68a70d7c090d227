"""Spaces that settings are searched in: how they are written, and what they propose."""

import pytest

from fastsim.errors import ConfigError
from fastsim.forecast.training.config import FitConfig
from fastsim.space import (
    Choice,
    Range,
    drawn,
    in_words,
    read_space,
    require_fit,
    space_of,
    with_values,
)

TEXT = """
learning_rate: {log: [1e-4, 3e-3]}
lora.dropout: {uniform: [0, 0.3]}
lora.rank: {whole: [2, 32]}
steps: {log_whole: [100, 2000]}
centre: [kept, last]
horizons: [[1, 3], [1, 5]]
"""


class Highest:
    """Proposes the upper end of a range and the last of choices, and keeps what it was asked."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, *, log):
        self.asked[name] = (low, high, log)
        return high

    def suggest_int(self, name, low, high, *, log):
        self.asked[name] = (low, high, log)
        return high

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return choices[-1]


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    return read_space(path)


def test_a_file_says_what_is_searched_and_how(space):
    assert isinstance(space["learning_rate"], Range) and isinstance(space["centre"], Choice)
    asks = Highest()
    assert drawn(space, asks) == {
        "learning_rate": 3e-3,
        "lora.dropout": 0.3,
        "lora.rank": 32,
        "steps": 2000,
        "centre": "last",
        "horizons": (1, 5),
    }
    assert asks.asked["learning_rate"] == (1e-4, 3e-3, True)
    assert asks.asked["lora.dropout"] == (0, 0.3, False)
    assert asks.asked["lora.rank"] == (2, 32, False)
    assert asks.asked["steps"] == (100, 2000, True)
    assert asks.asked["horizons"] == ["[1, 3]", "[1, 5]"]  # what a data base can hold


def test_values_become_settings_those_within_others_too(space):
    config = with_values(FitConfig(mode="lora"), drawn(space, Highest()))
    assert (config.learning_rate, config.lora.rank, config.lora.dropout) == (3e-3, 32, 0.3)
    assert config.horizons == (1, 5) and config.lora.alpha == FitConfig().lora.alpha


def test_each_value_is_tried_before_anything_is_searched(space):
    tried = []
    require_fit(space, lambda values: tried.append(values) or with_values(FitConfig(), values))
    assert {"learning_rate": 1e-4} in tried and {"centre": "kept"} in tried
    assert len(tried) == 4 * 2 + 2 + 2
    with pytest.raises(ConfigError, match=r"FitConfig\.learning_rate must be > 0, got -1"):
        require_fit(
            space_of({"learning_rate": [0.1, -1]}), lambda values: with_values(FitConfig(), values)
        )


def test_what_was_chosen_is_told_in_short():
    assert in_words({"hidden": 64, "rate": 0.00123456, "pools": (8, 1)}) == (
        "hidden 64, pools [8, 1], rate 0.001235"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "names settings and what they may be"),
        ({"a": 3}, "a must be a list of values or a range"),
        ({"a": []}, "a must be one of values that differ"),
        ({"a": [1, 1]}, "a must be one of values that differ"),
        ({"a": {"lag": [1, 2]}}, "a must lie by one of log, uniform, whole, .*did you mean 'log'"),
        ({"a": {"log": [0, 1]}}, "a must begin above 0 where it goes by its logarithm"),
        ({"a": {"log": [2, 1]}}, "a must have two numbers for ends that increase"),
        ({"a": {"uniform": [1]}}, "a must have two numbers for ends"),
        ({"a": {"uniform": [True, 2]}}, "a must have two numbers for ends"),
        ({"a": {"uniform": ["x", 2]}}, "a must have two numbers for ends"),
        ({"a": {"whole": [1, 2.5]}}, "a must have whole numbers for ends"),
    ],
)
def test_what_is_no_space_is_refused_by_the_setting(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        space_of(given)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_space_is_refused_by_its_name(tmp_path):
    path = tmp_path / "space.yaml"
    with pytest.raises(ConfigError, match=r"space\.yaml: no such"):
        read_space(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match=r"space\.yaml: expected a mapping"):
        read_space(path)
    path.write_text("a: {log: [1]}")
    with pytest.raises(ConfigError, match=r"space\.yaml: a must have two numbers"):
        read_space(path)


@pytest.mark.parametrize("name", ["lorra.rank", "steps.more", "speed"])
def test_a_setting_that_there_is_not_is_refused_by_its_name(name):
    with pytest.raises(ConfigError, match=f"FitConfig has no field '{name.split('.')[0]}|{name}'"):
        with_values(FitConfig(), {name: 1})
