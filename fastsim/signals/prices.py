"""Adjusted prices of a market as signals read them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE, HIGH, LOW, OPEN
from fastsim.errors import DataError
from fastsim.market.tape import MarketTape


class Prices(NamedTuple):
    """Of T bars and A assets, float64. NaN where an asset did not trade."""

    open: Tensor  # [T, A]
    high: Tensor  # [T, A]
    low: Tensor  # [T, A]
    close: Tensor  # [T, A]


def prices_of(tape: MarketTape) -> Prices:
    """Prices of a tape; the close stands for what the data lack.

    Raises
    ------
    DataError
        The tape holds several worlds, whose windows would run into one another.
    """
    if tape.worlds > 1:
        raise DataError(f"signals are of one history, not of {tape.worlds}: use tape.world(i)")
    return prices_of_table(tape.known.bars)


def prices_of_table(table: Tensor) -> Prices:
    """Prices of a table of bars [T, A, 6] as `fastsim.data.bars.Bars.table` lays it out."""
    values = table.double()
    close = values[..., CLOSE]
    others = (values[..., column] for column in (OPEN, HIGH, LOW))
    opened, high, low = (
        torch.where(each.isfinite() & close.isfinite(), each, close) for each in others
    )
    return Prices(opened, high, low, close)
