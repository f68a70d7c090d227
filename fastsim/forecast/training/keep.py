"""Writing what a fit gave into its folder."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save

import fastsim
from fastsim.config import to_mapping, write_whole
from fastsim.errors import ConfigError
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.training.architectures import architecture_of, name_of
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import FitResult
from fastsim.forecast.training.folder import (
    ABOUT,
    CHECKPOINT,
    DATA,
    FITTED,
    FORMAT,
    KEPT,
    LAST,
    WEIGHTS,
)


def require_no_fit(folder: Path) -> None:
    """Raise ConfigError if a fit lies in this folder, or something that is no folder at all."""
    if (folder / ABOUT).exists():
        raise ConfigError(f"{folder} holds a fit already: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: choose a folder for the fit")


def save_fit(result: FitResult, folder: Path, config: FitConfig, *, source: str = "") -> None:
    """Write what a fit gave into its folder, whole, and drop what it went on from.

    Parameters
    ----------
    config
        By which it was fitted.
    source
        Of its bars, for people.

    Raises
    ------
    ConfigError
        The folder holds a fit already, or its network is none that can be made anew.
    """
    require_no_fit(folder)
    model = result.model
    about = {
        "format": FORMAT,
        "name": model.card.name,
        "network": name_of(model.spread),
        "settings": architecture_of(model.spread).settings(model.spread),
        "centre": _centre_of(model),
        "reach": model.card.max_horizon,
        "licence": model.card.licence,
        "attribution": model.card.attribution,
        "base": result.base,
        "known_until": model.card.known_until,
        "data": {"source": source, "fingerprint": result.data},
        "trials": 1,
        "config": to_mapping(config),
        "report": result.report.to_json(),
        "versions": {"fastsim": fastsim.__version__, "torch": torch.__version__},
    }
    state = {name: each.contiguous() for name, each in model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state))
    write_whole(folder / ABOUT, json.dumps(about, indent=2).encode())
    with suppress(FileNotFoundError):
        (folder / CHECKPOINT).unlink()
    shutil.rmtree(folder / DATA, ignore_errors=True)


def _centre_of(model: FittedModel) -> str:
    if model.centre is None:
        return FITTED
    return LAST if isinstance(model.centre, LastClose) else KEPT
