"""Rows of block bootstraps: blocks of random length, and of one length."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, inf, log1p, sqrt

import torch
from torch import Tensor

CHUNK_VALUES = 2_000_000
"""Resampled values held at a time: 16 MB per float64 array."""


def resampled_rows(
    length: int,
    block_length: float,
    resamples: int,
    generator: torch.Generator,
    *,
    bars: int | None = None,
) -> Iterator[Tensor]:
    """Yield chunks [bars, chunk] of row numbers below `length`, `resamples` columns in all.

    Every row starts a new block with probability 1 / block_length, at a place drawn uniformly;
    otherwise it is the row after the one above, and the last row is followed by the first.
    Politis and Romano (1994), section 2. `bars` is `length` unless given.
    """
    bars, device = length if bars is None else bars, generator.device
    chunk = max(1, CHUNK_VALUES // bars)
    steps = torch.arange(bars, device=device)[:, None]  # [bars, 1]
    for first in range(0, resamples, chunk):
        shape = (bars, min(chunk, resamples - first))
        starts = torch.randint(length, shape, generator=generator, device=device)
        restarts = torch.rand(shape, generator=generator, device=device) < 1.0 / block_length
        block_began = torch.where(restarts, steps, 0).cummax(0).values  # [bars, chunk]
        yield (starts.gather(0, block_began) + steps - block_began) % length


def resampled_blocks(
    length: int, block_length: float, resamples: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield chunks of what `resampled_rows` draws as blocks: their first rows and their ends.

    Both are [chunk, K], for who needs no more than sums over blocks. The first row is below
    `length`, and rows from `length` on are those from 0 on; the ends are exclusive, and a block
    that is not needed has no row. Lengths of blocks are geometric, the last one cut off.
    """
    share = 1.0 / block_length
    usual = (length - 1) * share + 1.0
    blocks = min(length, ceil(usual + 8.0 * sqrt(usual * (1.0 - share)) + 2.0))
    chunk = max(1, CHUNK_VALUES // blocks)
    scale = -log1p(-share) if share < 1.0 else inf
    for first in range(0, resamples, chunk):
        shape = (min(chunk, resamples - first), blocks)
        waits = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
        begun = (1.0 + (waits / scale).floor_()).cumsum_(1).clamp_(max=length).long()
        begun[:, -1] = length  # of so many blocks, all but never too few
        sizes = begun.diff(dim=1, prepend=begun.new_zeros(len(begun), 1))
        starts = torch.randint(length, shape, generator=generator)
        yield starts, starts + sizes


def circular_rows(
    length: int, block_length: int, resamples: int, generator: torch.Generator
) -> Tensor:
    """Row numbers [resamples, length] below `length`, in blocks that begin at random places.

    The last row is followed by the first; blocks of one row are the plain bootstrap. Politis and
    Romano (1992), "A circular block-resampling procedure for stationary data".
    """
    shape = (resamples, -(-length // block_length))
    starts = torch.randint(length, shape, generator=generator, device=generator.device)
    steps = torch.arange(block_length, device=generator.device)
    return ((starts[..., None] + steps) % length).flatten(1)[:, :length]
