"""Running moments of series in patches, and means over tokens: what several networks share."""

from __future__ import annotations

import torch
from torch import Tensor


def running_moments(values: Tensor, known: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance [B, S, 1] of all known values until the end of each patch.

    Parameters
    ----------
    values, known
        [B, S, P], finite also where not known.
    near
        [B, 1, 1], a value of each series: moments about it lose no digits to the level of prices.
    """
    centred = (values - near) * known
    count = known.sum(-1, keepdim=True).cumsum(1)
    total = centred.sum(-1, keepdim=True).cumsum(1)
    squares = centred.square().sum(-1, keepdim=True).cumsum(1)
    mean = total / count.clamp_min(1)
    variance = (squares - total * mean).clamp_min(0.0) / (count - 1).clamp_min(1)
    return count, mean + near, variance


def pooled(tokens: Tensor, known: Tensor) -> Tensor:
    """Mean [B, D], float32, of those tokens [B, S, D] that are `known` [B, S]."""
    weight = known.to(torch.float32)[..., None]
    total: Tensor = (tokens.float() * weight).sum(1)
    return total / weight.sum(1).clamp_min(1.0)
