"""What looks wrong in bars that pass every check: said, and left as it is."""

from __future__ import annotations

import logging

import numpy as np

from fastsim.data.bars import Bars, FloatArray
from fastsim.data.dates import show

logger = logging.getLogger(__name__)

FACTORS = np.array([2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 100, 1000], dtype=float)
"""By which splits, reverse splits and changes of unit multiply a price."""
UNUSUAL = 8.0
"""How many usual moves, at least, a jump is that may be a split."""
NEIGHBOURS = 5
"""Bars on either side over which a jump has to last."""
SHOWN = 5


def tell(bars: Bars, label: str) -> None:
    """Log a warning for everything that looks wrong."""
    for doubt in bars.doubts:
        logger.warning("%s: %s", label, doubt)


def jumps_like_splits(bars: Bars) -> tuple[str, ...]:
    """A sentence for each close, adjusted where that is given, that jumps by a round factor.

    A jump counts if it is a factor of `FACTORS` up or down within three usual moves, is eight
    times a usual move at least (1.4826 times the median of the absolute log returns, which is a
    standard deviation of normal ones), and lasts: medians of the bars before and after are apart
    by the same factor.
    """
    closes = bars.adjusted("close")
    assert closes is not None
    found = [
        (row, symbol, factor)
        for column, symbol in enumerate(bars.symbols)
        for row, factor in _jumps(closes[:, column])
    ]
    said = [
        f"{symbol} {'falls' if factor < 1 else 'rises'} by a factor of "
        f"{max(factor, 1 / factor):g} on {show(bars.timestamps[row])}, as in a split: adjust the "
        "prices before it, or give adj_close"
        for row, symbol, factor in sorted(found)[:SHOWN]
    ]
    more = len(found) - SHOWN
    return (*said, f"{more} more such jumps") if more > 0 else tuple(said)


def _jumps(close: FloatArray) -> list[tuple[int, float]]:
    """Rows and factors of the jumps of one symbol [T]."""
    rows = np.flatnonzero(close > 0)
    if len(rows) < 3:
        return []
    logs = np.log(close[rows])
    moves = np.diff(logs)
    usual = 1.4826 * float(np.median(np.abs(moves)))
    near = max(0.02, 3.0 * usual)
    jumps = []
    for place in np.flatnonzero(np.abs(moves) > max(np.log(1.9), UNUSUAL * usual)):
        factor = FACTORS[np.abs(np.log(FACTORS) - abs(moves[place])).argmin()]
        before = np.median(logs[max(0, place + 1 - NEIGHBOURS) : place + 1])
        after = np.median(logs[place + 1 : place + 1 + NEIGHBOURS])
        apart = np.array([moves[place], after - before]) - np.sign(moves[place]) * np.log(factor)
        if (np.abs(apart) < [near, near * NEIGHBOURS**0.5]).all():
            jumps.append((int(rows[place + 1]), float(factor ** np.sign(moves[place]))))
    return jumps
