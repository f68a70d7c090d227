"""One polars table out of whatever a person has: CSV, Parquet, a polars or a pandas frame."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fastsim.data import columns, parse
from fastsim.data.columns import role_of
from fastsim.data.delimited import read_delimited
from fastsim.errors import DataError

Source = str | PathLike[str] | pl.DataFrame | pl.LazyFrame | Any
"""A path to .csv, .csv.gz or .parquet, a polars frame, or a pandas frame."""

FILE_TYPES = (".csv", ".csv.gz", ".parquet")
READABLE = (".csv", ".txt", ".tsv", ".parquet")
"""Text is read alike by all its names: separators and compression are told by the content."""
PACKED = (".gz", ".bz2", ".xz")

_UNPACKED_BY: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}
"""Whose compression it is, by the first bytes, whatever the file is called."""
_PARQUET = b"PAR1"
_TIME_ZONES = "POLARS_IGNORE_TIMEZONE_PARSE_ERROR"
"""What lets polars read a time zone such as +05:30, which it would die of."""


class Table(NamedTuple):
    """A table of a source and the name that errors call it by."""

    frame: pl.DataFrame
    label: str


def load_table(source: Source) -> Table:
    """Read a source into polars without interpreting it; CSV columns stay text.

    Stamps with a time zone are put on one clock, as `parse.one_clock` does.

    Raises
    ------
    DataError
        The file is missing, empty, cut off or not readable, its type is unknown, a column name
        appears twice, or `source` is something else altogether.
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        try:
            return Table(_read_file(path), str(path))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if isinstance(source, pl.LazyFrame | pl.DataFrame):
        return Table(_from_polars(source), "polars frame")
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        try:
            return Table(_from_pandas(source), "pandas frame")
        except DataError as error:
            raise DataError(f"pandas frame: {error}") from None
    raise DataError(
        f"cannot read bars from {type(source).__name__}: give a path to "
        f"{', '.join(FILE_TYPES)}, a polars frame or a pandas frame"
    )


def is_file_name(name: str) -> bool:
    """Whether a file of this name is one that `load_table` reads."""
    name = name.lower()
    for packing in PACKED:
        name = name.removesuffix(packing)
    return name.endswith(READABLE)


def _read_file(path: Path) -> pl.DataFrame:
    if not is_file_name(path.name):
        raise DataError(f"unknown file type; use one of {', '.join(FILE_TYPES)}")
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
        for mark, unpack in _UNPACKED_BY.items():
            if raw.startswith(mark):
                raw = unpack(raw)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DataError(f"not readable: {_reason(error)}") from None
    if not raw.strip():
        raise DataError("the file is empty")
    if path.suffix.lower() == ".parquet" or raw.startswith(_PARQUET):
        return _read_parquet(raw)
    try:
        return columns.under_header(read_delimited(raw))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"not readable as .csv: {_reason(error)}") from None


def _read_parquet(raw: bytes) -> pl.DataFrame:
    try:
        with _unbroken():
            return _on_one_clock(pl.read_parquet(io.BytesIO(raw)))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"not readable as .parquet: {_reason(error)}") from None


def _from_polars(source: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    try:
        with _unbroken():
            frame = source.collect() if isinstance(source, pl.LazyFrame) else source
            return _on_one_clock(frame)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"polars frame: not readable: {_reason(error)}") from None


@contextmanager
def _unbroken() -> Iterator[None]:
    """Let polars read any time zone, and make a Rust panic, of a damaged file, an error of ours.

    A panic writes to the standard error of the process before it is an exception of Python's, so
    that is turned away meanwhile.
    """
    zones, kept = os.environ.get(_TIME_ZONES), _redirected_errors()
    os.environ[_TIME_ZONES] = "1"
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise DataError("not readable as .parquet: the file is damaged") from None
    finally:
        if zones is None:
            del os.environ[_TIME_ZONES]
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)


def _redirected_errors() -> int | None:
    """Where standard error went before it went nowhere; None where there is none."""
    try:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        return None
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return kept


def _on_one_clock(frame: pl.DataFrame) -> pl.DataFrame:
    """Every column of stamps with a time zone as naive ones."""
    for column in frame.get_columns():
        if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
            frame = frame.with_columns(parse.from_zone(column).alias(column.name))
    return frame


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _from_pandas(frame: Any) -> pl.DataFrame:
    """Convert column by column through NumPy: pyarrow, which polars would want, is not needed."""
    levels = frame.columns.nlevels
    if levels > 2:
        raise DataError(f"columns have {levels} levels, not 1 or 2")
    values = [_plain(frame.iloc[:, place]) for place in range(frame.shape[1])]
    if levels == 2:
        pairs = [(_name(first), _name(second)) for first, second in frame.columns]
        index = _index_columns(frame.index, set())
        names = tuple(None if name is None else str(name) for name in frame.columns.names)
        return columns.stacked(pairs, values, index, levels=(names[0], names[1]))
    names_of = [str(name) for name in frame.columns]
    index = _index_columns(frame.index, {role_of(name) for name in names_of})
    columns.require_unique([*index, *names_of])
    return pl.DataFrame({**index, **dict(zip(names_of, values, strict=True))})


def _name(level: object) -> str:
    return columns.clean_name(str(level))


def _index_columns(index: Any, roles: set[str | None]) -> dict[str, pl.Series]:
    """Levels of the index that say something the columns do not; a nameless count does not."""
    kept = {}
    roles = set(roles)
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        name = None if values.name is None else str(values.name)
        if name is None and (values.dtype.kind in "MO" or hasattr(values, "to_timestamp")):
            if "timestamp" not in roles:
                name = "timestamp"
            elif index.nlevels > 1 and "symbol" not in roles:
                name = "symbol"
        if name is not None and (role_of(name) or "timestamp" not in roles):
            kept[name] = _plain(values.to_series(index=range(len(values))))
            roles.add(role_of(name))
    return kept


def _plain(series: Any) -> pl.Series:
    dtype = series.dtype
    if type(dtype).__name__ == "PeriodDtype":
        series = series.dt.to_timestamp()
        dtype = series.dtype
    if dtype.kind == "M":
        return _stamps(series)
    if dtype.kind in "iuf":
        integers = dtype.kind != "f" and not series.hasnans
        return pl.Series(
            series.to_numpy() if integers else series.to_numpy(dtype="float64", na_value=np.nan)
        )
    missing = series.isna().to_numpy()
    cells = zip(series.astype(object).to_numpy(), missing, strict=True)
    return pl.Series([None if absent else str(cell) for cell, absent in cells], dtype=pl.String)


def _stamps(series: Any) -> pl.Series:
    """Stamps of pandas as naive ones in microseconds, those with a time zone on one clock."""
    unit = "datetime64[us]"
    if series.dt.tz is None:
        return pl.Series(series.to_numpy().astype(unit))
    utc = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype(unit)
    local = series.dt.tz_localize(None).to_numpy().astype(unit)
    return pl.Series(parse.one_clock(utc, local))
