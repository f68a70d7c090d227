"""What is searched for each model and mode, and a model with its settings as values say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch

from fastsim.errors import ConfigError, did_you_mean
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.training.architectures import architecture_of, name_of
from fastsim.forecast.training.config import FitConfig, Mode
from fastsim.forecast.training.modes import check_mode, parts_of
from fastsim.space import Space, space_of, with_values

HELD = (
    *("mode", "horizons", "context", "season", "split", "validation_windows", "sure"),
    *("seed", "device"),
)
"""Settings that say by what fits are judged, or that no result should hang on: not searched."""
OF_MODES: dict[Mode, dict[str, Any]] = {
    "scratch": {
        "learning_rate": {"log": [5e-4, 1e-2]},
        "weight_decay": {"log": [1e-5, 1e-1]},
        "average": [0.99, 0.998],
    },
    "full": {"learning_rate": {"log": [3e-5, 1e-3]}, "weight_decay": {"log": [1e-5, 1e-1]}},
    "head": {"learning_rate": {"log": [1e-4, 1e-2]}, "weight_decay": {"log": [1e-5, 1e-1]}},
    "lora": {
        "learning_rate": {"log": [1e-4, 3e-3]},
        "lora.rank": [4, 8, 16],
        "lora.dropout": {"uniform": [0.0, 0.2]},
    },
}
"""What is searched in each mode where no space is given."""
OF_NETWORKS: dict[str, dict[str, Any]] = {
    "nhits": {
        "hidden": [32, 64, 128],
        "layers": [1, 2, 3],
        "dropout": {"uniform": [0.0, 0.3]},
    },
    "lstm": {"patch": [2, 4, 8], "hidden": [32, 64, 128], "dropout": {"uniform": [0.0, 0.3]}},
    "patch-transformer": {
        "patch": [8, 16, 32],
        "width": [32, 64, 128],
        "layers": [2, 3, 4],
        "dropout": {"uniform": [0.0, 0.3]},
    },
}
"""What of a network's sizes is searched as well where it is from scratch."""


class Candidate(NamedTuple):
    """What a trial fits, and how."""

    model: ForecastModel
    config: FitConfig


def usual_space(model: ForecastModel, mode: Mode) -> Space:
    """The space of a model and a mode where none is given.

    Raises
    ------
    ConfigError
        The model cannot be fitted in this mode.
    """
    network = parts_of(model)[0]
    check_mode(network, mode)
    own = OF_NETWORKS.get(name_of(network), {}) if mode == "scratch" else {}
    return space_of({**OF_MODES[mode], **own})


def candidate(model: ForecastModel, config: FitConfig, values: Mapping[str, Any]) -> Candidate:
    """What these values of settings come to: those of a fit, and from scratch a network's sizes.

    Raises
    ------
    ConfigError
        There is no such setting, it may not be searched, or it may not have this value.
    """
    own = {entry.name for entry in fields(FitConfig)}
    of_fit = {name: value for name, value in values.items() if name.partition(".")[0] in own}
    sizes = {name: value for name, value in values.items() if name not in of_fit}
    for name in of_fit:
        if name.partition(".")[0] in HELD:
            raise ConfigError(
                f"{name} is not searched: all trials are judged alike; set it beside the space"
            )
    changed = with_values(config, of_fit)
    return Candidate(_resized(model, changed, sizes) if sizes else model, changed)


def _resized(model: ForecastModel, config: FitConfig, sizes: Mapping[str, Any]) -> ForecastModel:
    """The architecture with other sizes, its weights random."""
    network = parts_of(model)[0]
    found = architecture_of(network)
    settings = found.settings(network)
    known = settings if config.mode == "scratch" else {}
    for name in sizes:
        if name not in known:
            names = [*(entry.name for entry in fields(FitConfig)), *known]
            raise ConfigError(
                f"there is no setting {name!r} of a fit of {model.card.name} in mode "
                f"{config.mode}; there are {', '.join(names)}{did_you_mean(name, names)}"
            )
    with torch.random.fork_rng(devices=[]):
        return found.make({**settings, **sizes})
