"""What stands beside the products of a causal convolution, in one pass, for a CPU.

Slices are counted from zero: an index that might be negative would be looked at one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsim.env.kernels.compiled import forget_old_code
from fastsim.policy.tanh_numba import jit, tanh

_ONE = np.float32(1.0)


def forget_stale() -> None:
    """Drop what numba has kept of an older state of these files."""
    forget_old_code(bend, "policy")


@jit
def bend(rows: Any, shift: int, made: Any) -> None:
    """Put rows + tanh(made) in the place of `made` [D, R - shift], of rows [D, R] from shift on."""
    for d in range(made.shape[0]):
        found, row = made[d], rows[d, shift:]
        for r in range(len(found)):
            found[r] = row[r] + tanh(found[r])


@jit
def steepness(owed: Any, rows: Any, shift: int, made: Any, slope: Any) -> None:
    """What `made` of `bend` owes before its tanh, into `slope` [D, R - shift]."""
    for d in range(made.shape[0]):
        steep, told, row, back = slope[d], made[d], rows[d, shift:], owed[d]
        for r in range(len(steep)):
            said = told[r] - row[r]
            steep[r] = back[r] * (_ONE - said * said)
