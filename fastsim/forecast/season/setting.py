"""Which season a person asks for, and a season that was fitted as a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import write_whole
from fastsim.errors import ConfigError, ForecastError, one_line
from fastsim.forecast.interface import Context, Forecaster
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.season.clock import DAY, HOLE_S, local_time, offsets_of
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS, fitted_factors
from fastsim.forecast.season.seasonal import Seasonal

AUTO, NONE, UTC = "auto", "none", "UTC"
SUFFIX = ".json"
FORMAT = 1


def check_season(setting: object, where: str) -> None:
    """Raise ConfigError unless a setting is "auto", "none", a time zone or a profile's file."""
    if not isinstance(setting, str):
        raise ConfigError(
            f'{where} must be "auto", "none", a time zone such as America/New_York, or the '
            f"{SUFFIX} file of a fitted profile, got {setting!r}"
        )
    if setting in (AUTO, NONE) or setting.endswith(SUFFIX):
        return
    try:
        offsets_of(setting)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def resolved(setting: str, timestamps: NDArray[np.datetime64]) -> str:
    """The setting for bars at these times [T]: "auto" is a season by UTC below a day, else none."""
    if setting != AUTO:
        return setting
    seconds = torch.from_numpy(timestamps.astype("datetime64[s]").astype(np.int64))
    return UTC if has_season_at(seconds) else NONE


def has_season_at(seconds: Tensor) -> bool:
    """Whether bars at these seconds [T] are shorter than a day."""
    return len(seconds) > 1 and float(seconds.diff().double().median()) < DAY


def season_of(setting: str) -> Season | None:
    """The season of a setting that is resolved; None where there is none.

    Raises
    ------
    ConfigError
        There is no such time zone.
    ForecastError
        The file of a profile is missing or damaged.
    """
    if setting in (AUTO, NONE):
        return None
    return read_season(Path(setting)) if setting.endswith(SUFFIX) else Season(setting)


def with_season(forecaster: Forecaster, season: Season | None) -> Forecaster:
    """A forecaster with the season around it, unless it has one of its own."""
    if season is None or hasattr(forecaster, "season"):
        return forecaster
    return Seasonal(forecaster, season)


def fit_season(bars: Context, zone: str) -> Season:
    """The season of a market's bars [A, T, 6], by the clock of a zone; all assets have one.

    Raises
    ------
    ConfigError
        There is no such zone.
    """
    closes = bars.close.double()
    gaps = returns_with_gaps(closes, torch.arange(closes.shape[1], device=closes.device))
    stamps = local_time(bars.timestamps, offsets_of(zone))
    known = gaps.known & (stamps.diff(dim=1) < HOLE_S)
    return Season(zone, fitted_factors(gaps.returns, known, stamps))


def write_season(season: Season, path: Path) -> None:
    """Write a season as JSON, in one piece: the zone, and the variance of each kind of bar."""
    record = {"format": FORMAT, "zone": season.zone, "before": season.before.double().tolist()}
    write_whole(path, (json.dumps(record) + "\n").encode())


def read_season(path: Path) -> Season:
    """What `write_season` wrote; ForecastError if that is not what is there."""
    try:
        record = json.loads(path.read_bytes())
        before = torch.tensor(record["before"], dtype=torch.float64)
        _check(record["format"], before)
        return Season(record["zone"], before)
    except FileNotFoundError:
        raise ForecastError(f"{path}: no profile of a season here; fit one first") from None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise ForecastError(f"{path}: no profile of a season ({one_line(error)})") from None


def _check(format: object, before: Tensor) -> None:
    if format != FORMAT:
        raise ValueError(f"its format is {format!r}, not {FORMAT}")
    if before.shape != (KINDS,) or not bool((before.isfinite() & (before > 0)).all()):
        raise ValueError(f"it must have {KINDS} positive variances")
