"""One polars table out of whatever a person has: CSV, Parquet, a polars or a pandas frame."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fastsim.errors import DataError

Source = str | PathLike[str] | pl.DataFrame | pl.LazyFrame | Any
"""A path to .csv, .csv.gz or .parquet, a polars frame, or a pandas frame."""

FILE_TYPES = (".csv", ".csv.gz", ".parquet")

ALIASES = {
    "timestamp": ("timestamp", "date", "datetime", "time", "day", "opentime"),
    "symbol": ("symbol", "ticker", "asset", "instrument", "tic"),
    "open": ("open", "openprice"),
    "high": ("high", "highprice"),
    "low": ("low", "lowprice"),
    "close": ("close", "closeprice", "closingprice", "price"),
    "adj_close": ("adjclose", "adjustedclose", "adjcloseprice", "closeadj", "closeadjusted"),
    "volume": ("volume", "vol"),
    "halted": ("halted",),
}
"""Spellings of each column, after lower-casing and removal of spaces, dots, dashes, underscores."""

_ROLES = {spelling: role for role, spellings in ALIASES.items() for spelling in spellings}

UNNAMED = ("", "index", "level_0", "unnamed: 0")
"""Headers that pandas gives to an index nobody named."""


class Table(NamedTuple):
    """A table of a source and the name that errors call it by."""

    frame: pl.DataFrame
    label: str


def role_of(name: str) -> str | None:
    """Which column of bars a header means; None for any other."""
    bare = "".join(char for char in name.lower() if char not in " ._-")
    return _ROLES.get(bare)


def load_table(source: Source) -> Table:
    """Read a source into polars without interpreting it; CSV columns stay text.

    Raises
    ------
    DataError
        The file is missing, empty, cut off or not readable, its type is unknown, a column name
        appears twice, or `source` is something else altogether.
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        return Table(_read_file(path), str(path))
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return Table(source, "polars frame")
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        return Table(_from_pandas(source), "pandas frame")
    raise DataError(
        f"cannot read bars from {type(source).__name__}: give a path to "
        f"{', '.join(FILE_TYPES)}, a polars frame or a pandas frame"
    )


def _read_file(path: Path) -> pl.DataFrame:
    kind = next((kind for kind in FILE_TYPES if path.name.lower().endswith(kind)), None)
    if kind is None:
        raise DataError(f"{path}: unknown file type; use one of {', '.join(FILE_TYPES)}")
    try:
        raw = path.read_bytes()
        if kind == ".csv.gz":
            raw = gzip.decompress(raw)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not readable: {_reason(error)}") from None
    if not raw.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return pl.read_parquet(io.BytesIO(raw)) if kind == ".parquet" else _read_csv(path, raw)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as {kind}: {_reason(error)}") from None


def _read_csv(path: Path, raw: bytes) -> pl.DataFrame:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text from byte {error.start + 1} on") from None
    lines = raw.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    head, _, _ = lines.partition(b"\n")
    header, last = _cells(head), _cells(lines.rpartition(b"\n")[2])
    _require_unique(header, str(path))
    if b"\n" not in lines:
        raise DataError(f"{path}: a header but no rows")
    if len(last) < len(header):
        raise DataError(
            f"{path}: the last line has {len(last)} of {len(header)} columns: the file is cut off"
        )
    return pl.read_csv(io.BytesIO(lines), infer_schema=False)


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8")]), [])


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _require_unique(columns: Iterable[str], label: str) -> None:
    seen: set[str] = set()
    for name in columns:
        if name.strip() in seen:
            raise DataError(f"{label}: column {name.strip()!r} appears twice: rename or remove one")
        seen.add(name.strip())


def _from_pandas(frame: Any) -> pl.DataFrame:
    """Convert column by column through NumPy: pyarrow, which polars would want, is not needed."""
    if frame.columns.nlevels == 2:
        return _from_two_levels(frame)
    if frame.columns.nlevels > 2:
        raise DataError(f"pandas frame: columns have {frame.columns.nlevels} levels, not 1 or 2")
    columns = [str(name) for name in frame.columns]
    values = [_plain(frame.iloc[:, place]) for place in range(len(columns))]
    index = _index_columns(frame.index, {role_of(name) for name in columns})
    _require_unique([*index, *columns], "pandas frame")
    return pl.DataFrame({**index, **dict(zip(columns, values, strict=True))})


def _index_columns(index: Any, roles: set[str | None]) -> dict[str, pl.Series]:
    """Levels of the index that say something the columns do not; a nameless count does not."""
    kept = {}
    roles = set(roles)
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        name = None if values.name is None else str(values.name)
        if name is None and values.dtype.kind in "MO":
            if "timestamp" not in roles:
                name = "timestamp"
            elif index.nlevels > 1 and "symbol" not in roles:
                name = "symbol"
        if name is not None and (role_of(name) or "timestamp" not in roles):
            kept[name] = _plain(values.to_series(index=range(len(values))))
            roles.add(role_of(name))
    return kept


def _from_two_levels(frame: Any) -> pl.DataFrame:
    """Make long columns from columns (field, symbol) or (symbol, field), as yfinance gives."""
    pairs = [(str(first), str(second)) for first, second in frame.columns]
    by_field = all(role_of(first) or first in _ACTIONS for first, _ in pairs)
    by_symbol = all(role_of(second) or second in _ACTIONS for _, second in pairs)
    if by_field == by_symbol:
        raise DataError(
            "pandas frame: one level of the columns must be fields (Open, Close...) and the other "
            f"symbols, got {pairs[0] if pairs else 'none'}"
        )
    index = _index_columns(frame.index, set())
    if not index:
        raise DataError("pandas frame: with two levels of columns, the index must hold the dates")
    parts: dict[str, dict[str, pl.Series]] = {}
    for place, pair in enumerate(pairs):
        name, symbol = pair if by_field else pair[::-1]
        if name in parts.setdefault(symbol, {}):
            raise DataError(f"pandas frame: column {pair} appears twice: rename or remove one")
        parts[symbol][name] = _plain(frame.iloc[:, place])
    return pl.concat(
        [
            pl.DataFrame({**index, "symbol": pl.repeat(symbol, len(frame), eager=True), **columns})
            for symbol, columns in parts.items()
        ],
        how="diagonal_relaxed",
    )


_ACTIONS = ("Dividends", "Stock Splits", "Capital Gains", "Repaired?")
"""Fields that yfinance adds to prices on request; bars have no use for them."""


def _plain(series: Any) -> pl.Series:
    dtype = series.dtype
    if getattr(dtype, "tz", None) is not None:
        stamps = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return pl.Series(stamps.astype("datetime64[us]"))
    if dtype.kind == "M":
        return pl.Series(series.to_numpy().astype("datetime64[us]"))
    if dtype.kind in "iuf":
        integers = dtype.kind != "f" and not series.hasnans
        return pl.Series(
            series.to_numpy() if integers else series.to_numpy(dtype="float64", na_value=np.nan)
        )
    missing = series.isna().to_numpy()
    cells = zip(series.astype(object).to_numpy(), missing, strict=True)
    return pl.Series([None if absent else str(cell) for cell, absent in cells], dtype=pl.String)
