"""A fit's folder: what was fitted, by which it can be named as a forecaster, and its origin.

    fit.json              what it is, what it learned from, and what came of it
    model.safetensors     its weights, or else
    adapter.safetensors   those of an adapter, nothing without the base that it names by key
    model.ckpt            those of TiRex as its official package reads them, with its own median
    base/                 that base, where it is neither shipped nor on a hub and has been copied
    tensorboard/          its curves
    study/                the trials that it is the best of, where it was searched for
    checkpoint.pt         where a fit stands that has not ended, and data/ that it reads from

`fit.json` is written last: a folder without it holds no fit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastsim.config import from_mapping
from fastsim.errors import FastsimError, ForecastError, one_line
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.training.architectures import architecture
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.lora import (
    LoraConfig,
    load_adapter,
    sharing,
    with_adapters,
)
from fastsim.forecast.weights import load_exactly, read_json, read_safetensors

FORMAT = 1
ABOUT, WEIGHTS, ADAPTER, BASE = "fit.json", "model.safetensors", "adapter.safetensors", "base"
OFFICIAL = "model.ckpt"
CHECKPOINT, DATA, TENSORBOARD = "checkpoint.pt", "data", "tensorboard"
STUDY = "study"
"""Folder of a search that a fit was chosen by, which whoever copies the fit does without."""
FITTED, LAST, KEPT = "fitted", "last", "kept"
"""Where a median is: the network's own, the last close, or that of what it began with."""


class Start(NamedTuple):
    """What a fit can be done with again."""

    model: ForecastModel
    config: FitConfig


def load_fit(
    path: Path | None, *, network: str = "fit", base: ForecastModel | None = None
) -> FittedModel:
    """The forecaster in a fit's folder.

    Parameters
    ----------
    network
        The architecture that it must be of, by name; "fit" takes any.
    base
        Of an adapter, where it is at hand: adapters share its tensors. None loads it.

    Raises
    ------
    ForecastError
        There is no whole fit of this network in the folder, or no folder is named.
    """
    about = _about(path, network)
    assert path is not None
    if network not in ("fit", about.get("network")):
        raise ForecastError(f"{path} holds a fit of {about.get('network')}, not of {network}")
    try:
        if about["lora"] is not None:
            return _adapted(about, path, base)
        model = _made(about)
    except FastsimError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ForecastError(f"{path / ABOUT}: damaged ({reason})") from None
    weights = path / WEIGHTS
    load_exactly(network, model, read_safetensors(network, weights), weights)
    model.weights_changed()
    return model.eval()


def load_start(path: Path | None) -> Start:
    """What the fit in a folder began with, and its settings, so that it can be done again.

    Raises
    ------
    ForecastError
        There is no whole fit in the folder, or what it began with is a fit itself, or is not what
        it was.
    """
    about = _about(path, "fit")
    assert path is not None
    try:
        config = from_mapping(FitConfig, about["config"])
        known, origin = architecture(about["network"]), about["base"]
        if config.mode == "scratch":
            with torch.random.fork_rng(devices=[]):
                return Start(known.make(about["settings"]), config)
        began = None if known.load is None else _base_of(about, path)
    except (KeyError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ForecastError(f"{path / ABOUT}: damaged ({reason})") from None
    if began is None or fingerprint(began) != origin["key"]:
        raise ForecastError(
            f"{path}: what this fit began with, weights {origin['key'][:12]} of "
            f"{about['network']}, is not at hand to begin with again: name that, and the "
            f"settings of the fit"
        )
    return Start(began, config)


def carry_base(folder: Path) -> None:
    """Let a copy of a fit's folder stand alone: with an adapter's base that came from a path.

    The trials of a search are dropped. Folders that hold no fit are left as they are.
    """
    about = json.loads((folder / ABOUT).read_text()) if (folder / ABOUT).is_file() else {}
    if about:
        shutil.rmtree(folder / STUDY, ignore_errors=True)
    found = (about.get("base") or {}).get("path")
    if about.get("lora") is None or found is None or (folder / BASE).exists():
        return
    source, target = Path(found), folder / BASE / Path(found).name
    target.parent.mkdir()
    if source.is_dir():
        shutil.copytree(source, target)
        return
    shutil.copy2(source, target)
    beside = source.parent / "config.json"
    if beside.is_file():
        shutil.copy2(beside, target.parent)


def _about(path: Path | None, network: str) -> dict[str, Any]:
    """What `fit.json` says of a network's fit; ForecastError if there is none of this format."""
    if path is None:
        what = "what was fitted" if network == "fit" else "what it was fitted to"
        raise ForecastError(
            f"forecaster {network!r} has no weights before it is fitted: name the folder of "
            f"{what}, as in {network}:runs/mine (`fastsim forecast fit` makes it)"
        )
    if not (path / ABOUT).is_file():
        raise ForecastError(f"{path}: no {ABOUT} here: name a folder that holds a whole fit")
    about: dict[str, Any] = read_json(network, path / ABOUT)
    if about.get("format") != FORMAT:
        raise ForecastError(f"{path / ABOUT}: no fit of format {FORMAT}: {about.get('format')!r}")
    return about


def _adapted(about: Mapping[str, Any], path: Path, base: ForecastModel | None) -> FittedModel:
    """An adapter on its base, whose tensors it shares."""
    origin = about["base"]
    if base is None:
        base = _base_of(about, path)
    if fingerprint(base) != origin["key"]:
        raise ForecastError(
            f"{path}: an adapter of {about['network']} with weights {origin['key'][:12]}, and "
            f"these are {fingerprint(base)[:12]}: name the base that it was fitted beside"
        )
    start = sharing(base)
    with torch.random.fork_rng(devices=[]):
        spread = with_adapters(start, from_mapping(LoraConfig, about["lora"]))
    load_adapter(spread, read_safetensors(about["network"], path / ADAPTER))
    model = _whole(about, spread, lambda: start)
    model.weights_changed()
    return model.eval()


def _base_of(about: Mapping[str, Any], path: Path) -> ForecastModel:
    """What a fit began with, from beside it, the path that it came from, or the hub."""
    origin, known = about["base"], architecture(about["network"])
    assert known.load is not None
    place = None if origin["path"] is None else Path(origin["path"])
    if place is not None and (path / BASE / place.name).exists():
        place = path / BASE / place.name
    revision = {"revision": origin["revision"]} if origin["revision"] else {}
    return known.load(place, **revision)


def _made(about: Mapping[str, Any]) -> FittedModel:
    """The model that `fit.json` tells of, with weights that are to be loaded."""
    make, settings = architecture(about["network"]).make, about["settings"]
    with torch.random.fork_rng(devices=[]):
        return _whole(about, make(settings), lambda: make(settings))


def _whole(
    about: Mapping[str, Any], spread: ForecastModel, start: Callable[[], ForecastModel]
) -> FittedModel:
    centres: dict[str, Callable[[], ForecastModel | LastClose | None]]
    centres = {FITTED: lambda: None, LAST: LastClose, KEPT: start}
    named = {name: about[name] for name in ("name", "reach", "known_until", "trials")}
    return FittedModel(spread, centres[about["centre"]](), **named)
