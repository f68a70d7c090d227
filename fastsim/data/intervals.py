"""How long a bar is, as vendors write it, and when one has closed."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from fastsim.errors import ConfigError

Stamps = NDArray[np.datetime64]

SECONDS = {
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "w": 7 * 86_400,
    "wk": 7 * 86_400,
}
MONTHS = {"M": 1, "mo": 1, "y": 12}
SPELLING = re.compile(rf"([1-9]\d{{0,3}})({'|'.join([*SECONDS, *MONTHS])})")
SHORTEST_MONTH = np.timedelta64(28, "D")


def interval_length(interval: object) -> np.timedelta64:
    """How long a bar of "5m", "1h", "1d" or "1wk" is; one of "1mo" or "1M" in whole months.

    Raises
    ------
    ConfigError
        It is no such text.
    """
    match = SPELLING.fullmatch(interval) if isinstance(interval, str) else None
    if match is None:
        raise ConfigError(
            f"interval must be a count and one of {', '.join([*SECONDS, *MONTHS])}, such as 1m "
            f"(minute), 1h, 1d, 1wk or 1mo, got {interval!r}"
        )
    count, unit = int(match[1]), match[2]
    if unit in MONTHS:
        return np.timedelta64(count * MONTHS[unit], "M")
    return np.timedelta64(count * SECONDS[unit], "s")


def shortest(interval: str) -> np.timedelta64:
    """How far a bar is from the next at least."""
    length = interval_length(interval)
    if not is_in_months(length):
        return length
    return SHORTEST_MONTH * int(length.astype(np.int64))


def closing_times(stamps: Stamps, interval: str) -> Stamps:
    """When bars that begin at `stamps` [T] are over, UTC: those of days at midnight of the next."""
    length = interval_length(interval)
    if not is_in_months(length):
        return stamps + length
    month = stamps.astype("datetime64[M]")
    over: Stamps = (month + length).astype("datetime64[ns]") + (stamps - month)
    return over


def is_in_months(length: np.timedelta64) -> bool:
    """Whether a length is counted in months, which are not equally long."""
    return np.datetime_data(length.dtype)[0] == "M"
