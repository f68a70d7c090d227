"""Scores of forecasters on the same windows: made with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fastsim.cli.seen import Apart, apart, first_scored
from fastsim.data.bars import Bars
from fastsim.data.dates import show_day
from fastsim.errors import ConfigError
from fastsim.forecast.evaluate import rolling_windows
from fastsim.forecast.interface import Forecaster, ModelCard
from fastsim.forecast.models.classical import WindowFitted
from fastsim.forecast.scoring.losses import Scores, WindowScores, by_origin
from fastsim.forecast.scoring.windows import Windows, dependent_origins
from fastsim.progress import ProgressBars

WALK = "random-walk-60"
GARCH = "garch-t"
REFERENCES = (WALK, GARCH)
"""Forecasters that all others are divided by, where they are scored."""


class Entry(NamedTuple):
    """A forecaster's scores, and what they took."""

    forecaster: Forecaster
    told: WindowScores
    scores: Scores
    seconds: float
    fallbacks: int
    """Windows on which a fit failed: see `fastsim.forecast.models.classical`."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.card.name

    @property
    def title(self) -> str:
        """The same, and of how many trials it is the best where it is one of several."""
        trials = self.card.trials
        return self.name if trials == 1 else f"{self.name}\nbest of {trials} trials"

    @property
    def card(self) -> ModelCard:
        """What it is."""
        return self.forecaster.card


class Plan(NamedTuple):
    """What forecasters are scored on."""

    bars: Bars
    horizons: tuple[int, ...]
    context: int
    windows: Windows

    @property
    def scored(self) -> NDArray[np.datetime64]:
        """The first bar [R] whose close is scored, of every origin that has a window."""
        return first_scored(self.bars.timestamps, self.windows, self.horizons)

    @property
    def origin_stamps(self) -> NDArray[np.datetime64]:
        """Times of all origins."""
        stamps: NDArray[np.datetime64] = self.bars.timestamps[list(self.windows.origins)]
        return stamps

    @property
    def days(self) -> tuple[str, str]:
        """Of the first origin and of the last."""
        first, last = self.origin_stamps[[0, -1]]
        return show_day(first), show_day(last)

    @property
    def lags(self) -> list[int]:
        """How many origins depend, at each horizon."""
        return [dependent_origins(self.windows, horizon) for horizon in self.horizons]


class Scoring:
    """All forecasters, scored on one plan."""

    def __init__(self, plan: Plan, entries: dict[str, Entry]) -> None:
        self.plan, self.entries = plan, entries

    @property
    def walk(self) -> Entry:
        """The random walk that all are held against."""
        return self.entries[WALK]

    @property
    def references(self) -> dict[str, Entry]:
        """Those that all are held against, by name, the walk first."""
        return {name: self.entries[name] for name in REFERENCES if name in self.entries}

    @cached_property
    def apart(self) -> dict[str, tuple[str, Apart]]:
        """By forecaster that has seen some of the scored bars alone: its day, and both sides."""
        found = {}
        for name, entry in self.entries.items():
            sides = apart(entry.card, entry.scores, self.walk.scores, self.plan.scored)
            if sides is not None:
                found[name] = (str(entry.card.known_until), sides)
        return found


def require_different(forecasters: Sequence[Forecaster]) -> None:
    """Raise ConfigError where two forecasters have one name."""
    names = [forecaster.card.name for forecaster in forecasters]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two forecasters are called {name}: they cannot be told apart")


def windows_in_words(windows: Windows) -> str:
    """How many windows are scored, and how many are not and why."""
    skipped = {why: count for why, count in windows.skipped.items() if count}
    told = f"{windows.scored:,} windows scored, the same for every forecaster"
    if not skipped:
        return f"{told}; none skipped."
    reasons = ", ".join(f"{count:,} for {why}" for why, count in skipped.items())
    return f"{told}; {sum(skipped.values()):,} skipped: {reasons}."


def score_all(
    plan: Plan,
    forecasters: Sequence[Forecaster],
    console: Console,
    *,
    levels: tuple[float, ...] = (),
) -> Scoring:
    """Score forecasters on the windows that all can be scored on, with a progress bar each.

    Quantiles at `levels` are kept.
    """
    entries: dict[str, Entry] = {}
    progress = ProgressBars(console, stay=False)
    for forecaster in forecasters:
        start = time.perf_counter()
        told = rolling_windows(
            plan.bars,
            forecaster,
            plan.horizons,
            plan.windows.origins,
            plan.context,
            windows=plan.windows,
            levels=levels,
            progress=progress,
        )
        seconds = time.perf_counter() - start
        fallbacks = forecaster.fallbacks if isinstance(forecaster, WindowFitted) else 0
        entry = Entry(forecaster, told, by_origin(told), seconds, fallbacks)
        entries[entry.name] = entry
    return Scoring(plan, entries)
