"""Bars as they arrive, one asset at a time, until all of a stamp are there."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from fastsim.data.bars import Bars, FloatArray
from fastsim.data.dates import show
from fastsim.errors import DataError

FIELDS = ("open", "high", "low", "close", "volume")
"""What a bar of one asset consists of."""


class Received:
    """The last bars of several symbols, of which each arrives by itself.

    Parameters
    ----------
    symbols
        Whose bars are waited for.
    fields
        What is known of bars beside closes; `adj_close` is the close.
    needed
        How many are kept.
    """

    def __init__(self, symbols: tuple[str, ...], fields: tuple[str, ...], needed: int) -> None:
        self.symbols, self._fields = symbols, fields
        self._stamps: deque[np.datetime64] = deque(maxlen=needed)
        self._rows: deque[FloatArray] = deque(maxlen=needed)  # [A, 5] each
        self._arriving: dict[str, tuple[float, ...]] = {}
        self._stamp: np.datetime64 | None = None  # of those that arrive, or that came last

    def __len__(self) -> int:
        return len(self._stamps)

    def begin(self, bars: Bars) -> None:
        """Take bars from before the first that arrives, with prices adjusted."""
        table = bars.take(slice(None), [bars.symbols.index(each) for each in self.symbols]).table()
        self._rows.extend(table[..., : len(FIELDS)])
        self._stamps.extend(bars.timestamps)
        self._stamp = bars.timestamps[-1]

    def add(self, symbol: str, stamp: np.datetime64, values: tuple[float, ...]) -> bool:
        """Take the bar of one symbol, and say whether it was the last of its stamp.

        Raises
        ------
        DataError
            It comes too late or again, or one of the stamp before never came.
        """
        if self._stamp is not None and stamp != self._stamp:
            if stamp < self._stamp:
                raise DataError(
                    f"the bar of {symbol} on {show(stamp)} comes after one on {show(self._stamp)}: "
                    f"give bars in the order of time"
                )
            self._require_all(stamp)
        if symbol in self._arriving or (not self._arriving and stamp == self._stamp):
            raise DataError(f"the bar of {symbol} on {show(stamp)} came twice: give it once")
        self._stamp = stamp
        self._arriving[symbol] = values
        if len(self._arriving) < len(self.symbols):
            return False
        self._rows.append(np.array([self._arriving[each] for each in self.symbols]))
        self._stamps.append(stamp)
        self._arriving.clear()
        return True

    @property
    def closes(self) -> FloatArray:
        """Of the last stamp that is whole [A]."""
        closes: FloatArray = self._rows[-1][:, FIELDS.index("close")]
        return closes

    def bars(self) -> Bars:
        """All that are kept."""
        table = np.stack(self._rows)
        columns = {name: table[..., place] for place, name in enumerate(FIELDS)}
        close = columns["adj_close"] = columns["close"]
        known: dict[str, Any] = {name: columns[name] for name in self._fields}
        stamps = np.array(self._stamps)
        return Bars(symbols=self.symbols, timestamps=stamps, close=close, **known)

    def _require_all(self, stamp: np.datetime64) -> None:
        """Raise DataError if one begins, and of the last some have not come."""
        missing = [each for each in self.symbols if each not in self._arriving]
        if self._arriving and missing:
            assert self._stamp is not None
            raise DataError(
                f"there is no bar of {', '.join(missing)} on {show(self._stamp)}, and those of "
                f"{show(stamp)} begin: nothing can be decided without it"
            )
