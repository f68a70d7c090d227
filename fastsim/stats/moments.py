"""Mean and deviation of a window that trails behind every bar, without what rounding leaves behind.

A running sum from which old values are taken away again keeps their rounding errors for ever: a
price that jumped once would have a volatility of 1e-9 from then on, and a return in units of that
means nothing. So bars are cut into blocks as long as the window, each is gone through from both of
its ends, and every window is the end of one block and the beginning of the next. The cost of a bar
does not depend on the window, and nothing depends on later bars.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    cut = padded.reshape(blocks, window, assets)
    begun = _growing(cut, range(window))
    left = _growing(cut, range(window - 1, -1, -1))
    # What precedes row k of a block in its window are rows k + 1 and later of the block before.
    before = _Part(*(_moved(part.reshape(-1, assets), window) for part in left))
    count, mean, square = before.and_(_Part(*(part.reshape(-1, assets) for part in begun)))
    known = count >= (max(2, window // 2) if least is None else least)
    deviation = np.sqrt(square / np.maximum(count, 1.0))
    return Moments(*(np.where(known, each, np.nan)[:length] for each in (mean, deviation)))


def _growing(cut: FloatArray, rows: Iterable[int]) -> _Part:
    """Parts [B, W, A] that take in one row of each block [B, W, A] after the other."""
    part = _Part(*np.zeros((3, *cut.shape)))
    now = _Part(*np.zeros((3, len(cut), cut.shape[2])))
    for row in rows:
        value = cut[:, row]
        present = np.isfinite(value)
        now = now.and_(_Part(present * 1.0, np.where(present, value, 0.0), np.zeros_like(value)))
        for whole, newest in zip(part, now, strict=True):
            whole[:, row] = newest
    return part


def _moved(rows: FloatArray, window: int) -> FloatArray:
    """Row t + 1 - window in place of row t, but nothing where that begins a block."""
    moved = np.zeros_like(rows)
    moved[window - 1 :] = rows[: len(rows) - window + 1]
    moved[window - 1 :: window] = 0.0
    return moved
