"""Scores of single assets on a CPU: the layer between a bar and what is held, in one pass.

The reference is `AssetPolicy.forward`. Nothing is gathered by sample that is the bar's: a bar's
part is read where it lies, and what samples owe to it is added up there.

`kinds` is a tuple of as many numbers as there are columns of what is held, C: the compiler knows
its length. Slices are counted from zero: an index that might be negative would be looked at one by
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsim.env.kernels.compiled import forget_old_code
from fastsim.policy.tanh_numba import jit, tanh

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def forget_stale() -> None:
    """Drop what numba has kept of an older state of these files."""
    forget_old_code(score, "policy")


@jit
def meet(row: Any, stands: Any, own: Any, held: Any, kinds: Any, layer: Any) -> None:
    """The layer [D] of one asset, of the bar's numbers of it, the account's, and what is held."""
    for d in range(len(layer)):
        x = row[d] + stands[d]
        for c in range(len(kinds)):
            x += own[c] * held[c, d]
        layer[d] = tanh(x)


@jit
def score(
    parts: Any,
    place: Any,
    own: Any,
    account: Any,
    held: Any,
    out: Any,
    weight: Any,
    bias: float,
    kinds: Any,
    into: Any,
    into_sum: Any,
) -> None:
    """Scores [M, A] of samples whose bars are rows `place` [M] of `parts` [B, R], into `into`.

    A bar's first A D numbers are its assets'. `own` [M, A, C] is what is held of each, by weights
    `held` [C, D]; `account` [M, D] is added to all; `out` [D] makes a score of the layer. The
    bar's numbers, summed by weight [M, A], go into `into_sum` [M, D].
    """
    channels = len(out)
    for m in range(own.shape[0]):
        row, total = parts[place[m]], into_sum[m]
        total[:] = _ZERO
        for a in range(own.shape[1]):
            mine = row[a * channels : (a + 1) * channels]
            found, share = bias, weight[m, a]
            for d in range(channels):
                x = mine[d] + account[m, d]
                for c in range(len(kinds)):
                    x += own[m, a, c] * held[c, d]
                found += tanh(x) * out[d]
            into[m, a] = found
            for d in range(channels):
                total[d] += share * mine[d]


@jit
def teach(
    owed: Any,
    owed_sum: Any,
    parts: Any,
    place: Any,
    own: Any,
    account: Any,
    held: Any,
    out: Any,
    weight: Any,
    kinds: Any,
    layer: Any,
    into_parts: Any,
    into_account: Any,
    into_held: Any,
    into_out: Any,
) -> None:
    """Add what scores owe [M, A], and sums [M, D], to `parts`, `account`, `held` and `out`."""
    channels = len(layer)
    for m in range(own.shape[0]):
        row, of_row, of_account = parts[place[m]], into_parts[place[m]], into_account[m]
        of_sum = owed_sum[m]
        for a in range(own.shape[1]):
            mine = row[a * channels : (a + 1) * channels]
            meet(mine, account[m], own[m, a], held, kinds, layer)
            back, share = owed[m, a], weight[m, a]
            for d in range(channels):
                into_out[d] += back * layer[d]
            for d in range(channels):
                layer[d] = back * out[d] * (_ONE - layer[d] * layer[d])
            for d in range(channels):
                of_account[d] += layer[d]
            to = of_row[a * channels : (a + 1) * channels]
            for d in range(channels):
                to[d] += layer[d] + share * of_sum[d]
            for c in range(len(kinds)):
                number, of_held = own[m, a, c], into_held[c]
                for d in range(channels):
                    of_held[d] += number * layer[d]
