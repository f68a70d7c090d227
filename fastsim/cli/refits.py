"""Forecasters that are fitted anew as the scored bars go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.correction.fit import fit_correction
from fastsim.forecast.interface import Forecaster, ModuleForecaster
from fastsim.forecast.naming import read_name
from fastsim.forecast.recalibration.fit import fit_recalibration
from fastsim.forecast.registry import load_forecaster, load_network
from fastsim.forecast.season.setting import AUTO, NONE, SUFFIX, UTC, resolved, season_of
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.training.config import FitConfig, Mode
from fastsim.forecast.training.folder import Start, load_start
from fastsim.forecast.training.walk_forward import (
    RefitConfig,
    check_refits,
    refit_rows,
    repeated,
    walk_forward,
)
from fastsim.progress import Progress

FIT, USUAL_CONTEXT = "fit", 512


def refitted(
    name: str,
    bars: Bars,
    origins: NDArray[np.int64],
    horizon: int,
    config: RefitConfig,
    settings: FitConfig,
    progress: Progress,
) -> list[Forecaster]:
    """A forecaster by name, fitted anew to the bars up to each of the rows that its turn comes at.

    After it comes what every fit begins with, but for random weights, to hold it against.

    Parameters
    ----------
    origins
        Rows that are forecast from, increasing; no fit knows a bar after the first before it.
    horizon
        Bars ahead that are asked for.
    settings
        Of the fits, unless a fit is named, which has its own.

    Raises
    ------
    ConfigError, DataError, ForecastError
        It cannot be fitted, or as `walk_forward`.
    """
    assert config.refit_every is not None
    rows = refit_rows(int(origins[0]), int(origins[-1]), config.refit_every)
    if settings.mode in BUILT_ON and name.partition(":")[0] != FIT:
        return _built_on(name, bars, rows, settings)
    kind, (model, own) = name.partition(":")[0], _start(name, settings)
    if own.reach < horizon:
        raise ConfigError(
            f"FitConfig.horizons of {name} end at {own.reach}, and {horizon} bars ahead are "
            f"scored: fit longer ones, or score shorter ones"
        )
    called = f"{Path(name.removeprefix(f'{FIT}:')).name}, refitted" if kind == FIT else ""
    made = walk_forward(model, bars, rows, own, how=config.refit, name=called, progress=progress)
    return [made] if own.mode == "scratch" else [made, ModuleForecaster(model)]


def _start(name: str, settings: FitConfig) -> Start:
    """What a fit begins with, and its settings."""
    kind = name.partition(":")[0].partition("@")[0]
    if kind == FIT:
        return load_start(read_name(name).path)
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"forecaster {name!r} cannot be fitted anew; {', '.join(ARCHITECTURES)} and "
            f"fit:FOLDER can, and all in --fit.mode volatility or bands"
        )
    if settings.mode == "scratch" and name in ARCHITECTURES:
        return Start(ARCHITECTURES[name].make({}), settings)
    return Start(load_network(name), settings)


def _built_on(name: str, bars: Bars, rows: Sequence[int], settings: FitConfig) -> list[Forecaster]:
    """What builds on a forecaster and leaves it as it is: there is nothing to begin warmly with."""
    check_refits(settings, "scratch")
    start = load_forecaster(name)
    fit_to = partial(BUILT_ON[settings.mode], start, settings)
    return [repeated(fit_to, bars, rows, start), start]


def _corrected(start: Forecaster, settings: FitConfig, known: Bars) -> Forecaster:
    """A correction of volatility."""
    if settings.season == NONE or settings.season.endswith(SUFFIX):
        raise ConfigError(
            f"--fit.season must be a time zone where volatility is fitted, whose profile is "
            f"fitted as well, got {settings.season!r}"
        )
    return fit_correction(
        start,
        known,
        horizons=settings.horizons,
        zone=UTC if settings.season == AUTO else settings.season,
        context=settings.context or USUAL_CONTEXT,
        split=settings.split,
        name=f"{start.card.name}, corrected",
    ).corrected


def _recalibrated(start: Forecaster, settings: FitConfig, known: Bars) -> Forecaster:
    """Bands that validation finds off, set right."""
    return fit_recalibration(
        start,
        known,
        horizons=settings.horizons,
        season=season_of(resolved(settings.season, known.timestamps)),
        context=settings.context or USUAL_CONTEXT,
        split=settings.split,
        name=f"{start.card.name}, recalibrated",
    ).recalibrated


BUILT_ON: dict[Mode, Callable[[Forecaster, FitConfig, Bars], Forecaster]] = {
    "volatility": _corrected,
    "bands": _recalibrated,
}
