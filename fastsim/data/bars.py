"""Bars of many symbols on one calendar, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.stats.years import years_between

FloatArray = NDArray[np.float64]
FieldName = Literal["open", "high", "low", "close"]
PRICES: tuple[FieldName, ...] = ("open", "high", "low", "close")
BAR_FIELDS = (*PRICES, "volume", "amount")
"""What tables of bars [..., 6] hold, in this order; the amount is the traded value."""
OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT = range(len(BAR_FIELDS))


class Repair(NamedTuple):
    """One kind of problem in the source data that was mended because the caller asked for it."""

    problem: str
    symbol: str
    cells: int
    first: np.datetime64


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """Bars of A symbols aligned to one calendar of T bars. Checked where they are read.

    Prices are as traded. `adj_close`, where given, is the close adjusted for splits and
    dividends; `adjusted` scales the other prices by it, and returns are always made from those.
    """

    symbols: tuple[str, ...]
    timestamps: NDArray[np.datetime64]  # [T]  datetime64[ns], UTC, strictly increasing
    close: FloatArray  # [T, A]  > 0, or NaN where the symbol is not listed or did not trade
    open: FloatArray | None = None  # [T, A]
    high: FloatArray | None = None  # [T, A]
    low: FloatArray | None = None  # [T, A]
    volume: FloatArray | None = None  # [T, A]  units traded
    adj_close: FloatArray | None = None  # [T, A]
    repairs: tuple[Repair, ...] = ()
    doubts: tuple[str, ...] = ()
    """What looks wrong and was left as it is, in sentences: splits left in the prices, an hour
    that came twice."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def adjusted(self, field: FieldName) -> FloatArray | None:
        """Prices [T, A] of one field, scaled for splits and dividends; None if not in the data."""
        prices: FloatArray | None = getattr(self, field)
        if prices is None or self.adj_close is None:
            return prices
        return prices * (self.adj_close / self.close)

    @property
    def dollar_volume(self) -> FloatArray | None:
        """Traded value [T, A] in account currency, close times volume; None without volume."""
        return None if self.volume is None else self.close * self.volume

    @property
    def years_per_bar(self) -> float:
        """Calendar years from a bar to the next, on average."""
        span = years_between(self.timestamps[[0, -1]])
        return float(span[0]) / (len(self) - 1)

    def table(self) -> FloatArray:
        """Adjusted prices, volume and traded value [T, A, 6], in the order of `BAR_FIELDS`.

        NaN where a value is missing, or a whole field is not in the data.
        """
        missing = np.full_like(self.close, np.nan)
        columns = (*map(self.adjusted, PRICES), self.volume, self.dollar_volume)
        return np.stack([missing if column is None else column for column in columns], axis=-1)

    def take(self, rows: slice, columns: list[int] | None = None) -> Bars:
        """Keep these bars and, if given, these symbols, in the order given."""
        kept = list(range(len(self.symbols))) if columns is None else columns
        arrays: dict[str, Any] = {
            name: None if (array := getattr(self, name)) is None else array[rows][:, kept]
            for name in (*PRICES, "volume", "adj_close")
        }
        return replace(
            self,
            symbols=tuple(self.symbols[column] for column in kept),
            timestamps=self.timestamps[rows],
            **arrays,
        )
