"""The kernel of windows: rows of one table less a row of another, straight into the result.

Like `numba_kernel` it takes blocks apart by indices alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_turns import take_turns
from fastsim.market.features import FEATURE_LIMIT

whole = np.uintp
"""Places without a sign: any other is asked, at every number, if it counts from the end."""


class Blocks(NamedTuple):
    """Tables of `WindowTables`, as kernels read them, and how columns behave."""

    values: NDArray[np.float64]  # [T A C]
    last: NDArray[np.float64]  # [T A C]
    wait: NDArray[np.int32]  # [T, A]
    present: NDArray[np.bool_]  # [T, A]
    scaled: NDArray[np.bool_]  # [C]
    rising: NDArray[np.bool_]  # [C]


@jit
def bounded(x, real):
    """A number within the bounds of observations."""
    return max(real(-FEATURE_LIMIT), min(x, real(FEATURE_LIMIT)))


@jit
def withhold(n, first, shape, column, wait, slots, out):
    """Write 0 for returns from a close before the one that precedes the window."""
    length, assets, columns = shape
    for slot in range(assets):
        asset = slots[n, slot] if slots.shape[1] else slot
        place = wait[first, max(asset, 0)]
        if 0 <= place < length:
            out[n, (place * assets + slot) * columns + column] = out.dtype.type(0.0)


@jit
def copy_bars(n, bar, count, place, width, blocks, tile, out):
    """Write the `count` bars up to `bar`, from column `place` on, less what they take off."""
    real, zero = out.dtype.type, out.dtype.type(0.0)
    values, last = blocks.values, blocks.last
    for column in range(whole(width)):
        tile[column] = last[whole(bar * width) + column]
    for column in range(width, min(tile.shape[0], count * width)):
        tile[whole(column)] = tile[whole(column - width)]
    at, there, left = whole((bar + 1 - count) * width), whole(place), count * width
    while left > 0:
        numbers = whole(min(left, tile.shape[0]))
        for column in range(numbers):
            x = real(values[at + column] - tile[column])
            out[n, there + column] = zero if math.isnan(x) else bounded(x, real)
        at, there, left = at + numbers, there + numbers, left - tile.shape[0]


@jit
def view_bars(n, bar, count, place, shape, blocks, slots, volatility, out):
    """Write the same of the assets in the slots, at the episode's volatility."""
    real, zero = out.dtype.type, out.dtype.type(0.0)
    _, assets, columns = shape
    factor = np.float64(volatility[n])
    rise = math.log(factor)
    for slot in range(assets):
        asset = slots[n, slot] if slots.shape[1] else slot
        taken, there = (bar * assets + asset) * columns, place + slot * columns
        for row in range(bar + 1 - count, bar + 1):
            source, known = (row * assets + asset) * columns, asset >= 0
            for column in range(columns):
                x = np.float64(0.0)
                if known:
                    x = blocks.values[whole(source + column)] - blocks.last[whole(taken + column)]
                    if blocks.scaled[column]:
                        x *= factor
                    if blocks.rising[column] and blocks.present[row, asset]:
                        x += rise
                out[n, whole(there + column)] = zero if math.isnan(x) else bounded(real(x), real)
            there += assets * columns


@partial(jit, inline=False)
def show_block(start, stop, bars, own, slots, volatility, shape, span, column, blocks, tile, out):
    """Write rows `start` to `stop`; `column` is that of the log return, or -1."""
    length, assets, columns = shape
    width, real = assets * columns, out.dtype.type
    for n in range(start, stop):
        bar = bars[n]
        count = min(length, bar % span + 1)  # what comes before is of another world
        place = (length - count) * width
        for number in range(place):
            out[n, number] = real(0.0)
        if volatility.shape[0]:
            view_bars(n, bar, count, place, shape, blocks, slots, volatility, out)
        else:
            copy_bars(n, bar, count, place, width, blocks, tile, out)
        if column >= 0 and count == length:
            withhold(n, bar + 1 - length, shape, column, blocks.wait, slots, out)
        for number in range(own.shape[1]):
            out[n, length * width + number] = bounded(own[n, number], real)


@partial(jit, inline=False)
def show_turns(turns, bell, job, size, count, rest):
    """Take turns at all `count` rows; `rest` is what `show_block` is given beside."""
    take_turns(show_block, turns, bell, job, size, count, rest)
