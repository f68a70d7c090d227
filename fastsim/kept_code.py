"""Compiled code as numba keeps it on disk, made safe for several processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

LOCK = "numba.lock"


def kept_alone(function: Any) -> Any:
    """Let numba keep what it compiles of a function while no other process does.

    It takes the first name that its list of contents has free, and writes the code after the list:
    two processes that compile for other types would write one file, and one would run the other's.
    What is kept and cannot be read, as of a process that was killed, is compiled anew.
    """
    cache = function._cache
    lock = FileLock(Path(cache.cache_path) / LOCK)
    cache.load_overload = partial(_find, cache.load_overload, cache.flush, lock)
    cache.save_overload = partial(_keep, cache.save_overload, cache.flush, lock)
    return function


def _find(find: Any, forget: Any, lock: FileLock, *wanted: Any) -> Any:
    try:
        return find(*wanted)
    except OSError:
        raise
    except Exception:  # unpickling of what was cut short raises nearly anything
        with lock:
            forget()
        return None


def _keep(keep: Any, forget: Any, lock: FileLock, *compiled: Any) -> None:
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    with lock:
        try:
            keep(*compiled)
        except ReferenceError:  # its list names functions of processes that are over: begin anew
            forget()
            keep(*compiled)
