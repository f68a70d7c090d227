"""Bars from files and frames, in long or wide form, and back to a file."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fastsim.config import write_whole
from fastsim.data import columns, parse
from fastsim.data.bars import Bars
from fastsim.data.checks import FIELDS, CheckConfig, RawBars, check
from fastsim.data.columns import is_nameless, is_no_symbol, listed, role_of
from fastsim.data.dates import DAY, check_range, show
from fastsim.data.doubts import jumps_like_splits, tell
from fastsim.data.tables import Source, Table, load_table
from fastsim.errors import DataError

logger = logging.getLogger(__name__)

MAY_BE_CLOSE = (
    *("last", "lastprice", "settle", "settlement", "settleprice", "bidclose", "midclose"),
    *("adjclose", "adjustedclose", "closeusd", "prc", "nav"),
)
"""Words that often stand for a close, spelled as `columns.spelled` does."""


class _Layout(NamedTuple):
    """Which column of a table is what."""

    roles: dict[str, str]  # role -> column name
    others: list[str]  # the symbols of a wide table
    stamps: list[str]  # the column of dates, and that of times of day where it stands apart


def read_bars(
    source: Source,
    *,
    checks: CheckConfig | None = None,
    symbols: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Bars:
    """Read bars from a CSV or Parquet file, or from a polars or pandas frame: `docs/data.md`.

    Long form has a row per date and symbol: date, symbol, close and any of open, high, low,
    volume, adj_close, in the usual spellings ("Ticker", "Adj Close"...); without a symbol column,
    `symbols` must give the one name. Rows with `halted` true are not tradable and need no price.
    Wide form has a date column and one column of closes per symbol. Columns may have two levels,
    as yfinance gives them, or names that join field and symbol; a pandas frame may hold dates and
    symbols in its index. What looks wrong but is no error is logged, and is in `Bars.doubts`.

    Parameters
    ----------
    source
        A path (.csv, .csv.gz, .parquet) or a frame.
    checks
        What to do with problems; by default all but late listings are errors.
    symbols
        Those to keep, in this order; by default all, in the order of the source. Columns of a
        wide table that are named here are symbols whatever their names mean otherwise.
    start, end
        ISO dates, both inclusive.

    Returns
    -------
    Bars
        [T, A] arrays in UTC. Stamps with an offset or time zone are converted, but for those of
        whole days, which stay on their day (`parse.one_clock`); naive ones are taken as UTC.

    Raises
    ------
    DataError
        One line naming the source and the culprit: column and row, or symbol and date.
    """
    table = load_table(source)
    bars = bars_from_table(table, checks=checks, symbols=symbols, start=start, end=end)
    tell(bars, table.label)
    return bars


def bars_from_table(
    table: Table,
    *,
    checks: CheckConfig | None = None,
    symbols: Sequence[str] | None = None,
    num_assets: int | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Bars:
    """Interpret a table that is already in memory; the rest as in `read_bars`.

    `num_assets`, where no symbols are given, keeps the first so many of the table; DataError where
    it holds fewer.
    """
    if isinstance(symbols, str):
        symbols = (symbols,)
    try:
        raw = _select_dates(_raw_bars(table.frame, symbols), start, end)
        if num_assets is not None:
            symbols = _first_symbols(raw, num_assets)
        bars = check(_select_symbols(raw, symbols), checks)
    except DataError as error:
        raise DataError(f"{table.label}: {error}") from None
    return replace(bars, doubts=(*bars.doubts, *jumps_like_splits(bars)))


def symbols_of_table(table: Table) -> tuple[str, ...]:
    """The symbols of a table, in its order, whatever its prices are like; none if it names none.

    Raises
    ------
    DataError
        It is no table of bars.
    """
    try:
        columns.require_unique(table.frame.columns)
        roles = _layout(columns.tidy(table.frame)).roles
        if "close" in roles and "symbol" not in roles:
            return ()
        return _raw_bars(table.frame, None).symbols
    except DataError as error:
        raise DataError(f"{table.label}: {error}") from None


def as_table(source: Source | Bars, label: str) -> Table:
    """A table of what someone's function gave, bars or what `read_bars` reads, under this name.

    Raises
    ------
    DataError
        It is neither, or bars hold a symbol without any price or an array of another shape.
    """
    try:
        if isinstance(source, Bars):
            _check_shapes(source)
        frame = _long_frame(source) if isinstance(source, Bars) else load_table(source).frame
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    return Table(frame, label)


def write_bars(bars: Bars, path: str | Path) -> None:
    """Write bars as a long Parquet file that `read_bars` reads back equal, in one piece.

    Cells without a price inside a symbol's listing are marked `halted`. `repairs` are not written:
    what was mended is mended.

    Raises
    ------
    DataError
        The path does not end in .parquet or cannot be written, or a symbol has no price at all.
    """
    path = Path(path)
    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: bars are written as .parquet")
    buffer = io.BytesIO()
    _long_frame(bars).write_parquet(buffer, compression="zstd")
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _check_shapes(bars: Bars) -> None:
    shape = (len(bars.timestamps), len(bars.symbols))
    for name in FIELDS:
        array = getattr(bars, name)
        if array is not None and np.shape(array) != shape:
            raise DataError(
                f"{name} of bars must be [bars, symbols] = {shape}, got {np.shape(array)}"
            )


def _long_frame(bars: Bars) -> pl.DataFrame:
    """Rows by symbol, then date; outside a listing only those that carry something."""
    rows, assets = bars.close.shape
    priced = ~np.isnan(bars.close)
    if not priced.any(axis=0).all():
        symbol = bars.symbols[int((~priced.any(axis=0)).argmax())]
        raise DataError(f"{symbol} has no price at all: leave it out")
    listed = np.logical_or.accumulate(priced) & np.logical_or.accumulate(priced[::-1])[::-1]
    kept = listed.copy()
    arrays = {name: getattr(bars, name) for name in FIELDS if getattr(bars, name) is not None}
    for values in arrays.values():
        kept |= ~np.isnan(values)
    kept[:, 0] |= ~kept.any(axis=1)
    by_symbol = kept.T.ravel()
    columns = {
        "timestamp": pl.Series(
            np.tile(bars.timestamps.astype("datetime64[ns]"), assets)[by_symbol]
        ).dt.replace_time_zone("UTC"),
        "symbol": pl.Series(np.repeat(np.array(bars.symbols, dtype=object), rows)[by_symbol]),
        **{name: pl.Series(array.T.ravel()[by_symbol]) for name, array in arrays.items()},
    }
    halted = (listed & ~priced).T.ravel()[by_symbol]
    if halted.any():
        columns["halted"] = pl.Series(halted)
    return pl.DataFrame(columns).with_columns(pl.col(list(arrays)).fill_nan(None))


def _raw_bars(frame: pl.DataFrame, symbols: Sequence[str] | None) -> RawBars:
    if not frame.columns:
        raise DataError("no columns")
    columns.require_unique(frame.columns)
    if symbols and _are_columns(symbols, frame.columns):
        return _from_wide(*_named_columns(frame, symbols))
    frame = columns.tidy(frame)
    layout = _layout(frame)
    if frame.is_empty():
        raise DataError("no rows: bars need at least 2")
    frame = _with_stamps(frame, layout)
    if "symbol" in layout.roles:
        return _from_long(frame, layout.roles)
    if "close" not in layout.roles:
        return _from_wide(frame, layout)
    if symbols is None or len(symbols) != 1:
        raise DataError(
            f"column {layout.roles['close']!r} but no symbol column: add one, or give the one "
            f"name as symbols='AAPL' in DataConfig{_if_symbols(layout)}"
        )
    named = frame.with_columns(pl.lit(symbols[0]).alias("symbol"))
    return _from_long(named, {**layout.roles, "symbol": "symbol"})


def _if_symbols(layout: _Layout) -> str:
    """What to do where a header that means a field is a ticker after all."""
    if not layout.others:
        return ""
    close = layout.roles["close"]
    return f"; or, if {close!r} is a symbol, name all that you want as DataConfig.symbols"


def _are_columns(symbols: Sequence[str], names: Sequence[str]) -> bool:
    """Whether symbols that look like fields are columns of a wide table, since they are named."""
    names = list(map(columns.clean_name, names))
    roles = {role_of(name) for name in names}
    if "symbol" in roles or len(set(symbols)) < len(symbols) or not set(symbols) <= set(names):
        return False
    if "close" in roles and len(symbols) == 1:
        return False  # the name of the one symbol that a table of fields is about
    return any(role_of(name) or is_no_symbol(name) for name in symbols)


def _named_columns(frame: pl.DataFrame, symbols: Sequence[str]) -> tuple[pl.DataFrame, _Layout]:
    """A wide table whose symbols were named, so that they mean no fields whatever they are."""
    frame = frame.rename({name: columns.clean_name(name) for name in frame.columns})
    rest = columns.tidy(frame.drop(symbols))
    dates = [name for name in rest.columns if role_of(name) == "timestamp"]
    if not dates:
        raise DataError(f"no date column among {listed(frame.columns)}: name one 'date'")
    stamps, _ = _stamp_columns(rest, dates, long=False)
    layout = _Layout({}, list(symbols), stamps)
    return _with_stamps(frame.select(symbols).hstack(rest.select(stamps)), layout), layout


def _layout(frame: pl.DataFrame) -> _Layout:
    roles: dict[str, str] = {}
    others, stamps = [], []
    for name in frame.columns:
        role = role_of(name)
        if role is None:
            others.append(name)
        elif role == "timestamp":
            stamps.append(name)
        elif role in roles:
            raise DataError(f"columns {roles[role]!r} and {name!r} both mean {role}: remove one")
        else:
            roles[role] = name
    if not stamps:
        raise DataError(f"no date column among {listed(frame.columns)}: name one 'date'")
    long = "symbol" in roles or "close" in roles
    if "symbol" in roles and "close" not in roles:
        raise DataError(_without_close(frame.columns))
    if long and others:
        logger.warning("columns that bars have no use for: %s", listed(others))
    stamps, prices = _stamp_columns(frame, stamps, long=long)
    if not long:
        others = _wide_symbols(frame, roles, [*others, *prices], stamps[0])
    return _Layout(roles, others, stamps)


def _stamp_columns(
    frame: pl.DataFrame, names: list[str], *, long: bool
) -> tuple[list[str], list[str]]:
    """The date column, or those of dates and times of day, and symbols such as DAY and TIME."""
    if len(names) == 1:
        return names, []
    clocks = [name for name in names if parse.is_clock(frame[name])]
    dates = [name for name in names if name not in clocks and _holds_dates(frame[name])]
    rest = [name for name in names if name not in clocks and name not in dates]
    if not clocks:
        clocks = [name for name in (*dates, *rest) if _is_digital_clock(frame, name, names, long)]
        dates, rest = ([n for n in part if n not in clocks] for part in (dates, rest))
    if len(dates) == 1 and len(clocks) < 2 and not (long and rest):
        return [*dates, *clocks], rest
    one, two = [*dates, *clocks, *rest][:2]
    raise DataError(f"columns {one!r} and {two!r} both mean timestamp: remove one")


def _is_digital_clock(frame: pl.DataFrame, name: str, names: list[str], long: bool) -> bool:
    """Whether a column called time holds digits such as 093000, and no prices of a symbol TIME."""
    others = [frame[other] for other in names if other != name]
    repeated = any(other.n_unique() < len(other) for other in others)
    named = columns.spelled(name) == "time"
    return named and (long or repeated) and parse.is_digital_clock(frame[name])


def _holds_dates(column: pl.Series) -> bool:
    try:
        return len(parse.timestamps(column.head(50))) > 0
    except DataError:
        return False


def _with_stamps(frame: pl.DataFrame, layout: _Layout) -> pl.DataFrame:
    """Dates and times of day, where they stand apart, in the one column of stamps."""
    layout.roles["timestamp"] = layout.stamps[0]
    if len(layout.stamps) == 1:
        return frame
    date, clock = layout.stamps
    return frame.with_columns(parse.joined(frame[date], frame[clock]).alias(date))


def _wide_symbols(
    frame: pl.DataFrame, roles: dict[str, str], others: list[str], date: str
) -> list[str]:
    """Tickers such as OPEN and LOW are symbols in a wide table; adj_close and volume are not."""
    named = "; if it is a symbol, name all that you want as DataConfig.symbols"
    for role in ("adj_close", "volume"):
        if role in roles and any(map(is_no_symbol, others)):
            raise DataError(_without_close(frame.columns))
        if role in roles:
            raise DataError(
                f"column {roles[role]!r} but no close column: a wide table holds closes only{named}"
            )
    fields = [roles.pop(role) for role in ("open", "high", "low", "halted") if role in roles]
    symbols = [name for name in frame.columns if name in others or name in fields]
    if not symbols:
        raise DataError(f"no price columns among {listed(frame.columns)}")
    nameless = [name for name in others if is_nameless(name)]
    if nameless:
        raise DataError(f"column {nameless[0]!r} has no name: name it, or remove it")
    if not _all_tickers(frame, fields, others, date):
        raise DataError(
            f"{_without_close(frame.columns)}{named.replace('it is a symbol', 'they are symbols')}"
        )
    return symbols


def _all_tickers(frame: pl.DataFrame, fields: list[str], others: list[str], date: str) -> bool:
    """Whether columns without a close among them are symbols, and none is a field of bars.

    Words of fields are tickers in capitals only, beside a date that is not in capitals, too.
    """
    words = [name for name in others if is_no_symbol(name)]
    if not all(name.isupper() for name in (*words, *fields)):
        return False
    if date.isupper() and (words == others or (fields and words)):
        return False
    if fields and any(columns.spelled(name) in MAY_BE_CLOSE for name in words):
        return False
    by_role = {role_of(name): frame[name] for name in fields}
    if not {"open", "high", "low"} <= set(by_role):
        return True
    low, open_, high = (parse.floats(by_role[role]) for role in ("low", "open", "high"))
    return bool(((low > open_) | (open_ > high)).any())


def _without_close(names: Sequence[str]) -> str:
    near = [name for name in names if columns.spelled(name) in MAY_BE_CLOSE]
    rename = f": if {near[0]!r} holds closes, rename it to 'close'" if near else ""
    return f"no close column among {listed(names)}{rename}"


def _from_long(frame: pl.DataFrame, roles: dict[str, str]) -> RawBars:
    of_row = parse.names(frame[roles["symbol"]])
    symbols = of_row.unique(maintain_order=True)
    places = of_row.replace_strict(symbols, pl.int_range(len(symbols), eager=True))
    numbers = {name: frame[roles[name]] for name in FIELDS if name in roles}
    mark = parse.decimal_mark(list(numbers.values()))
    return RawBars(
        symbols=tuple(symbols),
        columns=places.to_numpy().astype(np.intp),
        timestamps=parse.timestamps(frame[roles["timestamp"]]),
        fields={name: parse.floats(values, mark) for name, values in numbers.items()},
        halted=parse.flags(frame[roles["halted"]]) if "halted" in roles else None,
    )


def _from_wide(frame: pl.DataFrame, layout: _Layout) -> RawBars:
    """Make a row of every price, and of every cell of a line without any price."""
    stamps = parse.timestamps(frame[layout.roles["timestamp"]])
    prices = [frame[name] for name in layout.others]
    mark = parse.decimal_mark(prices)
    close = np.stack([parse.floats(values, mark) for values in prices])  # [A, T]
    priced = ~np.isnan(close)
    kept = priced | ~priced.any(axis=0)
    places, rows = np.nonzero(kept)
    return RawBars(
        symbols=tuple(layout.others),
        columns=places,
        timestamps=stamps[rows],
        fields={"close": close[kept]},
    )


def _select_dates(raw: RawBars, start: str | None, end: str | None) -> RawBars:
    first, last = check_range(start, end)
    kept = np.ones(len(raw.timestamps), dtype=bool)
    if first is not None:
        kept &= raw.timestamps >= first
    if last is not None:
        kept &= raw.timestamps < last + DAY
    if not kept.any():
        span = f"{show(raw.timestamps.min())} to {show(raw.timestamps.max())}"
        raise DataError(f"no bars from {start or '...'} to {end or '...'}: the data run {span}")
    return raw if kept.all() else raw.take(kept)


def _first_symbols(raw: RawBars, count: int) -> tuple[str, ...]:
    if count > len(raw.symbols):
        raise DataError(
            f"num_assets = {count} is more than the {len(raw.symbols)} symbols of the data, "
            f"{listed(raw.symbols)}"
        )
    return raw.symbols[:count]


def _select_symbols(raw: RawBars, symbols: Sequence[str] | None) -> RawBars:
    if symbols is None:
        return raw
    places = {symbol: place for place, symbol in enumerate(raw.symbols)}
    for symbol in symbols:
        if symbol not in places:
            near = get_close_matches(symbol, raw.symbols, n=3) or list(raw.symbols)
            raise DataError(f"no symbol {symbol!r} in the data; there is {listed(near)}")
    order = np.full(len(raw.symbols), -1)
    order[[places[symbol] for symbol in symbols]] = np.arange(len(symbols))
    places_of = order[raw.columns]
    kept = raw._replace(symbols=tuple(symbols), columns=places_of)
    return kept if (places_of >= 0).all() else kept.take(places_of >= 0)
