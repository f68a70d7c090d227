"""Exponentials that run in vector registers, which those of the C library do not.

No number is reassociated here: what is added up to zero on purpose would be lost. Both are exact to
a few roundings of the floating-point type `real`; beyond e^+-87, which float32 just holds, they
stay at what they are there.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fastsim.env.kernels.numba_jit import jit

STEEPEST = 87.0
"""Exponents beyond this, of either sign, are taken for it."""
_LOG2_E = 1.0 / math.log(2.0)
_LN2_HIGH = 0.693359375  # few bits, so that its multiples are exact
_LN2_LOW = math.log(2.0) - _LN2_HIGH
_SHIFT = 1024
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12 = (
    1.0 / math.factorial(n + 1) for n in range(1, 13)
)
exact = partial(jit, inline=False, fastmath={"contract"})


@exact
def is_double(real):
    """Whether numbers have 64 bits; the compiler knows."""
    return real(1.0) + real(1e-9) != real(1.0)


@exact
def reduce(x, real):
    """Write x as k ln 2 + r with |r| <= ln(2) / 2 and k whole; returns k and r."""
    inside = min(max(x, real(-STEEPEST)), real(STEEPEST))
    k = np.int32(inside * real(_LOG2_E) + real(_SHIFT + 0.5)) - np.int32(_SHIFT)
    return k, inside - real(k) * real(_LN2_HIGH) - real(k) * real(_LN2_LOW)


@exact
def mean_of_small(r, real):
    """(exp(r) - 1) / r of a reduced r, by as much of its Taylor series as the type can tell."""
    y = real(_6)
    if is_double(real):
        tail = ((real(_12) * r + real(_11)) * r + real(_10)) * r + real(_9)
        y += r * (real(_7) + r * (real(_8) + r * tail))
    y = ((y * r + real(_5)) * r + real(_4)) * r + real(_3)
    return ((y * r + real(_2)) * r + real(_1)) * r + real(1.0)


@exact
def power_of_two(k, real):
    """2^k, put together from its bits."""
    if is_double(real):
        return real(np.int64((np.int64(k) + 1023) << 52).view(np.float64))
    return real(np.int32((k + 127) << 23).view(np.float32))


@exact
def exp(x, real):
    """e^x."""
    k, r = reduce(x, real)
    return power_of_two(k, real) * (real(1.0) + r * mean_of_small(r, real))


@exact
def mean_price(x, real):
    """(exp(x) - 1) / x, the mean of e^y from 0 to x; 1 at 0."""
    k, r = reduce(x, real)
    near, scale = mean_of_small(r, real), power_of_two(k, real)
    far = (scale * (r * near) + (scale - real(1.0))) / (x if k != 0 else real(1.0))
    return far if k != 0 else near
