"""Launches of the kernels for a GPU: how many programs there are, and what each takes on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fastsim.capture import current
from fastsim.learn.fused import triton_kernels as kernels
from fastsim.learn.fused.constants import LOSSES

TILE = 2048
"""Numbers that a program works on at a time."""
WIDEST = 128
"""Columns of them."""
PROGRAMS = 512
"""Programs at most, of those that add up over rows."""
GATHERED = 16
"""Samples that a program gathers."""
FLAT = 1024
"""Numbers of a program where rows do not matter, and of sums of what programs have left."""
SUMMED = (64, 32)
"""Rows and columns of what programs have left, at a time."""
PARAMETERS = 16
"""Parameters of a launch, whose branches are compiled for each."""


class Cut(NamedTuple):
    """How rows are cut for programs."""

    block: int  # rows at a time
    chunk: int  # columns at a time
    programs: int


def cut(rows: int, width: int, *, whole: bool = False) -> Cut:
    """Of some rows of this width, or of `whole` rows."""
    chunk: int = triton.next_power_of_2(width)
    chunk = chunk if whole else min(chunk, WIDEST)
    block = max(1, min(TILE // chunk, 64))
    return Cut(block, chunk, min(triton.cdiv(rows, block), PROGRAMS))


def empty_counted(samples: Tensor) -> Tensor:
    """Room for what `gather` counts of so many samples."""
    return samples.new_zeros(triton.cdiv(len(samples), GATHERED))


class Sources(NamedTuple):
    """What samples are gathered from; facts are an action's, then the five others."""

    bar: Tensor  # [B]
    portfolio: Tensor  # [B, P]
    facts: tuple[Tensor, ...]  # [B, W], [B] ...
    moments: tuple[Tensor, Tensor, Tensor]  # [P], [P], []  of portfolios
    table: Tensor  # [T, F]
    first: int  # bar of its first row


def gather(
    rows: Tensor,
    order: Tensor | None,
    sources: Sources,
    samples: Tensor,
    counted: Tensor,
    places: tuple[int, int],
    shown: Tensor | None,
) -> None:
    """Fill `samples` [M, C], whose actions and facts begin at `places`; and `shown`, if wanted."""
    of = sources
    widths = (
        of.portfolio.shape[1],
        of.facts[0].shape[1],
        of.table.shape[1],
        *places,
        samples.shape[1],
        of.table.shape[1] if shown is None else shown.shape[1],
    )
    with current(samples.device):
        kernels.gather[(len(counted),)](
            rows,
            rows if order is None else order,
            *of[:-1],
            samples,
            samples if shown is None else shown,
            counted,
            len(samples),
            of.first,
            widths=widths,
            arranged=order is not None,
            shows=shown is not None,
            block=GATHERED,
            chunk=WIDEST,
        )


def activate(x: Tensor, bias: Tensor) -> None:
    """Put tanh(x + bias) in the place of x [K, E]."""
    with current(x.device):
        kernels.activate[(triton.cdiv(x.numel(), FLAT),)](
            x, bias, x.numel(), width=x.shape[1], block=FLAT
        )


def hide(
    hidden: Tensor,
    market: Tensor,
    segment: Tensor | None,
    bias: Tensor,
    critic: Tensor,
    offset: Tensor,
    value: Tensor,
) -> None:
    """Hidden layers of both heads [M, 2 H], and values [M]."""
    block, chunk, _ = cut(len(hidden), len(critic))
    with current(hidden.device):
        kernels.hide[(triton.cdiv(len(hidden), block),)](
            hidden,
            market,
            value if segment is None else segment,
            *(bias, critic, offset, value, len(hidden)),
            half=len(critic),
            arranged=segment is not None,
            block=block,
            chunk=chunk,
        )


class TaughtBy(NamedTuple):
    """What the losses of samples depend on, beside what the policy says."""

    samples: Tensor  # [M, C]
    counted: Tensor  # [G]
    places: tuple[int, int]  # columns where actions and facts begin
    actions: int  # W
    how: tuple[float, float, float]  # clip, value clip (negative for none), weight of values


def teach(
    mean: Tensor,
    value: Tensor,
    log_std: Tensor,
    bias: Tensor,
    by: TaughtBy,
    parts: Tensor,
    losses: Tensor,
) -> None:
    """Put gradients in the places of means [M, W+] and values [M]."""
    block, wide, programs = cut(*mean.shape, whole=True)
    assert (programs, LOSSES) == (len(parts), len(losses))
    samples = by.samples
    with current(mean.device):
        kernels.teach[(programs,)](
            *(mean, value, samples, log_std, bias, by.counted, parts, losses),
            *(len(mean), programs, len(by.counted)),
            widths=(by.actions, mean.shape[1], *by.places, samples.shape[1], parts.shape[1]),
            how=by.how,
            block=block,
            wide=wide,
            tile=FLAT,
        )


def backward_hidden(
    gradient: Tensor, hidden: Tensor, value: Tensor, critic: Tensor, parts: Tensor
) -> None:
    """Gradients [M, 2 H] before the activation, in place."""
    block, chunk, programs = cut(len(hidden), len(critic))
    assert programs == len(parts)
    with current(hidden.device):
        kernels.backward_hidden[(programs, triton.cdiv(len(critic), chunk))](
            *(gradient, hidden, value, critic, parts, len(hidden), programs),
            half=len(critic),
            block=block,
            chunk=chunk,
        )


def backward_bars(gradient: Tensor, starts: Tensor, market: Tensor) -> None:
    """Sums [K, 2 H] over the samples of each bar."""
    bars, width = market.shape
    chunk = cut(bars, width).chunk
    with current(market.device):
        kernels.backward_bars[(bars, triton.cdiv(width, chunk))](
            *(gradient, starts, market), width=width, block=GATHERED, chunk=chunk
        )


def backward_activation(gradient: Tensor, x: Tensor, parts: Tensor) -> None:
    """Gradients [K, E] before the activation that gave x, in place."""
    block, chunk, programs = cut(*x.shape)
    assert programs == len(parts)
    with current(x.device):
        kernels.backward_activation[(programs, triton.cdiv(x.shape[1], chunk))](
            *(gradient, x, parts, len(x), programs), width=x.shape[1], block=block, chunk=chunk
        )


def settle(
    parts: tuple[Tensor, ...],
    into: tuple[Tensor, ...],
    log_std: Tensor,
    counted: Tensor,
    losses: Tensor,
    tally: tuple[Tensor, Tensor, Tensor],
    actions: int,
    how: tuple[float, float],
) -> None:
    """Add up the parts [p, c] `into` [c] each, and the losses into the tally."""
    sections = tuple((*part.shape, part.stride(0)) for part in parts)
    block, chunk = SUMMED
    columns = triton.cdiv(max(part.shape[1] for part in parts), chunk)
    with current(losses.device):
        kernels.settle[(columns, len(parts) + 1)](
            *(parts, into, log_std, counted, losses, *tally, len(counted), losses.shape[1]),
            sections=sections,
            actions=actions,
            how=how,
            block=block,
            chunk=chunk,
            tile=FLAT,
        )


def square_sums(gradient: Tensor, parts: Tensor, steps: tuple[Tensor, ...], stop: Tensor) -> None:
    """Sums of the squares of a gradient [n] into its parts, and one to every step."""
    with current(gradient.device):
        kernels.square_sums[(len(parts),)](gradient, parts, steps, stop, len(gradient), block=FLAT)


def empty_squares(gradient: Tensor) -> Tensor:
    """Room for what `square_sums` leaves."""
    rows = triton.cdiv(len(gradient), FLAT)
    return torch.zeros(rows, dtype=torch.float64, device=gradient.device)


class Moved(NamedTuple):
    """All that a step touches of some parameters, each as it is."""

    weights: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    steps: tuple[Tensor, ...]
    places: tuple[tuple[int, ...], ...]  # see `places_of`


def places_of(blocks: list[tuple[tuple[int, int, int], tuple[int, int, int], int]]) -> Any:
    """Places for `adam` of parameters, given by their shapes, their padded ones, and starts."""
    places, program = [], 0
    for (heads, rows, columns), (_, padded_rows, padded_columns), start in blocks:
        size = heads * rows * columns
        places.append((program, size, rows, columns, padded_rows, padded_columns, start))
        program += triton.cdiv(size, FLAT)
    return (*places, (program,))


def adam(
    moved: Moved,
    gradient: Tensor,
    copy: Tensor,
    rate: Tensor,
    parts: Tensor,
    stop: Tensor,
    how: tuple[float, ...],
) -> None:
    """One step of Adam along a gradient [n] whose squares have been summed into `parts`."""
    with current(gradient.device):
        kernels.adam[(moved.places[-1][0],)](
            *(*moved[:-1], gradient, copy, rate, parts, stop, len(parts)),
            places=moved.places,
            how=how,
            block=FLAT,
            tile=FLAT,
        )


def read(moved: Moved, copy: Tensor) -> None:
    """Fill the padded `copy` [n] of these parameters."""
    with current(copy.device):
        kernels.read[(moved.places[-1][0],)](moved.weights, copy, places=moved.places, block=FLAT)
