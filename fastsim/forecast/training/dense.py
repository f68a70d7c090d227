"""Every patch of a past as an origin: many forecasts to learn from in one pass of a network.

What a forecast at a patch is scaled by, in the network and in the loss, comes from what lies before
its targets. By the scale of a whole window, targets included, a network learns that prices return
to the window's mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastsim.errors import ForecastError
from fastsim.forecast.interface import LEAST_RATIO, ForecastModel, model_inputs
from fastsim.forecast.networks.dense import DenseModel
from fastsim.forecast.training.loss import Scaled, scale_of
from fastsim.forecast.training.windows import Windows

LEAST_SCALE = 1e-9
"""Volatility of a bar below which a past has not moved."""


class Unfolded(NamedTuple):
    """Forecasts and outcomes of all patches of some windows that have both, R in all."""

    scaled: Scaled  # of R origins
    future: Tensor  # [R, F, h]  log return over each horizon, NaN where unknown


class _Origins(NamedTuple):
    """What is known at the end of each of S patches."""

    scale: Tensor  # [B, S]  trailing volatility of a bar
    last: Tensor  # [B, S]  latest known close
    future: Tensor  # [B, S, F, h]


def unfolded(
    model: ForecastModel, windows: Windows, horizons: Tensor, device: torch.device
) -> Unfolded:
    """What a model forecasts after each patch of windows, in the unit of the loss, with gradients.

    Raises
    ------
    ForecastError
        No patch has enough known before it.
    """
    (closes,) = model_inputs(model.card, windows.context, model.card.max_context, device)
    assert isinstance(model, DenseModel)
    told = model.after_patches(closes)
    with torch.autocast(device.type, enabled=False):
        count = told.quantiles.shape[1]
        origins = _origins(closes, windows.future.to(device), horizons, model.patch, count)
        known = origins.future.isfinite().any(-1).any(-1)  # [B, S]
        rows = told.ready & known & (origins.scale > LEAST_SCALE)
        if not bool(rows.any()):
            raise ForecastError(
                f"no patch of {closes.shape[1]} bars has enough known before it for dense targets: "
                f"give a shorter context, or leave them out"
            )
        quantiles = told.quantiles[rows][:, horizons - 1].float()  # [R, h, Q]
        scale, last = origins.scale[rows], origins.last[rows]
        ratio = (quantiles / last[:, None, None]).clamp_min(LEAST_RATIO)
        unit = scale[:, None, None] * horizons.float().sqrt()[:, None]
        return Unfolded(Scaled(ratio.log() / unit, scale), origins.future[rows])


def _origins(closes: Tensor, future: Tensor, horizons: Tensor, patch: int, count: int) -> _Origins:
    """Of the ends of the last `count` patches of closes [B, L]; `future` is after the last."""
    scales, lasts, futures = [], [], []
    for left in range(count - 1, -1, -1):
        end = closes.shape[1] - left * patch
        scale, last = scale_of(closes[:, :end])
        if left:
            after = closes[:, end - 1 + horizons].double() / closes[:, end - 1, None].double()
            came = after.log().float()[:, None]  # [B, 1, h]
            missing = future.shape[1] - 1
            came = functional.pad(came, (0, 0, 0, missing), value=torch.nan)
        else:
            came = future
        scales.append(scale)
        lasts.append(last)
        futures.append(torch.where(came.isfinite(), came, torch.nan))
    return _Origins(torch.stack(scales, 1), torch.stack(lasts, 1), torch.stack(futures, 1))
