"""What actions were worth: generalised advantage estimates, the reference and its fused forms."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    trace: float,
) -> Tensor:
    """Generalised advantage estimates [T, N] (Schulman et al. 2016, equation 16).

    `value` [T + 1, N] holds the values of the states before each step and after the last. A
    truncated episode bootstraps from the value of its true last state, a terminated one from zero;
    neither lets the next episode's advantage flow back.
    """
    advantage = torch.empty_like(reward)
    running = torch.zeros_like(reward[0])
    for step in range(len(reward) - 1, -1, -1):
        ahead = value[step + 1] * ~terminated[step]
        delta = reward[step] + discount * ahead - value[step]
        going_on = ~(terminated[step] | truncated[step])
        running = delta + discount * trace * running * going_on
        advantage[step] = running
    return advantage


def fused_gae(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    trace: float,
) -> Tensor:
    """`gae` in one pass: by numba on a CPU, by Triton on a GPU that has it, else the reference."""
    fused = _fused(reward)
    if fused is None:
        return gae(reward, value, terminated, truncated, discount=discount, trace=trace)
    advantage: Tensor = fused.estimate(reward, value, terminated, truncated, discount, trace)
    return advantage


def discounted_sums(
    reward: Tensor, terminated: Tensor, truncated: Tensor, discount: float, running: Tensor
) -> Tensor:
    """Discounted sums [T, N] of each episode's rewards up to each step, that step's among them.

    `running` [N] is what they come to before the first step, and becomes that after the last.
    """
    sums = []
    for step, earned in enumerate(reward):
        running.mul_(discount).add_(earned)
        sums.append(running.clone())
        running.masked_fill_(terminated[step] | truncated[step], 0.0)
    return torch.stack(sums)


def fused_sums(
    reward: Tensor, terminated: Tensor, truncated: Tensor, discount: float, running: Tensor
) -> Tensor:
    """`discounted_sums` in one pass, by whoever has `fused_gae`."""
    fused = _fused(reward)
    sums = discounted_sums if fused is None else fused.discounted_sums
    found: Tensor = sums(reward, terminated, truncated, discount, running)
    return found


def _fused(reward: Tensor) -> Any:
    """The module of fused passes for tensors like these, or None."""
    if reward.device.type == "cpu":
        return _kernel("numba")
    if reward.device.type == "cuda" and find_spec("triton") is not None:
        return _kernel("triton")
    return None


def _kernel(name: str) -> Any:
    """The module of this name, imported when it is wanted, as the kernels of the step are."""
    return import_module(f"fastsim.learn.advantage_{name}")
