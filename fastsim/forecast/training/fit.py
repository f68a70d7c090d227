"""Fitting a forecaster to a person's own bars, to simulated worlds, or to both.

The caller's model stays as it is. What is fitted is judged on bars that it did not learn from,
beside its start, and kept only if it is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.forecast.digests import digest_of, fingerprint
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.fitted import FittedModel
from fastsim.forecast.training.beginning import Beginning, begin
from fastsim.forecast.training.comparison import compared
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.course import Course
from fastsim.forecast.training.loop import Loop, take_values
from fastsim.forecast.training.lora import sharing
from fastsim.forecast.training.report import FitReport
from fastsim.forecast.training.series import Series
from fastsim.progress import ON_STDERR, Progress


class FitResult(NamedTuple):
    """What a fit gives."""

    model: FittedModel
    """New; the caller's is as it was. The start again where nothing was better."""
    report: FitReport
    base: str
    """Key of the weights that it began with; empty from scratch."""
    data: str
    """Fingerprint of those bars; empty of none."""


class Fitting(NamedTuple):
    """A fit that is put together, at its first step or where its folder has it."""

    beginning: Beginning
    course: Course
    name: str


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
    fitting = put_together(model, data, config, others=others, name=name, folder=folder)
    fitting.course.run(fitting.beginning.before, progress)
    return result_of(fitting)


def put_together(
    model: ForecastModel,
    data: Bars | Series | None,
    config: FitConfig,
    *,
    others: Series | None,
    name: str,
    folder: Path | None,
) -> Fitting:
    """Make what a fit needs, as `fit` does; errors as there."""
    beginning = begin(model, data, others, config, folder)
    start, lesson = beginning.start, beginning.lesson
    loop = Loop(start._replace(model=sharing(start.model, learned=True)), config)
    weights = fingerprint(start.model)
    identity = digest_of([to_mapping(config), lesson.fingerprint, weights, name])
    course = Course(loop, lesson, identity, folder)
    return Fitting(beginning, course, name or f"{model.card.name}-{config.mode}")


def result_of(fitting: Fitting, trials: int = 1) -> FitResult:
    """What comes of a fit whose course has been run: the best of it, or its start.

    Parameters
    ----------
    trials
        Fits of which it is the best, on the same validation.
    """
    beginning, course, name = fitting
    start, loop = beginning.start, course.loop
    take_values(loop.average, course.best)
    tried = loop.judged
    report = compared(start, tried, beginning.before, course)
    kept = start if report.keeps_start else tried
    whole = FittedModel(
        kept.model,
        kept.centre,
        name=name,
        reach=loop.config.reach,
        known_until=beginning.known_until,
        trials=trials + beginning.trials - 1,
    )
    return FitResult(
        whole.cpu().requires_grad_(False).eval(),
        report,
        beginning.base,
        beginning.lesson.fingerprint,
    )
