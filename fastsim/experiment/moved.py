"""Settings that have moved: old names work for one more release and say where they are now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

MOVED = {
    "ppo.num_envs": "collect.num_envs",
    "ppo.rollout_steps": "collect.rollout_steps",
}
"""Old dotted names of fields of `TrainConfig`, of a section each, and their new ones."""


def moved_settings(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration, in plain values, with old names turned into new ones."""
    settings = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in mapping.items()
    }
    for old, new in MOVED.items():
        (section, field), (place, name) = old.split("."), new.split(".")
        inside = settings.get(section)
        if isinstance(inside, dict) and field in inside:
            _tell(old, new)
            settings.setdefault(place, {}).setdefault(name, inside.pop(field))
    return settings


def moved_flags(arguments: Sequence[str]) -> list[str]:
    """Arguments of the command line with old flags turned into new ones."""
    flags = {_flag(old): _flag(new) for old, new in MOVED.items()}
    turned = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.replace("_", "-")
        if name in flags:
            _tell(flag, flags[name])
            flag = flags[name]
        turned.append(f"{flag}{equals}{value}")
    return turned


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _tell(old: str, new: str) -> None:
    log.warning("%s is %s now; the old name will go with the next release", old, new)
