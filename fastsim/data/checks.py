"""Checks on raw bars: every problem is one line of error, or mended on request and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.config import configuration, require_choice
from fastsim.data.bars import PRICES as BAR_PRICES
from fastsim.data.bars import Bars, FloatArray, Repair
from fastsim.data.dates import show, show_day
from fastsim.errors import DataError

BoolArray = NDArray[np.bool_]

PRICES = (*BAR_PRICES, "adj_close")
FIELDS = (*PRICES, "volume")

MONTHS_OF_CHANGE = (3, 4, 9, 10, 11)
"""When clocks are put back: March to April in the south, September to November in the north."""

ROUNDING = 1e-6
"""How far, relative to the price, an open or close may lie outside [low, high]: float32 noise."""


@configuration
class CheckConfig:
    """What to do with each kind of problem in raw bars.

    "error" raises a `DataError` that names the first culprit. Every other choice mends, and the
    mended cells are counted in `Bars.repairs` under the name of the field below. "halt" makes all
    prices of the cell NaN: not tradable at that bar.
    """

    duplicates: Literal["error", "keep_last"] = "error"
    """Several rows for one symbol and timestamp."""
    unsorted: Literal["error", "sort"] = "error"
    """A symbol's rows go back in time."""
    gaps: Literal["error", "halt"] = "error"
    """A missing price between the first and the last bar of a symbol."""
    prices: Literal["error", "halt"] = "error"
    """A price that is not finite and > 0, high below low, open or close outside [low, high]."""
    zero_volume: Literal["error", "halt", "allow", "drop"] = "error"
    """A price without volume; "allow" keeps zeros and reads a missing volume as zero, and "drop"
    leaves out the volume of all symbols, so that trades have no limits of participation and no
    market impact. "halt" does the same where no symbol has any volume at all."""
    listings: Literal["mask", "error", "trim"] = "mask"
    """A symbol that starts late or ends early: NaN outside, or cut all to their common span."""

    def __post_init__(self) -> None:
        for choice in fields(self):
            require_choice(self, choice.name)

    @classmethod
    def repairing(cls) -> CheckConfig:
        """Mend everything that can be mended without inventing a price."""
        return cls(
            duplicates="keep_last", unsorted="sort", gaps="halt", prices="halt", zero_volume="halt"
        )


class RawBars(NamedTuple):
    """Bars as a source lists them: R rows in any order, nothing checked yet."""

    symbols: tuple[str, ...]
    columns: NDArray[np.intp]  # [R]  index into symbols
    timestamps: NDArray[np.datetime64]  # [R]  datetime64[ns], UTC
    fields: Mapping[str, FloatArray]  # [R] each, names from FIELDS; NaN is missing
    halted: BoolArray | None = None  # [R]  rows that the source itself declares not tradable

    def take(self, rows: BoolArray | NDArray[np.intp]) -> RawBars:
        """Keep these rows."""
        return self._replace(
            columns=self.columns[rows],
            timestamps=self.timestamps[rows],
            fields={name: values[rows] for name, values in self.fields.items()},
            halted=None if self.halted is None else self.halted[rows],
        )


@dataclass
class _Table:
    """Rows aligned to one calendar, being mended in place."""

    symbols: tuple[str, ...]
    timestamps: NDArray[np.datetime64]  # [T]
    fields: dict[str, FloatArray]  # [T, A] each
    halted: BoolArray  # [T, A]
    repairs: list[Repair] = field(default_factory=list)

    @property
    def prices(self) -> dict[str, FloatArray]:
        return {name: self.fields[name] for name in PRICES if name in self.fields}

    def missing(self) -> NDArray[np.int64]:
        """Count the price fields that are NaN [T, A]."""
        count = np.zeros(self.halted.shape, dtype=np.int64)
        for prices in self.prices.values():
            count += np.isnan(prices)
        return count


def check(raw: RawBars, config: CheckConfig | None = None) -> Bars:
    """Align raw rows to one calendar and check them.

    The calendar holds every timestamp at which some symbol has a row.

    Parameters
    ----------
    raw
        R rows, one per symbol and timestamp; `fields` must hold "close".
    config
        What to do with each kind of problem; by default every one but listings is an error.

    Returns
    -------
    Bars
        [T, A] arrays. A price is finite and > 0, or NaN where the symbol is not listed or halted.
        A volume is finite and >= 0 wherever there is a price.

    Raises
    ------
    DataError
        One line naming symbol and date, and the option that would mend it, if any would.
    """
    config = config or CheckConfig()
    _check_frame(raw)
    repairs: list[Repair] = []
    again = hours_that_come_twice(raw)
    raw = _in_order(raw, config, repairs)
    raw = _without_duplicates(raw, config, repairs)
    table = _align(raw, repairs)
    _settle_listings(table, config)
    _settle_gaps(table, config)
    _settle_prices(table, config)
    _settle_volume(table, config)
    _check_what_is_left(table)
    fields_of: Mapping[str, Any] = table.fields
    return Bars(
        symbols=table.symbols,
        timestamps=table.timestamps,
        repairs=tuple(table.repairs),
        doubts=tuple(f"{hour}: the last bar of each time was kept" for hour in again),
        **fields_of,
    )


def _check_frame(raw: RawBars) -> None:
    if not raw.symbols:
        raise DataError("no symbols: bars need at least one")
    seen: set[str] = set()
    for symbol in raw.symbols:
        if symbol in seen:
            raise DataError(f"symbol {symbol!r} appears twice: rename or remove one")
        seen.add(symbol)
    if "close" not in raw.fields:
        raise DataError("no close prices: bars need at least those")
    if np.isnat(raw.timestamps).any():
        row = int(np.isnat(raw.timestamps).argmax())
        raise DataError(f"{raw.symbols[raw.columns[row]]}: row {row + 1} has no date")


def _in_order(raw: RawBars, config: CheckConfig, repairs: list[Repair]) -> RawBars:
    """Rows by symbol, then time, in source order among equals."""
    by_symbol = raw.take(np.argsort(raw.columns, kind="stable"))
    columns, stamps = by_symbol.columns, by_symbol.timestamps
    back = np.flatnonzero((columns[1:] == columns[:-1]) & (stamps[1:] < stamps[:-1])) + 1
    if not back.size:
        return by_symbol
    if config.unsorted == "error":
        row = int(back[0])
        what = f"this row comes after {show(stamps[row - 1])}"
        what += _clocks_put_back(raw)
        _refuse("unsorted", raw.symbols[columns[row]], stamps[row], what, back.size, "sort")
    repairs += _count("unsorted", raw.symbols, columns[back], stamps[back])
    return by_symbol.take(np.lexsort((stamps, columns)))


def _without_duplicates(raw: RawBars, config: CheckConfig, repairs: list[Repair]) -> RawBars:
    columns, stamps = raw.columns, raw.timestamps
    again = np.zeros(len(columns), dtype=bool)
    again[:-1] = (columns[1:] == columns[:-1]) & (stamps[1:] == stamps[:-1])
    if not again.any():
        return raw
    if config.duplicates == "error":
        row = int(again.argmax())
        what = f"several rows for one symbol and date{_clocks_put_back(raw)}"
        symbol = raw.symbols[columns[row]]
        _refuse("duplicates", symbol, stamps[row], what, int(again.sum()), "keep_last")
    repairs += _count("duplicates", raw.symbols, columns[again], stamps[again])
    return raw.take(~again)


def hours_that_come_twice(raw: RawBars) -> tuple[str, ...]:
    """A sentence for each hour of a local clock whose bars a symbol has twice.

    That happens where stamps have no offset and clocks are put back: on a Sunday of spring or
    autumn, from one of the first hours of the day. Whatever else stands twice is no such hour.
    """
    order = np.lexsort((raw.timestamps, raw.columns))
    columns, stamps = raw.columns[order], raw.timestamps[order]
    again = np.flatnonzero((columns[1:] == columns[:-1]) & (stamps[1:] == stamps[:-1]))
    columns, stamps = columns[again], stamps[again]
    days = stamps.astype("datetime64[D]")
    sunday = (days.astype(np.int64) + 4) % 7 == 0
    change = np.isin(days.astype("datetime64[M]").astype(np.int64) % 12 + 1, MONTHS_OF_CHANGE)
    early = (stamps - days) < np.timedelta64(4, "h")
    said = {}
    for column, day in {(c, d) for c, d in zip(columns.tolist(), days, strict=True)}:
        here = (columns == column) & (days == day)
        first, last = stamps[here].min(), stamps[here].max()
        if (sunday & change & early)[here].all() and last - first < np.timedelta64(1, "h"):
            said[column, day] = (
                f"{raw.symbols[column]} on {show_day(day)}: the hour from "
                f"{np.datetime_as_string(first, unit='m')[-5:]} comes twice ({here.sum()} bars), "
                "as where clocks are put back: give stamps in UTC, or with their offset"
            )
    return tuple(said[key] for key in sorted(said))


def _clocks_put_back(raw: RawBars) -> str:
    """What to add to an error where the first such hour is the cause."""
    hours = hours_that_come_twice(raw)
    return f"; {hours[0].partition(': ')[2]}" if hours else ""


def _align(raw: RawBars, repairs: list[Repair]) -> _Table:
    calendar = np.unique(raw.timestamps)
    cells = np.searchsorted(calendar, raw.timestamps), raw.columns
    shape = len(calendar), len(raw.symbols)
    dense = {}
    for name in FIELDS:
        if name in raw.fields:
            dense[name] = np.full(shape, np.nan)
            dense[name][cells] = raw.fields[name]
    halted = np.zeros(shape, dtype=bool)
    if raw.halted is not None:
        halted[cells] = raw.halted
    table = _Table(raw.symbols, calendar, dense, halted, repairs)
    for prices in table.prices.values():
        prices[halted] = np.nan
    return table


def _settle_listings(table: _Table, config: CheckConfig) -> None:
    first, last = _spans(table)
    rows = len(table.timestamps)
    outside = ~_between(rows, first, last)
    if not outside.any():
        return
    if config.listings == "error":
        late = int((first > 0).argmax()) if (first > 0).any() else int((last < rows - 1).argmax())
        which, row = ("first", first[late]) if first[late] > 0 else ("last", last[late])
        what = f"is its {which} bar, but the data run {_span_text(table.timestamps)}"
        symbol, stamp = table.symbols[late], table.timestamps[row]
        _refuse("listings", symbol, stamp, what, int((outside.any(axis=0)).sum()), "mask")
    if config.listings == "mask":
        row, column = np.nonzero(outside)
        table.repairs += _count("listings", table.symbols, column, table.timestamps[row])
        return
    _trim(table, int(first.max()), int(last.min()), first, last)


def _trim(
    table: _Table, start: int, stop: int, first: NDArray[np.intp], last: NDArray[np.intp]
) -> None:
    if stop - start < 1:
        late, early = table.symbols[first.argmax()], table.symbols[last.argmin()]
        raise DataError(
            f"{late} starts on {show(table.timestamps[start])} and {early} ends on "
            f"{show(table.timestamps[stop])}: no common span to trim to; leave one out, or set "
            "listings='mask' in CheckConfig"
        )
    lost = _between(len(table.timestamps), first, last)
    lost[start : stop + 1] = False
    row, column = np.nonzero(lost)
    table.repairs += _count("listings", table.symbols, column, table.timestamps[row])
    kept = slice(start, stop + 1)
    table.timestamps = table.timestamps[kept]
    table.halted = table.halted[kept]
    table.fields = {name: values[kept] for name, values in table.fields.items()}


def _settle_gaps(table: _Table, config: CheckConfig) -> None:
    first, last = _spans(table)
    missing = table.missing()
    gaps = _between(len(table.timestamps), first, last) & (missing > 0) & ~table.halted

    def what(row: int, column: int) -> str:
        names = [name for name, prices in table.prices.items() if np.isnan(prices[row, column])]
        return "no price" if len(names) == len(table.prices) else f"no {' and no '.join(names)}"

    _settle(table, "gaps", gaps, config.gaps, what)


def _settle_prices(table: _Table, config: CheckConfig) -> None:
    prices = table.prices
    bad = np.zeros(table.halted.shape, dtype=bool)
    for values in prices.values():
        bad |= ~np.isnan(values) & ~(np.isfinite(values) & (values > 0))
    low, high = prices.get("low"), prices.get("high")
    for name in ("open", "close", "high"):
        if low is not None and name in prices:
            bad |= prices[name] < low * (1 - ROUNDING)
    for name in ("open", "close"):
        if high is not None and name in prices:
            bad |= prices[name] > high * (1 + ROUNDING)

    def what(row: int, column: int) -> str:
        at = {name: float(values[row, column]) for name, values in prices.items()}
        for name, value in at.items():
            if not (np.isfinite(value) and value > 0):
                return f"{name} is {value!r}, not a finite number > 0"
        bars = ", ".join(f"{name} {at[name]!r}" for name in PRICES[:4] if name in at)
        return f"high, low, open and close contradict each other ({bars})"

    _settle(table, "prices", bad, config.prices, what)


def _settle_volume(table: _Table, config: CheckConfig) -> None:
    if config.zero_volume == "drop":
        table.fields.pop("volume", None)
    volume = table.fields.get("volume")
    if volume is None or _without_any_volume(table, config):
        return
    wrong = (volume < 0) | np.isinf(volume)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{table.symbols[column]} on {show(table.timestamps[row])}: volume is "
            f"{float(volume[row, column])!r}, not a finite number >= 0: correct it in the source, "
            "no option mends this"
        )
    priced = ~np.isnan(table.fields["close"])
    if config.zero_volume == "allow":
        filled = priced & np.isnan(volume)
        volume[filled] = 0.0
        row, column = np.nonzero(filled)
        table.repairs += _count("zero_volume", table.symbols, column, table.timestamps[row])
        return

    def what(row: int, column: int) -> str:
        return "no volume" if np.isnan(volume[row, column]) else "volume is 0"

    _settle(table, "zero_volume", priced & ~(volume > 0), config.zero_volume, what)


def _without_any_volume(table: _Table, config: CheckConfig) -> bool:
    """Whether no symbol has volume and it was left out on request; an error for a single symbol."""
    volume, priced = table.fields["volume"], ~np.isnan(table.fields["close"])
    without = ~(priced & (np.nan_to_num(volume) != 0)).any(axis=0) & priced.any(axis=0)  # [A]
    if config.zero_volume == "allow" or not without.any():
        return False
    if config.zero_volume == "halt" and without.all():
        row, column = np.nonzero(priced)
        table.repairs += _count("zero_volume", table.symbols, column, table.timestamps[row])
        del table.fields["volume"]
        return True
    symbol = table.symbols[int(without.argmax())]
    others = "" if without.all() else f", or leave {symbol} out"
    raise DataError(
        f"{symbol} has no volume at any of its {priced.sum(axis=0)[without.argmax()]} bars: leave "
        "out volume, and with it limits of participation and market impact, by "
        f"zero_volume='drop' in CheckConfig (ignore_volume=True in DataConfig){others}"
    )


def _check_what_is_left(table: _Table) -> None:
    if len(table.timestamps) < 2:
        raise DataError(
            f"{len(table.timestamps)} bars of {', '.join(table.symbols[:3])}: at least 2 are "
            "needed to make one return"
        )
    _spans(table)


def _settle(
    table: _Table, option: str, bad: BoolArray, choice: str, what: Callable[[int, int], str]
) -> None:
    """Raise for the first bad cell, or halt them all and count."""
    if not bad.any():
        return
    rows, columns = np.nonzero(bad)
    if choice == "error":
        row, column = int(rows[0]), int(columns[0])
        symbol, stamp = table.symbols[column], table.timestamps[row]
        _refuse(option, symbol, stamp, what(row, column), rows.size, "halt")
    for prices in table.prices.values():
        prices[bad] = np.nan
    table.repairs += _count(option, table.symbols, columns, table.timestamps[rows])


def _refuse(
    option: str, symbol: str, stamp: np.datetime64, what: str, cells: int, mend: str
) -> None:
    more = f" ({cells} such cases)" if cells > 1 else ""
    everywhere = "" if option == "listings" else " (repair=True in DataConfig)"
    raise DataError(
        f"{symbol} on {show(stamp)}: {what}{more}: correct the source, or set "
        f"{option}={mend!r} in CheckConfig{everywhere}"
    )


def _count(
    problem: str,
    symbols: tuple[str, ...],
    columns: NDArray[np.intp],
    stamps: NDArray[np.datetime64],
) -> list[Repair]:
    """One record per symbol that had this problem."""
    cells = np.bincount(columns, minlength=len(symbols))
    first = np.full(len(symbols), np.iinfo(np.int64).max)
    np.minimum.at(first, columns, stamps.astype("datetime64[ns]").astype(np.int64))
    return [
        Repair(
            problem, symbols[column], int(cells[column]), np.datetime64(int(first[column]), "ns")
        )
        for column in np.flatnonzero(cells)
    ]


def _spans(table: _Table) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last row [A] at which each symbol is listed; a symbol without any is an error."""
    priced = table.missing() < len(table.prices)
    for column in np.flatnonzero(~priced.any(axis=0)):
        raise DataError(
            f"{table.symbols[column]} has no usable price {_span_text(table.timestamps)}: leave "
            "it out, or correct its prices"
        )
    listed = priced | table.halted
    return listed.argmax(axis=0), len(listed) - 1 - listed[::-1].argmax(axis=0)


def _between(rows: int, first: NDArray[np.intp], last: NDArray[np.intp]) -> BoolArray:
    row = np.arange(rows)[:, None]
    inside: BoolArray = (row >= first) & (row <= last)
    return inside


def _span_text(stamps: NDArray[np.datetime64]) -> str:
    return f"from {show(stamps[0])} to {show(stamps[-1])}" if len(stamps) else "(no bars at all)"
