"""Work in fixed parts, shared among threads: the same bits however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fastsim.env.kernels.compiled import pool


@contextmanager
def one_thread_each() -> Iterator[int]:
    """Let every product of matrices here run on its own thread alone; gives how many may be used.

    Parts of one product that ran on several would be added up in another order by other numbers
    of them.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield threads
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def share(work: Callable[[int, int], None], parts: int, threads: int) -> None:
    """Call `work(part, worker)` for all parts; no two calls of a worker overlap."""
    workers = min(threads, parts)

    def run(worker: int) -> None:
        for part in range(worker, parts, workers):
            work(part, worker)

    others = [pool(threads - 1).submit(_alone, run, worker) for worker in range(1, workers)]
    run(0)
    for other in others:
        other.result()


def _alone(run: Callable[[int], None], worker: int) -> None:
    """Run it on a thread of the pool, which torch may have let have more."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    run(worker)
