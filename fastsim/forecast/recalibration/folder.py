"""A recalibration's folder: where its levels are read, and the name of whose they are.

recalibration.json    whose bands, by name and key, and what came of the fit
weights.safetensors   the map of levels by horizon, and the profile of the season around it, if any
base/                 weights of that forecaster, where they came from a path
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

import fastsim
from fastsim.config import write_whole
from fastsim.errors import FastsimError, ForecastError, one_line
from fastsim.forecast.based import keep_base, load_base, require_empty, require_key
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.recalibration.recalibrated import KNOTS, LevelMap, Recalibrated
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import with_season
from fastsim.forecast.weights import read_json, read_safetensors

if TYPE_CHECKING:
    from fastsim.forecast.recalibration.fit import RecalibrationFit

FORMAT = 1
NAME = "recalibrated"
ABOUT, WEIGHTS = "recalibration.json", "weights.safetensors"


def require_no_recalibration(folder: Path) -> None:
    """Raise ConfigError if a recalibration lies in this folder, or something that is no folder."""
    require_empty(folder, ABOUT, "recalibration")


def save_recalibration(
    fitted: RecalibrationFit, folder: Path, *, base: str, path: Path | None, source: str
) -> None:
    """Write what a fit gave into its folder, `recalibration.json` last.

    Parameters
    ----------
    base
        The name that loads the forecaster; what comes before its path, the colon included, where it
        has one.
    path
        Of its weights; they are copied.
    source
        Of the bars, for people.
    """
    require_no_recalibration(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = fitted.recalibrated
    around = made.forecaster.season if isinstance(made.forecaster, Seasonal) else None
    state = dict(made.levels.state_dict())
    if around is not None:
        state["before"] = around.before
    about = {
        "format": FORMAT,
        "name": made.card.name,
        "base": keep_base(folder, base, path),
        "key": made.forecaster.key,
        "zone": None if around is None else around.zone,
        "known_until": made.card.known_until,
        "source": source,
        "kept": fitted.kept,
        "bands": [each._asdict() for each in fitted.bands],
        "windows": fitted.windows,
        "versions": {"fastsim": fastsim.__version__, "torch": torch.__version__},
    }
    write_whole(folder / WEIGHTS, save({name: each.contiguous() for name, each in state.items()}))
    write_whole(folder / ABOUT, json.dumps(about, indent=2).encode())


def load_recalibrated(path: Path | None, *, load: Callable[[str], Forecaster]) -> Recalibrated:
    """The recalibrated forecaster in a folder.

    Parameters
    ----------
    load
        The forecaster whose bands are set right, by name.

    Raises
    ------
    ForecastError
        No folder is named, it holds no whole recalibration, or that forecaster is no longer what it
        was.
    """
    if path is None:
        raise ForecastError(
            f"forecaster {NAME!r} is of a folder: name it, as in {NAME}:fits/mine "
            f"(`fastsim forecast fit --mode bands` makes it)"
        )
    if not (path / ABOUT).is_file():
        raise ForecastError(f"{path}: no {ABOUT} here: name a folder that holds a recalibration")
    about = read_json(NAME, path / ABOUT)
    if about.get("format") != FORMAT:
        raise ForecastError(f"{path / ABOUT}: no recalibration of format {FORMAT}")
    state = read_safetensors(NAME, path / WEIGHTS)
    try:
        made = _made(about, state, path, load)
    except FastsimError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ForecastError(f"{path}: damaged ({reason})") from None
    require_key(made.forecaster, about, path, "recalibrates")
    return made


def _made(
    about: dict[str, Any],
    state: dict[str, torch.Tensor],
    path: Path,
    load: Callable[[str], Forecaster],
) -> Recalibrated:
    horizons, maps, zone = state["horizons"], state["maps"].double(), about["zone"]
    if maps.shape != (len(horizons), len(KNOTS)) or not bool((maps.diff(dim=1) >= 0).all()):
        raise ValueError(f"a map of shape {tuple(maps.shape)}, or one that does not grow")
    if zone is not None and state["before"].shape != (KINDS,):
        raise ValueError(f"a profile of shape {tuple(state['before'].shape)}")
    season = None if zone is None else Season(zone, state["before"])
    return Recalibrated(
        with_season(load_base(about, path, load), season),
        LevelMap(horizons, maps),
        name=about["name"],
        known_until=about["known_until"],
    )
