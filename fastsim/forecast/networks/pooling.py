"""Means over tokens of what a network makes of a past."""

from __future__ import annotations

import torch
from torch import Tensor


def pooled(tokens: Tensor, known: Tensor) -> Tensor:
    """Mean [B, D], float32, of those tokens [B, S, D] that are `known` [B, S]."""
    weight = known.to(torch.float32)[..., None]
    total: Tensor = (tokens.float() * weight).sum(1)
    return total / weight.sum(1).clamp_min(1.0)
