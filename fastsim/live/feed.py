"""Feeds of bars that have closed: a history handed out bar by bar, or what a vendor has by now."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Protocol

import numpy as np

from fastsim.data.bars import Bars
from fastsim.data.calendar import DAILY, DAY, TradingCalendar
from fastsim.data.dates import rows_between, show_day
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import ConfigError, DataError
from fastsim.live.watching import CandleWatch

MORE = 4
"""How often a vendor is asked for a span twice as long, where the first had too few bars."""
SPARE_DAYS = 10
_INTERVALS = {60: "1m", 300: "5m", 900: "15m", 1800: "30m", 3600: "1h", 14400: "4h", 86400: "1d"}


class Feed(Protocol):
    """Where bars come from, and what time it is there."""

    @property
    def name(self) -> str:
        """As it was asked for, such as "replay:us20"."""
        ...

    @property
    def ends(self) -> bool:
        """Whether there will be no more bars once there is none."""
        ...

    @property
    def closed(self) -> Collection[date]:
        """Days without a bar that a calendar cannot know of."""
        ...

    def bars(self, symbols: Sequence[str], needed: int, after: np.datetime64 | None) -> Bars | None:
        """Bars up to the newest that has closed; None if there is none `after` the last known.

        They reach `needed` bars back from the last known, that included.
        """
        ...

    def now(self, bar: np.datetime64) -> np.datetime64:
        """The time, UTC, when `bar` is the last that was handed out."""
        ...

    def wait(self, seconds: float) -> None:
        """Come back when there may be a new bar, after so long at the latest."""
        ...

    def close(self) -> None:
        """Let go of what it listens to."""
        ...


class ReplayFeed:
    """A history as if it happened now: one bar at a time, and its clock is the bars'.

    Days that the history has no bar of were closed.

    Parameters
    ----------
    source
        A file or a sample.
    calendar
        When its bars close.
    start, end
        ISO dates of the first and the last bar to be handed out as the newest.

    Raises
    ------
    DataError
        As `load_bars`; the dates leave no bar.
    """

    ends = True

    def __init__(
        self,
        source: str,
        calendar: TradingCalendar,
        *,
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        self.name, self._calendar = f"replay:{source}", calendar
        self._bars = load_bars(DataConfig(source=source))
        rows = rows_between(self._bars.timestamps, start, end)
        self._begin, self._stop = None if start is None else rows.start, rows.stop
        if rows.stop <= rows.start:
            raise DataError(f"{source} has no bars from {start or 'its first'} to {end or 'now'}")
        days = self._bars.timestamps.astype("datetime64[D]")
        every = np.arange(days[0], days[-1])
        self.closed: Collection[date] = frozenset(every[~np.isin(every, days)].tolist())

    def bars(self, symbols: Sequence[str], needed: int, after: np.datetime64 | None) -> Bars | None:
        """The next bar, with those before it."""
        stamps = self._bars.timestamps
        row = needed - 1 if self._begin is None else self._begin
        known = row
        if after is not None:
            known = int(np.searchsorted(stamps, after))
            row = int(np.searchsorted(stamps, after, side="right"))
        if row >= self._stop:
            return None
        columns = [n for n, symbol in enumerate(self._bars.symbols) if symbol in symbols]
        return self._bars.take(slice(max(0, known + 1 - needed), row + 1), columns)

    def now(self, bar: np.datetime64) -> np.datetime64:
        """When that bar closes."""
        return self._calendar.closes(bar)

    def wait(self, seconds: float) -> None:
        """The next bar is there already."""

    def close(self) -> None:
        """It listens to nothing."""


class LiveFeed:
    """Bars of a vendor by the clock of this machine. The bar that is not over is left out.

    Parameters
    ----------
    name
        As it was asked for.
    fetch
        Gives bars of symbols from one ISO date to another, both inclusive.
    calendar
        How bars follow one another, and when they close.
    closed
        Days without a bar that the calendar does not know of.
    watch
        Who tells that a bar has begun; the clock if there is nobody.
    """

    ends = False

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        calendar: TradingCalendar,
        *,
        closed: Collection[date] = (),
        watch: CandleWatch | None = None,
    ) -> None:
        self.name, self._fetch, self._calendar = name, fetch, calendar
        self.closed, self._watch = closed, watch

    def bars(self, symbols: Sequence[str], needed: int, after: np.datetime64 | None) -> Bars | None:
        """What has closed by now."""
        now = clock()
        for doubling in range(MORE):
            bars = self._closed_bars(symbols, self._start(needed, after, now, 2**doubling), now)
            if bars is None or (after is not None and bars.timestamps[-1] <= after):
                return None
            known = len(bars) - 1
            if after is not None:
                known = int(np.searchsorted(bars.timestamps, after))
            if known + 1 >= needed:
                return bars.take(slice(known + 1 - needed, None))
        return bars

    def now(self, bar: np.datetime64) -> np.datetime64:
        """The clock's time."""
        return clock()

    def wait(self, seconds: float) -> None:
        """Sleep, or until the exchange tells that the next bar has begun."""
        if self._watch is None:
            time.sleep(seconds)
        else:
            self._watch.wait(seconds)

    def close(self) -> None:
        """Let go of who tells of new bars."""
        if self._watch is not None:
            self._watch.close()

    def _start(
        self, needed: int, after: np.datetime64 | None, now: np.datetime64, times: int
    ) -> date:
        """From which day on bars are asked for, so that there are as many as needed."""
        kept = len(self._calendar.weekdays) / 7.0
        days = times * needed * self._calendar.bar_seconds / DAY / kept * 1.05 + SPARE_DAYS
        last: date = (now if after is None else after).astype("datetime64[D]").item()
        return last - timedelta(days=ceil(days))

    def _closed_bars(self, symbols: Sequence[str], start: date, now: np.datetime64) -> Bars | None:
        bars = self._fetch(symbols, start.isoformat(), show_day(now))
        over = np.array([self._calendar.closes(stamp) <= now for stamp in bars.timestamps[-2:]])
        kept = len(bars) - int((~over).sum())
        return bars.take(slice(0, kept)) if kept else None


class Fetch(Protocol):
    """Who gives bars of symbols from one ISO date to another, both inclusive."""

    def __call__(self, symbols: Sequence[str], start: str, end: str, /) -> Bars:
        """The bars."""
        ...


def clock() -> np.datetime64:
    """The time, UTC."""
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")


def interval_of(calendar: TradingCalendar) -> str:
    """How vendors write the length of its bars; ConfigError where they have no word for it."""
    seconds = round(calendar.bar_seconds)
    if calendar.longest_gap_in_a_day == 0 and DAY <= seconds <= DAILY:
        seconds = round(DAY)
    if seconds not in _INTERVALS:
        raise ConfigError(
            f"the agent's bars are {seconds} s long, and vendors have bars of "
            f"{', '.join(_INTERVALS.values())}: feed it from a store or a file"
        )
    return _INTERVALS[seconds]
