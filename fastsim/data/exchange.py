"""On which days an exchange trades, by its own calendar. Needs `fastsim-rl[calendars]`."""

from __future__ import annotations

import warnings
from datetime import date
from functools import cache

from fastsim.errors import ConfigError, DataError, did_you_mean, one_line

DECADE = 10


def is_session(exchange: str, day: date) -> bool:
    """Whether an exchange, such as XNYS, trades on a day; errors as `sessions`."""
    return day in sessions(exchange, day.year - day.year % DECADE)


def require_exchange(exchange: str, days: set[date]) -> None:
    """Raise unless bars of these days may be those of an exchange.

    Raises
    ------
    ConfigError
        There is no such calendar, or no package that has it.
    DataError
        The exchange was closed on one of the days.
    """
    for day in sorted(days):
        if not is_session(exchange, day):
            raise DataError(
                f"there is a bar of {day}, and {exchange} was closed on it: name the calendar of "
                f"the exchange that these bars are of, or none"
            )


@cache
def sessions(exchange: str, first_year: int) -> frozenset[date]:
    """Days of ten years on which an exchange trades, or is to trade.

    Raises
    ------
    ConfigError
        There is no calendar of this name, or the package is not installed.
    DataError
        The calendar does not reach there.
    """
    try:
        import exchange_calendars as known  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError:
        raise ConfigError(
            f"the calendar of {exchange} needs exchange_calendars, which is not installed: "
            f"pip install 'fastsim-rl[calendars]'"
        ) from None
    names = known.get_calendar_names()
    if exchange not in names:
        raise ConfigError(
            f"there is no calendar of an exchange {exchange!r}: name one such as XNYS, XLON or "
            f"XTKS{did_you_mean(exchange, names)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, at what the package asks of it
            kind = type(known.get_calendar(exchange))
            bounds = kind.bound_min(), kind.bound_max()
            start, end = f"{first_year}-01-01", f"{first_year + DECADE - 1}-12-31"
            found = kind(
                start=max(start, str(bounds[0])[:10]) if bounds[0] is not None else start,
                end=min(end, str(bounds[1])[:10]) if bounds[1] is not None else end,
            )
    except (ValueError, known.errors.CalendarError) as error:
        raise DataError(
            f"the calendar of {exchange} does not know {first_year} to "
            f"{first_year + DECADE - 1}: {one_line(error)}"
        ) from None
    return frozenset(stamp.date() for stamp in found.sessions)
