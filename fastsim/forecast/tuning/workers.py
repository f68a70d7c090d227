"""Who works on a search: this process, or several that it begins."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from fastsim.errors import FastsimError
from fastsim.forecast.tuning.job import Job
from fastsim.forecast.tuning.study import Study
from fastsim.progress import Progress, Task
from fastsim.space import in_words

LOOK_S, PATIENCE_S = 1.0, 10.0
"""Seconds between two looks at processes, and that they are given to stop."""
ENDED = ("complete", "pruned", "failed")


def try_all(job: Job, progress: Progress) -> Study:
    """Let every trial of a job be tried, and give the study.

    Several processes share the threads. What they leave, as they were killed, this one does.

    Raises
    ------
    FastsimError
        Of a process that cannot work on the study, such as CheckpointError.
    """
    study, trials = job.study(), job.search.trials
    shown = _Shown(study)
    with progress.task("tuning", trials, unit="trials", done=shown.ended) as task:
        if job.search.workers > 1:
            _work_together(job, shown, task, progress)
        study.work(job.objective, trials, lambda: _after(job, study, shown, task))
        shown.look(task)
    job.tidy(study)
    return study


def _after(job: Job, study: Study, shown: _Shown, task: Task) -> None:
    job.tidy(study)
    shown.look(task)


class _Shown:
    """How far a study is, as a person is told."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.ended = self._ended()

    def _ended(self) -> int:
        return sum(each.state in ENDED for each in self.study.attempts())

    def look(self, task: Task) -> None:
        """Tell what has come since the last look."""
        ended = self._ended()
        whole = [each for each in self.study.attempts() if each.state == "complete"]
        best = min(whole, key=lambda each: each.loss or 0.0, default=None)
        if ended > self.ended and best is not None and best.loss is not None:
            told = {"loss": f"loss {best.loss:.4f}", "best": in_words(best.values)}
            task.advance(ended - self.ended, **told)
        elif ended > self.ended:
            task.advance(ended - self.ended)
        self.ended = ended


def _work_together(job: Job, shown: _Shown, task: Task, progress: Progress) -> None:
    """Let several processes try, until none of them is left."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // job.search.workers)
    content, errors = pickle.dumps(job), context.SimpleQueue()
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(content, threads, errors))
        for _ in range(job.search.workers)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            time.sleep(LOOK_S)
            shown.look(task)
    except BaseException:
        for worker in workers:
            worker.join(PATIENCE_S)  # Ctrl-C has reached it, too
            worker.terminate()
        raise
    if not errors.empty():
        raise errors.get()
    for worker in workers:
        if worker.exitcode:
            progress.say(
                f"A process of the search has ended with status {worker.exitcode}: what it was at "
                f"is tried again."
            )


def _work(content: bytes, threads: int, errors: Any) -> None:
    """What such a process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        job: Job = pickle.loads(content)
        study = job.study()
        study.work(job.objective, job.search.trials, lambda: job.tidy(study))
    except FastsimError as error:
        errors.put(error)
    except KeyboardInterrupt:
        return


def _end_with_parent() -> None:
    """End this process where the one that began it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
