"""Settings as the command line calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import tyro

from fastsim.experiment.config import TrainConfig
from fastsim.settings import dotted, places_of, respoken

Say = Callable[[str], str]
"""From a message of ours to what a person reads."""


def flags_of(options: type[Any]) -> Say:
    """How a command with these options says what is wrong.

    A setting that it has no flag for is called as its own option of that name, or else as the key
    of a run's `config.yaml`.
    """
    places, of_a_run = places_of(options, is_inlined), places_of(TrainConfig)
    own = get_type_hints(options, include_extras=True)

    def naming(owner: str, name: str) -> str | None:
        path = dotted(places, owner, name)
        if path is None and name in own and owner in of_a_run:
            path = name
        if path is None:
            return dotted(of_a_run, owner, name)
        if tyro.conf.Positional in get_args(own.get(path)):
            return path.upper()
        return f"--{path.replace('_', '-')}"

    return lambda message: respoken(message, naming, given)


def given(name: str, value: str) -> str:
    """How a setting is given a value: a flag that is one has none."""
    if not name.startswith("--"):
        return f"{name}: {value}"
    if value == "True":
        return name
    if value == "False":
        holder, dot, last = name.removeprefix("--").rpartition(".")
        return f"--{holder}{dot}no-{last}"
    return f"{name} {value}"


def is_inlined(hint: Any) -> bool:
    """Whether tyro is told to give a field's settings no prefix."""
    return any(getattr(each, "name", None) == "" for each in getattr(hint, "__metadata__", ()))
