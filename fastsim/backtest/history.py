"""The record of a replay: what several strategies were worth, held, traded and paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.accounting import Outcome
from fastsim.errors import ConfigError

BORROW = "borrow"


class History(NamedTuple):
    """N strategies over T steps on A assets. Money is in account currency."""

    names: tuple[str, ...]  # N
    symbols: tuple[str, ...]  # A
    timestamps: NDArray[np.datetime64]  # [T + 1]  closes: the first decision, then every mark
    wealth: Tensor  # [T + 1, N]  marked at those closes
    weights: Tensor  # [T, N, A + 1]  held after each trade, of wealth after costs; cash last
    turnover: Tensor  # [T, N]  sum over assets of |traded| / wealth before the trade
    costs: Mapping[str, Tensor]  # [T, N] each, by the name of the cost part

    @property
    def simple_returns(self) -> Tensor:
        """Wealth changes [T, N], relative to the wealth before."""
        return self.wealth[1:] / self.wealth[:-1] - 1.0

    @property
    def cost(self) -> Tensor:
        """Everything paid per step [T, N]."""
        return sum(self.costs.values(), torch.zeros_like(self.turnover))

    def column(self, name: str, role: str = "strategy") -> int:
        """Where the strategy `name` stands among N.

        Raises
        ------
        ConfigError
            No strategy is called so; `role` is what the message says it was asked for as.
        """
        if name not in self.names:
            known = ", ".join(repr(known) for known in self.names)
            raise ConfigError(f"{role} must be one of the strategies {known}, got {name!r}")
        return self.names.index(name)

    @property
    def figures(self) -> dict[str, Any]:
        """All fields that are tensors, or mappings to tensors; dimension 1 is the strategies'."""
        fields = self._asdict().items()
        return {name: figure for name, figure in fields if isinstance(figure, Tensor | Mapping)}


def cost_parts(outcome: Outcome) -> dict[str, Tensor]:
    """What each environment paid [N] in one step, by the name of the cost part; "borrow" last."""
    return {**outcome.all_costs, BORROW: outcome.borrow}
