"""A step of episodes added up on a CPU: row by row, in one pass."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fastsim.env.tally import EQUAL, KEPT, NUM_FIGURES, NUM_SUMS, TOTAL


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
    """Add a step of N rows to what is `kept` [KEPT, N], as `EpisodeTally` does in torch.

    Of rows whose episode ends, `figures` [6, N] and `totals` [TOTAL] are told.
    """
    for n in range(len(reward)):
        if not restarted[n] and before[n] > 0:
            share = 1.0 / np.float64(before[n])
            if kept[KEPT.length, n] == 0:
                kept[KEPT.start, n] = kept[KEPT.peak, n] = before[n]
                kept[KEPT.drawdown, n] = 0.0
            gain = (wealth[n] - np.float64(before[n])) * share
            kept[KEPT.reward, n] += reward[n]
            kept[KEPT.length, n] += 1.0
            kept[KEPT.gain, n] += gain
            kept[KEPT.square, n] += gain * gain
            kept[KEPT.cost, n] += cost[n] * share
            kept[KEPT.peak, n] = max(kept[KEPT.peak, n], wealth[n])
            drawdown = 1.0 - wealth[n] / kept[KEPT.peak, n]
            kept[KEPT.drawdown, n] = max(kept[KEPT.drawdown, n], drawdown)
        if not (terminated[n] or truncated[n]):
            continue
        length, gains, square = kept[KEPT.length, n], kept[KEPT.gain, n], kept[KEPT.square, n]
        mean = gains / length
        spread = square - gains * mean
        if spread <= EQUAL * square:
            spread = 0.0
        sharpe = mean / np.sqrt(spread / (length - 1.0)) * root if length >= 2 else np.nan
        growth = wealth[n] / kept[KEPT.start, n] - 1.0
        told = (
            kept[KEPT.reward, n],
            length,
            growth,
            sharpe,
            kept[KEPT.drawdown, n],
            kept[KEPT.cost, n],
        )
        for place in range(NUM_FIGURES):
            figures[place, n] = told[place]
            totals[place] += 0.0 if np.isnan(told[place]) else told[place]
        totals[TOTAL.episodes] += 1.0
        totals[TOTAL.sharpes] += 0.0 if np.isnan(sharpe) else 1.0
        kept[:NUM_SUMS, n] = 0.0
