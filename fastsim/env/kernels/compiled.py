"""What all code that numba compiles shares: threads to run it on, and a cache that is not stale."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = Path(__file__).parents[2]
TAKEN, FINISHED, PLACES = 0, 8, 16
"""Where the counts of rows stand among those of `turns` [PLACES] int64: a cache line for each."""
OWN = -1
"""What the one who steps calls its job; helpers count theirs, and the `bell` [1] its rings."""
TURNS_EACH = 16
"""Turns that fall to each thread where all are equally fast."""
UNHEARD = np.zeros(1, np.int64)
"""The bell where there are no helpers."""
NAP = 2e-5
"""Seconds of sleep at a time where another thread's last turn takes long."""


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


class Helpers:
    """Threads that take turns at rows beside the one that steps.

    To wake a thread takes as long as many a step, of whoever wakes it too, and so does handing the
    interpreter's lock to one that waits for it. Hence there are no futures, and between jobs
    helpers look out for the next one for a while, within the kernel, before they ask for the lock.
    """

    def __init__(self, count: int) -> None:
        self.bell = np.zeros(1, np.int64)
        self._jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._threads = [Thread(target=self._help, daemon=True) for _ in range(count)]
        self._number = itertools.count(1)
        for thread in self._threads:
            thread.start()

    def ask(
        self,
        kernel: Callable[..., None],
        turns: NDArray[np.int64],
        sizes: tuple[int, int],
        rests: Sequence[tuple[Any, ...]],
    ) -> None:
        """Let one of them for each of `rests` call a kernel that holds no lock."""
        number = next(self._number)
        for rest in rests:
            self._jobs.put((kernel, (turns, self.bell, number, *sizes, rest)))

    def wait(self, turns: NDArray[np.int64], count: int) -> None:
        """Sleep until all rows are done."""
        while turns[FINISHED] < count:
            if not all(thread.is_alive() for thread in self._threads):
                raise RuntimeError("a thread that steps environments has ended: see its traceback")
            time.sleep(NAP)

    def _help(self) -> None:
        while True:
            kernel, arguments = self._jobs.get()
            kernel(*arguments)
            del kernel, arguments  # the arrays are others'


helpers = cache(Helpers)
os.register_at_fork(after_in_child=helpers.cache_clear)


def in_turns(kernel: Callable[..., None], count: int, rests: Sequence[tuple[Any, ...]]) -> None:
    """Let a thread for each of `rests`, and this one is the last, take turns at `count` rows.

    Until a helper is awake the others take its turns, and nobody waits for it if none are left.
    """
    if len(rests) == 1:  # a step of a single environment takes no longer than what follows
        kernel(np.zeros(PLACES, np.int64), UNHEARD, OWN, count, count, rests[0])
        return
    turns = np.zeros(PLACES, np.int64)
    *others, own = rests
    known, sizes = helpers(len(others)), (max(1, count // (TURNS_EACH * len(rests))), count)
    known.ask(kernel, turns, sizes, others)
    kernel(turns, known.bell, OWN, *sizes, own)
    if turns[FINISHED] < count:
        known.wait(turns, count)


@cache
def forget_old_code(kernel: Any, *rooms: str) -> None:
    """Drop compiled code that is older than what it was made of, once in a process.

    numba's cache looks at the file of each entry alone, not at those of what the entry calls; and
    it leaves code where it is, under names that are given to other code before that is written.

    Parameters
    ----------
    kernel
        A compiled function; whatever is kept beside it may go.
    rooms
        Folders of the package in which it and all that it calls are written.
    """
    sources = (source for room in rooms for source in (PACKAGE / room).rglob("*.py"))
    changed = max(source.stat().st_mtime for source in sources)
    for kept in Path(kernel.stats.cache_path).glob("numba_*.nb[ic]"):
        with suppress(FileNotFoundError):  # another process may be doing the same
            if kept.stat().st_mtime < changed:
                kept.unlink()
