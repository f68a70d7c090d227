"""The networks that a fit's folder can hold: how each is made anew, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fastsim.config import from_mapping, to_mapping
from fastsim.errors import ConfigError, did_you_mean
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.chronos2 import Chronos2Model, load_chronos2
from fastsim.forecast.models.prior import PriorModel, load_prior
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel, load_tirex
from fastsim.forecast.models.tirex_scratch import initialise
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model, load_toto2
from fastsim.forecast.networks.chronos2_network import Chronos2Config
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)


class Architecture(NamedTuple):
    """A class of networks."""

    kind: type[ForecastModel]
    make: Callable[[Mapping[str, Any]], ForecastModel]
    """From its settings, with random weights of torch's own generator."""
    settings: Callable[[Any], dict[str, Any]]
    """Of one of its networks: plain values by name."""
    load: Callable[..., ForecastModel] | None = None
    """With its published weights, from a path, or from where it keeps them if that is None."""


def _of_config(kind: Any, config: type[Any]) -> Architecture:
    """A class whose networks are made from a configuration, and keep it."""
    return Architecture(
        kind,
        lambda settings: kind(from_mapping(config, settings)),
        lambda model: to_mapping(model.config),
    )


def _made_tirex(settings: Mapping[str, Any]) -> TiRexModel:
    sizes = {name: value for name, value in settings.items() if name != "pad"}
    return initialise(TiRexModel(from_mapping(TiRexConfig, sizes), pad=settings.get("pad", True)))


ARCHITECTURES = {
    "fastsim-prior": Architecture(
        PriorModel, lambda settings: PriorModel(), lambda model: {}, load_prior
    ),
    "tirex": Architecture(
        TiRexModel, _made_tirex, lambda model: dict(model.settings()), load_tirex
    ),
    "toto2-4m": _of_config(Toto2Model, Toto2Config)._replace(load=load_toto2),
    "chronos2": _of_config(Chronos2Model, Chronos2Config)._replace(load=load_chronos2),
    "nhits": _of_config(NhitsModel, NhitsConfig),
    "lstm": _of_config(LstmModel, LstmConfig),
    "patch-transformer": _of_config(PatchTransformerModel, PatchTransformerConfig),
}
"""By the name that their forecaster has."""


def architecture_of(model: ForecastModel) -> Architecture:
    """The architecture of a network; ConfigError if there is none here."""
    return ARCHITECTURES[name_of(model)]


def name_of(model: ForecastModel) -> str:
    """The name of a network's architecture; ConfigError if it has none."""
    for name, known in ARCHITECTURES.items():
        if type(model) is known.kind:
            return name
    raise ConfigError(
        f"{model.card.name} cannot be made anew or kept in a folder: its class, "
        f"{type(model).__qualname__}, is none of {', '.join(ARCHITECTURES)}"
    )


def architecture(name: str) -> Architecture:
    """The architecture of this name; ConfigError if there is none."""
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"there is no network {name!r} to fit; there are {', '.join(ARCHITECTURES)}"
            f"{did_you_mean(name, ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def from_scratch(name: str, choices: Sequence[str] = ()) -> ForecastModel:
    """A network of this name, its weights random, of sizes such as `hidden=32`.

    Values are as in YAML: `pools=[8,4,1]`.

    Raises
    ------
    ConfigError
        It has no such size, or a choice is none.
    """
    found, settings = architecture(name), dict(map(_choice, choices))
    if choices and not found.settings(found.make({})):
        raise ConfigError(f"FitCommand.architecture must be empty: {name} has one size alone")
    return found.make(settings)


def _choice(text: str) -> tuple[str, Any]:
    name, _, value = (part.strip() for part in text.partition("="))
    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        given = None
    if not name or given is None:
        raise ConfigError(
            f"FitCommand.architecture must be of sizes such as hidden=32, got {text!r}"
        )
    return name, given
