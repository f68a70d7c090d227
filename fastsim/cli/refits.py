"""Forecasters that are fitted anew as the scored bars go by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.correction.fit import fit_correction
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.naming import read_name
from fastsim.forecast.registry import load_forecaster, load_network
from fastsim.forecast.season.setting import AUTO, NONE, SUFFIX, UTC
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.folder import Start, load_start
from fastsim.forecast.training.walk_forward import (
    RefitConfig,
    check_refits,
    refit_rows,
    repeated,
    walk_forward,
)
from fastsim.progress import Progress

FIT = "fit"


def refitted(
    name: str,
    bars: Bars,
    origins: NDArray[np.int64],
    horizon: int,
    config: RefitConfig,
    settings: FitConfig,
    progress: Progress,
) -> Forecaster:
    """A forecaster by name, fitted anew to the bars up to each of the rows that its turn comes at.

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
    if settings.mode == "volatility" and name.partition(":")[0] != FIT:
        return _correction(name, bars, rows, settings)
    model, own = _start(name, settings)
    if own.reach < horizon:
        raise ConfigError(
            f"FitConfig.horizons of {name} end at {own.reach}, and {horizon} bars ahead are "
            f"scored: fit longer ones, or score shorter ones"
        )
    return walk_forward(model, bars, rows, own, how=config.refit, progress=progress)


def _start(name: str, settings: FitConfig) -> Start:
    """What a fit begins with, and its settings."""
    kind = name.partition(":")[0].partition("@")[0]
    if kind == FIT:
        return load_start(read_name(name).path)
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"forecaster {name!r} cannot be fitted anew; {', '.join(ARCHITECTURES)} and "
            f"fit:FOLDER can, and all in --fit.mode volatility"
        )
    if settings.mode == "scratch" and name in ARCHITECTURES:
        return Start(ARCHITECTURES[name].make({}), settings)
    return Start(load_network(name), settings)


def _correction(name: str, bars: Bars, rows: Sequence[int], settings: FitConfig) -> Forecaster:
    """A correction of any forecaster's volatility, which has nothing to begin warmly with."""
    check_refits(settings, "scratch")
    if settings.season == NONE or settings.season.endswith(SUFFIX):
        raise ConfigError(
            f"--fit.season must be a time zone where volatility is fitted, whose profile is "
            f"fitted as well, got {settings.season!r}"
        )
    start = load_forecaster(name)
    fit_to = partial(
        fit_correction,
        start,
        horizons=settings.horizons,
        zone=UTC if settings.season == AUTO else settings.season,
        context=settings.context or 512,
        split=settings.split,
        name=f"{start.card.name}, corrected",
    )
    return repeated(lambda known: fit_to(known).corrected, bars, rows, start)
