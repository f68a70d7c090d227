"""When bars are to be expected: by the rule that training bars kept, or as an exchange says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsim.config import configuration
from fastsim.data.dates import show
from fastsim.data.exchange import is_session, require_exchange
from fastsim.errors import DataError

DAY = 86_400.0
DAILY = 1.5 * DAY
"""Bars up to this length are expected day by day."""
WEEKLY = 8 * DAY
"""Bars up to this length are all as long."""
SEARCHED = 400
"""Days among which the next one with a bar is looked for."""
USUAL = 0.6
"""Share of its years in which a day was without a bar, from which on it is a holiday."""
SLACK = 1.01
"""What a gap may be longer than the longest one of its kind in training."""
Stamps = NDArray[np.datetime64]


@configuration
class TradingCalendar:
    """How bars followed one another in training. Gaps are in seconds, days in UTC.

    Bars of days fall on `weekdays`, but for holidays, which come back every year: on a date, which
    a weekend moves to the day beside it; on the nth weekday of a month; so many days from Easter;
    and but for single days that never came back.
    """

    bar_seconds: float
    """Median time from a bar to the next."""
    longest_gap: float
    """Longest time from a bar to the next."""
    longest_gap_in_a_day: float
    """The same of bars that begin on one day; 0 where each begins on a day of its own."""
    weekdays: tuple[int, ...]
    """Days of the week, from Monday = 0, on which bars begin."""
    dates: tuple[tuple[int, int], ...] = ()
    """Holidays by month and day."""
    nth_weekdays: tuple[tuple[int, int, int], ...] = ()
    """Holidays by month, weekday and which of them, from 1; -1 is the month's last."""
    easter_days: tuple[int, ...] = ()
    """Holidays by days after Easter Sunday."""
    closed: tuple[str, ...] = ()
    """Further days without a bar in training, such as those of a storm, as ISO dates."""
    exchange: str | None = None
    """Whose own calendar says on which days there are bars, such as XNYS, in place of weekdays and
    holidays that were learned."""

    @classmethod
    def of(cls, timestamps: Stamps, exchange: str | None = None) -> TradingCalendar:
        """What bars at `timestamps` [T] kept to; those of an exchange, if one is named.

        Raises
        ------
        ConfigError
            There is no calendar of this exchange, or no package that has it.
        DataError
            The exchange was closed on a day that has a bar, or bars are longer than a day.
        """
        gaps, days = _gaps(timestamps), _days(timestamps)
        if exchange is not None:
            if float(np.median(gaps)) > DAILY:
                raise DataError(
                    f"the calendar of {exchange} is of days, and bars are longer: name none"
                )
            require_exchange(exchange, set(days.tolist()))
        within = gaps[np.diff(days) == np.timedelta64(0, "D")]
        seconds = float(np.median(gaps))
        weekdays = tuple(sorted({day.weekday() for day in days.tolist()}))
        kept = _Holidays(days.tolist(), weekdays) if seconds <= DAILY else None
        return cls(
            bar_seconds=seconds,
            longest_gap=float(gaps.max()),
            longest_gap_in_a_day=float(within.max(initial=0.0)),
            weekdays=weekdays,
            exchange=exchange,
            **({} if kept is None else kept.usual()),
        )

    def check(self, timestamps: Stamps, closed: Collection[date] = ()) -> None:
        """Raise DataError, naming where, if bars at `timestamps` [T] do not follow one another so.

        Parameters
        ----------
        closed
            Further days on which nothing was traded.
        """
        gaps, days = _gaps(timestamps), _days(timestamps)
        for row in (np.flatnonzero(gaps <= 0) + 1)[:1].tolist():
            self._refuse_order(timestamps, row)
        usual = [self.exchange is not None or number in self.weekdays for number in range(7)]
        skipped = np.busday_count(days[:-1] + 1, days[1:], weekmask=usual)  # weekdays between
        most = np.where(np.diff(days) > 0, self.longest_gap, self.longest_gap_in_a_day)
        suspect = (gaps > SLACK * most) | (skipped > 0)
        for row in (np.flatnonzero(suspect) + 1).tolist():
            self._check_gap(timestamps[row - 1], timestamps[row], closed)

    def _check_gap(
        self, before: np.datetime64, after: np.datetime64, closed: Collection[date]
    ) -> None:
        """Raise DataError unless nothing is missing between two bars."""
        days = [stamp.astype("datetime64[D]").item() for stamp in (before, after)]
        between = list(_between(*days))
        missing = [day for day in between if self._is_expected(day, closed)]
        if missing and self.bar_seconds <= DAILY:
            raise DataError(
                f"there is no bar of {missing[0]}, between {show(before)} and {show(after)}: fetch "
                f"it, or name {missing[0]} among the days that were `closed`"
            )
        if self.exchange is not None and days[0] < days[1]:
            return  # it was closed in between
        gap = float((after - before) / np.timedelta64(1, "s"))
        most = self.longest_gap if days[0] < days[1] else self.longest_gap_in_a_day
        if gap > SLACK * most and not set(between) & set(closed):
            raise DataError(
                f"bars are missing between {show(before)} and {show(after)}: {_words(gap)} apart, "
                f"where training bars were {_words(most)} at most; fetch them"
            )

    def closes(self, stamp: np.datetime64) -> np.datetime64:
        """When the bar that begins at `stamp` is over; one of months, when the longest would be."""
        length = self.bar_seconds if self.bar_seconds <= WEEKLY else self.longest_gap
        return stamp + np.timedelta64(round(1e9 * length), "ns")

    def check_end(
        self, last: np.datetime64, now: np.datetime64, closed: Collection[date] = ()
    ) -> None:
        """Raise DataError unless the bar that begins at `last` is over, and no later one is.

        Of bars of days the next is known; of others, that it does not begin later than any did.
        """
        over = self.closes(last)
        if over > now:
            raise DataError(
                f"the bar of {show(last)} is not over before {show(over)}, and it is {show(now)}: "
                f"wait, or leave it out"
            )
        follows = self._next(last, closed)
        if self.closes(follows) <= now:
            raise DataError(
                f"the last bar is that of {show(last)}, and it is {show(now)}: that of "
                f"{show(follows)} is over by now; fetch it"
            )

    def _next(self, last: np.datetime64, closed: Collection[date]) -> np.datetime64:
        """When the next bar begins at the latest."""
        longest = last + np.timedelta64(round(1e9 * SLACK * self.longest_gap), "ns")
        if self.longest_gap_in_a_day or self.bar_seconds > DAILY:
            return longest
        day: date = last.astype("datetime64[D]").item()
        ahead = (day + timedelta(number) for number in range(1, SEARCHED))
        found = next((each for each in ahead if self._is_expected(each, closed)), None)
        if found is None:
            return longest
        return last + np.timedelta64((found - day).days, "D")

    def _is_expected(self, day: date, closed: Collection[date]) -> bool:
        """Whether there should be a bar on this day."""
        if day in closed or day.isoformat() in self.closed:
            return False
        if self.exchange is not None:
            return is_session(self.exchange, day)
        if day.weekday() not in self.weekdays:
            return False
        weekday_keys = {(day.month, day.weekday(), nth) for nth in _which(day)}
        near = [day]
        if 5 not in self.weekdays:
            near += [day + timedelta(1)] if day.weekday() == 4 else []
            near += [day - timedelta(1)] if day.weekday() == 0 else []
        dates = {(each.month, each.day) for each in near}
        after_easter = (day - easter(day.year)).days
        return not (
            dates & set(self.dates)
            or weekday_keys & set(self.nth_weekdays)
            or after_easter in self.easter_days
        )

    def expects(self, day: date) -> bool:
        """Whether there is to be a bar on a day."""
        return self._is_expected(day, ())

    def _refuse_order(self, timestamps: Stamps, row: int) -> None:
        stamp = show(timestamps[row])
        if timestamps[row] in timestamps[:row]:
            raise DataError(f"the bar of {stamp} is there twice: keep one of them")
        raise DataError(
            f"the bar of {stamp} comes after that of {show(timestamps[row - 1])}: sort bars by time"
        )


class _Holidays:
    """Days without bars in training, counted by each way in which they could come back."""

    def __init__(self, days: list[date], weekdays: tuple[int, ...]) -> None:
        self.weekdays, self.first, self.last = weekdays, days[0], days[-1]
        had = set(days)
        span = (days[-1] - days[0]).days
        every = (days[0] + timedelta(number) for number in range(span + 1))
        self.days = [day for day in every if day.weekday() in weekdays]
        self.missing = {day for day in self.days if day not in had}

    def usual(self) -> dict[str, Any]:
        """Holidays by date, by weekday of a month and by distance from Easter, and other days."""
        left, found = set(self.missing), {}
        for name, keys in (
            ("easter_days", lambda day: [(day - easter(day.year)).days]),
            ("nth_weekdays", lambda day: [(day.month, day.weekday(), n) for n in _which(day)]),
            ("dates", lambda day: [(day.month, day.day)]),
        ):
            found[name] = tuple(sorted(self._usual(keys, left)))
        return found | {"closed": tuple(day.isoformat() for day in sorted(left))}

    def _usual(self, keys: Callable[[date], list[Any]], left: set[date]) -> Iterator[Any]:
        """Keys whose days are holidays, the surest first; what they explain leaves `left`."""
        could = Counter(key for day in self.days for key in keys(day))
        while left:
            were = Counter(key for day in left for key in keys(day))
            best = max(were, key=lambda key: (were[key] / could[key], were[key], key))
            if were[best] < max(2, USUAL * could[best]):
                return
            yield best
            left -= {day for day in left if best in keys(day)}


def easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (the anonymous algorithm; Meeus 1991, chapter 8)."""
    century, rest = divmod(year, 100)
    leap, left = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * (year % 19) + century - leap - correction + 15) % 30
    week = (32 + 2 * left + 2 * (rest // 4) - moon - rest % 4) % 7
    late = (year % 19 + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * late + 114, 31)
    return date(year, month, day + 1)


def _which(day: date) -> list[int]:
    """Which of its weekday in its month a day is: the nth, and -1 if it is the last."""
    nth = (day.day - 1) // 7 + 1
    return [nth, -1] if (day + timedelta(7)).month != day.month else [nth]


def _between(before: date, after: date) -> Iterator[date]:
    """Days after one and before another."""
    return (before + timedelta(number) for number in range(1, (after - before).days))


def _gaps(timestamps: Stamps) -> NDArray[np.float64]:
    """Seconds [T - 1] from each bar to the next."""
    gaps: NDArray[np.float64] = np.diff(timestamps) / np.timedelta64(1, "s")
    return gaps


def _days(timestamps: Stamps) -> NDArray[np.datetime64]:
    return timestamps.astype("datetime64[D]")


def _words(seconds: float) -> str:
    unit, length = ("days", DAY) if seconds >= DAY else ("minutes", 60.0)
    return f"{seconds / length:,.4g} {unit}"
