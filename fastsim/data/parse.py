"""Columns of a table, as text or as numbers, turned into timestamps and floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.data.bars import FloatArray
from fastsim.data.delimited import BLANKS, INVISIBLE
from fastsim.errors import DataError

Stamps = NDArray[np.datetime64]

MISSING_WORDS = (
    *("", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", ".", "<na>", "nat", "#n/a n/a"),
)

DATE_FORMATS = (
    *("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f"),
    *("%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p"),
    *("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%y", "%d-%b-%Y", "%d %B %Y"),
)
"""Year first: 01/02/2020 is one day in Boston and another in London."""
SPELLINGS = (
    (r"^(\d{4})[/.](\d\d?)[/.](\d\d?)", "${1}-${2}-${3}"),
    (r"^(\d\d?)\.(\d\d?)\.(\d{4})", "${3}-${2}-${1}"),
    (r"^(\d{4})(\d\d)(\d\d)(T| +)", "${1}-${2}-${3} "),
    (r"^(\d{4}-\d\d?-\d\d?) +(\d\d)(\d\d)(\d\d)?$", "${1} ${2}:${3}:${4}"),
    (r"^(\d{4}-\d\d?-\d\d?)T", "${1} "),
    (r":$", ""),
)
"""Other ways to write a date, as patterns and what they become."""
SLASHED = r"^(\d\d?)[/-](\d\d?)[/-](\d{4})"

_ZONE = r"(z|utc|(?:gmt|utc)?[+-]\d\d(?::?\d\d)?)"
OFFSET = rf"(?i):\d\d(?:\.\d+)?\s*{_ZONE}$"
CLOCK = rf"(?i)^\d\d?:\d\d(:\d\d(\.\d+)?)?(\s*[ap]m)?(\s*{_ZONE})?$"
"""A time of day."""

EPOCH_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EPOCH_FROM, EPOCH_TO = 10**8, 10**10
"""Seconds since 1970 from 1973 to 2286. In that range the number of digits tells the unit."""
DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%3f"}
"""Stamps written as digits alone, by how many. They are no counts where every one of a column is a
date from 1900 to 2100: as counts they would lie within months of 1976, or after 2029."""
_EXAMPLE = "20200131093000000"
FIRST_DAY, LAST_DAY = (
    int(np.datetime64(day, "D").astype(int)) for day in ("1678-01-01", "2261-12-31")
)

COMMA = r"^[+-]?(?:\d{1,3}(?:\.\d{3})+,\d*|\d+,(?:\d{1,2}|\d{4,})|0,\d+|\d{1,3}(?:\.\d{3}){2,})$"
POINT = r"^[+-]?(?:\d{1,3}(?:,\d{3})+\.\d*|\d+\.(?:\d{1,2}|\d{4,})|0?\.\d+|\d{1,3}(?:,\d{3}){2,})$"
"""Numbers that can be read in one way only: 1.234,5 and 12,5 here, 1,234.5 and 12.5 there."""
GROUPED = {
    ".": r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?$",
    ",": r"^[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d*)?$",
}
MULTIPLES = {"k": 1e3, "m": 1e6, "b": 1e9}


class _Instants(NamedTuple):
    local: pl.Series  # Datetime("us"), without zone; null where not understood
    utc: pl.Series  # Datetime("us"), the same where there is no offset
    aware: pl.Series  # Boolean


def text_of(column: pl.Series) -> pl.Series:
    """Cells as text without characters of no width and blanks at either end."""
    text = column.cast(pl.String)
    if (text.str.len_bytes() != text.str.len_chars()).any():  # more than ASCII
        text = text.str.replace_all(f"[{INVISIBLE}]", "").str.replace_all(f"[{BLANKS}]", " ")
    return text.str.strip_chars()


def decimal_mark(columns: Sequence[pl.Series]) -> str:
    """The mark before decimals in these columns of one table: a comma if only that can be meant."""
    texts = [text_of(column) for column in columns if column.dtype == pl.String]
    odd = [text for text in texts if _plain_numbers(text).null_count()]
    commas = any(_ungrouped(text).str.contains(COMMA).any() for text in odd)
    points = commas and any(_ungrouped(text).str.contains(POINT).any() for text in texts)
    return "," if commas and not points else "."


def _plain_numbers(text: pl.Series) -> pl.Series:
    """Numbers as computers write them; NaN where missing, null where there is something else."""
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count():
        missing = text.is_null() | text.str.to_lowercase().is_in(MISSING_WORDS)
        numbers = numbers.set(numbers.is_null() & missing, np.nan)
    return numbers


def floats(column: pl.Series, mark: str = ".") -> FloatArray:
    """Numbers of a column, NaN where missing.

    Parameters
    ----------
    column
        Numbers, or text of them; $ 1,234.5 and 1 234.5 are understood, and 4.66B as in volumes.
    mark
        What stands before decimals, as `decimal_mark` says.

    Raises
    ------
    DataError
        A value is not a number, or may be two; names the column, the row (from 1) and the value.
    """
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        numbers = _numbers(column, mark)
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        numbers = column.cast(pl.Float64)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, not numbers")
    return np.array(numbers.fill_null(np.nan).to_numpy(), dtype=np.float64)


def _numbers(column: pl.Series, mark: str) -> pl.Series:
    text = text_of(column)
    numbers = _plain_numbers(text)
    if mark == "." and not numbers.null_count():
        return numbers
    text = text.set(text.str.to_lowercase().is_in(MISSING_WORDS), None)
    bare = _ungrouped(text)
    unit = bare.str.extract(r"(?i)\d\s*([kmb])$").str.to_lowercase()
    bare = bare.str.replace(r"(?i)\s*[kmb]$", "")
    if mark == ",":
        good = bare.str.contains(GROUPED[","])
        plain = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    else:
        grouped = bare.str.contains(GROUPED["."])
        good = grouped | ~bare.str.contains(",", literal=True)
        _require_one_meaning(column, bare, grouped)
        plain = bare.set(grouped, None).fill_null(bare.str.replace_all(",", "", literal=True))
    factor = unit.replace_strict(MULTIPLES, default=1.0, return_dtype=pl.Float64)
    numbers = plain.set(~good, None).cast(pl.Float64, strict=False) * factor
    _require_all(column, numbers.is_not_null() | text.is_null(), "is not a number")
    return numbers


def _ungrouped(text: pl.Series) -> pl.Series:
    """Numbers without signs of money, and without blanks and apostrophes between thousands."""
    bare = text.str.replace(r"^([+-]?)\s*[$€£¥]\s*", "${1}")
    for _ in range(2):  # 1 234 567: a match takes the digit that the next would begin with
        bare = bare.str.replace_all("(\\d)['\u2019 ](\\d{3})", "${1}${2}")
    return bare


def _require_one_meaning(column: pl.Series, text: pl.Series, grouped: pl.Series) -> None:
    """Raise DataError where 1,234 may be as much as 1234 and as little as 1.234."""
    if grouped.any() and not text.str.contains(POINT).any():
        row = int(grouped.fill_null(value=False).arg_max() or 0)
        raise _row_error(
            column, row, "may have a decimal comma or count thousands: write 1234.5 throughout"
        )


def flags(column: pl.Series) -> NDArray[np.bool_]:
    """Truth values of a column of booleans, 0 and 1, or the words true and false."""
    words = text_of(column).str.to_lowercase().fill_null("false")
    _require_all(column, words.is_in(["true", "false", "0", "1"]), "is neither true nor false")
    return words.is_in(["true", "1"]).to_numpy()


def names(column: pl.Series) -> pl.Series:
    """Symbols of a column as stripped text; an empty one raises DataError."""
    text = text_of(column)
    _require_all(column, text.is_not_null() & (text != ""), "is not a symbol")
    return text


def timestamps(column: pl.Series) -> Stamps:
    """Instants of a column [R] in UTC, as datetime64[ns].

    Takes dates and datetimes (naive ones are UTC), ISO text with or without an offset, dates with
    the name of the month, 31.01.2020, and 31/01/2020 where no other order is possible, whole
    numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, and 20200131, or
    202001310930, down to milliseconds. Stamps with an offset are put on `one_clock`.

    Raises
    ------
    DataError
        A value is missing, not understood, out of range, or has an offset where others have none.
    """
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    _require_all(column, column.is_not_null(), "is not a date")
    if column.dtype == pl.Date:
        _require_range(column, 1)
        times = column.cast(pl.Datetime("us"))
    elif isinstance(column.dtype, pl.Datetime):
        _require_range(column, 86_400 * EPOCH_UNITS[column.dtype.time_unit])
        times = column if column.dtype.time_zone is None else from_zone(column)
    elif column.dtype == pl.String:
        times = _from_text(column)
    elif column.dtype.is_numeric():
        times = _from_numbers(column, column)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, not dates")
    _require_range(times, 86_400 * EPOCH_UNITS[times.dtype.time_unit], column)  # type: ignore[attr-defined]
    return times.dt.cast_time_unit("ns").to_numpy()


def _require_range(times: pl.Series, per_day: int, column: pl.Series | None = None) -> None:
    """Raise DataError for a date outside 1678 to 2261, which nanoseconds cannot hold."""
    days = times.to_physical().cast(pl.Int64) // per_day
    good = days.is_between(FIRST_DAY, LAST_DAY).fill_null(value=True)
    named = times if column is None else column
    if not good.all() and named is times:
        named = pl.Series(times.name, [f"day {day} since 1970" for day in days])
    _require_all(named, good, "is not a date from 1678 to 2261")


def from_zone(column: pl.Series) -> pl.Series:
    """Stamps with a time zone, any IANA name or offset, as naive ones on one clock."""
    unit = column.dtype.time_unit  # type: ignore[attr-defined]
    zone = str(column.dtype.time_zone)  # type: ignore[attr-defined]
    utc = column.to_physical().cast(pl.Datetime(unit)).dt.cast_time_unit("us")
    shift = _east(pl.Series([zone]))[0]
    if shift is None:
        local = column.dt.cast_time_unit("us").dt.replace_time_zone(None)
    else:
        local = utc + pl.Series([shift]).cast(pl.Duration("us"))
    return pl.Series(column.name, one_clock(utc.to_numpy(), local.to_numpy()))


def one_clock(utc: Stamps, local: Stamps) -> Stamps:
    """Stamps [R] that were given with an offset, as instants in UTC, or the days they stand for.

    Bars of days, all stamped at one time of day by the local clock, belong to the local day: where
    that time is midnight, or the day in UTC is another, they keep the local stamp. All others are
    instants in UTC.
    """
    given = ~np.isnat(local)
    if not given.any():
        return utc
    days = local.astype("datetime64[D]")
    of_day = (local - days)[given]
    if (of_day != of_day[0]).any():
        return utc
    moved = (utc.astype("datetime64[D]") != days)[given].any()
    return local if moved or of_day[0] == np.timedelta64(0) else utc


def is_clock(column: pl.Series) -> bool:
    """Whether a column holds times of day, and no dates."""
    if column.dtype == pl.Time:
        return True
    return column.dtype == pl.String and bool(text_of(column).str.contains(CLOCK).all())


def is_digital_clock(column: pl.Series) -> bool:
    """Whether a column may hold times of day in digits alone, such as 93000 or 0930."""
    text = text_of(column)
    if not text.str.contains(r"^\d{1,6}(\.0*)?$").all():
        return False
    digits = text.str.replace(r"\.0*$", "").cast(pl.Int64)
    longest = 2 if (digits < 10_000).all() else 4
    minutes = digits % 100 if longest == 2 else digits // 100 % 100
    return bool(((digits // 10**longest < 24) & (minutes < 60) & (digits % 100 < 60)).all())


def joined(dates: pl.Series, times: pl.Series) -> pl.Series:
    """Text of stamps out of a column of dates and one of times of day, 09:30, 0930 or 093000.

    Raises
    ------
    DataError
        A date has a time of day of its own, or a time is not understood.
    """
    days = pl.Series(dates.name, timestamps(dates).astype("datetime64[us]"))
    _require_all(
        dates, days == days.dt.truncate("1d"), "has a time of day beside a column of times"
    )
    text = times.cast(pl.String) if times.dtype == pl.Time else text_of(times)
    if is_digital_clock(times):
        digits = text.str.replace(r"\.0*$", "")
        width = 4 if (digits.str.len_chars() <= 4).all() else 6
        text = digits.str.zfill(width).str.replace(r"^(\d\d)(\d\d)(\d\d)?$", "${1}:${2}:${3}")
        text = text.str.replace(r":$", "")
    _require_all(times, text.str.contains(CLOCK).fill_null(value=False), "is not a time of day")
    return (days.dt.strftime("%Y-%m-%d") + " " + text).alias(times.name)


def _from_text(column: pl.Series) -> pl.Series:
    """Parse each distinct text once: a long table repeats every date for every symbol."""
    text = text_of(column)
    if text.str.contains(r"^\d+(\.0*)?$").all():
        whole = text.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
        return _from_numbers(column, whole)
    distinct = text.unique(maintain_order=True)
    instants = _parse(_year_first(column, distinct))
    rows = text.replace_strict(distinct, pl.int_range(len(distinct), eager=True))
    utc, aware = instants.utc.gather(rows), instants.aware.gather(rows)
    _require_all(column, utc.is_not_null(), "is not an ISO date (write 2020-01-31)")
    if not aware.any():
        return utc
    if not aware.all():
        odd = "has no UTC offset, unlike" if aware[0] else "has a UTC offset, unlike"
        _require_all(column, aware == aware[0], f"{odd} the first row: give all or none")
    local = instants.local.gather(rows)
    return pl.Series(column.name, one_clock(utc.to_numpy(), local.to_numpy()))


def _year_first(column: pl.Series, text: pl.Series) -> pl.Series:
    """Dates such as 31/01/2020 in the only order that all of them allow."""
    if not text.str.contains(SLASHED).all():
        return text
    first = text.str.extract(SLASHED, 1).cast(pl.Int64)
    second = text.str.extract(SLASHED, 2).cast(pl.Int64)
    days_first, months_first = bool((first > 12).any()), bool((second > 12).any())
    if days_first == months_first:
        raise _row_error(
            column, 0, "may have the day or the month first, as all the others: write 2020-01-31"
        )
    return text.str.replace(SLASHED, "${3}-${2}-${1}" if days_first else "${3}-${1}-${2}")


def _parse(text: pl.Series) -> _Instants:
    offset = text.str.extract(OFFSET).str.to_lowercase()
    local = text.str.replace(rf"(?i)(:\d\d(?:\.\d+)?)\s*{_ZONE}$", "${1}")
    for pattern, plain in SPELLINGS:
        local = local.str.replace(pattern, plain)
    times = pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    for form in DATE_FORMATS:
        if times.null_count():
            parsed = local.str.to_datetime(form, time_unit="us", strict=False)
            times = times.zip_with(times.is_not_null(), parsed)
    shift = _east(offset).fill_null(0).cast(pl.Duration("us"))
    return _Instants(times, times - shift, offset.is_not_null())


def _east(offset: pl.Series) -> pl.Series:
    """Microseconds of an offset such as +05:30 or gmt-0330; null for what is none."""
    bare = offset.str.to_lowercase().str.replace(r"^(gmt|utc)", "")
    sign = bare.str.starts_with("-").cast(pl.Int64) * -2 + 1
    hours = bare.str.extract(r"^[+-](\d\d)(?::?\d\d)?$").cast(pl.Int64)
    minutes = bare.str.extract(r"^[+-]\d\d:?(\d\d)$").cast(pl.Int64).fill_null(0)
    return sign * (hours * 60 + minutes) * 60_000_000


def _from_numbers(column: pl.Series, numbers: pl.Series) -> pl.Series:
    """Counts since 1970 or dates in digits; one unit for the whole column, told by the first."""
    whole = numbers.cast(pl.Int64, strict=False)
    _require_all(column, (whole == numbers).fill_null(value=False), "is not a whole number")
    written = _from_digits(column, whole)
    if written is not None:
        return written
    for per_second in EPOCH_UNITS.values():
        top = min(EPOCH_TO * per_second, 2**63) - 1
        inside = whole.is_between(EPOCH_FROM * per_second, top)
        if inside[0]:
            _require_all(column, inside, "is not in the same unit as the first row")
            micro = 1_000_000
            if per_second <= micro:
                return (whole * (micro // per_second)).cast(pl.Datetime("us"))
            return (whole // (per_second // micro)).cast(pl.Datetime("us"))
    of_excel = " (a day as Excel counts them? format the column as 2020-01-31)"
    raise _row_error(
        column,
        0,
        "is neither a date nor clearly seconds or milliseconds since 1970"
        f"{of_excel if 20_000 < whole[0] < 80_000 else ''}",
    )


def _from_digits(column: pl.Series, whole: pl.Series) -> pl.Series | None:
    """Stamps such as 20200131 or 202001310930; None where they are counts."""
    text = whole.cast(pl.String)
    form = DIGITS.get(len(text[0]))
    if form is None:
        return None
    padded = text + "0000" if form == DIGITS[10] else text  # no hour is parsed without its minutes
    form = "%Y%m%d%H%M%S" if form == DIGITS[10] else form
    times = padded.str.to_datetime(form, time_unit="us", strict=False)
    good = (
        times.dt.year().is_between(1900, 2100) & (text.str.len_chars() == len(text[0]))
    ).fill_null(value=False)
    if good.all():
        return times
    old = len(text[0]) == 8 and 1678 <= int(text[0][:4]) <= 2261
    if old or 2 * good.sum() >= len(good):
        wanted = f"is not a date written as {_EXAMPLE[: len(text[0])]}"
        _require_all(column, times.is_not_null() if old else good, wanted)
        return times
    return None


def _require_all(column: pl.Series, good: pl.Series, otherwise: str) -> None:
    """Raise a DataError for the first value that is not good."""
    if not good.all():
        raise _row_error(column, int((~good).arg_max() or 0), otherwise)


def _row_error(column: pl.Series, row: int, otherwise: str) -> DataError:
    temporal = column.dtype.is_temporal()  # Python has no datetimes after the year 9999
    value = repr(column[row : row + 1].cast(pl.String)[0] if temporal else column[row])
    shown = value if len(value) <= 40 else value[:37] + "..."
    return DataError(f"column {column.name!r}, row {row + 1}: {shown} {otherwise}")
