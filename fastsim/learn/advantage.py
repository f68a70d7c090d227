"""What actions were worth: generalised advantage estimates, the reference and its fused forms."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

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
    arguments = (reward, value, terminated, truncated, discount, trace)
    if reward.device.type == "cpu":
        return _kernel("numba")(*arguments)
    if reward.device.type == "cuda" and find_spec("triton") is not None:
        return _kernel("triton")(*arguments)
    return gae(reward, value, terminated, truncated, discount=discount, trace=trace)


def _kernel(name: str) -> Callable[..., Tensor]:
    """The fused pass of this name, imported when it is wanted, as the kernels of the step are."""
    estimate: Callable[..., Tensor] = import_module(f"fastsim.learn.advantage_{name}").estimate
    return estimate
