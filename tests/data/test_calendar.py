"""The calendar that training bars kept: holidays come back, gaps do not grow."""

import sys
from datetime import date

import numpy as np
import pytest
from dateutil.easter import easter as published

from fastsim.config import from_mapping, to_mapping
from fastsim.data import exchange
from fastsim.data.calendar import TradingCalendar, easter
from fastsim.data.source import DataConfig, read_source
from fastsim.errors import ConfigError, DataError

CLOSED = {  # New York: a storm, two funerals, and a holiday that was new
    *(date(2012, 10, 29), date(2012, 10, 30), date(2018, 12, 5), date(2022, 6, 20)),
}


def stamps(name):
    return read_source(DataConfig(source=name)).timestamps


def every(step, count, start="2024-03-04T00:00"):
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(step, "m")


def sessions(days, start="14:30", bars=13, step=30):
    """Bars of half an hour, on weekdays."""
    first = np.datetime64(f"2024-03-04T{start}", "ns")
    mornings = [first + np.timedelta64(day, "D") for day in range(days) if day % 7 < 5]
    return np.concatenate([m + np.arange(bars) * np.timedelta64(step, "m") for m in mornings])


def test_easter_is_where_others_find_it():
    assert all(easter(year) == published(year) for year in range(1583, 2300))


@pytest.mark.parametrize("name", ["us20", "tech4"])
def test_what_was_closed_every_year_is_closed_later_too(name):
    timestamps = stamps(name)
    cut = int(0.6 * len(timestamps))
    calendar = TradingCalendar.of(timestamps[:cut])
    assert calendar.weekdays == (0, 1, 2, 3, 4) and calendar.easter_days == (-2,)
    assert {(1, 1), (7, 4), (12, 25)} == set(calendar.dates)
    assert {(1, 0, 3), (2, 0, 3), (5, 0, -1), (9, 0, 1), (11, 3, 4)} == set(calendar.nth_weekdays)
    calendar.check(timestamps[cut:], closed=CLOSED)
    with pytest.raises(DataError, match="there is no bar of 20"):
        calendar.check(timestamps[cut:])
    assert from_mapping(TradingCalendar, to_mapping(calendar)) == calendar


@pytest.mark.parametrize("name", ["us20", "tech4"])
def test_a_closure_that_bars_learned_by_had_is_known(name):
    timestamps = stamps(name)
    calendar = TradingCalendar.of(timestamps)
    calendar.check(timestamps)
    days = {str(day) for day in timestamps.astype("datetime64[D]")}
    assert "2012-10-29" in calendar.closed and not days & set(calendar.closed)
    with pytest.raises(DataError, match="2012-10-25"):
        calendar.check(
            timestamps[timestamps.astype("datetime64[D]") != np.datetime64("2012-10-25")]
        )


@pytest.mark.parametrize("name", ["us20", "tech4"])
def test_a_bar_that_is_missing_is_found(name):
    timestamps = stamps(name)
    cut = int(0.6 * len(timestamps))
    calendar, missed = TradingCalendar.of(timestamps[:cut]), 0
    for row in range(cut, len(timestamps) - 1):
        try:
            calendar.check(timestamps[[row - 1, row + 1]], closed=CLOSED)
            missed += 1
        except DataError as error:
            assert str(timestamps[row])[:10] in str(error)
    assert missed <= 5  # Fridays before a first of January: exchanges differ


def test_around_the_clock_every_bar_is_expected():
    calendar = TradingCalendar.of(every(60, 500))
    later = every(60, 200, "2025-01-01T00:00")
    calendar.check(later)
    with pytest.raises(DataError, match="bars are missing between 2025-01-03T01:00:00 and"):
        calendar.check(np.delete(later, 50))


def test_sessions_have_nights_but_no_holes():
    calendar = TradingCalendar.of(sessions(60))
    later = sessions(20) + np.timedelta64(364, "D")
    calendar.check(later)
    with pytest.raises(DataError, match=r"bars are missing between .*60 minutes apart"):
        calendar.check(np.delete(later, 5))
    with pytest.raises(DataError, match=r"there is no bar of 2025-03-04|bars are missing"):
        calendar.check(np.concatenate([later[:13], later[26:]]))


def test_weeks_and_months_may_be_as_far_apart_as_they_were():
    weekly = every(7 * 1440, 120)
    calendar = TradingCalendar.of(weekly)
    calendar.check(weekly[-40:])
    with pytest.raises(DataError, match="14 days apart, where training bars were 7 days at most"):
        calendar.check(np.delete(weekly[-40:], 7))
    months = np.arange("2000-01", "2010-01", dtype="datetime64[M]").astype("datetime64[ns]")
    monthly = TradingCalendar.of(months)
    monthly.check(months + np.timedelta64(0, "D"))
    with pytest.raises(DataError, match="bars are missing"):
        monthly.check(np.delete(months, 30))


def test_a_month_is_over_when_the_longest_is_and_a_week_after_seven_days():
    months = np.arange("2000-01", "2010-01", dtype="datetime64[M]").astype("datetime64[ns]")
    calendar, last = TradingCalendar.of(months), np.datetime64("2010-01-01", "ns")
    with pytest.raises(DataError, match="not over before 2010-02-01"):
        calendar.check_end(last, np.datetime64("2010-01-31T23:00"))
    calendar.check_end(last, np.datetime64("2010-02-01"))
    with pytest.raises(DataError, match="the last bar is that of 2010-01-01"):
        calendar.check_end(last, np.datetime64("2010-03-06"))
    weekly = TradingCalendar.of(every(7 * 1440, 120))
    assert weekly.closes(last) == np.datetime64("2010-01-08")


def test_around_the_clock_a_bar_is_late_when_the_next_is_over():
    calendar, last = TradingCalendar.of(every(60, 500)), np.datetime64("2025-01-01T05:00", "ns")
    calendar.check_end(last, np.datetime64("2025-01-01T06:59"))
    with pytest.raises(DataError, match="fetch it"):
        calendar.check_end(last, np.datetime64("2025-01-01T07:02"))
    nights, friday = TradingCalendar.of(sessions(60)), np.datetime64("2025-03-07T20:30", "ns")
    nights.check_end(friday, np.datetime64("2025-03-10T14:59"))
    with pytest.raises(DataError, match="fetch it"):
        nights.check_end(friday, np.datetime64("2025-03-11T14:59"))


@pytest.mark.parametrize("name", ["us20", "tech4"])
def test_an_exchange_knows_what_never_came_back(name):
    pytest.importorskip("exchange_calendars")
    timestamps = stamps(name)
    calendar = TradingCalendar.of(timestamps[:300], "XNYS")
    calendar.check(timestamps)  # storm, mournings and a new holiday included
    assert from_mapping(TradingCalendar, to_mapping(calendar)) == calendar
    for row in range(300, len(timestamps) - 1, 7):
        day = str(timestamps[row])[:10]
        with pytest.raises(DataError, match=f"there is no bar of {day}"):
            calendar.check(timestamps[[row - 1, row + 1]])


def test_an_exchange_says_when_the_next_bar_is_due():
    pytest.importorskip("exchange_calendars")
    calendar, learned = (TradingCalendar.of(stamps("tech4")[:900], who) for who in ("XNYS", None))
    last, now = np.datetime64("2025-01-08", "ns"), np.datetime64("2025-01-10T12:00")
    calendar.check_end(last, now)  # the 9th was a day of mourning
    with pytest.raises(DataError, match="that of 2025-01-09 is over by now"):
        learned.check_end(last, now)
    with pytest.raises(DataError, match="that of 2025-01-10 is over by now"):
        calendar.check_end(last, np.datetime64("2025-01-11T00:00"))


def test_hours_of_an_exchange_skip_its_holidays():
    pytest.importorskip("exchange_calendars")
    days = [day for day in range(60) if day % 7 < 5 and day != 25]  # Good Friday of 2024
    first = np.datetime64("2024-03-04T14:30", "ns")
    hours = [first + np.timedelta64(24 * day + hour, "h") for day in days for hour in range(7)]
    timestamps = np.array(hours)
    calendar = TradingCalendar.of(timestamps[: 7 * 10], "XNYS")
    calendar.check(timestamps)
    with pytest.raises(DataError, match=r"there is no bar of 2024-03-28"):
        calendar.check(timestamps[(timestamps < hours[7 * 18]) | (timestamps >= hours[7 * 19])])
    with pytest.raises(DataError, match=r"bars are missing between .*120 minutes apart"):
        calendar.check(np.delete(timestamps, 3))


def test_calendars_that_are_none_are_refused(monkeypatch):
    timestamps = stamps("tech4")
    pytest.importorskip("exchange_calendars")
    with pytest.raises(ConfigError, match=r"no calendar of an exchange 'XNYZ'.*did you mean"):
        TradingCalendar.of(timestamps, "XNYZ")
    with pytest.raises(DataError, match="XLON was closed on it: name the calendar of"):
        TradingCalendar.of(timestamps, "XLON")
    with pytest.raises(DataError, match="is of days, and bars are longer"):
        TradingCalendar.of(every(7 * 1440, 120), "XNYS")
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    exchange.sessions.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'fastsim-rl\[calendars\]'"):
        TradingCalendar.of(timestamps, "XNYS")
