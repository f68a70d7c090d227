"""How far prices go within the bar that a step leads to: columns of the market for who has stops.

They are simple returns from the fill to the bar's open, high and low, of the same bar as `r_after`,
and made of what the tape holds of it. A bar that lacks one of its four prices reaches nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE, HIGH, LOW, OPEN
from fastsim.errors import DataError

EXTREMES = ("r_open", "r_high", "r_low")
_NEEDED = {"open": OPEN, "high": HIGH, "low": LOW}


def extremes_of(
    bars: Tensor, r_after: Tensor, *, bars_per_world: int, filled_at_open: bool
) -> dict[str, Tensor]:
    """The columns [T, A] of these bars [T, A, 6], by name.

    Parameters
    ----------
    bars
        Prices of each bar, adjusted, as `MarketTape.known` holds them.
    r_after
        Simple return [T, A] from the fill to the close of the bar that follows.
    bars_per_world
        Bars after which another world begins.
    filled_at_open
        Whether the fill is that bar's open, which then is where the price begins.

    Raises
    ------
    DataError
        A price is not in the data at all.
    """
    missing = [name for name, field in _NEEDED.items() if not bars[..., field].isfinite().any()]
    if missing:
        raise DataError(
            f"stops and targets are met within bars, and this data has no {', '.join(missing)}: "
            f"use bars with open, high and low, or leave OrderConfig.stop, target and trailing at 0"
        )
    prices = bars[..., [OPEN, HIGH, LOW, CLOSE]].roll(-1, 0)  # [T, A, 4]  of the bar that follows
    complete = prices.isfinite().all(-1)  # [T, A]
    complete[bars_per_world - 1 :: bars_per_world] = False
    reached = (1.0 + r_after)[..., None] * prices / prices[..., 3:]
    if filled_at_open:
        reached[..., 0] = 1.0
    return {
        "r_open": torch.where(complete, reached[..., 0] - 1.0, 0.0),
        "r_high": torch.where(complete, reached.amax(-1) - 1.0, -1.0),
        "r_low": torch.where(complete, reached.amin(-1) - 1.0, torch.inf),
    }
