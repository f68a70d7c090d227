"""Stamps of bars to come: by the rule that bars have kept, or as an exchange says.

Days are those that the calendar expects: the weekdays that there have been, without the holidays
that came back every year, or the sessions of an exchange. Within a day bars come at the times of
its weekday of late, in UTC: a session that moves with daylight saving moves when bars have shown
it. Weeks are seven days apart; months, quarters and years keep their place in the month.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fastsim.data.calendar import DAILY, SEARCHED, WEEKLY, TradingCalendar
from fastsim.errors import DataError

Stamps = NDArray[np.datetime64]
LATE = 4
"""Days of a weekday, the latest, of which the one with the most bars shows when bars are."""
WEEK_DAYS = 7
MONTHS = 12
PLACES: dict[str, Callable[[int, int], date]] = {
    "first": lambda year, month: date(year, month, 1),
    "last": lambda year, month: date(year, month, monthrange(year, month)[1]),
    "first weekday": lambda year, month: _weekday_from(date(year, month, 1), 1),
    "last weekday": lambda year, month: _weekday_from(
        date(year, month, monthrange(year, month)[1]), -1
    ),
}
"""Days of a month that bars of months may stand for, tried in this order."""


def stamps_to_come(timestamps: Stamps, count: int, exchange: str | None = None) -> Stamps:
    """When the next `count` bars begin after those at `timestamps` [T], which increase.

    Parameters
    ----------
    exchange
        Whose sessions the days are, such as XNYS.

    Raises
    ------
    ConfigError
        There is no calendar of this exchange, or no package that has it.
    DataError
        There are fewer than two bars, the exchange was closed on a day that has one, or bars are
        longer than a day and an exchange is named.
    """
    if len(timestamps) < 2:
        raise DataError("when the next bars come is told by two at least: give more")
    stamps = timestamps.astype("datetime64[ns]")
    calendar = TradingCalendar.of(stamps, exchange)
    if calendar.bar_seconds > DAILY:
        coming = _longer(stamps, calendar.bar_seconds)
    else:
        coming = _of_days(stamps, calendar)
    found = list(islice(coming, count))
    if len(found) < count:
        raise DataError(
            f"within {SEARCHED} days of {found[-1] if found else stamps[-1]} no bar is to be "
            f"expected: name the exchange, or give bars of more weeks"
        )
    return np.array(found, dtype="datetime64[ns]")


def _of_days(stamps: Stamps, calendar: TradingCalendar) -> Iterator[np.datetime64]:
    """Bars of a day or shorter."""
    last = stamps[-1]
    days = stamps.astype("datetime64[D]")
    span = int((days[-1] - days[0]).astype(int)) + 1
    if span == 1:
        yield from _evenly(last, calendar.bar_seconds)
        return
    is_short = span < 2 * WEEK_DAYS
    times = _times(stamps, days, by_weekday=not is_short)
    today: date = days[-1].item()
    known = calendar.exchange is not None or span > WEEK_DAYS
    quiet = 0
    for ahead in range(SEARCHED * WEEK_DAYS):
        day = today + timedelta(ahead)
        found = times[day.weekday()] if not known or calendar.expects(day) else None
        quiet = quiet + 1 if found is None else 0
        if quiet > SEARCHED:
            return
        if found is not None:
            each = np.datetime64(day, "ns") + found
            yield from each[each > last]


def _times(
    stamps: Stamps, days: Stamps, *, by_weekday: bool
) -> list[NDArray[np.timedelta64] | None]:
    """Times of day at which bars begin, for each day of the week; None where there are none."""
    unique, first, counts = np.unique(days, return_index=True, return_counts=True)
    weekdays = (unique.astype(int) + 3) % WEEK_DAYS  # 1970 began on a Thursday
    found: list[NDArray[np.timedelta64] | None] = []
    for weekday in range(WEEK_DAYS):
        of_it = np.flatnonzero(weekdays == weekday) if by_weekday else np.arange(len(unique))
        late = of_it[-LATE:] if by_weekday else of_it
        if not len(late):
            found.append(None)
            continue
        fullest = late[len(late) - 1 - int(np.argmax(counts[late][::-1]))]
        rows = slice(int(first[fullest]), int(first[fullest] + counts[fullest]))
        found.append(stamps[rows] - unique[fullest].astype("datetime64[ns]"))
    return found


def _longer(stamps: Stamps, seconds: float) -> Iterator[np.datetime64]:
    """Bars of more than a day."""
    days: list[date] = stamps.astype("datetime64[D]").tolist()
    months = np.diff([day.year * MONTHS + day.month for day in days])
    step = int(np.median(months))
    if seconds <= WEEKLY or step < 1:
        yield from _evenly(stamps[-1], seconds)
        return
    time_of_day = stamps[-1] - stamps[-1].astype("datetime64[D]").astype("datetime64[ns]")
    place = _place_of(days)
    month = days[-1].year * MONTHS + days[-1].month - 1
    while True:
        month += step
        day = place(month // MONTHS, month % MONTHS + 1)
        yield np.datetime64(day, "ns") + time_of_day


def _place_of(days: list[date]) -> Callable[[int, int], date]:
    """Which day of a month it is that bars stand for."""
    for place in PLACES.values():
        if all(place(day.year, day.month) == day for day in days):
            return place
    latest = max(day.day for day in days)
    return lambda year, month: date(year, month, min(latest, monthrange(year, month)[1]))


def _weekday_from(day: date, step: int) -> date:
    """The first day from Monday to Friday from a day on, or back."""
    while day.weekday() > 4:
        day += timedelta(step)
    return day


def _evenly(last: np.datetime64, seconds: float) -> Iterator[np.datetime64]:
    step = np.timedelta64(round(1e9 * seconds), "ns")
    stamp = last
    while True:
        stamp = stamp + step
        yield stamp
