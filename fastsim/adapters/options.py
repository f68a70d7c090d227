"""What `reset(options=...)` may say: where to begin, and which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastsim.errors import ConfigError

START = "start"
MASKS = ("mask", "reset_mask")
"""Ours, and Gymnasium's name of the same."""


def begin_with(options: object, *, rows: bool, begun: bool = True) -> dict[str, Any]:
    """Arguments of `PortfolioEnv.reset` beside the seed.

    Parameters
    ----------
    options
        `start` (a bar or a date, for all or for each row) and, where there are several `rows`,
        `mask` (those to begin anew), which Gymnasium calls `reset_mask`.
    begun
        Whether there are episodes under way, as rows that are left alone need.

    Raises
    ------
    ConfigError
        Options that do not exist or contradict each other.
    """
    if options is None:
        return {}
    known = (START, *MASKS) if rows else (START,)
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"reset options must be a mapping with {' or '.join(known)}, got {options!r}"
        )
    for name in options:
        if name not in known:
            raise ConfigError(
                f"there is no reset option {name!r}; the options here are {', '.join(known)}"
            )
    masks = [name for name in MASKS if options.get(name) is not None]
    if len(masks) > 1:
        raise ConfigError("reset options mask and reset_mask say the same: give one of them")
    if masks and not begun:
        raise ConfigError(
            f"reset option {masks[0]} leaves rows alone that have not begun: reset all rows first"
        )
    return {"start": options.get(START), "mask": options[masks[0]] if masks else None}


def together(options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Options of all rows from those of each, as Stable-Baselines3 keeps them.

    Options that were given to all at once stay as they are; else each row may say its start.
    """
    if len({id(each) for each in options}) == 1 or not any(options):
        return options[0]
    for each in options:
        for name in each:
            if name != START:
                raise ConfigError(
                    f"there is no reset option {name!r} of a single row; give {START} alone"
                )
    return {START: [each.get(START) for each in options]}
