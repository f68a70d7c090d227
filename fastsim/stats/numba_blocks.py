"""Sums over blocks of rows, from running sums: one pass, without the rows in between."""

from __future__ import annotations

from typing import Any

import numba

from fastsim.kept_code import kept_alone


@kept_alone
@numba.njit(error_model="numpy", cache=True, nogil=True)
def add_blocks(starts: Any, ends: Any, running: Any, sums: Any) -> None:
    """Add to `sums` [R, C] by what `running` [T + 1, C] rises over blocks [R, K], row by row."""
    for row in range(starts.shape[0]):
        for block in range(starts.shape[1]):
            start, end = starts[row, block], ends[row, block]
            for column in range(running.shape[1]):
                sums[row, column] += running[end, column] - running[start, column]
