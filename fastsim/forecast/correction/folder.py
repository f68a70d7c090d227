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
from fastsim.errors import FastsimError, ForecastError, one_line
from fastsim.forecast.based import keep_base, load_base, require_empty, require_key
from fastsim.forecast.correction.corrected import INPUTS, Corrected, Correction
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.networks.return_network import KNOTS
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.setting import write_season
from fastsim.forecast.weights import read_json, read_safetensors

if TYPE_CHECKING:
    from fastsim.forecast.correction.fit import CorrectionFit

FORMAT = 1
NAME = "corrected"
ABOUT, WEIGHTS, SEASON = "correction.json", "weights.safetensors", "season.json"


def require_no_correction(folder: Path) -> None:
    """Raise ConfigError if a correction lies in this folder, or something that is no folder."""
    require_empty(folder, ABOUT, "correction")


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
    if path is None:
        raise ForecastError(
            f"forecaster {NAME!r} is of a folder: name it, as in {NAME}:fits/mine "
            f"(`fastsim forecast fit --mode volatility` makes it)"
        )
    if not (path / ABOUT).is_file():
        raise ForecastError(f"{path}: no {ABOUT} here: name a folder that holds a correction")
    about = read_json(NAME, path / ABOUT)
    if about.get("format") != FORMAT:
        raise ForecastError(f"{path / ABOUT}: no correction of format {FORMAT}")
    state = read_safetensors(NAME, path / WEIGHTS)
    try:
        made = _made(about, state, path, load)
    except FastsimError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ForecastError(f"{path}: damaged ({reason})") from None
    require_key(made.forecaster, about, path, "corrects")
    return made


def _made(
    about: dict[str, Any],
    state: dict[str, torch.Tensor],
    path: Path,
    load: Callable[[str], Forecaster],
) -> Corrected:
    weights, before = state["weights"], state["before"]
    if weights.shape != (INPUTS, KNOTS) or before.shape != (KINDS,):
        raise ValueError(f"weights of shape {tuple(weights.shape)}, profile {tuple(before.shape)}")
    return Corrected(
        load_base(about, path, load),
        Correction(weights.double()),
        Season(about["zone"], before.double()),
        name=about["name"],
        known_until=about["known_until"],
    )
