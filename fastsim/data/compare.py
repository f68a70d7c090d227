"""Whether bars that were there before are still what they were: revised, or adjusted anew."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import FloatArray

ALIKE = 1e-6
"""What prices of one bar may differ by, relatively: vendors round."""
ROUNDED = 0.05
"""What factors of one adjustment may differ by, relative to how far it is from 1: adjusted prices
are rounded too."""
LEAST = 2
"""Bars, at least, that were adjusted where later ones were not."""


class Difference(NamedTuple):
    """How prices of one symbol differ from what they were."""

    first: int  # the place of the first that does
    bars: int  # how many do
    factor: float | None  # by which these were multiplied, if they are the first and all by one


def difference(
    before: FloatArray, now: FloatArray, tolerance: float | FloatArray = ALIKE
) -> Difference | None:
    """How prices [K] differ from those of the same bars before; None if they are alike.

    An adjustment, for a split or a dividend, multiplies all prices up to some bar by one number.

    Parameters
    ----------
    before, now
        Oldest first; NaN, where a bar has no price, is like NaN alone.
    tolerance
        What they may differ by, relatively: a number, or one for each [K].
    """
    off = differs(before, now, tolerance)
    if not off.any():
        return None
    count = int(off.sum())
    return Difference(int(off.argmax()), count, _factor(now / before, off, count))


def differs(
    before: FloatArray, now: FloatArray, tolerance: float | FloatArray = ALIKE
) -> NDArray[np.bool_]:
    """Which prices [K] are not what they were; the rest as in `difference`."""
    alike: NDArray[np.bool_] = np.abs(now - before) <= tolerance * np.abs(before)
    return ~(alike | (np.isnan(now) & np.isnan(before)))


def _factor(ratio: FloatArray, off: NDArray[np.bool_], count: int) -> float | None:
    """The number by which the first `count` prices, which are all that differ, were multiplied."""
    if not off[:count].all() or (count < LEAST and count < len(off)):
        return None
    factor = float(np.median(ratio[:count]))
    most = max(ALIKE * abs(factor), ROUNDED * abs(factor - 1.0))
    return factor if np.ptp(ratio[:count]) <= most else None  # no factor among NaN either
