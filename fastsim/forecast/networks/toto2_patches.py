"""Series cut into patches for Toto 2.0, each standardised by what was known at its end."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

MINIMUM_SCALE = 1e-6
"""Least standard deviation of a series, absolute from price 1 up, relative to the price below."""


class Patches(NamedTuple):
    """A series cut into patches and standardised by what was known at the end of each patch."""

    scaled: Tensor  # [B, S, P]  float64, asinh of standard deviations from the mean, 0 if unknown
    known: Tensor  # [B, S, P]  bool
    mean: Tensor  # [B, S, 1]  float64, of all until the end of each patch
    scale: Tensor  # [B, S, 1]  float64, its standard deviation
    seen: Tensor  # [B, S, 1]  how many are known until there


def scale_patches(close: Tensor, patch: int) -> Patches:
    """Cut closes [B, L], NaN where missing, into patches of `patch` bars, padded on the left.

    A patch is standardised by mean and standard deviation of all that is known until its end. The
    last patch counts as known, its gaps filled with the last known close before them (the first
    one if there is none): the official model has never seen a context whose end is missing.
    """
    padded = F.pad(close.double(), (-close.shape[-1] % patch, 0), value=math.nan)
    known = padded.isfinite()
    filled, first = _fill(padded, known)
    values = torch.unflatten(filled, -1, (-1, patch))  # [B, S, P]
    known = torch.unflatten(known, -1, (-1, patch))
    known = torch.cat((known[:, :-1], torch.ones_like(known[:, -1:])), 1)

    count, mean, variance = running_moments(values, known, first[..., None])
    floor = MINIMUM_SCALE * first.abs().clamp_max(1.0)[..., None]  # [B, 1, 1]
    scale = torch.maximum(variance.sqrt(), floor.clamp_min(torch.finfo(torch.float32).tiny))
    scaled = torch.where(known, (values - mean) / scale, 0.0).asinh()
    return Patches(scaled, known, mean, scale, count)


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


def _fill(padded: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Fill gaps with the last known value, or the first [B, 1] where nothing is known before."""
    place = torch.ones_like(padded, dtype=torch.int64).cumsum(-1) - 1
    start = (known.cumsum(-1) == 0).sum(-1, keepdim=True)
    last = torch.where(known, place, start).cummax(-1).values
    return padded.gather(-1, last), padded.gather(-1, start)
