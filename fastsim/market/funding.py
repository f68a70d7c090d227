"""What a position in a perpetual future pays from its fill to the next close: a column of the tape.

Exchanges take funding from who holds a position at certain moments: the rate of each times the
value that the position has then, from longs if it is positive. Bars begin at their stamps, so a
payment belongs to the bar in which it lies, and one at the end of a bar to that bar: who buys at
the open after it has not held then. Over the value at the fill, with p the price of each moment,

    funding = sum over payments of rate * p / price of the fill

where p is the mark price of the record, if it tells one; else the close, for a payment at the end
of the bar, and the open for those before it, as bars do not say what came between.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import Bars, FloatArray
from fastsim.data.contracts import find_symbol
from fastsim.data.dates import show
from fastsim.data.funding import Funding, Stamps, read_funding
from fastsim.errors import DataError


def funding_table(bars: Bars, source: object, *, first: int, fill: str) -> FloatArray:
    """Funding [T, A] over the value of a long position at the fill that follows bar t.

    Parameters
    ----------
    source
        What `read_funding` takes.
    first
        The first bar at which anybody decides; funding before it may be missing.
    fill
        "next_open" or "close", the price that it is over.

    Raises
    ------
    DataError
        As `read_funding`; or the series of a symbol begins too late, or ends too early.
    """
    lone = bars.symbols[0] if len(bars.symbols) == 1 else None
    series = read_funding(source, symbol=lone)
    return table_of(bars, series, first=first, fill=fill)


def table_of(bars: Bars, series: Mapping[str, Funding], *, first: int, fill: str) -> FloatArray:
    """The same of series by symbol."""
    ends = _ends(bars.timestamps)  # [T]  of each bar
    table = np.zeros_like(bars.close)
    for column, symbol in enumerate(bars.symbols):
        own = find_symbol(series, symbol, "funding")
        listed = np.flatnonzero(np.isfinite(bars.close[:, column]))
        begin = max(first, int(listed[0]) if len(listed) else first)
        _require_cover(symbol, own, ends[begin], ends[int(listed[-1]) if len(listed) else -1])
        rows = np.searchsorted(ends, own.stamps, side="left")  # the bar that a payment lies in
        paid = (rows > 0) & (rows < len(bars))
        rows, own = rows[paid], Funding(own.stamps[paid], own.rates[paid], own.marks[paid])
        held = own.rates * _growth(bars, column, rows, own, ends, fill)
        np.add.at(table[:, column], rows - 1, held)
    return table


def _ends(stamps: Stamps) -> Stamps:
    """When each bar is over: at the stamp of the next; the last is as long as most."""
    gaps = np.diff(stamps)
    lengths, counts = np.unique(gaps, return_counts=True)
    return np.append(stamps[1:], stamps[-1] + lengths[counts.argmax()])


def _growth(
    bars: Bars, column: int, rows: NDArray[np.intp], own: Funding, ends: Stamps, fill: str
) -> FloatArray:
    """Price at each payment over that of the fill before the bar it lies in."""
    close = bars.close[:, column]
    opens = close if bars.open is None else bars.open[:, column]
    before = close[rows - 1]
    begun = np.where(np.isfinite(opens[rows]), opens[rows], before)
    filled = begun if fill == "next_open" else before
    known = np.where(own.stamps == ends[rows], close[rows], begun)
    price = np.where(np.isfinite(own.marks), own.marks, known)
    ratio = price / filled
    return np.where(np.isfinite(ratio), ratio, 1.0)  # a halted bar has no price to compare with


def _require_cover(symbol: str, own: Funding, start: np.datetime64, end: np.datetime64) -> None:
    """Raise DataError where the series leaves out bars that are traded."""
    first, last = own.stamps[0], own.stamps[-1]
    if first > start + own.interval:
        raise DataError(
            f"funding of {symbol} begins on {show(first)}, and its bars are traded from "
            f"{show(start)} on: fetch what is before, or use later bars"
        )
    if last + own.interval <= end:
        raise DataError(
            f"funding of {symbol} ends on {show(last)}, and its bars on {show(end)}: fetch what is "
            f"missing, or use earlier bars"
        )
