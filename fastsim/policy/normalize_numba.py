"""Moments of a batch on a CPU, in one pass over its rows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from fastsim.kept_code import kept_alone

BLOCK = 128
"""Rows that are looked at twice, for their mean and around it, while they are at hand."""


@kept_alone
@numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", cache=True, nogil=True)
def gather(values: Any, weight: Any, mean: Any, square_sum: Any, block: Any, around: Any) -> float:
    """Mean and squared deviations [P] of `values` [M, P], weighted [M] or not [0]; returns M.

    Blocks of rows are merged as Chan, Golub and LeVeque (1979) do. `block` and `around` [P] are
    rooms.
    """
    count, columns = 0.0, len(mean)
    mean[:] = 0.0
    square_sum[:] = 0.0
    for start in range(0, values.shape[0], BLOCK):
        stop = min(start + BLOCK, values.shape[0])
        here = 0.0
        block[:] = 0.0
        for m in range(start, stop):
            w = np.float64(weight[m]) if len(weight) else 1.0
            here += w
            for p in range(columns):
                block[p] += w * np.float64(values[m, p])
        for p in range(columns):
            block[p] /= max(here, 1.0)
        around[:] = 0.0
        for m in range(start, stop):
            w = np.float64(weight[m]) if len(weight) else 1.0
            for p in range(columns):
                deviation = np.float64(values[m, p]) - block[p]
                around[p] += w * deviation * deviation
        share = here / max(count + here, 1.0)
        for p in range(columns):
            delta = block[p] - mean[p]
            square_sum[p] += around[p] + delta * delta * count * share
            mean[p] += delta * share
        count += here
    return count


def batch_moments(values: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and sum of squared deviations [P] of `values` [M, P] where `valid` [M], and M []."""
    rooms = torch.empty(4, values.shape[1], dtype=torch.float64)
    weight = values.new_empty(0) if valid is None else valid
    blocks = (each.detach().contiguous().numpy() for each in (values, weight))
    count = gather(*blocks, *(room.numpy() for room in rooms))
    return rooms[0], rooms[1], torch.tensor(count, dtype=torch.float64)
