"""How volatile each kind of bar is against the others, from a context, beside what is known before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.forecast.season.clock import (
    DAY,
    GAPS,
    HOURS_OF_DAY,
    HOURS_OF_WEEK,
    MINUTE,
    bars_to_come,
    kinds_of_bars,
    of_the_day,
)

KINDS = HOURS_OF_WEEK + GAPS
LEAST_DAYS = 3
"""Days of a context that a season is read from, at least."""
LIMIT = 12.0
"""A squared return counts for at most so many times the mean of its day."""
PSEUDO_COUNT = 8.0
"""Bars of no season that each kind's own are averaged with."""
TINY = 1e-300


class Factors(NamedTuple):
    """Variance of bars in units of a bar's mean; 1 where there is no season."""

    past: Tensor  # [B, L - 1]
    coming: Tensor  # [B, H]


def factors(
    returns: Tensor, known: Tensor, stamps: Tensor, horizon: int, before: Tensor
) -> Factors:
    """The season that a context shows.

    Each squared return is divided by the mean of the day around it, so that calm and wild days
    count alike, and by what is known of its kind before; the means of the quotients by the hour of
    the day, shrunk towards 1, are what the context adds.

    Parameters
    ----------
    returns
        Of one bar [B, L - 1], 0 where unknown.
    known
        Which are [B, L - 1].
    stamps
        Local times [B, L], increasing.
    before
        Factors [KINDS] that are known before the context is seen; ones where nothing is.
    """
    kinds = kinds_of_bars(stamps)  # [B, L - 1]
    ahead = bars_to_come(stamps, horizon)
    kinds_ahead = kinds_of_bars(torch.cat([stamps[:, -1:], ahead], 1))  # [B, H]
    expected = before[kinds]
    square = torch.where(known, returns.square() / expected, 0.0)
    level = mean_of_a_day(square, known, bars_of_a_day(stamps))
    ratio = (square / level.clamp_min(TINY)).clamp_max(LIMIT)
    day = of_the_day(kinds)
    own = _means_by_kind(ratio, known, day)  # [B, HOURS_OF_DAY + GAPS]
    past, coming = own.gather(1, day), own.gather(1, of_the_day(kinds_ahead))
    past, coming = past * expected, coming * before[kinds_ahead]
    # A bar's mean is that of the bars there are.
    count = known.sum(1, keepdim=True).clamp_min(1)
    mean = torch.where(known, past, 0.0).sum(1, keepdim=True) / count
    mean = torch.where(mean > 0, mean, 1.0)
    return Factors(past / mean, coming / mean)


def bars_of_a_day(stamps: Tensor) -> Tensor:
    """How many times of the day [B] there are among local times [B, L], to the minute."""
    minute = stamps % DAY // MINUTE
    seen = stamps.new_zeros(len(stamps), DAY // MINUTE)
    return seen.scatter(1, minute, 1).sum(1)


def days_of(stamps: Tensor) -> Tensor:
    """On how many days [B] the bars of local times [B, L] lie."""
    return (stamps // DAY).diff(dim=1).clamp(0, 1).sum(1) + 1


def mean_of_a_day(values: Tensor, known: Tensor, bars: Tensor) -> Tensor:
    """Mean [B, L] of what is known of `values` [B, L] in the `bars` [B] around each place."""
    length = values.shape[1]
    sums = torch.nn.functional.pad(torch.stack([values, known.to(values)]).cumsum(-1), (1, 0))
    place = torch.arange(length, device=values.device)
    half = (bars // 2)[:, None]
    low, high = (place - half).clamp_min(0), (place - half + bars[:, None]).clamp_max(length)
    within = sums.gather(2, high.expand(2, -1, -1)) - sums.gather(2, low.expand(2, -1, -1))
    return within[0] / within[1].clamp_min(1.0)


def _means_by_kind(ratio: Tensor, known: Tensor, kinds: Tensor) -> Tensor:
    """Mean ratio of each kind of bar [B, HOURS_OF_DAY + GAPS], shrunk towards 1."""
    empty = ratio.new_full((len(ratio), HOURS_OF_DAY + GAPS), PSEUDO_COUNT)
    total = empty.scatter_add(1, kinds, torch.where(known, ratio, 0.0))
    count = empty.scatter_add(1, kinds, known.to(ratio))
    return total / count
