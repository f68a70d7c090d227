"""Low-rank adapters beside the linear layers of a network (LoRA).

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), section 4.1: a frozen
weight W [O, I] acts as W + (alpha / rank) B A with A [rank, I] random and B [O, rank] zero before
anything is learned, so that an adapter begins with no change at all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.forecast.interface import ForecastModel

DOWN, UP = "lora_down", "lora_up"


@configuration
class LoraConfig:
    """Adapters of linear layers."""

    rank: int = 8
    alpha: float = 16.0
    """What an adapter adds is times alpha / rank, so that learning rates suit any rank."""
    dropout: float = 0.0
    layers: tuple[str, ...] = ("*",)
    """Names of layers, with * for any part of a name: all linear ones by default."""

    def __post_init__(self) -> None:
        require_between(self, "rank", 1)
        require_between(self, "alpha", 0.0, open_low=True)
        require_between(self, "dropout", 0.0, 0.9)


class LoraLinear(nn.Module):
    """A linear layer that stays as it is, and an adapter beside it."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base, self.dropout = base, config.dropout
        # Layers that scale what they give scale what is added to their weight as well.
        self.factor = config.alpha / config.rank
        self.base_factor = float(getattr(base, "factor", 1.0))
        like = base.weight
        self.lora_down = nn.Parameter(like.new_empty(config.rank, base.in_features))
        self.lora_up = nn.Parameter(like.new_zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.lora_down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Of [..., I], [..., O]."""
        seen = nn.functional.dropout(x, self.dropout, self.training)
        added = nn.functional.linear(nn.functional.linear(seen, self.lora_down), self.lora_up)
        whole: Tensor = self.base(x) + (self.factor * self.base_factor) * added
        return whole

    @property
    def bias(self) -> Tensor:
        """That of the layer. Its weight alone is none: the adapter would be passed by."""
        return self.base.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer alone, its weight changed by the adapter; a copy."""
        layer = copy.deepcopy(self.base)
        change = self.lora_up.double() @ self.lora_down.double()
        layer.weight.copy_((layer.weight.double() + self.factor * change).to(layer.weight))
        return layer


def with_adapters(model: ForecastModel, config: LoraConfig) -> ForecastModel:
    """A copy of a network, on the same tensors, with adapters that change nothing.

    Raises
    ------
    ConfigError
        No linear layer has such a name.
    """
    adapted = sharing(model)
    chosen = [
        name
        for name, layer in adapted.named_modules()
        if isinstance(layer, nn.Linear) and any(fnmatchcase(name, each) for each in config.layers)
    ]
    if not chosen:
        linear = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
        raise ConfigError(
            f"LoraConfig.layers must name linear layers of {model.card.name}, such as "
            f"{', '.join(linear[:3])}, got {', '.join(config.layers)}"
        )
    for name in chosen:
        layer = adapted.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        adapted.set_submodule(name, LoraLinear(layer, config))
    return adapted


def merged(model: ForecastModel) -> ForecastModel:
    """The network with the changes of its adapters in its weights: same class, no adapters."""
    return _without(model, lambda layer: layer.merged())


def base_of(model: ForecastModel) -> ForecastModel:
    """The network without its adapters, on the same tensors."""
    return _without(model, lambda layer: layer.base)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What an adapter is: the weights that lie beside those of its base, by name."""
    state = model.state_dict()
    return {name: each for name, each in state.items() if name.endswith((DOWN, UP))}


def load_adapter(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set these weights; KeyError or RuntimeError unless they are those of this adapter."""
    own = adapter_state(model)
    if own.keys() != state.keys():
        raise KeyError(", ".join(sorted(own.keys() ^ state.keys())[:3]))
    model.load_state_dict(dict(state), strict=False)


def sharing(model: ForecastModel, *, learned: bool = False) -> ForecastModel:
    """A copy of a network on the same parameters, or with copies of those that are `learned`."""
    kept = {id(each): each for each in model.parameters() if not (learned and each.requires_grad)}
    return copy.deepcopy(model, kept)


def _without(model: ForecastModel, replaced: Any) -> ForecastModel:
    plain = sharing(model)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, LoraLinear):
            plain.set_submodule(name, replaced(layer))
    plain.weights_changed()
    return plain
