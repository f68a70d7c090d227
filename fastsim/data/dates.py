"""Dates as people write them and as error messages show them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from fastsim.errors import DataError

DAY = np.timedelta64(1, "D")


def iso_date(text: str, name: str) -> np.datetime64:
    """Midnight UTC of an ISO date such as 2020-01-31.

    Raises
    ------
    DataError
        `text` is not an ISO date; `name` says which argument it was.
    """
    try:
        day = date.fromisoformat(text)
        if not 1678 <= day.year <= 2261:
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an ISO date such as '2020-01-31', got {text!r}") from None
    return np.datetime64(day, "ns")


def iso_stamp(text: str, name: str) -> np.datetime64:
    """Midnight UTC of an ISO date, or the moment of an ISO stamp such as 2020-01-31T09:30.

    Raises
    ------
    DataError
        `text` is neither; `name` says which argument it was.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None or not 1678 <= moment.year <= 2261:
            raise ValueError
    except (TypeError, ValueError):
        return iso_date(text, name)
    return np.datetime64(moment, "ns")


def utc_now() -> np.datetime64:
    """What time it is."""
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")


def check_range(
    start: str | None, end: str | None
) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """Parse two ISO dates, either of which may be left open; DataError if in the wrong order."""
    first = None if start is None else iso_date(start, "start")
    last = None if end is None else iso_date(end, "end")
    if first is not None and last is not None and first > last:
        raise DataError(f"start {start} is after end {end}")
    return first, last


def rows_between(timestamps: NDArray[np.datetime64], start: str | None, end: str | None) -> slice:
    """Rows of a calendar [T] from the first day to the last, inclusive; DataError as `iso_date`."""
    first, last = check_range(start, end)
    low = 0 if first is None else int(np.searchsorted(timestamps, first))
    high = len(timestamps) if last is None else int(np.searchsorted(timestamps, last + DAY))
    return slice(low, high)


def show_day(stamp: np.datetime64) -> str:
    """Write a timestamp as its date."""
    return str(np.datetime_as_string(stamp, unit="D"))


def show_span(timestamps: NDArray[np.datetime64]) -> str:
    """Write the first and the last day of a calendar [T]."""
    return f"{show_day(timestamps[0])} to {show_day(timestamps[-1])}"


def show(stamp: np.datetime64) -> str:
    """Write a timestamp as a date, with the time of day only where there is one."""
    text = np.datetime_as_string(stamp, unit="s")
    return str(text).removesuffix("T00:00:00")
