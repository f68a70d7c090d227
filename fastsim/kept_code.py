"""Compiled code as numba keeps it on disk, made safe for several processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock


def kept_alone(function: Any) -> Any:
    """Let numba keep what it compiles of a function while no other process does.

    It takes the first name that its list of contents has free, and writes the code after the list:
    two processes that compile for other types would write one file, and one would run the other's.
    """
    cache = function._cache
    folder = Path(cache.cache_path)
    cache.save_overload = partial(_keep, cache.save_overload, cache.flush, folder)
    return function


def _keep(keep: Any, forget: Any, folder: Path, *compiled: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "numba.lock"):
        try:
            keep(*compiled)
        except ReferenceError:  # its list names functions of processes that are over: begin anew
            forget()
            keep(*compiled)
