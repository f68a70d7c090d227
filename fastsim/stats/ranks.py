"""Are things ordered as they came out: Spearman's correlation, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastsim.errors import DataError

LEAST = 3
"""Columns of a row, at least: two are in the right order or in the wrong one, and nothing between.
Each table that is looked beyond takes one more."""
NOTHING_LEFT = 1e-9
"""A share of a row's variance below which what a fit leaves of it is rounding."""


def average_ranks(values: Tensor) -> Tensor:
    """Ranks [R, A] in float64, from 1 up, within each row of values [R, A].

    Those that tie share the mean of their ranks; NaN stays, and counts for nothing.
    """
    known = ~values.isnan()
    filled = values.masked_fill(~known, torch.inf).contiguous()
    ordered = filled.sort(-1).values
    below = torch.searchsorted(ordered, filled)
    until = torch.searchsorted(ordered, filled, right=True)
    until = torch.minimum(until, known.sum(-1, keepdim=True))
    return (0.5 * (below + until + 1).double()).masked_fill(~known, torch.nan)


def rank_correlation(one: Tensor, other: Tensor, *, beyond: Sequence[Tensor] = ()) -> Tensor:
    """Spearman's correlation [R] of two tables [R, A] within each row, of what is known in all.

    Parameters
    ----------
    beyond
        Tables [R, A] that are to have no part in it: the ranks of `one` less their least-squares
        fit on the ranks of these are correlated with the ranks of `other`. It is the semipartial
        correlation of ranks: what `one` knows that these do not.

    Returns
    -------
    Tensor
        In float64. NaN where fewer than LEAST columns and one for each of `beyond` are known, where
        all of a row tie in either table, and where `beyond` leaves nothing of `one`.

    Raises
    ------
    DataError
        Tables have different shapes, or are none.
    """
    tables = (one, other, *beyond)
    shapes = [tuple(each.shape) for each in tables]
    if one.ndim != 2 or len(set(shapes)) > 1:
        raise DataError(f"rank correlations are of tables [R, A] of one shape, got {shapes}")
    known = torch.stack([~each.isnan() for each in tables]).all(0)  # [R, A]
    enough = known.sum(-1) >= LEAST + len(beyond)
    mine, theirs, *others = (_centred_ranks(each, known) for each in tables)
    whole = mine.square().sum(-1)
    for direction in _orthonormal(others):
        mine = mine - (mine * direction).sum(-1, keepdim=True) * direction
    left, came = mine.square().sum(-1), theirs.square().sum(-1)
    told = enough & (left > NOTHING_LEFT * whole) & (whole > 0) & (came > 0)
    found = (mine * theirs).sum(-1) / (left * came).sqrt()
    return found.clamp(-1.0, 1.0).masked_fill(~told, torch.nan)


def _centred_ranks(values: Tensor, known: Tensor) -> Tensor:
    """Ranks [R, A] less the mean of their row; 0 where unknown."""
    ranks = average_ranks(values.masked_fill(~known, torch.nan))
    return (ranks - ranks.nanmean(-1, keepdim=True)).nan_to_num(nan=0.0)


def _orthonormal(tables: Sequence[Tensor]) -> list[Tensor]:
    """Directions [R, A] of length one that span the rows of these tables; 0 where one adds none."""
    directions: list[Tensor] = []
    for table in tables:
        whole, left = table.square().sum(-1, keepdim=True), table
        for direction in directions:
            left = left - (left * direction).sum(-1, keepdim=True) * direction
        length = left.square().sum(-1, keepdim=True)
        adds = length > NOTHING_LEFT * whole
        directions.append(torch.where(adds, left / length.sqrt(), 0.0))
    return directions
