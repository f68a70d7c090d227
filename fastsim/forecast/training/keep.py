"""Writing what a fit gave into its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

import fastsim
from fastsim.config import to_mapping, write_whole
from fastsim.errors import ConfigError
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.models.tirex import TiRexModel
from fastsim.forecast.models.tirex_scratch import has_official_size, write_checkpoint
from fastsim.forecast.training.architectures import architecture_of, name_of
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import FitResult
from fastsim.forecast.training.folder import (
    ABOUT,
    ADAPTER,
    CHECKPOINT,
    DATA,
    FITTED,
    FORMAT,
    KEPT,
    LAST,
    OFFICIAL,
    WEIGHTS,
)
from fastsim.forecast.training.lora import adapter_state


def require_no_fit(folder: Path) -> None:
    """Raise ConfigError if a fit lies in this folder, or something that is no folder at all."""
    if (folder / ABOUT).exists():
        raise ConfigError(f"{folder} holds a fit already: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: choose a folder for the fit")


class Base(NamedTuple):
    """Where the weights that a fit began with came from; of shipped ones and the hub no path."""

    path: Path | None = None
    revision: str | None = None


HERE = Base()


def save_fit(
    result: FitResult,
    folder: Path,
    config: FitConfig,
    *,
    source: str = "",
    base: Base = HERE,
    tuned: Mapping[str, Any] | None = None,
) -> None:
    """Write what a fit gave into its folder, whole, and drop what it went on from.

    Parameters
    ----------
    config
        By which it was fitted.
    source
        Of its bars, for people.
    base
        What an adapter is nothing without.
    tuned
        What came of the search that it was chosen by, where it was.

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
        "base": {
            "key": result.base,
            "path": None if base.path is None else str(base.path.absolute()),
            "revision": base.revision,
        },
        "lora": to_mapping(config.lora) if config.mode == "lora" else None,
        "known_until": model.card.known_until,
        "data": {"source": source, "fingerprint": result.data},
        "trials": model.card.trials,
        "tuned": None if tuned is None else dict(tuned),
        "config": to_mapping(config),
        "report": result.report.to_json(),
        "versions": {"fastsim": fastsim.__version__, "torch": torch.__version__},
    }
    if config.mode == "lora":
        names = ("licence", "attribution", "network")
        told = {name: str(about[name]) for name in names} | {"base": result.base}
        write_whole(folder / ADAPTER, save(_contiguous(adapter_state(model.spread)), told))
    else:
        write_whole(folder / WEIGHTS, save(_contiguous(model.state_dict())))
        if isinstance(model.spread, TiRexModel) and has_official_size(model.spread.config):
            write_checkpoint(model.spread, folder / OFFICIAL)
    write_whole(folder / ABOUT, json.dumps(about, indent=2).encode())
    with suppress(FileNotFoundError):
        (folder / CHECKPOINT).unlink()
    shutil.rmtree(folder / DATA, ignore_errors=True)


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file of safetensors has them: whole, and each on its own."""
    return {name: each.detach().clone().contiguous() for name, each in state.items()}


def _centre_of(model: FittedModel) -> str:
    if model.centre is None:
        return FITTED
    return LAST if isinstance(model.centre, LastClose) else KEPT
