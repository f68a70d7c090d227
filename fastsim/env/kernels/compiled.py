"""What all code that numba compiles shares: threads to run it on, and a cache that is not stale."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[2]


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads of Python's, for code that holds no lock.

    OpenMP's spin at their barriers, which stalls work for milliseconds as soon as something else
    runs on the machine; these wait quietly.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="fastsim")


os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not survive a fork


def in_parts(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
    """Run a kernel on the arguments of every call at once; this thread takes the last."""
    *rest, last = calls
    others = [pool(len(calls)).submit(kernel, *call) for call in rest]
    kernel(*last)
    for other in others:
        other.result()


@cache
def forget_old_code(kernel: Any, *rooms: str) -> None:
    """Drop compiled code that is older than what it was made of, once in a process.

    numba's cache looks at the file of each entry alone, not at those of what the entry calls.

    Parameters
    ----------
    kernel
        A compiled function; whatever is kept beside it may go.
    rooms
        Folders of the package in which it and all that it calls are written.
    """
    sources = (source for room in rooms for source in (PACKAGE / room).rglob("*.py"))
    changed = max(source.stat().st_mtime for source in sources)
    for index in Path(kernel.stats.cache_path).glob("numba_*.nbi"):
        with suppress(FileNotFoundError):  # another process may be doing the same
            if index.stat().st_mtime < changed:
                index.unlink()
