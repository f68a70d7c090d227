"""Series to learn from, one after the other in one table, which may lie on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import BAR_FIELDS, CLOSE, Bars
from fastsim.data.dates import show_day
from fastsim.data.parse import floats, names, timestamps
from fastsim.data.tables import Source, load_table
from fastsim.errors import DataError

LONG = ("id", "time", "value")
"""Columns of a frame of series."""
MAPPED = 1 << 28
"""Bytes from which a table is read from disk as it is needed, rather than held."""


class Series(NamedTuple):
    """S series; a row is a bar, and those of a series follow each other in time."""

    values: NDArray[np.float64]  # [R, 6]  as `Bars.table`
    stamps: NDArray[np.int64]  # [R]  seconds since 1970 UTC
    starts: NDArray[np.int64]  # [S + 1]  row of each series' first bar, and R
    names: tuple[str, ...]  # S

    @property
    def last_day(self) -> str:
        """Day of the latest bar of all."""
        stamp = int(self.stamps[self.starts[1:] - 1].max())
        return show_day(np.datetime64(stamp, "s").astype("datetime64[ns]"))

    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        digest = hashlib.sha256(repr(self.names).encode())
        for array in (self.starts, self.stamps, self.values):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def series_of_bars(bars: Bars) -> Series:
    """The series of all assets of `bars`."""
    table = bars.table()  # [T, A, 6]
    count, assets = table.shape[:2]
    seconds = bars.timestamps.astype("datetime64[s]").astype(np.int64)
    values = np.ascontiguousarray(table.transpose(1, 0, 2)).reshape(-1, len(BAR_FIELDS))
    starts = np.arange(assets + 1, dtype=np.int64) * count
    return Series(values, np.tile(seconds, assets), starts, bars.symbols)


def series_of_columns(
    ids: NDArray[np.object_], stamps: NDArray[np.datetime64], values: NDArray[np.float64]
) -> Series:
    """The series of a long frame, given by its columns: whose, when, and how much [R] each.

    Raises
    ------
    DataError
        A series has a time twice, or a value that is not above zero: log returns are learned.
    """
    order = np.lexsort((stamps, ids))
    ids, stamps, closes = ids[order], stamps[order], values[order].astype(np.float64)
    names, starts = np.unique(ids, return_index=True)
    seconds = stamps.astype("datetime64[s]").astype(np.int64)
    twice = (np.diff(seconds) <= 0) & (ids[1:] == ids[:-1])
    if twice.any():
        row = int(twice.argmax()) + 1
        raise DataError(f"series {ids[row]!r} has {show_day(stamps[row])} twice: give it once")
    wrong = (closes <= 0) | np.isinf(closes)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"series {ids[row]!r} has {closes[row]:g} on {show_day(stamps[row])}: log returns are "
            f"learned, of values above zero; leave out others, or add a constant"
        )
    table = np.full((len(closes), len(BAR_FIELDS)), np.nan)
    table[:, CLOSE] = closes
    ends = np.append(starts, len(closes)).astype(np.int64)
    return Series(table, seconds, ends, tuple(map(str, names)))


def series_of_frame(source: Source) -> Series:
    """The series of a long frame: columns id, time and value, in any order of rows.

    Parameters
    ----------
    source
        A path to CSV or Parquet, or a frame of pandas or polars.

    Raises
    ------
    DataError
        A column is missing or cannot be read, or as `series_of_columns`.
    """
    table = load_table(source)
    for name in LONG:
        if name not in table.frame.columns:
            raise DataError(
                f"{table.label} has no column {name!r}: a long frame of series has "
                f"{', '.join(LONG)}"
            )
    ids, times, values = (table.frame[name] for name in LONG)
    return series_of_columns(
        names(ids).to_numpy().astype(object), timestamps(times), floats(values)
    )


def first_stamps(series: Series) -> NDArray[np.datetime64]:
    """Times of the bars of the first series."""
    first: NDArray[np.datetime64] = series.stamps[: series.starts[1]].astype("datetime64[s]")
    return first


def mapped(series: Series, folder: Path) -> Series:
    """The same, its values on disk and read as they are needed, where they are many."""
    if series.values.nbytes < MAPPED:
        return series
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "values.npy"
    np.save(path, series.values)
    return series._replace(values=np.load(path, mmap_mode="r"))
