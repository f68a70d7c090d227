"""Bars from files and frames, in long or wide form, and back to a file."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fastsim.config import write_whole
from fastsim.data import parse
from fastsim.data.bars import Bars
from fastsim.data.checks import FIELDS, CheckConfig, RawBars, check
from fastsim.data.dates import DAY, check_range, show
from fastsim.data.tables import UNNAMED, Source, Table, load_table, role_of
from fastsim.errors import DataError

logger = logging.getLogger(__name__)


class _Layout(NamedTuple):
    """Which column of a table is what."""

    roles: dict[str, str]  # role -> column name
    others: list[str]  # the symbols of a wide table


def read_bars(
    source: Source,
    *,
    checks: CheckConfig | None = None,
    symbols: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Bars:
    """Read bars from a CSV or Parquet file, or from a polars or pandas frame.

    Long form has a row per date and symbol: date, symbol, close and any of open, high, low,
    volume, adj_close, in the usual spellings ("Ticker", "Adj Close"...); without a symbol column,
    `symbols` must give the one name. Rows with `halted` true are not tradable and need no price.
    Wide form has a date column and one column of closes per symbol. A pandas frame may hold dates
    and symbols in its index, and may have columns of two levels, as yfinance gives them.

    Parameters
    ----------
    source
        A path (.csv, .csv.gz, .parquet) or a frame.
    checks
        What to do with problems; by default all but late listings are errors.
    symbols
        Those to keep, in this order; by default all, in the order of the source.
    start, end
        ISO dates, both inclusive.

    Returns
    -------
    Bars
        [T, A] arrays in UTC. Stamps with an offset or time zone are converted, naive ones are
        taken as UTC.

    Raises
    ------
    DataError
        One line naming the source and the culprit: column and row, or symbol and date.
    """
    try:
        table = load_table(source)
    except DataError as error:
        raise _one_line(error) from None
    return bars_from_table(table, checks=checks, symbols=symbols, start=start, end=end)


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
        return check(_select_symbols(raw, symbols), checks)
    except DataError as error:
        raise _one_line(error, f"{table.label}: ") from None


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
        raise _one_line(error, f"{label}: ") from None
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
    layout = _layout(frame)
    if frame.is_empty():
        raise DataError("no rows: bars need at least 2")
    if "symbol" in layout.roles:
        return _from_long(frame, layout.roles)
    if "close" not in layout.roles:
        return _from_wide(frame, layout)
    if symbols is None or len(symbols) != 1:
        raise DataError(
            f"column {layout.roles['close']!r} but no symbol column: add one, or give the one "
            "name as symbols=['AAPL']"
        )
    named = frame.with_columns(pl.lit(symbols[0]).alias("symbol"))
    return _from_long(named, {**layout.roles, "symbol": "symbol"})


def _layout(frame: pl.DataFrame) -> _Layout:
    roles: dict[str, str] = {}
    others = []
    for name in frame.columns:
        role = role_of(name)
        if role is None:
            others.append(name)
        elif role in roles:
            raise DataError(f"columns {roles[role]!r} and {name!r} both mean {role}: remove one")
        else:
            roles[role] = name
    if not frame.columns:
        raise DataError("no columns")
    unnamed = frame.columns[0].strip().lower() in UNNAMED and frame.columns[0] in others
    if unnamed:
        others.remove(frame.columns[0])
        roles.setdefault("timestamp", frame.columns[0])
    if "timestamp" not in roles:
        raise DataError(f"no date column among {_listed(frame.columns)}: name one 'date'")
    long = "symbol" in roles or "close" in roles
    if "symbol" in roles and "close" not in roles:
        raise DataError(f"no close column among {_listed(frame.columns)}")
    if long and others:
        logger.warning("columns that bars have no use for: %s", _listed(others))
    if not long:
        others = _wide_symbols(frame, roles, others)
    return _Layout(roles, others)


def _wide_symbols(frame: pl.DataFrame, roles: dict[str, str], others: list[str]) -> list[str]:
    """Tickers such as OPEN and LOW are symbols in a wide table; adj_close and volume are not."""
    for role in ("adj_close", "volume"):
        if role in roles:
            raise DataError(
                f"column {roles[role]!r} but no close column: a wide table holds closes only"
            )
    fields = [name for role, name in roles.items() if role != "timestamp"]
    for role in set(roles) - {"timestamp"}:
        del roles[role]
    if not others and not fields:
        raise DataError(f"no price columns among {_listed(frame.columns)}")
    return [name for name in frame.columns if name in others or name in fields]


def _from_long(frame: pl.DataFrame, roles: dict[str, str]) -> RawBars:
    listed = parse.names(frame[roles["symbol"]])
    symbols = listed.unique(maintain_order=True)
    columns = listed.replace_strict(symbols, pl.int_range(len(symbols), eager=True))
    return RawBars(
        symbols=tuple(symbols),
        columns=columns.to_numpy().astype(np.intp),
        timestamps=parse.timestamps(frame[roles["timestamp"]]),
        fields={name: parse.floats(frame[roles[name]]) for name in FIELDS if name in roles},
        halted=parse.flags(frame[roles["halted"]]) if "halted" in roles else None,
    )


def _from_wide(frame: pl.DataFrame, layout: _Layout) -> RawBars:
    """Make a row of every price, and of every cell of a line without any price."""
    stamps = parse.timestamps(frame[layout.roles["timestamp"]])
    close = np.stack([parse.floats(frame[name]) for name in layout.others])  # [A, T]
    priced = ~np.isnan(close)
    kept = priced | ~priced.any(axis=0)
    columns, rows = np.nonzero(kept)
    return RawBars(
        symbols=tuple(name.strip() for name in layout.others),
        columns=columns,
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
            f"{_listed(raw.symbols)}"
        )
    return raw.symbols[:count]


def _select_symbols(raw: RawBars, symbols: Sequence[str] | None) -> RawBars:
    if symbols is None:
        return raw
    places = {symbol: place for place, symbol in enumerate(raw.symbols)}
    for symbol in symbols:
        if symbol not in places:
            near = get_close_matches(symbol, raw.symbols, n=3) or list(raw.symbols)
            raise DataError(f"no symbol {symbol!r} in the data; there is {_listed(near)}")
    order = np.full(len(raw.symbols), -1)
    order[[places[symbol] for symbol in symbols]] = np.arange(len(symbols))
    columns = order[raw.columns]
    kept = raw._replace(symbols=tuple(symbols), columns=columns)
    return kept if (columns >= 0).all() else kept.take(columns >= 0)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _one_line(error: DataError, label: str = "") -> DataError:
    return DataError(" ".join(f"{label}{error}".split()))
