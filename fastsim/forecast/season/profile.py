"""How volatile each kind of bar is against others, from a context and what was known before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.forecast.season.clock import (
    DAY,
    GAPS,
    HOUR,
    HOURS_OF_DAY,
    HOURS_OF_WEEK,
    MINUTE,
    bar_length,
    bars_to_come,
    kinds_of_bars,
    of_the_day,
)

KINDS, DAY_KINDS = HOURS_OF_WEEK + GAPS, HOURS_OF_DAY + GAPS
LEAST_DAYS = 3
"""Days of a context that a season is read from, at least."""
LIMIT = 12.0
"""A squared return counts for at most so many times the mean of its day."""
PSEUDO_DAYS = 8.0
"""Days of what was known before that each kind's own are averaged with."""
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
    first = stamps.gather(1, 1 + known.to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)
    ahead = bars_to_come(stamps, first, horizon)
    kinds_ahead = kinds_of_bars(torch.cat([stamps[:, -1:], ahead], 1))  # [B, H]
    expected = before[kinds]
    square = torch.where(known, returns.square() / expected, 0.0)
    level = mean_of_a_day(square, known, bars_of_a_day(stamps, known))
    ratio = (square / level.clamp_min(TINY)).clamp_max(LIMIT)
    day = of_the_day(kinds)
    weight = bars_of_a_kind(stamps)
    own = _means_by_kind(ratio, known, day, ratio.new_ones(DAY_KINDS), weight)
    past, coming = own.gather(1, day), own.gather(1, of_the_day(kinds_ahead))
    past, coming = past * expected, coming * before[kinds_ahead]
    # A bar's mean is that of the bars there are.
    count = known.sum(1, keepdim=True).clamp_min(1)
    mean = torch.where(known, past, 0.0).sum(1, keepdim=True) / count
    mean = torch.where(mean > 0, mean, 1.0)
    return Factors(past / mean, coming / mean)


def fitted_factors(returns: Tensor, known: Tensor, stamps: Tensor) -> Tensor:
    """Variance [KINDS] of every kind of bar against the mean over bars, from long series alone.

    As a context's, pooled over the series; an hour of the week is shrunk towards its hour of the
    day, so that hours without a bar have that.

    Parameters
    ----------
    returns
        Of one bar [A, T - 1], 0 where unknown.
    known
        Which are [A, T - 1].
    stamps
        Local times [A, T], increasing.
    """
    kinds = kinds_of_bars(stamps)
    square = torch.where(known, returns.square(), 0.0)
    level = mean_of_a_day(square, known, bars_of_a_day(stamps, known))
    ratio = (square / level.clamp_min(TINY)).clamp_max(LIMIT)
    weight = bars_of_a_kind(stamps)[:1]
    ratio, known, kinds = (each.reshape(1, -1) for each in (ratio, known, kinds))
    ratio = ratio / torch.where(known, ratio, 0.0).sum() * known.sum()
    day = _means_by_kind(ratio, known, of_the_day(kinds), ratio.new_ones(DAY_KINDS), weight)
    of_day = day[0, of_the_day(torch.arange(KINDS))]
    return _means_by_kind(ratio, known, kinds, of_day, weight)[0]


def bars_of_a_day(stamps: Tensor, known: Tensor) -> Tensor:
    """How many times of the day [B], to the minute, have a known bar among local times [B, L].

    Parameters
    ----------
    known
        Whether a bar is, and one before it [B, L - 1].
    """
    minute = stamps[:, 1:] % DAY // MINUTE
    seen = stamps.new_zeros(stamps.shape[0], DAY // MINUTE)  # a trace takes len for constant
    return seen.scatter_reduce(1, minute, known.to(seen), "amax").sum(1).clamp_min(1)


def known_days(stamps: Tensor, known: Tensor) -> Tensor:
    """On how many days [B] there are known bars; as above."""
    day = torch.where(known, stamps[:, 1:] // DAY, -1)
    latest = day.cummax(1).values
    return (latest.diff(dim=1) > 0).sum(1) + (latest[:, 0] >= 0)


def mean_of_a_day(values: Tensor, known: Tensor, bars: Tensor) -> Tensor:
    """Mean [B, L] of what is known of `values` [B, L] in the `bars` [B] around each place."""
    length = values.shape[1]
    sums = torch.nn.functional.pad(torch.stack([values, known.to(values)]).cumsum(-1), (1, 0))
    place = torch.arange(length, device=values.device)
    half = (bars // 2)[:, None]
    low, high = (place - half).clamp_min(0), (place - half + bars[:, None]).clamp_max(length)
    within = sums.gather(2, high.expand(2, -1, -1)) - sums.gather(2, low.expand(2, -1, -1))
    return within[0] / within[1].clamp_min(1.0)


def bars_of_a_kind(stamps: Tensor) -> Tensor:
    """Bars [B, 1] of a day that share an hour, 1 at least.

    Those of one day are near each other and count as one where the mean of many days is sought.
    """
    return (HOUR / bar_length(stamps)).clamp_min(1.0)[:, None]


def _means_by_kind(
    ratio: Tensor, known: Tensor, kinds: Tensor, before: Tensor, weight: Tensor
) -> Tensor:
    """Mean ratio of each of K kinds of bar [B, K], shrunk towards what was known `before` [K].

    That counts as much as PSEUDO_DAYS of bars, of which a day has `weight` [B, 1].
    """
    empty = ratio.new_zeros(ratio.shape[0], before.shape[0])
    total = empty.scatter_add(1, kinds, torch.where(known, ratio, 0.0))
    count = empty.scatter_add(1, kinds, known.to(ratio))
    pseudo = PSEUDO_DAYS * weight
    return (total + pseudo * before) / (count + pseudo)
