"""A correction's folder: its weights, the season, and the name of what it corrects.

correction.json       what it corrects, by name and key, and what came of the fit
weights.safetensors   its weights and the profile of the season
season.json           that profile for other forecasters, as `--season` takes it
base/                 weights of what it corrects, where they came from a path
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
from fastsim.forecast.correction.corrected import INPUTS, Corrected, Correction
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.networks.return_network import KNOTS
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.setting import write_season

if TYPE_CHECKING:
    from fastsim.forecast.correction.fit import CorrectionFit

FORMAT = 1
NAME = "corrected"
ABOUT, WEIGHTS, SEASON = "correction.json", "weights.safetensors", "season.json"
KIND = Kind(
    name=NAME,
    what="correction",
    does="corrects",
    mode="volatility",
    format=FORMAT,
    about=ABOUT,
    weights=WEIGHTS,
)


def require_no_correction(folder: Path) -> None:
    """Raise ConfigError if a correction lies in this folder, or something that is no folder."""
    require_empty(folder, ABOUT, KIND.what)


def save_correction(
    fitted: CorrectionFit, folder: Path, *, base: str, path: Path | None, source: str
) -> None:
    """Write what a fit gave into its folder, `correction.json` last.

    Parameters
    ----------
    base
        The name that loads what is corrected; what comes before its path, the colon included,
        where it has one.
    path
        Of its weights; they are copied.
    source
        Of the bars, for people.
    """
    require_no_correction(folder)
    folder.mkdir(parents=True, exist_ok=True)
    corrected = fitted.corrected
    state = {"weights": corrected.correction.weights, "before": corrected.season.before}
    about = {
        "format": FORMAT,
        "name": corrected.card.name,
        "base": keep_base(folder, base, path),
        "key": corrected.forecaster.key,
        "zone": corrected.season.zone,
        "known_until": corrected.card.known_until,
        "source": source,
        "kept": fitted.kept,
        "ratio": [fitted.ratio.estimate, fitted.ratio.low, fitted.ratio.high],
        "windows": list(fitted.windows),
        "versions": {"fastsim": fastsim.__version__, "torch": torch.__version__},
    }
    write_whole(folder / WEIGHTS, save({name: each.contiguous() for name, each in state.items()}))
    write_season(corrected.season, folder / SEASON)
    write_whole(folder / ABOUT, json.dumps(about, indent=2).encode())


def load_corrected(path: Path | None, *, load: Callable[[str], Forecaster]) -> Corrected:
    """The corrected forecaster in a folder.

    Parameters
    ----------
    load
        What it corrects, by name.

    Raises
    ------
    ForecastError
        No folder is named, it holds no whole correction, or what it corrects is no longer what it
        was.
    """
    return KIND.read(path, _made, load)


def _made(about: dict[str, Any], state: dict[str, torch.Tensor], base: Forecaster) -> Corrected:
    weights, before = state["weights"], state["before"]
    if weights.shape != (INPUTS, KNOTS) or before.shape != (KINDS,):
        raise ValueError(f"weights of shape {tuple(weights.shape)}, profile {tuple(before.shape)}")
    return Corrected(
        base,
        Correction(weights.double()),
        Season(about["zone"], before.double()),
        name=about["name"],
        known_until=about["known_until"],
    )
