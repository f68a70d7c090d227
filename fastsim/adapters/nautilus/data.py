"""Bars of ours as bars and open ticks of NautilusTrader, in memory or in its catalogue.

A stamp of ours is the beginning of a bar, and NautilusTrader's its end. Prices are adjusted for
splits and dividends, as NautilusTrader pays none; volumes are as they are in the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import TradeId
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from fastsim.adapters.nautilus.instruments import VenueRules, bar_types, make_instruments
from fastsim.data.bars import Bars, FloatArray
from fastsim.data.calendar import TradingCalendar
from fastsim.data.dates import show
from fastsim.errors import ConfigError, DataError, one_line

OPEN_AFTER = 1
"""Nanoseconds from a stamp to its open tick, so that it comes after the end of the bar before."""
PLENTY = 1e9
"""Units that can be traded at an open, and at a close of bars without volume."""


def bar_seconds(bars: Bars) -> float:
    """The length of these bars: the usual time from one to the next."""
    return TradingCalendar.of(bars.timestamps).bar_seconds


def make_bars(
    bars: Bars, instruments: Sequence[Instrument], seconds: float
) -> tuple[list[Bar], ...]:
    """NautilusTrader's bars of each instrument, in the order of the symbols.

    Where opens are not in the data they are closes, and highs and lows the outer of both.

    Raises
    ------
    DataError
        A number is missing, a bar contradicts itself, or begins before the last one has ended.
    """
    types = bar_types(tuple(each.id for each in instruments), seconds)
    table = _table(bars, seconds)
    ends = _nanoseconds(bars.timestamps + np.timedelta64(round(1e9 * seconds), "ns"))
    return tuple(
        [
            _bar(types[column], instrument, row, end)
            for row, end in zip(table[:, column].tolist(), ends, strict=True)
        ]
        for column, instrument in enumerate(instruments)
    )


def make_opens(bars: Bars, instruments: Sequence[Instrument]) -> tuple[list[TradeTick], ...]:
    """A trade at every open, right after the bar before has ended.

    Raises
    ------
    DataError
        There are no opens, or one is missing.
    """
    opens = bars.adjusted("open")
    if opens is None:
        raise DataError('bars have no open, and fill="next_open" needs it: use fill="close"')
    _require_numbers(bars, "open", opens)
    begins = _nanoseconds(bars.timestamps + np.timedelta64(OPEN_AFTER, "ns"))
    return tuple(
        list(_ticks(instrument, opens[:, column].tolist(), begins))
        for column, instrument in enumerate(instruments)
    )


def write_catalog(
    bars: Bars, folder: Path, rules: VenueRules | None = None, *, seconds: float | None = None
) -> tuple[Instrument, ...]:
    """Write instruments, bars and open ticks into a new catalogue, whole or not at all.

    Parameters
    ----------
    folder
        Of the catalogue, for `ParquetDataCatalog`; it must not be there yet.
    rules
        What is traded, and where.
    seconds
        The length of a bar; by default the usual time from one to the next.

    Raises
    ------
    ConfigError
        The folder is there, or cannot be made.
    DataError
        Bars cannot be used (`make_bars`, `make_opens`).
    """
    rules = rules or VenueRules()
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; name a folder that is not")
    instruments = make_instruments(bars, rules)
    of_each = [*make_bars(bars, instruments, seconds or bar_seconds(bars))]
    of_each += [] if bars.open is None else make_opens(bars, instruments)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            catalog = ParquetDataCatalog(Path(unfinished) / folder.name)
            for data in (list(instruments), *of_each):
                catalog.write_data(data)
            (Path(unfinished) / folder.name).rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({one_line(error.strerror)})") from None
    return instruments


def _table(bars: Bars, seconds: float) -> FloatArray:
    """Adjusted prices and volume [T, A, 5] with nothing missing."""
    length = np.timedelta64(round(1e9 * seconds), "ns")
    early = np.flatnonzero(np.diff(bars.timestamps) < length)
    if len(early):
        before, after = bars.timestamps[early[0] :][:2]
        raise DataError(
            f"the bar of {show(after)} begins before that of {show(before)}, of {seconds:,g} "
            f"seconds, has ended: give bars of one length"
        )
    table = bars.table()[..., :5]
    opened, high, low, close, volume = np.moveaxis(table, -1, 0)
    if bars.open is None:
        opened[:] = close
    if bars.high is None:
        high[:] = np.maximum(opened, close)
    if bars.low is None:
        low[:] = np.minimum(opened, close)
    if bars.volume is None:
        volume[:] = PLENTY
    known = {"close": close, "open": opened, "high": high, "low": low, "volume": volume}
    for name, values in known.items():  # closes first, by which the others are adjusted
        _require_numbers(bars, name, values)
    return table


def _require_numbers(bars: Bars, name: str, values: FloatArray) -> None:
    """Raise DataError where one of the values [T, A] is missing."""
    known = np.isfinite(values)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise DataError(
            f"{bars.symbols[column]} has no {name} on {show(bars.timestamps[row])}: leave these "
            f"bars out, or mend them"
        )


def _bar(kind: BarType, instrument: Instrument, row: Sequence[float], end: int) -> Bar:
    *prices, volume = row
    decimals = instrument.price_precision
    try:
        size = Quantity(volume, instrument.size_precision)
        return Bar(kind, *(Price(price, decimals) for price in prices), size, end, end)
    except ValueError as error:
        stamp = np.datetime64(end, "ns")
        raise DataError(
            f"the bar of {instrument.id.symbol} that ends at {show(stamp)} is none: "
            f"{one_line(error)}"
        ) from None


def _ticks(
    instrument: Instrument, opens: Sequence[float], begins: Sequence[int]
) -> Iterator[TradeTick]:
    size = Quantity(PLENTY, instrument.size_precision)
    for price, begin in zip(opens, begins, strict=True):
        yield TradeTick(
            instrument.id,
            Price(price, instrument.price_precision),
            size,
            AggressorSide.NO_AGGRESSOR,
            TradeId(str(begin)),
            begin,
            begin,
        )


def _nanoseconds(stamps: np.ndarray) -> list[int]:
    numbers: list[int] = stamps.astype("datetime64[ns]").astype(np.int64).tolist()
    return numbers
