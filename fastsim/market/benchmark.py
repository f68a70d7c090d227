"""The market as one portfolio: equal weights in what is listed, beside which an agent is measured.

At every close the wealth is shared out equally among the N assets that can be bought then: those
that have a price at the close of the decision and trade at the fill. Who lists later has its 1 / N
from then on, and who is halted at a fill is not in it until the next; nothing is left in cash.
There are no costs. `excess_log_growth` pays the log growth beyond its return. A replay of equal
weights without frictions earns it where trades are filled at the close; with fills at the next open
weights have drifted by then, and it differs to second order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def equal_weights(listed: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / N of each of the N that are `listed` [..., A], bool; 0 in all where none is."""
    each = listed.to(dtype)
    return each / each.sum(-1, keepdim=True).clamp_min(1.0)


def market_return_of(r_before: Tensor, r_after: Tensor, tradable: Tensor) -> Tensor:
    """Simple return [...] of equal weights from one close to the next; returns are [..., A]."""
    total = (1.0 + r_before) * (1.0 + r_after) - 1.0
    return torch.where(tradable, total, 0.0).sum(-1) / tradable.sum(-1).clamp_min(1)
