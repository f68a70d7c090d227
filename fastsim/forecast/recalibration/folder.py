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
from fastsim.forecast.based import Kind, keep_base, require_empty
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.recalibration.recalibrated import KNOTS, LevelMap, Recalibrated
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import with_season

if TYPE_CHECKING:
    from fastsim.forecast.recalibration.fit import RecalibrationFit

FORMAT = 1
NAME = "recalibrated"
ABOUT, WEIGHTS = "recalibration.json", "weights.safetensors"
KIND = Kind(
    name=NAME,
    what="recalibration",
    does="recalibrates",
    mode="bands",
    format=FORMAT,
    about=ABOUT,
    weights=WEIGHTS,
)


def require_no_recalibration(folder: Path) -> None:
    """Raise ConfigError if a recalibration lies in this folder, or something that is no folder."""
    require_empty(folder, ABOUT, KIND.what)


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
    return KIND.read(path, _made, load)


def _made(about: dict[str, Any], state: dict[str, torch.Tensor], base: Forecaster) -> Recalibrated:
    horizons, maps, zone = state["horizons"], state["maps"].double(), about["zone"]
    if maps.shape != (len(horizons), len(KNOTS)) or not bool((maps.diff(dim=1) >= 0).all()):
        raise ValueError(f"a map of shape {tuple(maps.shape)}, or one that does not grow")
    if zone is not None and state["before"].shape != (KINDS,):
        raise ValueError(f"a profile of shape {tuple(state['before'].shape)}")
    season = None if zone is None else Season(zone, state["before"])
    return Recalibrated(
        with_season(base, season),
        LevelMap(horizons, maps),
        name=about["name"],
        known_until=about["known_until"],
    )
