"""Scores of single assets by one pass over samples, differentiated by hand, where a CPU takes it.

What it knows is float32 on a CPU, and gradients that do not reach back into portfolios: all else
is `AssetPolicy`'s own formula.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Picked(NamedTuple):
    """What a policy makes of the bars of M samples, without a copy for each."""

    parts: Tensor  # [B, R]
    place: Tensor  # [M]  row of each


def is_fused(parts: Tensor, own: Tensor) -> bool:
    """Whether numbers of these kinds are known here: of bars, and of what is held."""
    kinds = {(each.device.type, each.dtype) for each in (parts, own)}
    plain = kinds == {("cpu", torch.float32)} and not torch.is_autocast_enabled("cpu")
    return plain and not own.requires_grad


def scores(
    picked: Picked,
    own: Tensor,
    account: Tensor,
    weight: Tensor,
    held: Tensor,
    out: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """tanh(part + own held + account) out + bias [M, A], and the parts summed by weight [M, D].

    `own` [M, A, C], `account` [M, D], `weight` [M, A]; `held` [D, C], `out` [1, D] and `bias` [1]
    as layers have them.
    """
    found: tuple[Tensor, Tensor] = _Scores.apply(  # type: ignore[no-untyped-call]
        *picked, own, account, weight, held, out, bias
    )
    return found


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: Tensor, place: Tensor, own: Tensor, account: Tensor, *rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight, held, out, bias = (each.detach() for each in rest)
        needed = (parts, place, own, account, held.T, out[0], weight)
        known = tuple(each.detach().contiguous() for each in needed)
        ctx.save_for_backward(*known)
        made = (own.new_empty(own.shape[:2]), torch.empty_like(account))
        _kernels().score(*_arrays(known), bias.numpy()[0], _kinds(own), *_arrays(made))
        return made

    @staticmethod
    def backward(ctx: Any, *owed: Tensor) -> Any:
        known = ctx.saved_tensors
        parts, _, own, account, held, out, _ = known
        into = tuple(torch.zeros_like(each) for each in (parts, account, held, out))
        made = (torch.empty_like(out), *into)
        _kernels().teach(*_arrays((*owed, *known)), _kinds(own), *_arrays(made))
        of_parts, of_account, of_held, of_out = into
        of_bias = owed[0].sum()[None]
        return of_parts, None, None, of_account, None, of_held.T, of_out[None], of_bias


def _kinds(own: Tensor) -> tuple[int, ...]:
    return (0,) * own.shape[-1]


def _arrays(tensors: tuple[Tensor, ...]) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@cache
def _kernels() -> Any:
    # Imported when it is wanted, as kernels are: numba alone takes half a second.
    kernels = import_module("fastsim.policy.score_numba")
    kernels.forget_stale()
    return kernels
