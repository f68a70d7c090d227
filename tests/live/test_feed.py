"""Feeds hand out what has closed, and as much of it as is needed."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import random_bars

from fastsim.data.calendar import TradingCalendar
from fastsim.data.dates import show
from fastsim.errors import ConfigError, DataError
from fastsim.live import feed as feeds
from fastsim.live.feed import LiveFeed, ReplayFeed, interval_of

DAY = np.timedelta64(1, "D")
BARS = random_bars(300)
CALENDAR = TradingCalendar.of(BARS.timestamps)


class Vendor:
    """Has bars from its first day on, the one that is not over among them; counts questions."""

    def __init__(self, bars, first=0):
        self.bars, self.first, self.asked = bars, first, []

    def __call__(self, symbols, start, end):
        self.asked.append((start, end))
        stamps = self.bars.timestamps
        low = max(self.first, int(np.searchsorted(stamps, np.datetime64(start))))
        high = int(np.searchsorted(stamps, np.datetime64(end), side="right"))
        return self.bars.take(slice(low, high))


@pytest.fixture
def at(monkeypatch):
    def set_clock(stamp):
        monkeypatch.setattr(feeds, "clock", lambda: stamp)

    return set_clock


def live(vendor):
    return LiveFeed("vendor", vendor, CALENDAR)


def test_the_bar_that_is_not_over_is_left_out(at):
    stamps, vendor = BARS.timestamps, Vendor(BARS)
    at(stamps[200] + np.timedelta64(23, "h"))
    found = live(vendor).bars(BARS.symbols, 50, None)
    assert found.timestamps[-1] == stamps[199] and len(found) == 50
    at(stamps[200] + DAY)
    found = live(vendor).bars(BARS.symbols, 50, stamps[199])
    assert found.timestamps[-1] == stamps[200]
    assert found.timestamps[-51] == stamps[150]  # as many back from the last known


def test_there_is_nothing_new_until_a_bar_has_closed(at):
    stamps, vendor = BARS.timestamps, Vendor(BARS)
    at(stamps[200] + np.timedelta64(23, "h"))
    assert live(vendor).bars(BARS.symbols, 50, stamps[199]) is None
    at(stamps[202] + DAY)
    found = live(vendor).bars(BARS.symbols, 50, stamps[199])
    assert list(found.timestamps[-3:]) == list(stamps[200:203])  # what was missed meanwhile


def test_a_vendor_is_asked_further_back_where_it_had_too_few(at):
    sparse = replace(CALENDAR, bar_seconds=86_400.0 / 4)
    vendor = Vendor(BARS)
    at(BARS.timestamps[-1] + DAY)
    found = LiveFeed("vendor", vendor, sparse).bars(BARS.symbols, 100, None)
    assert len(found) == 100 and len(vendor.asked) > 1
    short = Vendor(BARS, first=280)
    assert len(live(short).bars(BARS.symbols, 100, None)) == 20  # the agent will refuse it


def test_a_replay_hands_out_one_bar_after_the_other():
    feed = ReplayFeed("tech4", CALENDAR, start="2010-01-04", end="2010-01-06")
    last, seen = None, []
    while (bars := feed.bars(("IBM", "AAPL"), 30, last)) is not None:
        last = bars.timestamps[-1]
        seen.append((show(last), len(bars)))
        assert feed.now(last) == last + DAY and bars.symbols == ("AAPL", "IBM")
    assert seen == [("2010-01-04", 30), ("2010-01-05", 31), ("2010-01-06", 31)]
    assert np.datetime64("2010-01-01").item() in feed.closed
    assert np.datetime64("2010-01-05").item() not in feed.closed
    with pytest.raises(DataError, match="tech4 has no bars from 2050-01-01"):
        ReplayFeed("tech4", CALENDAR, start="2050-01-01")


def test_lengths_of_bars_are_named_as_vendors_do():
    assert interval_of(CALENDAR) == "1d"
    hours = np.datetime64("2024-01-01T00", "ns") + np.arange(50) * np.timedelta64(1, "h")
    assert interval_of(TradingCalendar.of(hours)) == "1h"
    odd = np.datetime64("2024-01-01T00", "ns") + np.arange(50) * np.timedelta64(7, "m")
    with pytest.raises(ConfigError, match="bars are 420 s long, and vendors have bars of 1m"):
        interval_of(TradingCalendar.of(odd))
