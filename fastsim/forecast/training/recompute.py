"""Layers worked out twice, so that not all of what they hold is held until gradients are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from fastsim.forecast.interface import ForecastModel


@contextmanager
def recomputing(model: ForecastModel) -> Iterator[None]:
    """While it lasts, each layer of a model keeps its inputs alone, and is worked out again.

    Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016). Values and
    gradients are those of the model without it.
    """
    layers = [layer for name in model.layer_names for layer in _each(model.get_submodule(name))]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _each(layers: nn.Module) -> list[nn.Module]:
    return list(layers.children())
