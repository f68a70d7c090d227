"""A fit's folder: what was fitted, by which it can be named as a forecaster, and its origin.

    fit.json              what it is, what it learned from, and what came of it
    model.safetensors     its weights
    tensorboard/          its curves
    checkpoint.pt         where a fit stands that has not ended, and data/ that it reads from

`fit.json` is written last: a folder without it holds no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastsim.errors import ConfigError, ForecastError, one_line
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.training.architectures import architecture
from fastsim.forecast.weights import load_exactly, read_json, read_safetensors

FORMAT = 1
ABOUT, WEIGHTS = "fit.json", "model.safetensors"
CHECKPOINT, DATA, TENSORBOARD = "checkpoint.pt", "data", "tensorboard"
FITTED, LAST, KEPT = "fitted", "last", "kept"
"""Where a median is: the network's own, the last close, or that of what it began with."""


def load_fit(path: Path | None, *, network: str = "fit") -> FittedModel:
    """The forecaster in a fit's folder.

    Parameters
    ----------
    network
        The architecture that it must be of, by name; "fit" takes any.

    Raises
    ------
    ForecastError
        There is no whole fit of this network in the folder, or no folder is named.
    """
    if path is None:
        what = "what was fitted" if network == "fit" else "what it was fitted to"
        raise ForecastError(
            f"forecaster {network!r} has no weights before it is fitted: name the folder of "
            f"{what}, as in {network}:runs/mine (`fastsim forecast fit` makes it)"
        )
    if not (path / ABOUT).is_file():
        raise ForecastError(f"{path}: no {ABOUT} here: name a folder that holds a whole fit")
    about = read_json(network, path / ABOUT)
    if about.get("format") != FORMAT:
        raise ForecastError(f"{path / ABOUT}: no fit of format {FORMAT}: {about.get('format')!r}")
    if network not in ("fit", about.get("network")):
        raise ForecastError(f"{path} holds a fit of {about.get('network')}, not of {network}")
    try:
        model = _made(about)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ForecastError(f"{path / ABOUT}: damaged ({reason})") from None
    weights = path / WEIGHTS
    load_exactly(network, model, read_safetensors(network, weights), weights)
    return model.eval()


def _made(about: Mapping[str, Any]) -> FittedModel:
    """The model that `fit.json` tells of, with weights that are to be loaded."""
    make, settings = architecture(about["network"]).make, about["settings"]
    centres: dict[str, Callable[[], ForecastModel | LastClose | None]]
    centres = {FITTED: lambda: None, LAST: LastClose, KEPT: lambda: make(settings)}
    with torch.random.fork_rng(devices=[]):
        spread, centre = make(settings), centres[about["centre"]]()
    named = {name: about[name] for name in ("name", "reach", "known_until")}
    return FittedModel(spread, centre, **named)
