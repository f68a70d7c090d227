"""The market as one portfolio: equal weights in what is listed, beside which an agent is measured.

At every close the wealth is shared out equally among the N assets that can be bought then: those
that have a price at the close of the decision and trade at the fill. Who lists later has its 1 / N
from then on, and who is halted at a fill is not in it until the next; nothing is left in cash.
There are no costs. `excess_log_growth` pays the log growth beyond its return, and a replay of
`equal_weights` without frictions earns it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastsim.market.tape import MarketTape


def equal_weights(tape: MarketTape) -> Tensor:
    """Weights [T, A] for the decision at each bar; 0 in all where nothing can be traded."""
    return equal_weights_of(tape.next["tradable"], tape.dtype)


def equal_weights_of(tradable: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / N of each of the N that are `tradable` [..., A], bool."""
    each = tradable.to(dtype)
    return each / each.sum(-1, keepdim=True).clamp_min(1.0)


def market_return_of(r_before: Tensor, r_after: Tensor, tradable: Tensor) -> Tensor:
    """Simple return [...] of equal weights from one close to the next; returns are [..., A]."""
    total = (1.0 + r_before) * (1.0 + r_after) - 1.0
    return torch.where(tradable, total, 0.0).sum(-1) / tradable.sum(-1).clamp_min(1)
