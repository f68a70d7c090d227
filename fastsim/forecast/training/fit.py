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
from fastsim.forecast.training.beginning import begin
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
    start, lesson, known_until, base = begin(model, data, others, config, folder)
    before = lesson.judge.verdict(start)
    loop = Loop(start._replace(model=sharing(start.model, learned=True)), config)
    weights = fingerprint(start.model)
    identity = digest_of([to_mapping(config), lesson.fingerprint, weights, name])
    course = Course(loop, lesson, identity, folder)
    course.run(before, progress)
    take_values(loop.average, course.best)
    tried = loop.judged
    report = compared(start, tried, before, course)
    kept = start if report.keeps_start else tried
    whole = FittedModel(
        kept.model,
        kept.centre,
        name=name or f"{model.card.name}-{config.mode}",
        reach=config.reach,
        known_until=known_until,
    )
    return FitResult(
        whole.cpu().requires_grad_(False).eval(),
        report,
        base,
        lesson.fingerprint,
    )
