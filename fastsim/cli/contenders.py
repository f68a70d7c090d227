"""Who is scored: forecasters by name, what they are held against, and their variants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fastsim.cli.refits import refitted
from fastsim.cli.scores import WALK, require_different
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import load_ensemble, load_forecaster, parse_names
from fastsim.forecast.scoring.centred import Centred
from fastsim.forecast.season.setting import season_of, with_season
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.walk_forward import RefitConfig
from fastsim.progress import ProgressBars


def names_of(text: str) -> tuple[str, ...]:
    """Names separated by commas; ConfigError where one is named twice."""
    names = parse_names(text)
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"forecaster {name} is named twice: name it once")
    return names


def references_of(text: str) -> tuple[str, ...]:
    """Names of what forecasters are held against: the random walk of 60 bars is always one."""
    return tuple(dict.fromkeys((WALK, *parse_names(text))))


def load_models(
    names: Sequence[str],
    bars: Bars,
    origins: NDArray[np.int64],
    horizon: int,
    implementation: Implementation,
    refits: RefitConfig,
    fit: FitConfig,
    console: Console,
) -> list[Forecaster]:
    """The forecasters of some names, to be asked about `horizon` bars ahead.

    Where refits are asked for they are fitted anew along the origins, and what the fits begin with
    comes after each.

    Raises
    ------
    ConfigError, DataError, ForecastError
        One cannot be loaded, or cannot be fitted.
    """
    if refits.refit_every is None:
        return [load_ensemble([name], implementation=implementation) for name in names]
    if implementation != "fastsim":
        raise ConfigError(
            f"implementation must be fastsim where forecasters are fitted, got {implementation!r}"
        )
    progress = ProgressBars(console, stay=False)
    found: dict[str, Forecaster] = {}
    for name in names:
        for one in refitted(name, bars, origins, horizon, refits, fit, progress):
            found.setdefault(one.key, one)  # several may begin with the same
    return list(found.values())


def contenders(
    models: Sequence[Forecaster],
    references: Sequence[str],
    season: str,
    *,
    centred: bool,
) -> list[Forecaster]:
    """All that are scored: references, then models, then each with the season, then centred models.

    Parameters
    ----------
    season
        A setting that is resolved.

    Raises
    ------
    ConfigError, ForecastError
        One cannot be loaded, or two have one name.
    """
    found = [load_forecaster(name) for name in references]
    found += [model for model in models if model.card.name not in references]
    found += _with_season(found, season)
    found += [Centred(model) for model in models if centred]
    require_different(found)
    return found


def _with_season(forecasters: Sequence[Forecaster], setting: str) -> list[Forecaster]:
    """The same once more with a season around them, where there is one."""
    season = season_of(setting)
    around = [with_season(one, season) for one in forecasters]
    return [new for new, one in zip(around, forecasters, strict=True) if new is not one]
