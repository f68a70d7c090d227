"""What was learned beside its start: which of them is kept, and what was forgotten."""

from __future__ import annotations

from fastsim.forecast.training.course import Course
from fastsim.forecast.training.judge import Verdict, judge_of_simulations
from fastsim.forecast.training.loop import Student
from fastsim.forecast.training.report import FitReport

FORGETTING_WINDOWS = 1024
BETTER = 1.0
"""Ratio of losses below which a fit is better than its start."""


def compared(start: Student, tried: Student, before: Verdict, course: Course) -> FitReport:
    """Judge what was learned beside the start, and say which is kept."""
    judge, config = course.lesson.judge, course.loop.config
    after = judge.verdict(tried)
    ratio = judge.ratio(after, before)
    better = after.loss < before.loss
    if config.sure:
        better = ratio is not None and ratio.high < BETTER
    kept = after if better else before
    return FitReport(
        start_loss=before.loss,
        loss=kept.loss,
        tried_loss=after.loss,
        ratio=ratio,
        start_coverage=before.coverage,
        coverage=kept.coverage,
        keeps_start=not better,
        steps=course.loop.step,
        best_step=course.best_step,
        windows=after.windows,
        forgetting=_forgetting(start, tried, course) if better else None,
    )


def _forgetting(start: Student, tried: Student, course: Course) -> float | None:
    """By how much the loss on simulated worlds has grown; None from scratch or if it is of them."""
    config = course.loop.config
    if config.mode == "scratch" or course.lesson.known_until is None:
        return None
    judge = judge_of_simulations(course.lesson.look, config.futures, FORGETTING_WINDOWS, 0)
    return judge.verdict(tried).loss / judge.verdict(start).loss - 1.0
