"""Mean and deviation of a window that trails behind every bar, without what rounding leaves behind.

A running sum from which old values are taken away again keeps their rounding errors for ever: a
price that jumped once would have a volatility of 1e-9 from then on, and a return in units of that
means nothing. So bars are cut into blocks as long as the window, each is gone through from both of
its ends, and every window is the end of one block and the beginning of the next. The cost of a bar
does not depend on the window, and nothing depends on later bars.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Moments(NamedTuple):
    """Of the windows that end at each of T bars."""

    mean: FloatArray  # [T, A]
    deviation: FloatArray  # [T, A]  population standard deviation


class _Part(NamedTuple):
    """What is known of some values of each window."""

    number: FloatArray
    mean: FloatArray
    square: FloatArray  # sum of the squared differences from the mean

    def and_(self, other: _Part) -> _Part:
        """Of both together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        count = self.number + other.number
        share = other.number / np.maximum(count, 1.0)
        apart = other.mean - self.mean
        square = self.square + other.square + apart * apart * (share * self.number)
        return _Part(count, self.mean + share * apart, square)


def trailing_moments(values: FloatArray, window: int, least: int | None = None) -> Moments:
    """Moments of the last `window` rows of `values` [T, A], skipping what is not finite.

    NaN where there are fewer than `least` values, or fewer than half of the window, or two.
    """
    length, assets = values.shape
    blocks = -(-length // window)
    padded = np.full((blocks * window, assets), np.nan)
    padded[:length] = values
    cut = np.ascontiguousarray(padded.reshape(blocks, window, assets).swapaxes(0, 1))
    begun, left = _growing(cut), _growing(cut[::-1])
    # What precedes row k of a block in its window are rows k + 1 and later of the block before.
    before = _Part(*(_moved(_rows(part[::-1]), window) for part in left))
    count, mean, square = before.and_(_Part(*map(_rows, begun)))
    known = count >= (max(2, window // 2) if least is None else least)
    deviation = np.sqrt(square / np.maximum(count, 1.0))
    return Moments(*(np.where(known, each, np.nan)[:length] for each in (mean, deviation)))


def _growing(cut: FloatArray) -> _Part:
    """Parts [W, B, A] that take in one row of each block [W, B, A] after the other.

    Sums are of differences from the first value. That is in every part that has one, so no more
    than a factor of W is lost to rounding, and nothing where all values are the same.
    """
    present = np.isfinite(cut)
    values = np.where(present, cut, 0.0)
    first = np.take_along_axis(values, present.argmax(0)[None], 0)  # [1, B, A]
    apart = np.where(present, values - first, 0.0)
    sums = np.stack([present, apart, apart * apart], axis=1)  # [W, 3, B, A]
    for row in range(1, len(sums)):  # NumPy's own goes along columns, against the grain of memory
        sums[row] += sums[row - 1]
    number, total, square = sums.swapaxes(0, 1)
    mean = total / np.maximum(number, 1.0)
    square = np.maximum(square - number * mean * mean, 0.0)
    return _Part(number, np.where(number > 0, first + mean, 0.0), square)


def _rows(part: FloatArray) -> FloatArray:
    """Blocks [W, B, A] one after the other [B W, A]."""
    return part.swapaxes(0, 1).reshape(-1, part.shape[2])


def _moved(rows: FloatArray, window: int) -> FloatArray:
    """Row t + 1 - window in place of row t, but nothing where that begins a block."""
    moved = np.zeros_like(rows)
    moved[window - 1 :] = rows[: len(rows) - window + 1]
    moved[window - 1 :: window] = 0.0
    return moved
