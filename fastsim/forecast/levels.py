"""Quantiles at any level, from those at a few: monotone between them, with a tail beyond.

Between two levels the quantile function is that of a normal through both. Beyond the outermost it
is that of an exponential through the two outermost, q = a + b log(level) below and
q = a - b log(1 - level) above (Park, Robinson, Aubet, Gasthaus and Wang 2022, "Learning Quantile
Functions without Quantile Crossing for Distribution-free Time Series Forecasting", section 3.2):
a tail thicker than a normal's and thinner than a power law, that two quantiles determine. It is a
convention: what was not forecast is not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.errors import ForecastError

NORMAL = NormalDist()


class Place(NamedTuple):
    """Where a level lies among known ones."""

    low: int
    """The lower of the two that its quantile is made of."""
    share: float
    """Of the way from there to the next; below 0 and above 1 in the tails."""


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The same as a tuple; ForecastError unless they increase and lie between 0 and 1."""
    given = tuple(float(level) for level in levels)
    if not given or any(not 0.0 < level < 1.0 for level in given):
        raise ForecastError(f"levels must lie between 0 and 1, got {list(levels)}")
    if any(low >= high for low, high in pairwise(given)):
        raise ForecastError(f"levels must increase, got {list(levels)}")
    return given


def place_of(level: float, known: Sequence[float]) -> Place:
    """Where a level lies among known ones, of which there are at least two."""
    if level < known[0]:
        low, high, at = (math.log(each) for each in (known[0], known[1], level))
        return Place(0, _share(low, at, high))
    if level > known[-1]:
        low, high, at = (-math.log1p(-each) for each in (known[-2], known[-1], level))
        return Place(len(known) - 2, _share(low, at, high))
    upper = max(1, next(index for index, each in enumerate(known) if each >= level))
    low, high, at = (NORMAL.inv_cdf(each) for each in (known[upper - 1], known[upper], level))
    return Place(upper - 1, _share(low, at, high))


def _share(low: float, at: float, high: float) -> float:
    """How far a place is on the way; nowhere where rounding leaves no way."""
    return (at - low) / (high - low) if high > low else 0.0


def quantiles_at(quantiles: Tensor, known: Sequence[float], levels: Sequence[float]) -> Tensor:
    """Quantiles [..., Q'] at levels, from those [..., Q] at known ones; a single one is all."""
    if len(known) == 1:
        return quantiles.expand(*quantiles.shape[:-1], len(levels))
    places = [place_of(level, known) for level in levels]
    rows = torch.tensor([place.low for place in places], device=quantiles.device)
    exact = quantiles.double()
    share = exact.new_tensor([place.share for place in places])
    low, high = exact[..., rows], exact[..., rows + 1]
    return (low + share * (high - low)).to(quantiles.dtype)
