"""Bars that no trial sees, and the score of what was chosen on them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, show_day
from fastsim.errors import DataError
from fastsim.forecast.season.setting import resolved, season_of
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.judge import Judge, Verdict, judge_of_series
from fastsim.forecast.training.lesson import Lesson
from fastsim.forecast.training.series import first_stamps, series_of_bars
from fastsim.forecast.training.split import origins_after, spread_origins
from fastsim.forecast.tuning.config import SearchConfig
from fastsim.stats.bootstrap import Interval


class Parts(NamedTuple):
    """Bars cut in two."""

    learned: Bars
    """What trials learn from and are judged by."""
    start: np.datetime64
    """Of the test."""


class FinalScore(NamedTuple):
    """Losses on the test, in the unit of a fit's."""

    start: str
    """First day of the bars that no trial saw."""
    loss: float
    start_loss: float
    """Of what the fits began with."""
    ratio: Interval | None
    """Of the first to the second, over blocks of time; None where there are too few."""
    coverage: float
    """Share of what came within the 80 % band."""
    windows: int


def cut_off(bars: Bars, search: SearchConfig) -> Parts:
    """Cut the test off.

    Raises
    ------
    DataError
        One of the parts has no bars.
    """
    stamps = bars.timestamps
    if search.test_start is None:
        row = round((1.0 - search.test) * len(stamps))
    else:
        row = int(np.searchsorted(stamps, iso_date(search.test_start, "SearchConfig.test_start")))
    if not 0 < row < len(stamps):
        raise DataError(
            f"bars from {show_day(stamps[0])} to {show_day(stamps[-1])} leave none for one of the "
            f"parts where the test begins at bar {row}: let it begin elsewhere"
        )
    return Parts(bars.take(slice(0, row)), stamps[row])


def judge_of_test(bars: Bars, start: np.datetime64, config: FitConfig, lesson: Lesson) -> Judge:
    """A judge by windows whose targets are of the test, as far apart as a fit's validation is.

    As many bars as the longest horizon, or the embargo, lie between the last target that a trial
    saw and the first of these.

    Raises
    ------
    DataError
        The test holds no window.
    """
    series, look = series_of_bars(bars), lesson.look
    gap = look.horizons[-1] if config.split.embargo is None else config.split.embargo
    border = int(start.astype("datetime64[s]").astype(np.int64))
    chosen = spread_origins(
        series, origins_after(series, look, border, gap), config.validation_windows
    )
    season = season_of(resolved(config.season, first_stamps(series)))
    return judge_of_series(series, chosen, look, season)


def final_score(judge: Judge, start: np.datetime64, before: Verdict, after: Verdict) -> FinalScore:
    """What was chosen beside what it began with."""
    ratio = judge.ratio(after, before)
    return FinalScore(
        show_day(start), after.loss, before.loss, ratio, after.coverage, after.windows
    )
