"""Steps of episodes added up on a CPU: row by row, in one pass."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fastsim.env.tally import EQUAL, KEPT, NUM_FIGURES, NUM_SUMS, TOTAL
from fastsim.kept_code import kept_alone


@kept_alone
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
            _add(n, reward[n], before[n], wealth[n], cost[n], kept)
        if terminated[n] or truncated[n]:
            _end(n, wealth[n], kept, figures, totals, root)


@kept_alone
@numba.njit(error_model="numpy", cache=True, nogil=True)
def add_steps(steps: Any, over: bool, kept: Any, figures: Any, totals: Any, root: float) -> None:
    """Add steps [K, 4] of one row, reward, wealth before and after, and cost, to what is `kept`.

    If they end an episode, its `figures` [6, 1] and `totals` are told.
    """
    for k in range(len(steps)):
        if steps[k, 1] > 0:
            _add(0, steps[k, 0], steps[k, 1], steps[k, 2], steps[k, 3], kept)
    if over:
        _end(0, steps[-1, 2], kept, figures, totals, root)


@kept_alone
@numba.njit(error_model="numpy", cache=True, nogil=True)
def _add(n: int, reward: Any, before: Any, wealth: Any, cost: Any, kept: Any) -> None:
    share = 1.0 / np.float64(before)
    if kept[KEPT.length, n] == 0:
        kept[KEPT.start, n] = kept[KEPT.peak, n] = before
        kept[KEPT.drawdown, n] = 0.0
    gain = (wealth - np.float64(before)) * share
    kept[KEPT.reward, n] += reward
    kept[KEPT.length, n] += 1.0
    kept[KEPT.gain, n] += gain
    kept[KEPT.square, n] += gain * gain
    kept[KEPT.cost, n] += cost * share
    kept[KEPT.peak, n] = max(kept[KEPT.peak, n], wealth)
    kept[KEPT.drawdown, n] = max(kept[KEPT.drawdown, n], 1.0 - wealth / kept[KEPT.peak, n])


@kept_alone
@numba.njit(error_model="numpy", cache=True, nogil=True)
def _end(n: int, wealth: Any, kept: Any, figures: Any, totals: Any, root: float) -> None:
    """Tell what the episode of row `n` came to, as `tally.episode_figures` does."""
    length, gains, square = kept[KEPT.length, n], kept[KEPT.gain, n], kept[KEPT.square, n]
    mean = gains / length
    spread = square - gains * mean
    if spread <= EQUAL * square:
        spread = 0.0
    sharpe = mean / np.sqrt(spread / (length - 1.0)) * root if length >= 2 else np.nan
    growth = wealth / kept[KEPT.start, n] - 1.0
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
