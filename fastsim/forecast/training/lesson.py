"""What a fit learns from and is judged by, made from bars and settings before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import ModelCard, check_horizon
from fastsim.forecast.season.setting import resolved, season_of
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.folder import DATA
from fastsim.forecast.training.jitter import Jittered
from fastsim.forecast.training.judge import Judge, judge_of_series, judge_of_simulations
from fastsim.forecast.training.series import Series, first_stamps, mapped, series_of_bars
from fastsim.forecast.training.split import (
    Look,
    origins_before,
    split_origins,
    split_stamp,
    spread_origins,
)
from fastsim.forecast.training.windows import (
    Mix,
    Seasonless,
    SeriesSource,
    SimulatedSource,
    Source,
)

USUAL_CONTEXT = 512


class Lesson(NamedTuple):
    """All that a fit meets."""

    source: Source
    judge: Judge
    look: Look
    train_windows: int
    """Different windows there are to learn from; 0 where each is new."""
    known_until: str | None
    """Day of the latest bar that had a part in it; None where all is simulated."""
    fingerprint: str


def lesson_of(
    card: ModelCard,
    data: Bars | Series | None,
    others: Series | None,
    config: FitConfig,
    folder: Path | None,
) -> Lesson:
    """Put together what a model with this card is to learn.

    Raises
    ------
    ConfigError
        There are no bars, and not all is to be simulated; or no other series, and some are wanted.
    DataError
        The bars are too few for a window in each part.
    ForecastError
        The model cannot look as far ahead, or back, as is asked.
    """
    check_horizon(card, config.reach)
    look = _look(card, config)
    simulated = SimulatedSource(look, config.futures)
    if (others is None) != (config.others == 0.0):
        wanted = "0 where no other series are given" if others is None else "> 0 for them to count"
        raise ConfigError(f"FitConfig.others must be {wanted}, got {config.others:g}")
    if data is None:
        if config.simulated < 1.0:
            raise ConfigError(
                f"FitConfig.simulated must be 1 where there are no bars, got {config.simulated:g}"
            )
        judge = judge_of_simulations(look, config.futures, config.validation_windows, config.seed)
        return Lesson(simulated, judge, look, 0, None, "")
    series = series_of_bars(data) if isinstance(data, Bars) else data
    known = [each for each in (series, others) if each is not None]
    fingerprint = " ".join(each.fingerprint() for each in known)
    if folder is not None:
        series = mapped(series, folder / DATA)
    origins = split_origins(series, look, config.split)
    judged = spread_origins(series, origins.validation, config.validation_windows)
    season = season_of(resolved(config.season, first_stamps(series)))
    own = _own(series, origins.train, look, config)
    if season is not None:
        own = Seasonless(own, season, look.horizons)
    if config.jitter.moves:
        own = Jittered(own, config.jitter)
    parts = [(own, 1.0 - config.simulated - config.others), (simulated, config.simulated)]
    if others is not None:
        rows = origins_before(others, look, split_stamp(series, config.split))
        parts.append((SeriesSource(others, rows, look), config.others))
    return Lesson(
        Mix(parts),
        judge_of_series(series, judged, look, season),
        look,
        len(origins.train),
        series.last_day,
        fingerprint,
    )


def _own(series: Series, train: NDArray[np.int64], look: Look, config: FitConfig) -> Source:
    """Windows of the bars; some of two bars joined to one, if wanted."""
    own = SeriesSource(series, train, look)
    share = config.jitter.time
    if not share:
        return own
    twice = Look(2 * look.context, 2 * look.least, tuple(2 * each for each in look.horizons))
    rows = split_origins(series, twice, config.split).train
    return Mix([(own, 1.0 - share), (SeriesSource(series, rows, look, joined=2), share)])


def _look(card: ModelCard, config: FitConfig) -> Look:
    context = min(USUAL_CONTEXT, card.max_context) if config.context is None else config.context
    if not card.min_context <= context <= card.max_context:
        raise ForecastError(
            f"{card.name} reads {card.min_context} to {card.max_context} bars, not {context}"
        )
    return Look(context, card.min_context, config.horizons)
