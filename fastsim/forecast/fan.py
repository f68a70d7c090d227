"""The fan of a forecast: quantiles of the closes that follow, from the last one on."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.forecast.interface import Context, Forecaster

FAN_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles that are drawn."""
MAX_AHEAD = 64
"""Bars that a fan reaches."""


def fans_of(forecaster: Forecaster, context: Context, horizon: int) -> Tensor:
    """Prices [B, horizon + 1, levels] of each series, its last close first; NaN if not known."""
    close = context.close[:, -1].float()
    told = forecaster.forecast(context, min(horizon, MAX_AHEAD))
    ahead = torch.stack([told.at(level) for level in FAN_LEVELS], dim=-1).to(close)
    now = close[:, None, None].expand(-1, 1, len(FAN_LEVELS))
    return torch.cat([now, ahead], dim=1)
