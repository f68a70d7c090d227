"""Spaces that settings are searched in, as files of YAML say them.

    learning_rate: {log: [1e-4, 3e-3]}    # a number, by its logarithm
    dropout: {uniform: [0.0, 0.3]}        # a number
    lora.rank: {whole: [2, 32]}           # a whole number; log_whole: by its logarithm
    hidden: [32, 64]                      # one of these values

Names are those of settings, with dots where one is within another's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from fastsim.config import from_mapping, read_yaml, to_mapping
from fastsim.errors import ConfigError, did_you_mean

Config = TypeVar("Config")


class Kind(NamedTuple):
    """How a number lies between two ends."""

    log: bool
    whole: bool


KINDS = {
    "log": Kind(log=True, whole=False),
    "uniform": Kind(log=False, whole=False),
    "whole": Kind(log=False, whole=True),
    "log_whole": Kind(log=True, whole=True),
}
"""By the word that stands before the ends."""


class Range(NamedTuple):
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    kind: Kind

    def ends(self) -> tuple[Any, ...]:
        """The values that stand for all where it is asked whether they may be."""
        return (self.low, self.high)

    def draw(self, name: str, proposes: Proposes) -> Any:
        """The value that is proposed."""
        if self.kind.whole:
            low, high = int(self.low), int(self.high)
            return proposes.suggest_int(name, low, high, log=self.kind.log)
        return proposes.suggest_float(name, self.low, self.high, log=self.kind.log)


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    def draw(self, name: str, proposes: Proposes) -> Any:
        """The value that is proposed; lists are proposed by how they are written."""
        labels = [_label(value) for value in self.values]
        return self.values[labels.index(proposes.suggest_categorical(name, labels))]


Space = dict[str, Range | Choice]
"""By the name of the setting."""


class Proposes(Protocol):
    """Who says what to try next: a trial of Optuna's, or whatever answers as one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of these."""
        ...


def read_space(path: Path) -> Space:
    """The space in a file of YAML.

    Raises
    ------
    ConfigError
        There is no such file, or it is no space; names the file and the setting.
    """
    try:
        return space_of(read_yaml(path))
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if told.startswith(f"{path}: ") else f"{path}: {told}") from None


def space_of(mapping: Mapping[str, Any]) -> Space:
    """A space from plain values by the names of settings.

    Raises
    ------
    ConfigError
        It names no setting, or what stands behind one is neither a list of values nor a range.
    """
    if not mapping:
        raise ConfigError("a space names settings and what they may be, and this one names none")
    return {str(name): _parameter(str(name), given) for name, given in mapping.items()}


def _parameter(name: str, given: Any) -> Range | Choice:
    if isinstance(given, list | tuple):
        values = tuple(tuple(each) if isinstance(each, list) else each for each in given)
        labels = [_label(value) for value in values]
        if not values or len(set(labels)) < len(labels):
            raise ConfigError(f"{name} must be one of values that differ, got {list(given)}")
        return Choice(values)
    if isinstance(given, Mapping) and len(given) == 1:
        word, ends = next(iter(given.items()))
        if word in KINDS:
            return _range(name, KINDS[word], ends)
        raise ConfigError(
            f"{name} must lie by one of {', '.join(KINDS)}, got {word!r}"
            f"{did_you_mean(str(word), KINDS)}"
        )
    raise ConfigError(
        f"{name} must be a list of values or a range such as {{log: [1e-4, 1e-2]}}, got {given!r}"
    )


def _range(name: str, kind: Kind, ends: Any) -> Range:
    pair = list(ends) if isinstance(ends, list | tuple) else []
    numbers = [each for each in pair if isinstance(each, int | float) and isfinite(each)]
    flags = any(isinstance(each, bool) for each in pair)
    if len(pair) != 2 or len(numbers) != 2 or flags or not numbers[0] < numbers[1]:
        raise ConfigError(f"{name} must have two numbers for ends that increase, got {ends!r}")
    if kind.log and numbers[0] <= 0:
        raise ConfigError(f"{name} must begin above 0 where it goes by its logarithm, got {ends!r}")
    if kind.whole and any(number != int(number) for number in numbers):
        raise ConfigError(f"{name} must have whole numbers for ends, got {ends!r}")
    return Range(numbers[0], numbers[1], kind)


def drawn(space: Space, proposes: Proposes) -> dict[str, Any]:
    """Values by the names of settings, as they are proposed."""
    return {name: parameter.draw(name, proposes) for name, parameter in space.items()}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with other values of the settings that these names, dots included, mean.

    Raises
    ------
    ConfigError
        It has no such setting, or the setting may not have this value.
    """
    mapping = to_mapping(config)
    for name, value in values.items():
        *holders, last = name.split(".")
        inner = mapping
        for holder in holders:
            inner = inner.setdefault(holder, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{type(config).__name__} has no field {name!r}")
        inner[last] = list(value) if isinstance(value, tuple) else value
    return from_mapping(type(config), mapping)


def require_fit(space: Space, holds: Callable[[Mapping[str, Any]], object]) -> None:
    """Ask whether each value that a space may propose can be, one setting at a time.

    Parameters
    ----------
    holds
        Takes values by name, and raises ConfigError where they cannot be.

    Raises
    ------
    ConfigError
        What that raised.
    """
    for name, parameter in space.items():
        for value in parameter.ends():
            holds({name: value})


def in_words(values: Mapping[str, Any]) -> str:
    """Values by name as people read them: `hidden 64, learning_rate 0.00123`."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {_label(value)}"
        for name, value in sorted(values.items())
    )


def _label(value: Any) -> Any:
    """What can be kept in a data base: plain values as they are, lists as they are written."""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return value
