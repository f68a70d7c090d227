"""Every forecaster by name: what it is, how its weights are loaded, and ensembles of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import load_artifact
from fastsim.forecast.artifacts.formats import SUFFIX
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import (
    Forecaster,
    ForecastModel,
    ModelCard,
    ModuleForecaster,
    Precision,
)
from fastsim.forecast.models import fracast, kronos, prior, tirex, tirex2, toto, toto2
from fastsim.forecast.weights import fingerprint

NO_FORECASTER = "none"
FITTED = "fit"
"""In place of weights: those that minimise the CRPS on bars that neither train nor test."""


class Model(NamedTuple):
    """One model that fastsim knows."""

    card: ModelCard
    load: Callable[[Path | None], ForecastModel]
    random: Callable[[], ForecastModel] | None
    """Full size with random weights, for benchmarks; None where weights ship."""
    weights_file: str


def _kronos(size: str) -> Model:
    return Model(
        kronos.CARDS[size],
        lambda path: kronos.load_kronos(size, path),
        partial(kronos.random_kronos, kronos.CONFIGS[size], kronos.TOKENIZER_CONFIGS[size], seed=0),
        "model.safetensors",
    )


FORECASTERS: dict[str, Model] = {
    "fastsim-prior": Model(prior.CARD, prior.load_prior, None, ""),
    "tirex": Model(
        tirex.CARD,
        tirex.load_tirex,
        lambda: tirex.TiRexModel.random(tirex.TiRexConfig(), 0),
        tirex.CHECKPOINT,
    ),
    "tirex2": Model(
        tirex2.CARD,
        tirex2.load_tirex2,
        lambda: tirex2.random_tirex2(tirex2.official_settings(), 0),
        tirex2.CHECKPOINT,
    ),
    "toto": Model(
        toto.CARD,
        toto.load_toto,
        lambda: toto.TotoModel(toto.TotoConfig()),
        "model.safetensors",
    ),
    "toto2-4m": Model(
        toto2.CARD,
        toto2.load_toto2,
        lambda: toto2.Toto2Model(toto2.Toto2Config()),
        "model.safetensors",
    ),
    "kronos-mini": _kronos("mini"),
    "kronos": _kronos("small"),
    "kronos-base": _kronos("base"),
    "fracast": Model(fracast.CARD, fracast.load_fracast, None, ""),
}
_announced: set[str] = set()


def find_model(name: str) -> Model:
    """The model of this name; ConfigError listing the names there are."""
    if name not in FORECASTERS:
        raise ConfigError(f"no forecaster is called {name!r}; there are {', '.join(FORECASTERS)}")
    return FORECASTERS[name]


def load_forecaster(
    name: str,
    *,
    path: Path | None = None,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
) -> Forecaster:
    """Load a forecaster by its name, or an artefact by its path.

    Raises
    ------
    ConfigError
        There is no model of this name.
    ForecastError
        Its weights cannot be had or do not fit.
    """
    if Path(name).suffix in SUFFIX.values():
        return load_artifact(Path(name), device)
    model = find_model(name)
    loaded = model.load(path)
    _announce(model.card)
    revision = f"{model.card.revision or ''}#{fingerprint(loaded)[:16]}"
    return ModuleForecaster(loaded, precision=precision, device=device, revision=revision)


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
            find_model(name)
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


def where_weights_are(model: Model) -> str:
    """Where a model's weights lie: in the package, in the hub's cache, or not here."""
    card = model.card
    if card.name == fracast.CARD.name:
        return "in its own package" if find_spec("fracast") else "pip install 'fastsim-rl[fracast]'"
    if card.hub_id is None:
        return "in the package"
    found = try_to_load_from_cache(card.hub_id, model.weights_file, revision=card.revision)
    return str(found) if isinstance(found, str) else f"not here: hf download {card.hub_id}"


def random_model(name: str) -> ForecastModel:
    """The full architecture with random weights: its speed is real, its forecasts are not."""
    model = find_model(name)
    if model.random is None:
        raise ForecastError(f"{name} ships with its weights: there is no need for random ones")
    return model.random()


def _announce(card: ModelCard) -> None:
    if card.attribution and card.hub_id is not None and card.name not in _announced:
        _announced.add(card.name)
        print(card.attribution, file=sys.stderr)
