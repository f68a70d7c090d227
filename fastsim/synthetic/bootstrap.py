"""Worlds made of blocks of real bars."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from fastsim.config import configuration, require_between
from fastsim.data.bars import PRICES, Bars, FloatArray
from fastsim.errors import DataError
from fastsim.stats.resample import resampled_rows
from fastsim.synthetic.interface import Paths, check_sizes


@configuration(slots=False, eq=False)
class BlockBootstrap:
    """Blocks of whole rows of real bars, chained: Politis and Romano (1994), JASA 89.

    A row is everything that happened at one bar: the logarithms of all assets' open, high, low and
    close over the close before, and their volumes. So the cross-section and the shape of bars are
    the data's, exactly; dependence over time is kept within blocks, of geometric length with mean
    `block_length`. Volume stays at its level: chained differences of a stationary series would
    gather one random step a block and wander off.
    """

    bars: Bars
    """Rows on which an asset has no bar, or had none before, are left out."""
    block_length: float = 21.0
    """Mean length of a block, in bars."""

    def __post_init__(self) -> None:
        require_between(self, "block_length", 1)
        if len(self.rows()[1]) < 2:
            raise DataError("a bootstrap needs at least 2 rows on which every symbol traded")

    def rows(self) -> tuple[tuple[str, ...], Tensor]:
        """Names of the fields in the data, and the rows to draw from [R, A, fields]."""
        close = self.bars.adjusted("close")
        assert close is not None
        found: dict[str, FloatArray] = {}
        for name in PRICES:
            prices = self.bars.adjusted(name)
            if prices is not None:
                found[name] = np.log(prices[1:] / close[:-1])
        if self.bars.volume is not None:
            found["volume"] = self.bars.volume[1:]
        table = np.stack(list(found.values()), axis=-1)
        return tuple(found), torch.from_numpy(table[np.isfinite(table).all((1, 2))])

    def sample(self, worlds: int, bars: int, generator: Generator) -> Paths:
        """Draw worlds that start from the first known close of every symbol."""
        check_sizes(worlds, bars)
        names, table = self.rows()
        chunks = resampled_rows(len(table), self.block_length, worlds, generator, bars=bars)
        drawn = table.to(generator.device)[torch.cat(list(chunks), dim=1)]  # [T, M, A, fields]
        found = dict(zip(names, drawn.unbind(-1), strict=True))
        log_close = self._start().to(generator.device).log() + found["close"].cumsum(0)
        before = log_close - found["close"]

        def price(name: str) -> Tensor | None:
            return (before + found[name]).exp().transpose(0, 1) if name in found else None

        volume = found["volume"].transpose(0, 1) if "volume" in found else None
        close = log_close.exp().transpose(0, 1)
        return _ordered(Paths(price("open"), price("high"), price("low"), close, volume))

    def _start(self) -> Tensor:
        close = self.bars.adjusted("close")
        assert close is not None
        return torch.from_numpy(close[np.isfinite(close).argmax(0), np.arange(close.shape[1])])


def _ordered(paths: Paths) -> Paths:
    """Put high and low around open and close again, which rounding may have crossed by a bit."""
    body = [paths.close] if paths.open is None else [paths.close, paths.open]
    high, low = paths.high, paths.low
    for price in body:
        high = None if high is None else torch.maximum(high, price)
        low = None if low is None else torch.minimum(low, price)
    return paths._replace(high=high, low=low)
