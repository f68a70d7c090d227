"""What every training of a forecaster does at a step: how far to go, and what is kept of it."""

from __future__ import annotations

import math
from inspect import unwrap

import torch
from torch import Tensor, nn


class AdamW(torch.optim.AdamW):
    """PyTorch's, whose methods here do not import its compiler: that takes seconds and 118 MB."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up times a half cosine over all steps."""
    warm = min(1.0, (step + 1) / (warmup + 1))
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the averaged parameters of `average` towards the model's; faster in the first steps."""
    decay = min(decay, (1.0 + step) / (10.0 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1.0 - decay)


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Pinball loss [..., Q] of quantiles [..., Q] for what came, `target` [...]."""
    error = target[..., None] - quantiles
    return torch.maximum(levels * error, (levels - 1.0) * error)
