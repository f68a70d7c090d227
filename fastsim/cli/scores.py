"""Scores of forecasters: made with a progress bar, written as JSON."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import fastsim
from fastsim.cli.intervals import plain, plain_difference
from fastsim.cli.seen import Apart, apart, apart_record
from fastsim.config import write_whole
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.evaluate import (
    BLOCK,
    INTERVAL,
    RESAMPLES,
    Scores,
    ScoreSummary,
    Windows,
    at_horizon,
    dependent_origins,
    loss_difference,
    relative,
    rolling_origins,
    summarise,
)
from fastsim.forecast.interface import Forecaster, ModelCard
from fastsim.forecast.models.classical import WindowFitted
from fastsim.progress import ProgressBars
from fastsim.stats.bootstrap import Interval

WALK = "random-walk-60"
GARCH = "garch-t"
REFERENCES = (WALK, GARCH)
"""Forecasters that all others are divided by, where they are scored."""
PACKAGES = ("torch", "numpy", "scipy", "arch", "statsforecast")


class Entry(NamedTuple):
    """A forecaster's scores, and what they took."""

    name: str
    key: str
    card: ModelCard
    scores: Scores
    seconds: float
    fallbacks: int
    """Windows on which a fit failed: see `fastsim.forecast.models.classical`."""


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
    bars: Bars,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    windows: Windows,
    context: int,
    console: Console,
) -> dict[str, Entry]:
    """Score forecasters on the windows that all can be scored on, with a progress bar each."""
    entries: dict[str, Entry] = {}
    progress = ProgressBars(console, stay=False)
    for forecaster in forecasters:
        name = forecaster.card.name
        start = time.perf_counter()
        scores = rolling_origins(
            bars,
            forecaster,
            horizons,
            windows.origins,
            context,
            windows=windows,
            progress=progress,
        )
        seconds = time.perf_counter() - start
        fallbacks = forecaster.fallbacks if isinstance(forecaster, WindowFitted) else 0
        entries[name] = Entry(name, forecaster.key, forecaster.card, scores, seconds, fallbacks)
    return entries


def scores_apart(
    entries: dict[str, Entry], scored: NDArray[np.datetime64]
) -> dict[str, tuple[str, Apart]]:
    """By forecaster that has seen some of the scored bars [R] alone: its day, and both sides."""
    found = {}
    for name, entry in entries.items():
        sides = apart(entry.card, entry.scores, entries[WALK].scores, scored)
        if sides is not None:
            found[name] = (str(entry.card.known_until), sides)
    return found


def write_scores(
    entries: dict[str, Entry],
    settings: dict[str, Any],
    path: Path,
    *,
    windows: Windows,
    horizons: Sequence[int],
    sides: Mapping[str, tuple[str, Apart]],
) -> None:
    """Write scores, their intervals, settings and versions as one JSON object, in one piece.

    `relative` holds each loss divided by that of every reference scored, on the same windows, and
    Diebold and Mariano's test of their difference; estimates are [value, low, high], null where
    undefined. `by_horizon` holds the same of each horizon alone, in order; `apart` what
    `scores_apart` found of the forecaster, null where there is nothing.
    """
    references = [entries[name] for name in REFERENCES if name in entries]
    lags = [dependent_origins(windows, horizon) for horizon in horizons]
    record = {
        "benchmark": "accuracy",
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "device": f"{platform.machine()} CPU",
        "python": platform.python_version(),
        "packages": _versions(),
        **settings,
        "interval": INTERVAL,
        "block_origins": BLOCK,
        "resamples": RESAMPLES,
        "forecasters": [
            _entry_record(entry, references, lags[-1])
            | {"by_horizon": _by_horizon(entry, references, horizons, lags)}
            | {"apart": apart_record(sides[name][1] if name in sides else None)}
            for name, entry in entries.items()
        ],
    }
    write_whole(path, (json.dumps(record, allow_nan=False) + "\n").encode())


def _entry_record(entry: Entry, references: Sequence[Entry], lags: int) -> dict[str, Any]:
    others = {other.name: other.scores for other in references}
    return {
        "name": entry.name,
        "key": entry.key,
        "known_until": entry.card.known_until,
        "known_source": entry.card.known_source,
        **_figures(entry.scores, others, lags),
        "fallbacks": entry.fallbacks,
        "seconds": round(entry.seconds, 1),
    }


def _by_horizon(
    entry: Entry, references: Sequence[Entry], horizons: Sequence[int], lags: Sequence[int]
) -> list[dict[str, Any]]:
    """The figures of each horizon alone."""
    found = []
    for place, horizon in enumerate(horizons):
        others = {other.name: at_horizon(other.scores, place) for other in references}
        own = at_horizon(entry.scores, place)
        found.append({"horizon": horizon, **_figures(own, others, lags[place])})
    return found


def _figures(scores: Scores, others: Mapping[str, Scores], lags: int) -> dict[str, Any]:
    """A summary as plain values, and `relative` to each of the others."""
    summary: ScoreSummary = summarise(scores)
    figures: dict[str, Any] = {
        name: plain(value) if isinstance(value, Interval) else value
        for name, value in summary._asdict().items()
    }
    figures["pit"] = [round(share, 6) for share in summary.pit]
    figures["relative"] = {
        name: {
            "quantile_loss": plain(relative(scores, other, "quantile_loss")),
            "crps": plain(relative(scores, other, "crps")),
            "diebold_mariano": plain_difference(loss_difference(scores, other, lags)),
        }
        for name, other in others.items()
    }
    return figures


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
