"""Do things happen as often as their probabilities say: shares, and Brier's score in its parts."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import require_count
from fastsim.errors import ConfigError, DataError
from fastsim.stats.bootstrap import Interval


class Bin(NamedTuple):
    """Forecasts whose probabilities lie near each other."""

    low: float
    """Least probability among them."""
    high: float
    """Largest."""
    forecasts: int
    forecast: float
    """Mean probability."""
    observed: Interval
    """Share of them that happened, with Wilson's interval."""


class Reliability(NamedTuple):
    """Brier's score, `reliability - resolution + uncertainty + within`, and what it is made of."""

    bins: tuple[Bin, ...]
    brier: float
    """Mean square of probability less what happened, 0 or 1: Brier (1950)."""
    reliability: float
    """Mean square of what a bin forecasts less what it saw; 0 is best."""
    resolution: float
    """Variance of what bins saw; 0 where forecasts tell nothing apart."""
    uncertainty: float
    """Variance of what happened, whatever was forecast."""
    within: float
    """What forecasts that share a bin and are not equal leave over."""


def wilson_interval(count: int, total: int, level: float = 0.95) -> Interval:
    """Share of `count` in `total` independent trials, with the score interval of Wilson (1927).

    It keeps its word where the share is near 0 or 1. Trials that share their luck, as overlapping
    forecasts do, are worth fewer than `total`, and deserve a wider one.

    Raises
    ------
    DataError
        There is no trial, or there are more counted than trials.
    ConfigError
        The level is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must be between 0 and 1, got {level!r}")
    if not 0 <= count <= total or total < 1:
        raise DataError(f"a share is of at least one trial, got {count} of {total}")
    square = NormalDist().inv_cdf(0.5 + level / 2.0) ** 2
    share, weight = count / total, 1.0 + square / total
    middle = (share + square / (2 * total)) / weight
    margin = sqrt(square * (share * (1.0 - share) + square / (4 * total)) / total) / weight
    return Interval(share, max(middle - margin, 0.0), min(middle + margin, 1.0), level)


def reliability(
    probabilities: Tensor, happened: Tensor, *, bins: int = 10, level: float = 0.95
) -> Reliability:
    """Hold probabilities [N] against what happened [N], bool.

    Bins are of about as many forecasts each, equal probabilities in one of them. The parts are
    Murphy's (1973), "A new vector partition of the probability score", Journal of Applied
    Meteorology 12; they add up to the score with the two terms, here one, of Stephenson, Coelho and
    Jolliffe (2008), "Two extra components in the Brier score decomposition", Weather and
    Forecasting 23.

    Raises
    ------
    DataError
        There is no forecast, one is no probability, or what happened is not bool [N].
    ConfigError
        `bins` is no whole number >= 1, or the level is not between 0 and 1.
    """
    require_count("bins", bins)
    told = probabilities.double()
    if happened.dtype != torch.bool or told.ndim != 1 or happened.shape != told.shape:
        raise DataError(
            f"probabilities and what happened must be [N] and bool [N], got "
            f"{[*probabilities.shape]} and {happened.dtype} {[*happened.shape]}"
        )
    if not len(told) or not bool(((told >= 0) & (told <= 1)).all()):
        raise DataError("probabilities must be at least one number, and between 0 and 1")
    came, place = happened.double(), _places(told, bins)
    counts = torch.bincount(place).double()
    forecast = torch.bincount(place, told) / counts
    observed = torch.bincount(place, came) / counts
    share, rate = counts / len(told), came.mean()
    apart, left = told - forecast[place], came - observed[place]
    return Reliability(
        bins=tuple(
            _bin(told[place == number], happened[place == number], level)
            for number in range(len(counts))
        ),
        brier=float((told - came).square().mean()),
        reliability=float(share @ (forecast - observed).square()),
        resolution=float(share @ (observed - rate).square()),
        uncertainty=float(rate * (1.0 - rate)),
        within=float((apart.square() - 2.0 * apart * left).mean()),
    )


def _places(told: Tensor, bins: int) -> Tensor:
    """The bin [N] of each, from 0 up; none is empty."""
    ordered = told.sort().values
    cuts = ordered[[len(told) * cut // bins for cut in range(1, bins)]]
    found = torch.searchsorted(torch.unique(cuts), told, right=True)
    places: Tensor = torch.unique(found, return_inverse=True)[1]
    return places


def _bin(told: Tensor, happened: Tensor, level: float) -> Bin:
    return Bin(
        low=float(told.min()),
        high=float(told.max()),
        forecasts=len(told),
        forecast=float(told.mean()),
        observed=wilson_interval(int(happened.sum()), len(told), level),
    )
