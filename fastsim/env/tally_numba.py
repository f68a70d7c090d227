"""A step of episodes added up on a CPU: row by row, in one pass."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(error_model="numpy", cache=True, nogil=True)
def add_step(
    reward: Any,
    before: Any,
    wealth: Any,
    cost: Any,
    terminated: Any,
    truncated: Any,
    restarted: Any,
    kept: Any,
    figures: Any,
    totals: Any,
    root: float,
) -> None:
    """Add a step of N rows to `kept` [8, N]; of rows that end, `figures` [6, N] and `totals` [8].

    As `fastsim.env.tally.EpisodeTally` does it, whose names these are.
    """
    for n in range(len(reward)):
        if not restarted[n] and before[n] > 0:
            if kept[1, n] == 0:
                kept[5, n] = kept[6, n] = before[n]
                kept[7, n] = 0.0
            gain = (wealth[n] - np.float64(before[n])) / before[n]
            kept[0, n] += reward[n]
            kept[1, n] += 1.0
            kept[2, n] += gain
            kept[3, n] += gain * gain
            kept[4, n] += cost[n] / np.float64(before[n])
            kept[6, n] = max(kept[6, n], wealth[n])
            kept[7, n] = max(kept[7, n], 1.0 - wealth[n] / kept[6, n])
        if not (terminated[n] or truncated[n]):
            continue
        length, simple, square = kept[1, n], kept[2, n], kept[3, n]
        mean = simple / length
        spread = square - simple * mean
        if spread <= 1e-12 * square:
            spread = 0.0
        sharpe = mean / np.sqrt(spread / (length - 1.0)) * root if length >= 2 else np.nan
        figures[0, n], figures[1, n] = kept[0, n], length
        figures[2, n], figures[3, n] = wealth[n] / kept[5, n] - 1.0, sharpe
        figures[4, n], figures[5, n] = kept[7, n], kept[4, n]
        for row in range(6):
            totals[row] += 0.0 if np.isnan(figures[row, n]) else figures[row, n]
        totals[6] += 1.0
        totals[7] += 0.0 if np.isnan(sharpe) else 1.0
        kept[:5, n] = 0.0
