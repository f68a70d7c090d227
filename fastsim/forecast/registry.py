"""Forecasters by name: how their weights are loaded, and ensembles of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from fastsim.errors import ConfigError, FastsimError, ForecastError
from fastsim.forecast.artifacts.export import load_artifact
from fastsim.forecast.artifacts.formats import SUFFIX
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.foreign import ForeignForecaster, source_digest
from fastsim.forecast.interface import (
    Forecaster,
    ForecastModel,
    ModelCard,
    ModuleForecaster,
    Precision,
)
from fastsim.forecast.known import FORECASTERS, OWN, ForecasterRecord
from fastsim.forecast.models import fracast
from fastsim.forecast.weights import fingerprint

NO_FORECASTER = "none"
FITTED = "fit"
"""In place of weights: those that minimise the CRPS on bars that neither train nor test."""
_announced: set[str] = set()


def load_forecaster(
    name: str,
    *,
    path: Path | None = None,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
) -> Forecaster:
    """Load a forecaster by its name, or an artefact by its path.

    A user's own, registered or "package.module:object", is held to what forecasters promise, and
    its key changes with the file that it is written in.

    Raises
    ------
    ConfigError
        There is no forecaster of this name.
    ForecastError
        Its weights cannot be had or do not fit.
    """
    if Path(name).suffix in SUFFIX.values():
        return load_artifact(Path(name), device)
    record = FORECASTERS.find(name)
    loaded = _load(record, name, path)
    if isinstance(loaded, ForecastModel):
        card = record.card or loaded.card
        _announce(card)
        revision = f"{card.revision or ''}#{fingerprint(loaded)[:16]}"
        forecaster: Forecaster = ModuleForecaster(
            loaded, precision=precision, device=device, revision=revision
        )
    else:
        forecaster = loaded
    if record in OWN:
        return forecaster
    return ForeignForecaster(forecaster, name, source_digest(record.load, type(loaded)))


def load_network(name: str, path: Path | None = None) -> ForecastModel:
    """The network behind a forecaster's name, to export; ForecastError if it is none."""
    loaded = _load(FORECASTERS.find(name), name, path)
    if not isinstance(loaded, ForecastModel):
        raise ForecastError(f"{name} is no network: there is nothing to export")
    return loaded


def load_ensemble(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
) -> Forecaster:
    """Load one forecaster, or several as an ensemble."""
    if weights is not None and len(weights) != len(names):
        raise ConfigError(f"{len(names)} forecasters need {len(names)} weights, got {len(weights)}")
    members = [load_forecaster(name, precision=precision, device=device) for name in names]
    return members[0] if len(members) == 1 else Ensemble(members, weights)


def parse_names(text: str) -> tuple[str, ...]:
    """Names from `tirex,toto,kronos`; none for "none"."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == (NO_FORECASTER,):
        return ()
    for name in names:
        if Path(name).suffix not in SUFFIX.values():
            FORECASTERS.find(name)
    if not names:
        raise ConfigError('forecaster must name at least one model, or be "none"')
    return names


def parse_weights(text: str) -> tuple[float, ...] | None:
    """Weights from `0.4,0.4,0.2`; None, for equal ones, from an empty text."""
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else None
    except ValueError:
        raise ConfigError(
            f'weights must be numbers such as 0.4,0.4,0.2, or "{FITTED}", got {text!r}'
        ) from None


def where_weights_are(record: ForecasterRecord) -> str:
    """Where a model's weights lie: in the package, in the hub's cache, or not here."""
    if record.name == fracast.CARD.name:
        return "in its own package" if find_spec("fracast") else "pip install 'fastsim-rl[fracast]'"
    card = record.card
    if card is None or card.hub_id is None:
        return "in the package"
    found = try_to_load_from_cache(card.hub_id, record.weights_file, revision=card.revision)
    return str(found) if isinstance(found, str) else f"not here: hf download {card.hub_id}"


def random_model(name: str) -> ForecastModel:
    """The full architecture with random weights: its speed is real, its forecasts are not."""
    record = FORECASTERS.find(name)
    if record.random is None:
        raise ForecastError(f"{name} ships with its weights: there is no need for random ones")
    return record.random()


def _load(record: ForecasterRecord, name: str, path: Path | None) -> ForecastModel | Forecaster:
    try:
        return record.load(path)
    except FastsimError:
        raise
    except Exception as error:
        if record in OWN:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ForecastError(f"forecaster {name!r} cannot be loaded: {reason}") from error


def _announce(card: ModelCard) -> None:
    if card.attribution and card.hub_id is not None and card.name not in _announced:
        _announced.add(card.name)
        print(card.attribution, file=sys.stderr)
