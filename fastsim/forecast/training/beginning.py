"""What a fit begins with: a copy of the model, whose median it keeps, and what it is to learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import ForecastModel, ModelCard, model_inputs
from fastsim.forecast.networks.return_network import ReturnNetwork
from fastsim.forecast.seen import latest_day
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.judge import Verdict
from fastsim.forecast.training.lesson import Lesson, lesson_of
from fastsim.forecast.training.loop import Student
from fastsim.forecast.training.modes import centre_of, parts_of, to_be_fitted
from fastsim.forecast.training.series import Series
from fastsim.forecast.training.windows import seeded

STANDARDISED_BY = 4
"""Batches that a network from scratch knows its features by."""


class Beginning(NamedTuple):
    """All that is there before the first step."""

    start: Student
    before: Verdict  # of it
    lesson: Lesson
    known_until: str | None
    """Of what will come out, as in `ModelCard`."""
    base: str
    """Key of the caller's weights that are fitted; empty from scratch."""
    trials: int
    """Of which the caller's weights are the best; 1 from scratch."""


def begin(
    model: ForecastModel,
    data: Bars | Series | None,
    others: Series | None,
    config: FitConfig,
    folder: Path | None,
) -> Beginning:
    """Put a fit together; errors as `fit`."""
    own, kept = parts_of(model)
    if config.mode == "lora" and own is not model:
        raise ConfigError(
            f"FitConfig.mode lora is for published weights, and {model.card.name} was fitted: "
            f"fit it in another mode, or an adapter beside what it began with"
        )
    begun = to_be_fitted(own, config).to(config.device).eval()
    lesson = lesson_of(begun.card, data, others, config, folder)
    if config.mode == "scratch" and isinstance(begun, ReturnNetwork):
        _standardise(begun, lesson, config)
    start = Student(begun, centre_of(begun, own, kept, config))
    new = config.mode == "scratch"
    return Beginning(
        start,
        lesson.judge.verdict(start),
        lesson,
        known_until=_known_until(model.card, lesson, config),
        base="" if new else fingerprint(own),
        trials=1 if new else model.card.trials,
    )


def _known_until(card: ModelCard, lesson: Lesson, config: FitConfig) -> str | None:
    """The last day that it has seen: of the bars that taught and judged it, and of its start."""
    seen = [] if config.mode == "scratch" else [card]
    return latest_day([*seen, replace(card, known_until=lesson.known_until)])


def _standardise(model: ReturnNetwork, lesson: Lesson, config: FitConfig) -> None:
    """Let a network from scratch know its features from the first windows."""
    batches = (
        lesson.source.draw(config.batch_size, seeded(config.seed, "standardise", number))
        for number in range(STANDARDISED_BY)
    )
    with torch.no_grad():
        card, device = model.card, torch.device(config.device)
        inputs = (
            model_inputs(card, windows.context, card.max_context, device) for windows in batches
        )
        features = [model.read(*each).features.double() for each in inputs]
        model.standardise(torch.cat(features))
