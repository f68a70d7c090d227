"""Log returns of closes with gaps, for every forecaster that reads the close alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GapReturns(NamedTuple):
    """One-bar log returns of closes [B, L] of which some are missing."""

    returns: Tensor  # [B, L - 1]  0 where unknown
    known: Tensor  # [B, L - 1]  bool: this close and an earlier one are known
    last: Tensor  # [B]  latest known close, NaN where there is none
    spanned: Tensor  # [B, L - 1]  bars since the latest close known before


def returns_with_gaps(closes: Tensor, positions: Tensor) -> GapReturns:
    """Log returns of `closes` [B, L], NaN where missing; `positions` is 0 to L - 1.

    A return that spans g bars because closes between are missing stands at the bar where the price
    is known again, divided by sqrt(g): a sum of g independent returns then counts as one return of
    the right variance. The bars inside the gap are unknown. Closes that are not positive count as
    missing.
    """
    known = (closes > 0) & (closes < torch.inf)  # [B, L]
    latest = torch.where(known, positions, -1).cummax(1).values  # [B, L]  -1 before the first
    filled = closes.gather(1, latest.clamp_min(0))  # [B, L]
    before, previous = filled[:, :-1], latest[:, :-1]
    spanned = (positions[1:] - previous).to(closes.dtype)  # [B, L - 1]  g
    there = known[:, 1:] & (previous >= 0)
    # The difference of nearby floats is exact, so small returns keep their digits.
    returns = torch.log1p((closes[:, 1:] - before) / before) * spanned.rsqrt()
    last = torch.where(latest[:, -1] >= 0, filled[:, -1], torch.nan)
    return GapReturns(torch.where(there, returns, 0.0), there, last, spanned)
