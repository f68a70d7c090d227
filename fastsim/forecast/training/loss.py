"""What a fit makes small: the pinball loss of log returns in units of volatility times sqrt(h).

The volatility is the trailing one of the context (half-life of 32 bars), known before anything that
is forecast, so that calm and wild assets, short and long horizons weigh alike. What came is cut at
TARGET_LIMIT of these units, that no single crash is all that is judged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    INNER_BAND,
    LEAST_RATIO,
    MEDIAN,
    ForecastModel,
    ModelCard,
    model_inputs,
)
from fastsim.forecast.networks.return_network import (
    SCALE_HALF_LIFE,
    ReturnNetwork,
    trailing_scale,
)
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.training.steps import pinball
from fastsim.forecast.training.windows import Windows

TARGET_LIMIT = 30.0


class Scaled(NamedTuple):
    """Quantiles of log returns in units of trailing volatility times sqrt(h)."""

    quantiles: Tensor  # [B, h, Q]
    scale: Tensor  # [B]  the volatility of a bar


class Losses(NamedTuple):
    """Of each window, means over what is known of its futures and horizons."""

    pinball: Tensor  # [B]
    covered: Tensor  # [B]  share of what came in the 80 % band


def scaled_quantiles(
    model: ForecastModel, windows: Windows, horizons: Tensor, device: torch.device
) -> Scaled:
    """What a model forecasts, in the unit of the loss, with gradients."""
    context = windows.context
    inputs = model_inputs(model.card, context, model.card.max_context, device)
    exact = torch.autocast(device.type, enabled=False)  # layers alone may be half
    if isinstance(model, ReturnNetwork):
        with exact:
            reading = model.read(*inputs)
        knots = model.knots(reading)
        with exact:
            return Scaled(model.curve[horizons - 1].float() @ knots.float(), reading.scale)
    with exact:
        scale, last = scale_of(context.close.to(device, torch.float32))
    quantiles = model(*inputs, horizon=int(horizons.max()))[:, horizons - 1].float()
    ratio = (quantiles / last[:, None, None]).clamp_min(LEAST_RATIO)
    unit = scale[:, None, None] * horizons.float().sqrt()[:, None]
    return Scaled(ratio.log() / unit, scale)


def scale_of(closes: Tensor) -> tuple[Tensor, Tensor]:
    """Trailing volatility of a bar and latest known close, [B] each, of closes [B, L]."""
    positions = torch.arange(closes.shape[1], device=closes.device)
    gaps = returns_with_gaps(closes, positions)
    weights = torch.exp2(-positions.flip(0)[1:].float() / SCALE_HALF_LIFE)
    return trailing_scale(gaps, weights), gaps.last


def centred(quantiles: Tensor, middle: int, centre: Tensor | None) -> Tensor:
    """Quantiles [B, h, Q] with their median at `centre` [B, h], 0 for None: their gaps stay."""
    moved = quantiles - quantiles[..., middle : middle + 1]
    return moved if centre is None else moved + centre[..., None]


def losses(scaled: Scaled, future: Tensor, horizons: Tensor, card: ModelCard) -> Losses:
    """Loss and coverage of each window, of what came [B, F, h]."""
    quantiles = scaled.quantiles[:, None]  # [B, 1, h, Q]
    unit = scaled.scale[:, None, None] * horizons.float().sqrt()
    future = future.to(quantiles.device)
    known = future.isfinite()
    target = (future.nan_to_num() / unit).clamp(-TARGET_LIMIT, TARGET_LIMIT)
    loss = pinball(quantiles, target, quantiles.new_tensor(card.levels)).mean(-1)
    low, high = (quantiles[..., nearest_level(card, level)] for level in INNER_BAND)
    covered = (low <= target) & (target <= high)
    count = known.sum((1, 2)).clamp_min(1)
    return Losses(
        torch.where(known, loss, 0.0).sum((1, 2)) / count,
        (covered & known).sum((1, 2)) / count,
    )


def nearest_level(card: ModelCard, level: float) -> int:
    """Which of a model's levels is nearest to one."""
    return min(range(len(card.levels)), key=lambda place: abs(card.levels[place] - level))


def median_place(card: ModelCard) -> int:
    """Which of a model's levels is the median; ForecastError if none is."""
    if MEDIAN not in card.levels:
        raise ForecastError(f"{card.name} has no median among its levels: it cannot be fitted")
    return card.levels.index(MEDIAN)
