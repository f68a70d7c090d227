"""How compiled kernels are called: types looked up once, no older than their source, on threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba

Kernel = Callable[..., Any]


def compiled(kernel: Any, arguments: Sequence[Any]) -> Kernel:
    """The kernel for arguments of these types alone.

    To look up the types of all blocks at every call takes longer than to step an environment.
    """
    _forget_old_code(kernel.stats.cache_path)
    call: Kernel = kernel.compile(tuple(map(numba.typeof, arguments)))
    return call


def in_parts(kernel: Kernel, calls: Sequence[tuple[Any, ...]]) -> None:
    """Run a kernel on the arguments of every call; this thread takes the last.

    OpenMP's threads spin at their barriers, which stalls a step for milliseconds as soon as
    something else runs on the machine; threads of Python's wait quietly.
    """
    *rest, last = calls
    others = [_pool(len(calls)).submit(kernel, *call) for call in rest]
    kernel(*last)
    for other in others:
        other.result()


def bounds_of(count: int, parts: int) -> list[tuple[int, int]]:
    """First and last of `count` things, shared out equally."""
    bounds = [part * count // parts for part in range(parts + 1)]
    return list(pairwise(bounds))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fastsim-step")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


@cache
def _forget_old_code(folder: str) -> None:
    """Drop compiled code that is older than what it was made of, once in a process.

    numba's cache looks at the file of each entry alone, not at those of what the entry calls.
    """
    env = Path(__file__).parent.parent
    changed = max(source.stat().st_mtime for source in env.rglob("*.py"))
    for index in Path(folder).glob("numba_*.nbi"):
        with suppress(FileNotFoundError):  # another process may be doing the same
            if index.stat().st_mtime < changed:
                index.unlink()
