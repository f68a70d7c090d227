"""Columns of a table, as text or as numbers, turned into timestamps and floats."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.data.bars import FloatArray
from fastsim.errors import DataError

MISSING_WORDS = ("", "na", "n/a", "#n/a", "nan", "null", "none")

DATE_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")
"""Year first: 01/02/2020 is one day in Boston and another in London."""

OFFSET = r"(?i):\d\d(?:\.\d+)?\s*(z|utc|[+-]\d\d(?::?\d\d)?)$"

EPOCH_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EPOCH_FROM, EPOCH_TO = 10**8, 10**10
"""Seconds since 1970 from 1973 to 2286. In that range the number of digits tells the unit."""


class _Instants(NamedTuple):
    times: pl.Series  # Datetime("us"), without zone; null where not understood
    aware: pl.Series  # Boolean


def floats(column: pl.Series) -> FloatArray:
    """Numbers of a column, NaN where missing.

    Raises
    ------
    DataError
        A value is not a number; names the column, the row (from 1) and the value.
    """
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.set(text.str.to_lowercase().is_in(MISSING_WORDS), None)
        numbers = text.cast(pl.Float64, strict=False)
        _require_all(column, numbers.is_not_null() | text.is_null(), "is not a number")
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        numbers = column.cast(pl.Float64)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, not numbers")
    return np.array(numbers.fill_null(np.nan).to_numpy(), dtype=np.float64)


def flags(column: pl.Series) -> NDArray[np.bool_]:
    """Truth values of a column of booleans, 0 and 1, or the words true and false."""
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("false")
    _require_all(column, words.is_in(["true", "false", "0", "1"]), "is neither true nor false")
    return words.is_in(["true", "1"]).to_numpy()


def names(column: pl.Series) -> pl.Series:
    """Symbols of a column as stripped text; an empty one raises DataError."""
    text = column.cast(pl.String).str.strip_chars()
    _require_all(column, text.is_not_null() & (text != ""), "is not a symbol")
    return text


def timestamps(column: pl.Series) -> NDArray[np.datetime64]:
    """Instants of a column [R] in UTC, as datetime64[ns].

    Takes dates and datetimes (naive ones are UTC), ISO text with or without an offset, whole
    numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, and 20200131.

    Raises
    ------
    DataError
        A value is missing, not understood, out of range, or has an offset where others have none.
    """
    _require_all(column, column.is_not_null(), "is not a date")
    if column.dtype == pl.Date:
        times = column.cast(pl.Datetime("us"))
    elif isinstance(column.dtype, pl.Datetime):
        zone = column.dtype.time_zone
        naive = column if zone is None else column.dt.convert_time_zone("UTC")
        times = naive.dt.replace_time_zone(None)
    elif column.dtype == pl.String:
        times = _from_text(column)
    elif column.dtype.is_numeric():
        times = _from_numbers(column, column)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, not dates")
    _require_all(column, times.dt.year().is_between(1678, 2261), "is not a date from 1678 to 2261")
    return times.dt.cast_time_unit("ns").to_numpy()


def _from_text(column: pl.Series) -> pl.Series:
    """Parse each distinct text once: a long table repeats every date for every symbol."""
    text = column.str.strip_chars()
    if text.str.contains(r"^\d+(\.0*)?$").all():
        whole = text.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
        return _from_numbers(column, whole)
    distinct = text.unique(maintain_order=True)
    instants = _parse(distinct)
    rows = text.replace_strict(distinct, pl.int_range(len(distinct), eager=True))
    times, aware = instants.times.gather(rows), instants.aware.gather(rows)
    _require_all(column, times.is_not_null(), "is not an ISO date (write 2020-01-31)")
    if aware.any() and not aware.all():
        odd = "has no UTC offset, unlike" if aware[0] else "has a UTC offset, unlike"
        _require_all(column, aware == aware[0], f"{odd} the first row: give all or none")
    return times


def _parse(text: pl.Series) -> _Instants:
    offset = text.str.extract(OFFSET).str.to_lowercase()
    local = text.str.replace(r"(?i)(:\d\d(?:\.\d+)?)\s*(?:z|utc|[+-]\d\d(?::?\d\d)?)$", "${1}")
    local = local.str.replace(r"^(\d{4})/(\d\d?)/(\d\d?)", "${1}-${2}-${3}")
    local = local.str.replace(r"^(\d{4}-\d\d?-\d\d?)T", "${1} ")
    times = pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    for form in DATE_FORMATS:
        parsed = local.str.to_datetime(form, time_unit="us", strict=False)
        times = times.zip_with(times.is_not_null(), parsed)
    sign = offset.str.starts_with("-").cast(pl.Int64) * -2 + 1
    hours = offset.str.extract(r"^[+-](\d\d)").cast(pl.Int64)
    minutes = offset.str.extract(r"^[+-]\d\d:?(\d\d)$").cast(pl.Int64).fill_null(0)
    east = (sign * (hours * 60 + minutes)).fill_null(0)
    shift = (east * 60_000_000).cast(pl.Duration("us"))
    return _Instants(times - shift, offset.is_not_null())


def _from_numbers(column: pl.Series, numbers: pl.Series) -> pl.Series:
    """Epoch counts or yyyymmdd; one unit for the whole column, told by the first value."""
    whole = numbers.cast(pl.Int64, strict=False)
    _require_all(column, (whole == numbers).fill_null(value=False), "is not a whole number")
    if 19_000_101 <= whole[0] <= 22_611_231:
        times = whole.cast(pl.String).str.to_datetime("%Y%m%d", time_unit="us", strict=False)
        _require_all(column, times.is_not_null(), "is not a date written as 20200131")
        return times
    for per_second in EPOCH_UNITS.values():
        top = min(EPOCH_TO * per_second, 2**63) - 1
        inside = whole.is_between(EPOCH_FROM * per_second, top)
        if inside[0]:
            _require_all(column, inside, "is not in the same unit as the first row")
            micro = 1_000_000
            if per_second <= micro:
                return (whole * (micro // per_second)).cast(pl.Datetime("us"))
            return (whole // (per_second // micro)).cast(pl.Datetime("us"))
    raise _row_error(column, 0, "is neither a date nor clearly seconds or milliseconds since 1970")


def _require_all(column: pl.Series, good: pl.Series, otherwise: str) -> None:
    """Raise a DataError for the first value that is not good."""
    if not good.all():
        raise _row_error(column, int((~good).arg_max() or 0), otherwise)


def _row_error(column: pl.Series, row: int, otherwise: str) -> DataError:
    temporal = column.dtype.is_temporal()  # Python has no datetimes after the year 9999
    value = repr(column[row : row + 1].cast(pl.String)[0] if temporal else column[row])
    shown = value if len(value) <= 40 else value[:37] + "..."
    return DataError(f"column {column.name!r}, row {row + 1}: {shown} {otherwise}")
