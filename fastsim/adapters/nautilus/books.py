"""What a strategy was worth, held, traded and paid in NautilusTrader, as fastsim's history.

NautilusTrader's own statistics are made of returns of positions; these are of wealth at closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fastsim.adapters.nautilus.account import Holding
from fastsim.adapters.nautilus.costs import FrictionConfig, split
from fastsim.backtest.history import BORROW, History
from fastsim.data.bars import FloatArray
from fastsim.errors import DataError
from fastsim.market.costs import CostConfig, costs_of


class _Step(NamedTuple):
    weights: FloatArray  # [A + 1]
    turnover: float
    commission: float
    spread: float


class Books:
    """A record that grows by a close at a time, and by fills between two of them."""

    def __init__(self, symbols: tuple[str, ...], costs: CostConfig) -> None:
        self.symbols, self._costs = symbols, costs
        self._rates = FrictionConfig(fee_bps=costs.fee_bps, half_spread_bps=costs.half_spread_bps)
        self._stamps: list[np.datetime64] = []
        self._wealth: list[float] = []
        self._steps: list[_Step] = []
        self._since(None)

    def _since(self, close: Holding | None) -> None:
        """Begin a step at a close."""
        self._before = close
        self._traded = self._commission = self._spread = 0.0

    def trade(self, before: Holding) -> None:
        """Orders are about to be sent by an account, at the prices of their fills."""
        self._before = before

    def fill(self, value: float, charged: float) -> None:
        """An order was filled, over `value` (below 0 if it sold), and `charged` for that."""
        commission, spread = split(charged, self._rates, buys=value > 0)
        self._traded += abs(value)
        self._commission += commission
        self._spread += spread

    def close(self, stamp: np.datetime64, close: Holding) -> None:
        """Mark the account at the close of the bar that began at `stamp`."""
        if self._before is not None:
            paid = self._commission + self._spread
            after = self._before._replace(
                shares=close.shares, wealth=self._before.wealth - paid
            )  # as many as after the fills: nothing is traded in between
            turnover = self._traded / self._before.wealth
            self._steps.append(_Step(after.weights, turnover, self._commission, self._spread))
        self._stamps.append(stamp)
        self._wealth.append(close.wealth)
        self._since(close)

    def history(self, name: str) -> History:
        """One strategy over the closes that were marked.

        Raises
        ------
        DataError
            There were not two.
        """
        if not self._steps:
            raise DataError(
                "the strategy has met no two closes from its start on: there is nothing to judge; "
                "give more bars, or an earlier start"
            )
        column = torch.tensor(self._steps_of("turnover"))[:, None]
        costs = {each.name: torch.zeros_like(column) for each in costs_of(self._costs)}
        costs[BORROW] = torch.zeros_like(column)
        for part in ("commission", "spread"):
            costs[part] = torch.tensor(self._steps_of(part))[:, None]
        return History(
            names=(name,),
            symbols=self.symbols,
            timestamps=np.array(self._stamps, dtype="datetime64[ns]"),
            wealth=torch.tensor(self._wealth, dtype=torch.float64)[:, None],
            weights=torch.from_numpy(np.stack([step.weights for step in self._steps]))[:, None],
            turnover=column,
            costs=costs,
        )

    def _steps_of(self, name: str) -> FloatArray:
        return np.array([getattr(step, name) for step in self._steps], dtype=np.float64)
