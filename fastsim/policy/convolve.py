"""A causal convolution over two bars in one pass, differentiated by hand, where a CPU takes it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


def convolve(rows: Tensor, shift: int, now: nn.Module, before: nn.Module) -> Tensor:
    """A row + tanh(now(row) + before(earlier)), [D, R - shift] of rows [D, R], channel by channel.

    `row` is a column from `shift` on and `earlier` the one that is `shift` before it. What is not
    float32 on a CPU goes by the formula.
    """
    plain = (rows.device.type, rows.dtype) == ("cpu", torch.float32)
    if not plain or torch.is_autocast_enabled("cpu"):
        later, earlier = rows[:, shift:], rows[:, : rows.shape[1] - shift]
        return later + torch.tanh(now(later.T) + before(earlier.T)).T
    weights = (now.weight, before.weight, now.bias)
    found: Tensor = _Convolve.apply(rows, shift, *weights)  # type: ignore[no-untyped-call]
    return found


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shift: int, *weights: Tensor) -> Tensor:
        rows, (now, before, bias) = rows.contiguous(), weights
        later, earlier = rows[:, shift:], rows[:, : rows.shape[1] - shift]
        made = torch.addmm(bias[:, None], now, later).addmm_(before, earlier)
        _kernels().bend(_array(rows), shift, _array(made))
        ctx.shift = shift
        ctx.save_for_backward(rows, made, now, before)
        return made

    @staticmethod
    def backward(ctx: Any, *owed: Tensor) -> Any:
        rows, made, now, before = ctx.saved_tensors
        slope, shift = torch.empty_like(made), ctx.shift
        _kernels().steepness(_array(owed[0]), _array(rows), shift, _array(made), _array(slope))
        into, earlier = torch.zeros_like(rows), slice(0, rows.shape[1] - shift)
        into[:, shift:] = torch.addmm(owed[0], now.T, slope)
        into[:, earlier].addmm_(before.T, slope)
        of_now, of_before = slope @ rows[:, shift:].T, slope @ rows[:, earlier].T
        return into, None, of_now, of_before, slope.sum(1)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


@cache
def _kernels() -> Any:
    # Imported when it is wanted, as kernels are: numba alone takes half a second.
    kernels = import_module("fastsim.policy.convolve_numba")
    kernels.forget_stale()
    return kernels
