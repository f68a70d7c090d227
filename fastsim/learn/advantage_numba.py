"""Advantages on a CPU: from the last step to the first, environments side by side."""

from __future__ import annotations

from typing import Any

import numba
import torch
from torch import Tensor

from fastsim.kept_code import kept_alone


@kept_alone
@numba.njit(fastmath={"contract"}, error_model="numpy", cache=True, nogil=True)
def sweep(
    reward: Any, value: Any, terminated: Any, truncated: Any, rates: Any, advantage: Any
) -> None:
    """Fill `advantage` [T, N]; `rates` holds the discount, and its product with the trace."""
    steps, count = reward.shape
    discount, decay = rates[0], rates[1]
    zero = reward.dtype.type(0.0)
    for step in range(steps - 1, -1, -1):
        for n in range(count):
            ended = terminated[step, n]
            ahead = zero if ended else value[step + 1, n]
            running = advantage[step + 1, n] if step + 1 < steps else zero
            if ended or truncated[step, n]:
                running = zero
            delta = reward[step, n] + discount * ahead - value[step, n]
            advantage[step, n] = delta + decay * running


@kept_alone
@numba.njit(error_model="numpy", cache=True, nogil=True)
def add_up(
    reward: Any, terminated: Any, truncated: Any, discount: Any, running: Any, sums: Any
) -> None:
    """Fill `sums` [T, N]; `running` [N] goes on from where it is."""
    steps, count = reward.shape
    for step in range(steps):
        for n in range(count):
            running[n] = running[n] * discount[0] + reward[step, n]
            sums[step, n] = running[n]
            if terminated[step, n] or truncated[step, n]:
                running[n] = 0.0


def discounted_sums(
    reward: Tensor, terminated: Tensor, truncated: Tensor, discount: float, running: Tensor
) -> Tensor:
    """Sums [T, N] of rewards so far; see `fastsim.learn.advantage.discounted_sums`."""
    sums = torch.empty(reward.shape, dtype=running.dtype)
    rate = torch.tensor([discount], dtype=running.dtype)
    blocks = (reward.detach(), terminated, truncated, rate, running, sums)
    add_up(*(block.numpy() for block in blocks))
    return sums


def estimate(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    trace: float,
) -> Tensor:
    """Advantages [T, N]; see `fastsim.learn.advantage.gae`."""
    advantage = torch.empty_like(reward)
    rates = torch.tensor([discount, discount * trace], dtype=reward.dtype)
    blocks = (reward, value, terminated, truncated, rates, advantage)
    sweep(*(block.detach().numpy() for block in blocks))
    return advantage
