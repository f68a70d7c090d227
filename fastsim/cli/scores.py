"""Scores of forecasters: made with a progress bar, shown as tables, written as JSON."""

from __future__ import annotations

import json
import math
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
from rich.table import Table
from rich.text import Text

import fastsim
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
BARS = "▁▂▃▄▅▆▇█"


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


def score_tables(entries: dict[str, Entry]) -> tuple[Table, Table]:
    """Losses beside the references', and calibration; either fits 120 columns."""
    references = [name for name in REFERENCES if name in entries]
    short = {WALK: "walk", GARCH: GARCH}
    losses = Table(
        "Forecaster",
        *(f"Quantile loss\n/ {short[name]}" for name in references),
        "CRPS\n/ walk",
        "MASE",
    )
    calibration = Table("Forecaster", "RMSE", "80 % band", "Hit rate", "PIT")
    for name, entry in entries.items():
        summary = summarise(entry.scores)
        ratios = [relative(entry.scores, entries[other].scores) for other in references]
        crps = relative(entry.scores, entries[WALK].scores, "crps")
        losses.add_row(Text(name), *map(_cell, (*ratios, crps, summary.mase)))
        cells = map(_cell, (summary.rmse, summary.coverage, summary.hit_rate))
        calibration.add_row(Text(name), *cells, sparkline(summary.pit))
    return losses, calibration


def sparkline(shares: Sequence[float]) -> str:
    """Ten shares as bars: half the height is the even share, the full height twice that."""
    even = 1.0 / len(shares)
    steps = (round(share / even * len(BARS) / 2) for share in shares)
    return "".join(BARS[min(max(step, 1), len(BARS)) - 1] for step in steps)


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
    sides: Mapping[str, tuple[str, Apart]],
) -> None:
    """Write scores, their intervals, settings and versions as one JSON object, in one piece.

    `relative` holds each loss divided by that of every reference scored, on the same windows;
    estimates are [value, low, high], null where undefined. `apart` holds what `scores_apart`
    found of the forecaster, null where there is nothing.
    """
    references = [entries[name] for name in REFERENCES if name in entries]
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
            _entry_record(entry, references)
            | {"apart": apart_record(sides[name][1] if name in sides else None)}
            for name, entry in entries.items()
        ],
    }
    write_whole(path, (json.dumps(record, allow_nan=False) + "\n").encode())


def _entry_record(entry: Entry, references: Sequence[Entry]) -> dict[str, Any]:
    summary: ScoreSummary = summarise(entry.scores)
    figures = {
        name: _figures(value) if isinstance(value, Interval) else value
        for name, value in summary._asdict().items()
    }
    figures["pit"] = [round(share, 6) for share in summary.pit]
    ratios = {
        other.name: {
            "quantile_loss": _figures(relative(entry.scores, other.scores, "quantile_loss")),
            "crps": _figures(relative(entry.scores, other.scores, "crps")),
        }
        for other in references
    }
    return {
        "name": entry.name,
        "key": entry.key,
        "known_until": entry.card.known_until,
        "known_source": entry.card.known_source,
        **figures,
        "relative": ratios,
        "fallbacks": entry.fallbacks,
        "seconds": round(entry.seconds, 1),
    }


def _figures(interval: Interval) -> list[float | None]:
    figures = (interval.estimate, interval.low, interval.high)
    return [round(value, 6) if math.isfinite(value) else None for value in figures]


def _cell(interval: Interval) -> str:
    if math.isnan(interval.estimate):
        return "none"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
