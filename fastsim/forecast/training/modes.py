"""Which of a model's weights a fit moves, and what it begins with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from fastsim.errors import ConfigError
from fastsim.forecast.covariates.channels import named_covariates
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.networks.dense import DenseModel
from fastsim.forecast.training.architectures import architecture_of
from fastsim.forecast.training.config import FitConfig, Mode
from fastsim.forecast.training.lora import base_of, with_adapters


def check_mode(model: ForecastModel, mode: Mode) -> None:
    """Raise ConfigError, which names the model, unless it can be fitted in this mode."""
    name, having = model.card.name, ", ".join(model.fit_modes)
    if not having:
        raise ConfigError(f"{name} cannot be fitted: it has nothing that learns from bars here")
    if mode not in model.fit_modes:
        raise ConfigError(f"FitConfig.mode of {name} must be one of {having}, got {mode!r}")


def check_options(model: ForecastModel, config: FitConfig) -> None:
    """Raise ConfigError, which names the model, where it has not what an option needs."""
    name = model.card.name
    if config.dense and not isinstance(model, DenseModel):
        raise ConfigError(
            f"FitConfig.dense must be false for {name}, which tells what follows the last bar "
            f"alone, got True"
        )
    if config.dense and isinstance(model, DenseModel) and config.reach > model.patch:
        raise ConfigError(
            f"FitConfig.horizons must lie within a patch of {name}, {model.patch} bars, for dense "
            f"targets, got {config.horizons!r}"
        )
    if config.checkpointing and not model.layer_names:
        raise ConfigError(
            f"FitConfig.checkpointing must be false for {name}, which has no list of layers, got "
            f"True"
        )


def covariates_of(model: ForecastModel, config: FitConfig) -> dict[str, Any]:
    """Settings of the model to fit: those of `model`, with the covariates that are asked for.

    Raises
    ------
    ConfigError
        It reads closes alone, or was fitted with others.
    """
    named, name = list(named_covariates(config.covariates)), model.card.name
    if not named and config.mode != "scratch":
        return {}
    settings = architecture_of(model).settings(model)
    if not named:
        return settings
    if "covariates" not in settings:
        raise ConfigError(
            f"FitConfig.covariates must be empty for {name}, which reads closes alone, got "
            f"{config.covariates!r}: nhits, lstm and patch-transformer take some"
        )
    asked = {**settings, "covariates": named, "zone": config.zone}
    if config.mode != "scratch" and asked != settings:
        raise ConfigError(
            f"FitConfig.covariates must be empty, or those that {name} was made with, "
            f"{', '.join(settings['covariates']) or 'none'} by the clock of {settings['zone']}, "
            f"got {config.covariates!r}"
        )
    return asked


def to_be_fitted(model: ForecastModel, config: FitConfig) -> ForecastModel:
    """A copy of a model in float32, whose parameters that the mode moves ask for gradients.

    From scratch it has weights of the seed, whatever the model's are.

    Raises
    ------
    ConfigError
        The model cannot be fitted in this mode.
    """
    mode = config.mode
    check_mode(model, mode)
    check_options(model, config)
    settings = covariates_of(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if mode == "scratch":
            return architecture_of(model).make(settings).requires_grad_(True)
        copied = copy.deepcopy(model).float().requires_grad_(mode == "full")
        if mode == "lora":
            return with_adapters(copied, config.lora)
    if mode == "head":
        for name in model.head_names:
            copied.get_submodule(name).requires_grad_(True)
    return copied


def moved(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name that a fit moves."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def parts_of(
    model: ForecastModel,
) -> tuple[ForecastModel, ForecastModel | LastClose | None]:
    """The network to fit, and whose its median is: of one that was fitted before, what it was."""
    return (model.spread, model.centre) if isinstance(model, FittedModel) else (model, model)


def centre_of(
    begun: ForecastModel,
    own: ForecastModel,
    kept: ForecastModel | LastClose | None,
    config: FitConfig,
) -> ForecastModel | LastClose | None:
    """Whose median the model that is `begun` is judged and kept about.

    `own` and `kept` are the parts of the caller's model.
    """
    if config.centre == "fitted":
        return None
    if config.centre == "last" or config.mode == "scratch" or isinstance(kept, LastClose):
        return LastClose()
    if config.mode == "lora" and kept is own:
        return base_of(begun)
    start = begun if kept is None else kept  # None: the network's own
    return copy.deepcopy(start).float().requires_grad_(False).to(config.device)
