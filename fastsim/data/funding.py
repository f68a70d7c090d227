"""Funding rates of perpetual futures: series from ccxt's records, JSON, CSV, Parquet or frames.

A rate is a fraction of the value of a position: at its moment longs pay it to shorts, and are paid
where it is negative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.data import parse
from fastsim.data.bars import FloatArray
from fastsim.data.columns import spelled
from fastsim.data.dates import show
from fastsim.data.tables import Source, load_table
from fastsim.errors import DataError

Stamps = NDArray[np.datetime64]
FundingSource = Source | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]]
"""What ccxt's `fetch_funding_rate_history` returned, for a symbol or by symbol; JSON of that; or a
table with the columns symbol, timestamp and fundingRate, and markPrice where it is known."""
LARGEST = 0.1
"""Of a rate: exchanges cap theirs at a few percent, and 0.01 written as percent is 1."""
AROUND = 3
"""Gaps on either side whose median is the interval there: exchanges change it now and then."""
_NAMES = {
    "symbol": ("symbol", "ticker", "instrument", "pair"),
    "timestamp": ("timestamp", "fundingtime", "time", "date", "datetime", "calctime"),
    "rate": ("fundingrate", "rate", "lastfundingrate"),
    "mark": ("markprice", "mark"),
}
"""What each column may be called, as `columns.spelled` spells it."""


class Funding(NamedTuple):
    """Payments of one symbol in the order of time."""

    stamps: Stamps  # [R]  datetime64[ns], UTC, to the minute
    rates: FloatArray  # [R]
    marks: FloatArray  # [R]  price at which positions were valued; NaN where it is not told

    @property
    def interval(self) -> np.timedelta64:
        """The most common time from one payment to the next."""
        gaps, counts = np.unique(np.diff(self.stamps), return_counts=True)
        return gaps[counts.argmax()] if len(gaps) else np.timedelta64(8, "h")


def read_funding(source: FundingSource, *, symbol: str | None = None) -> dict[str, Funding]:
    """Funding by symbol, as the source spells it.

    Parameters
    ----------
    symbol
        Whose it is where the source does not say.

    Raises
    ------
    DataError
        The source cannot be read, a column is missing, a rate is no number or no fraction, two
        rates of one moment differ, or payments are missing: a gap that is longer than the series'
        own interval, and no change of it.
    """
    frame, label = _loaded(source)
    try:
        named = _by_name(frame, symbol)
        rows = (named[name].to_numpy() for name in ("symbol", "timestamp", "rate", "mark"))
        symbols, stamps, rates, marks = rows
        found = {}
        for name in dict.fromkeys(symbols):
            own = symbols == name
            found[str(name)] = _series(str(name), stamps[own], rates[own], marks[own])
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    return found


def _loaded(source: FundingSource) -> tuple[pl.DataFrame, str]:
    """A table of the source, and what errors call it."""
    if isinstance(source, str | PathLike) and Path(source).suffix.lower() == ".json":
        try:
            return _records(json.loads(Path(source).read_text()), str(source)), str(source)
        except FileNotFoundError:
            raise DataError(f"{source}: no such file") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{source}: not readable as JSON: {error}") from None
    if isinstance(source, Mapping) or (
        isinstance(source, Sequence) and not isinstance(source, str)
    ):
        return _records(source, "funding"), "funding"
    table = load_table(source)
    return table.frame, table.label


def _records(given: Any, label: str) -> pl.DataFrame:
    """A table of ccxt's records, of one symbol or by symbol."""
    if isinstance(given, Mapping):
        given = [
            {"symbol": symbol, **record} if isinstance(record, Mapping) else record
            for symbol, records in given.items()
            for record in (records if isinstance(records, Sequence) else [records])
        ]
    rows = given if isinstance(given, list | tuple) and given else [given]
    wrong = [each for each in rows if not isinstance(each, Mapping)]
    if wrong:
        raise DataError(f"{label}: funding is a list of at least one record, got {wrong[0]!r}")
    return pl.DataFrame(
        {
            "symbol": [_text(each.get("symbol")) for each in given],
            "timestamp": [each.get("timestamp") for each in given],
            "rate": [_number(each.get("fundingRate")) for each in given],
            "mark": [_mark(each.get("info")) for each in given],
        },
        strict=False,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _mark(info: Any) -> float | None:
    """The price by which positions were valued, as Binance tells it since 2023; "" before."""
    return _number(info.get("markPrice")) if isinstance(info, Mapping) else None


def _by_name(frame: pl.DataFrame, symbol: str | None) -> pl.DataFrame:
    """The columns of a table under our names, of one type each."""
    names = {}
    for role, spellings in _NAMES.items():
        same = [name for name in frame.columns if spelled(name) in spellings]
        best = sorted(same, key=lambda name: spellings.index(spelled(name)))
        if best:
            names[role] = best[0]
    for role in ("timestamp", "rate"):
        if role not in names:
            wanted = {"timestamp": "timestamp", "rate": "fundingRate"}[role]
            raise DataError(f"there is no column {wanted}; there are {', '.join(frame.columns)}")
    if frame.is_empty():
        raise DataError("there is no payment in it")
    symbols = frame[names["symbol"]] if "symbol" in names else pl.Series("symbol", [symbol or ""])
    if "symbol" not in names:
        symbols = symbols.extend_constant(symbol or "", len(frame) - 1)
        if symbol is None:
            raise DataError("there is no column symbol, and more than one may be meant: add it")
    mark = names.get("mark")
    numbers = pl.Series("mark", parse.floats(frame[mark])) if mark else pl.Series("mark", [np.nan])
    numbers = numbers if mark else numbers.extend_constant(np.nan, len(frame) - 1)
    return pl.DataFrame(
        {
            "symbol": parse.names(symbols),
            "timestamp": parse.timestamps(frame[names["timestamp"]]),
            "rate": parse.floats(frame[names["rate"]]),
            "mark": numbers,
        }
    )


def _series(symbol: str, stamps: Stamps, rates: FloatArray, marks: FloatArray) -> Funding:
    """Payments of one symbol, sorted; the same one given twice is one."""
    odd = ~(np.abs(rates) <= LARGEST)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(
            f"the rate of {symbol} on {show(stamps[row])} is {rates[row]:g}: a rate is a fraction "
            f"of the value, at most {LARGEST:g}, and none may be missing"
        )
    stamps = _to_the_minute(stamps)
    order = np.argsort(stamps, kind="stable")
    stamps, rates, marks = stamps[order], rates[order], marks[order]
    again = np.append(False, stamps[1:] == stamps[:-1])
    if (again[1:] & (rates[1:] != rates[:-1])).any():
        row = int((again[1:] & (rates[1:] != rates[:-1])).argmax())
        raise DataError(
            f"{symbol} has two rates on {show(stamps[row])}, {rates[row]:g} and "
            f"{rates[row + 1]:g}: keep one of them"
        )
    series = Funding(stamps[~again], rates[~again], np.where(marks > 0, marks, np.nan)[~again])
    _require_whole(symbol, series)
    return series


def _to_the_minute(stamps: Stamps) -> Stamps:
    """Moments to the nearest minute: exchanges pay a few milliseconds after the hour."""
    count = (stamps.astype("datetime64[ns]").astype(np.int64) + 30 * 10**9) // (60 * 10**9)
    return (count * 60 * 10**9).astype("datetime64[ns]")


def _require_whole(symbol: str, series: Funding) -> None:
    """Raise DataError where payments are missing: a gap is longer than those around it."""
    gaps = np.diff(series.stamps)
    for row in np.flatnonzero(gaps > gaps.min()) if len(gaps) else ():
        around = np.sort(gaps[max(row - AROUND, 0) : row + AROUND + 1])
        usual = around[(len(around) - 1) // 2]
        if gaps[row] > usual:
            raise DataError(
                f"funding of {symbol} has a hole from {show(series.stamps[row])} to "
                f"{show(series.stamps[row + 1])}, where it is paid every "
                f"{usual / np.timedelta64(1, 'h'):g} hours: fetch it again from there on"
            )
