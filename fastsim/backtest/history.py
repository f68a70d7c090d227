"""The record of a replay: what several strategies were worth, held, traded and paid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class History(NamedTuple):
    """N strategies over T steps on A assets. Money is in account currency."""

    names: tuple[str, ...]  # N
    symbols: tuple[str, ...]  # A
    timestamps: NDArray[np.datetime64]  # [T + 1]  closes: the first decision, then every mark
    wealth: Tensor  # [T + 1, N]  marked at those closes
    weights: Tensor  # [T, N, A + 1]  held after each trade, of wealth after costs; cash last
    turnover: Tensor  # [T, N]  sum over assets of |traded| / wealth before the trade
    commission: Tensor  # [T, N]
    spread: Tensor  # [T, N]
    impact: Tensor  # [T, N]
    borrow: Tensor  # [T, N]

    @property
    def simple_returns(self) -> Tensor:
        """Wealth changes [T, N], relative to the wealth before."""
        return self.wealth[1:] / self.wealth[:-1] - 1.0

    @property
    def cost(self) -> Tensor:
        """Everything paid per step [T, N]: commission, spread, impact and borrow."""
        return self.commission + self.spread + self.impact + self.borrow
