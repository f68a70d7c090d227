"""Fitting a forecaster to a person's own bars, to simulated worlds, or to both.

The caller's model stays as it is. What is fitted is judged on bars that it did not learn from,
beside its start, and kept only if it is better.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch

from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.forecast.digests import digest_of, fingerprint
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.networks.return_network import ReturnNetwork
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.course import Course
from fastsim.forecast.training.judge import Verdict, judge_of_simulations
from fastsim.forecast.training.lesson import Lesson, lesson_of
from fastsim.forecast.training.loop import Loop, Student, take_values
from fastsim.forecast.training.modes import to_be_fitted
from fastsim.forecast.training.report import FitReport
from fastsim.forecast.training.series import Series
from fastsim.forecast.training.windows import seeded
from fastsim.progress import ON_STDERR, Progress

STANDARDISED_BY = 4
"""Batches that a network from scratch knows its features by."""
FORGETTING_WINDOWS = 1024
BETTER = 1.0
"""Ratio of losses below which a fit is better than its start."""


class FitResult(NamedTuple):
    """What a fit gives."""

    model: FittedModel
    """New; the caller's is as it was. The start again where nothing was better."""
    report: FitReport
    base: str
    """Key of the weights that it began with; empty from scratch."""
    known_until: int | None
    """Second since 1970 UTC of the latest bar that it was fitted or judged by; None of no bars."""
    data: str
    """Fingerprint of those bars; empty of none."""


def fit(
    model: ForecastModel,
    data: Bars | Series | None,
    config: FitConfig | None = None,
    *,
    others: Series | None = None,
    name: str = "",
    folder: Path | None = None,
    progress: Progress = ON_STDERR,
) -> FitResult:
    """Fit a copy of a model, and judge it beside its start.

    Parameters
    ----------
    model
        What to begin with; from scratch its architecture alone.
    data
        Bars to learn from and be judged by; None for simulated worlds alone, of which
        `config.simulated` is then 1.
    others
        Series to learn from as well, up to where validation of the bars begins.
    name
        Of what comes out; by default the model's with the mode.
    folder
        Where the state is written at every validation: a fit that was killed goes on from there,
        given the same again, and ends with the same bits.
    progress
        Told of steps, losses and the time that is left.

    Raises
    ------
    ConfigError
        The model cannot be fitted in this mode, or settings contradict each other.
    DataError
        The bars are too few.
    ForecastError
        The model cannot look as far ahead or back, or the loss is no number.
    CheckpointError
        The folder holds the state of another fit.
    """
    config = FitConfig() if config is None else config
    own, kept_centre = _parts_of(model)
    begun = to_be_fitted(own, config.mode, config.seed).to(config.device)
    lesson = lesson_of(begun.card, data, others, config, folder)
    if config.mode == "scratch" and isinstance(begun, ReturnNetwork):
        _standardise(begun, lesson, config)
    start = Student(begun, _centre(begun, kept_centre, config))
    before = lesson.judge.verdict(start)
    loop = Loop(start._replace(model=copy.deepcopy(begun)), config)
    identity = digest_of([to_mapping(config), lesson.fingerprint, fingerprint(begun), name])
    course = Course(loop, lesson, identity, folder)
    course.run(before, progress)
    tried = loop.judged
    take_values(tried.model, course.best)
    report = _reported(start, tried, before, course, config)
    kept = start if report.keeps_start else tried
    whole = FittedModel(
        kept.model, kept.centre, name=name or f"{model.card.name}-{config.mode}", reach=config.reach
    )
    return FitResult(
        whole.cpu().requires_grad_(False).eval(),
        report,
        "" if config.mode == "scratch" else fingerprint(model),
        lesson.known_until,
        lesson.fingerprint,
    )


def _parts_of(
    model: ForecastModel,
) -> tuple[ForecastModel, ForecastModel | LastClose | None]:
    """The network to fit, and whose its median is: of one that was fitted before, what it was."""
    return (model.spread, model.centre) if isinstance(model, FittedModel) else (model, model)


def _centre(
    begun: ForecastModel, kept: ForecastModel | LastClose | None, config: FitConfig
) -> ForecastModel | LastClose | None:
    """Whose median the model is judged and kept about."""
    if config.centre == "fitted":
        return None
    if config.centre == "last" or config.mode == "scratch" or isinstance(kept, LastClose):
        return LastClose()
    start = begun if kept is None else kept  # None: the network's own
    return copy.deepcopy(start).float().requires_grad_(False).to(config.device)


def _standardise(model: ReturnNetwork, lesson: Lesson, config: FitConfig) -> None:
    """Let a network from scratch know its features from the first windows."""
    batches = (
        lesson.source.draw(config.batch_size, seeded(config.seed, "standardise", number))
        for number in range(STANDARDISED_BY)
    )
    with torch.no_grad():
        closes = (windows.context.close.to(config.device) for windows in batches)
        model.standardise(torch.cat([model.read(each).features.double() for each in closes]))


def _reported(
    start: Student, tried: Student, before: Verdict, course: Course, config: FitConfig
) -> FitReport:
    """Judge what was learned beside the start, and say which is kept."""
    judge = course.lesson.judge
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
        forgetting=_forgetting(start, tried, course, config) if better else None,
    )


def _forgetting(start: Student, tried: Student, course: Course, config: FitConfig) -> float | None:
    """By how much the loss on simulated worlds has grown; None from scratch or if it is of them."""
    if config.mode == "scratch" or course.lesson.known_until is None:
        return None
    judge = judge_of_simulations(course.lesson.look, config.futures, FORGETTING_WINDOWS, 0)
    return judge.verdict(tried).loss / judge.verdict(start).loss - 1.0
