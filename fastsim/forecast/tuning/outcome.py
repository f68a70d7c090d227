"""What comes of a search: the best fit, scored on bars that no trial saw, and all trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastsim.data.bars import Bars
from fastsim.errors import ForecastError
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import FitResult, result_of
from fastsim.forecast.training.loop import Student
from fastsim.forecast.tuning.score import FinalScore, final_score, judge_of_test
from fastsim.progress import SILENT
from fastsim.space import in_words

if TYPE_CHECKING:
    from fastsim.forecast.tuning.job import Job
    from fastsim.forecast.tuning.study import Attempt, Study


class TuneReport(NamedTuple):
    """What came of a search."""

    trials: int
    """That were tried: figures of the best one are the best of as many."""
    completed: int
    pruned: int
    failed: int
    again: int
    """Times that a trial was begun anew, as its process had died."""
    best: int
    """Number of the best."""
    values: Mapping[str, Any]
    """Of its settings that were searched."""
    validation_loss: float
    final: FinalScore
    """On bars that no trial saw."""

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        ratio = None if self.final.ratio is None else self.final.ratio._asdict()
        return {
            **self._asdict(),
            "values": dict(self.values),
            "final": {**self.final._asdict(), "ratio": ratio},
        }

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        final, ratio = self.final, self.final.ratio
        told = (
            f"Best of {self.trials} trials ({self.completed} to their end, {self.pruned} given up, "
            f"{self.failed} failed), number {self.best}: {in_words(self.values)}, loss on "
            f"validation {self.validation_loss:.5f}. On bars from {final.start} on, which no trial "
            f"saw, loss {final.loss:.5f} against {final.start_loss:.5f} of its start"
        )
        if ratio is not None:
            told += f", ratio {ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"
        return f"{told}; the 80 % band holds {final.coverage:.1%} of what came."


class TuneResult(NamedTuple):
    """What a search gives."""

    fit: FitResult
    """The best fit, or its start where that is not better on validation; its card has the number
    of trials."""
    config: FitConfig
    """By which it was fitted."""
    report: TuneReport
    attempts: tuple[Attempt, ...]
    """Every trial."""


def outcome(job: Job, study: Study, bars: Bars, start: np.datetime64) -> TuneResult:
    """The best fit of a study whose trials have ended, scored from `start` on.

    Raises
    ------
    DataError
        The test holds no window.
    ForecastError
        No trial came to its end.
    """
    attempts = tuple(study.attempts())
    whole = [each for each in attempts if each.state == "complete" and each.loss is not None]
    if not whole:
        reasons = [each.reason for each in attempts if each.reason] or ["all were given up"]
        raise ForecastError(f"none of {len(attempts)} trials came to its end: {reasons[0]}")
    best = min(whole, key=lambda each: (each.loss, each.number))
    fitting = job.fitting(best.number, best.values)
    beginning, config = fitting.beginning, fitting.course.loop.config
    fitting.course.run(beginning.before, SILENT)  # to where it was, had its state been lost
    judge = judge_of_test(bars, start, config, beginning.lesson)
    before = judge.verdict(beginning.start)
    result = result_of(fitting, trials=len(attempts))
    after = judge.verdict(Student(result.model.spread, result.model.centre))
    states = [each.state for each in attempts]
    report = TuneReport(
        trials=len(attempts),
        completed=states.count("complete"),
        pruned=states.count("pruned"),
        failed=states.count("failed"),
        again=sum(each.attempts - 1 for each in attempts),
        best=best.number,
        values=best.values,
        validation_loss=best.loss or 0.0,
        final=final_score(judge, start, before, after),
    )
    return TuneResult(result, config, report, attempts)
