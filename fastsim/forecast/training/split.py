"""Which windows a fit learns from, and which it is judged by: apart in time.

A window is named by the row of its last known bar, its origin. Those of validation come after those
of training, and so many bars lie between the last target of the one and the first target of the
other that nothing of the one is in the other.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import CLOSE
from fastsim.data.dates import iso_date
from fastsim.errors import DataError
from fastsim.forecast.training.config import SplitConfig
from fastsim.forecast.training.series import Series

HOLE_DAYS, HOLE_BARS = 5, 20
"""A pause longer than both is a hole in the data: no window reaches over it, as the one return over
it would drown all others."""
DAY_S = 86_400
CYCLE = 2 * 3 * 5 * 7 * 13
"""What bars of a day or week are multiples of: steps that share no factor meet all hours."""


class Look(NamedTuple):
    """What a window must hold."""

    context: int  # bars to look back on
    least: int  # of which so many closes are known
    horizons: tuple[int, ...]


class Origins(NamedTuple):
    """Rows of a table of series that windows of each part end at, increasing."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def split_origins(series: Series, look: Look, config: SplitConfig) -> Origins:
    """Origins of training and of validation.

    Raises
    ------
    DataError
        One of the parts has none.
    """
    border = split_stamp(series, config)
    reach = look.horizons[-1]
    gap = reach if config.embargo is None else config.embargo
    train, validation = [], []
    for first, stop in zip(series.starts[:-1].tolist(), series.starts[1:].tolist(), strict=True):
        closes, stamps = series.values[first:stop, CLOSE], series.stamps[first:stop]
        usable = usable_origins(closes, stamps, look)
        row = int(np.searchsorted(stamps, border))
        # The first target of a validation origin e is e + 1, and its context begins at e - L + 1.
        begin = row + max(gap - 1, look.context - 1 if config.apart else 0)
        train.append(first + usable[usable + reach < row])
        validation.append(first + usable[usable >= begin])
    origins = Origins(np.concatenate(train), np.concatenate(validation))
    for part, rows in origins._asdict().items():
        if not len(rows):
            longest = int(np.diff(series.starts).max())
            raise DataError(
                f"no window for {part}: {longest} bars hold no context of {look.least} known "
                f"closes with {reach} bars after it in each part, and {gap} between them: give "
                f"more bars, shorter horizons, or split them elsewhere"
            )
    return origins


def split_stamp(series: Series, config: SplitConfig) -> int:
    """Second since 1970 UTC from which bars are for validation: by share of all rows' times."""
    if config.validation_start is not None:
        day = iso_date(config.validation_start, "SplitConfig.validation_start")
        return int(day.astype("datetime64[s]").astype(np.int64))
    share = np.quantile(series.stamps, 1.0 - config.validation, method="lower")
    return int(share)


def usable_origins(
    closes: NDArray[np.float64], stamps: NDArray[np.int64], look: Look
) -> NDArray[np.int64]:
    """Rows of one series of closes [T] at `stamps` [T] that a window can end at.

    Its last close is known, as many before it as are needed, they are not all the same, and the
    close after at least one horizon is known; all horizons lie within the series, and no hole
    within the window.
    """
    bars, reach = len(closes), look.horizons[-1]
    if bars <= reach:
        return np.empty(0, dtype=np.int64)
    known = np.isfinite(closes) & (closes > 0)
    place = np.maximum.accumulate(np.where(known, np.arange(bars), -1))
    filled = closes[np.maximum(place, 0)]
    moved = np.append(False, (filled[1:] != filled[:-1]) & known[1:] & (place[:-1] >= 0))
    ends = np.arange(bars - reach)
    enough = _within(known, ends, look.context) >= look.least
    moving = _within(moved, ends, look.context - 1) > 0
    told = np.zeros(len(ends), dtype=bool)
    for horizon in look.horizons:
        told |= known[ends + horizon]
    whole = _within(_holes(stamps), ends + reach, look.context + reach - 1) == 0
    found: NDArray[np.int64] = ends[known[ends] & enough & moving & told & whole]
    return found


def origins_before(series: Series, look: Look, border: int) -> NDArray[np.int64]:
    """Origins of windows that end before this second, targets included; DataError if none."""
    found = []
    for first, stop in zip(series.starts[:-1].tolist(), series.starts[1:].tolist(), strict=True):
        closes, stamps = series.values[first:stop, CLOSE], series.stamps[first:stop]
        usable = usable_origins(closes, stamps, look)
        found.append(first + usable[usable + look.horizons[-1] < np.searchsorted(stamps, border)])
    rows = np.concatenate(found)
    if not len(rows):
        raise DataError(
            f"the other series have no window before validation begins, of {look.least} known "
            f"values and {look.horizons[-1]} after them: give longer or earlier ones"
        )
    return rows


def origins_after(series: Series, look: Look, border: int, gap: int) -> NDArray[np.int64]:
    """Origins whose first target is at least `gap` bars after this second; DataError if none.

    Contexts may begin before it.
    """
    found = []
    for first, stop in zip(series.starts[:-1].tolist(), series.starts[1:].tolist(), strict=True):
        closes, stamps = series.values[first:stop, CLOSE], series.stamps[first:stop]
        usable = usable_origins(closes, stamps, look)
        begin = int(np.searchsorted(stamps, border)) + max(gap - 1, 0)
        found.append(first + usable[usable >= begin])
    rows = np.concatenate(found)
    if not len(rows):
        raise DataError(
            f"no window for the test: its bars hold no target {gap} bars after their beginning "
            f"with {look.horizons[-1]} bars in all: let it begin earlier"
        )
    return rows


class Spread(NamedTuple):
    """Rows that stand for many."""

    origins: NDArray[np.int64]
    step: int  # bars from one of their times to the next


def spread_origins(series: Series, origins: NDArray[np.int64], most: int) -> Spread:
    """At most so many of these rows, spread over their time; every series at the same bars.

    The step between bars shares no factor with those of a day, so that all hours are met.
    """
    step = max(1, -(-len(origins) // most))
    while gcd(step, CYCLE) > 1:
        step += 1
    times, place = np.unique(series.stamps[origins], return_inverse=True)
    chosen = np.zeros(len(times), dtype=bool)
    chosen[::-step] = True  # the latest above all
    return Spread(origins[chosen[place]], step)


def _holes(stamps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which bars [T] follow a hole."""
    steps = np.diff(stamps)
    longest = max(HOLE_DAYS * DAY_S, HOLE_BARS * int(np.median(steps))) if len(steps) else 0
    return np.append(False, steps > longest)


def _within(flags: NDArray[np.bool_], ends: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """How many flags [T] are set in the `length` places up to each end."""
    sums = np.append(0, np.cumsum(flags))
    counted: NDArray[np.int64] = sums[ends + 1] - sums[np.maximum(ends + 1 - length, 0)]
    return counted
