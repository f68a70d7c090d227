"""Advantages on a GPU: a program for some environments goes from their last step to their first.

Annotations are not deferred in this file, because the compiler reads them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastsim.capture import current

BLOCK = 128
"""Environments of one program."""


@triton.jit
def sweep(
    reward, value, terminated, truncated, rates, advantage, steps, count, block: tl.constexpr
):
    """Fill `advantage` [T, N]; `rates` holds the discount, and its product with the trace."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    inside = n < count
    discount, decay = tl.load(rates), tl.load(rates + 1)
    following = tl.load(value + steps * count + n, mask=inside, other=0.0)
    running = following * 0.0
    for back in range(steps):
        row = (steps - 1 - back) * count + n
        ended = tl.load(terminated + row, mask=inside, other=0) != 0
        cut = ended | (tl.load(truncated + row, mask=inside, other=0) != 0)
        now = tl.load(value + row, mask=inside, other=0.0)
        paid = tl.load(reward + row, mask=inside, other=0.0)
        delta = paid + discount * tl.where(ended, 0.0, following) - now
        running = delta + decay * tl.where(cut, 0.0, running)
        tl.store(advantage + row, running, mask=inside)
        following = now


@triton.jit
def add_up(
    reward, terminated, truncated, discount, running, sums, steps, count, block: tl.constexpr
):
    """Fill `sums` [T, N]; `running` [N] goes on from where it is."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    inside = n < count
    rate, total = tl.load(discount), tl.load(running + n, mask=inside, other=0.0)
    for step in range(steps):
        row = step * count + n
        total = total * rate + tl.load(reward + row, mask=inside, other=0.0).to(total.dtype)
        tl.store(sums + row, total, mask=inside)
        ended = tl.load(terminated + row, mask=inside, other=0) != 0
        ended = ended | (tl.load(truncated + row, mask=inside, other=0) != 0)
        total = tl.where(ended, 0.0, total)
    tl.store(running + n, total, mask=inside)


def discounted_sums(
    reward: Tensor, terminated: Tensor, truncated: Tensor, discount: float, running: Tensor
) -> Tensor:
    """Sums [T, N] of rewards so far; see `fastsim.learn.advantage.discounted_sums`."""
    steps, count = reward.shape
    sums = torch.empty(reward.shape, dtype=running.dtype, device=reward.device)
    rate = torch.full_like(running[:1], discount)
    flags = (flag.contiguous().view(torch.uint8) for flag in (terminated, truncated))
    programs = (triton.cdiv(count, BLOCK),)
    with current(reward.device):
        add_up[programs](reward.contiguous(), *flags, rate, running, sums, steps, count, BLOCK)
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
    steps, count = reward.shape
    advantage = torch.empty_like(reward)
    rates = torch.stack([torch.full_like(reward[0, 0], x) for x in (discount, discount * trace)])
    flags = (flag.contiguous().view(torch.uint8) for flag in (terminated, truncated))
    programs = (triton.cdiv(count, BLOCK),)
    with current(reward.device):
        sweep[programs](
            reward.contiguous(), value.contiguous(), *flags, rates, advantage, steps, count, BLOCK
        )
    return advantage
