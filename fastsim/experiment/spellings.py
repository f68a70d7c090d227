"""Other names of a run's settings: those that users bring, and those that settings used to have."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fastsim.errors import ConfigError

BROUGHT = {
    "num_envs": "collect.num_envs",
    "num_assets": "data.num_assets",
    "total_timesteps": "total_steps",
}
"""Names that stand for a field of `TrainConfig`, by its dotted name."""
MOVED = {
    "weights": "forecast.weights",
    "ppo.num_envs": "collect.num_envs",
    "ppo.rollout_steps": "collect.rollout_steps",
    "worlds.slots": "worlds.ahead",
}
"""Old names, dotted where they are nested: they work for one more release, with a warning."""


def respelled_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of a run with every name as `TrainConfig` has it.

    Raises
    ------
    ConfigError
        A setting is given under two names.
    """
    settled: dict[str, Any] = _copied(settings)
    for name, path in (BROUGHT | MOVED).items():
        holder, last = _holder(settled, name)
        if last not in holder:
            continue
        value = holder.pop(last)
        target, field = _holder(settled, path, make=True)
        if field in target:
            raise ConfigError(f"{name} and {path} are one setting: give one of them")
        target[field] = value
        if name in MOVED:
            _warn(name, path)
    return settled


def respelled_flags(arguments: Sequence[str]) -> list[str]:
    """Arguments of the command line with every flag as `TrainConfig` has it; errors likewise."""
    given = {_setting(argument): _setting(argument) for argument in arguments}
    settled = []
    for argument in arguments:
        name = _setting(argument)
        path = (BROUGHT | MOVED).get(name)
        if path is None:
            settled.append(argument)
            continue
        other = given.setdefault(path, name)
        if other != name:
            raise ConfigError(f"{_flag(name)} and {_flag(other)} are one setting: give one of them")
        if name in MOVED:
            _warn(_flag(name), _flag(path))
        _, equals, value = argument.partition("=")
        settled.append(f"{_flag(path)}{equals}{value}")
    return settled


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def _holder(
    settings: dict[str, Any], path: str, *, make: bool = False
) -> tuple[dict[str, Any], str]:
    """The mapping that holds the last name of a dotted path, and that name."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = settings.setdefault(parent, {}) if make else settings.get(parent)
        if not isinstance(inner, dict):
            return {}, last
        settings = inner
    return settings, last


def _setting(argument: str) -> str:
    """The dotted name that a flag sets; empty for what is no flag."""
    flag = argument.partition("=")[0]
    return flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""


def _flag(path: str) -> str:
    return f"--{path.replace('_', '-')}"


def _warn(old: str, new: str) -> None:
    print(f"fastsim: {old} is now {new}; the old name goes with the next release", file=sys.stderr)
