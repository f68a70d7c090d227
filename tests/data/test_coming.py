"""Stamps of bars to come: what followed in real and made calendars, told from what was before."""

import numpy as np
import pytest

from fastsim.data.coming import stamps_to_come
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, DataError


def days(start, stop):
    return np.arange(start, stop, dtype="datetime64[D]").astype("datetime64[ns]")


def weekdays(start, stop, holidays=()):
    every = np.arange(start, stop, dtype="datetime64[D]")
    kept = every[np.is_busday(every, holidays=list(holidays))]
    return kept.astype("datetime64[ns]")


def minutes(step, count, start="2024-03-04T00:00"):
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(step, "m")


def continued(stamps, cut, count, exchange=None):
    """Whether what follows `cut` bars is told by them."""
    found = stamps_to_come(stamps[:cut], count, exchange)
    assert found.dtype == np.dtype("datetime64[ns]")
    np.testing.assert_array_equal(found, stamps[cut : cut + count])


def test_business_days_with_a_holiday_are_no_hindrance():
    stamps = weekdays("2024-01-01", "2024-12-31", ["2024-05-27"])
    continued(stamps, 150, 60)  # a holiday before the cut: pandas infers no frequency of these


def test_every_day_of_the_week_comes_where_it_has_been():
    continued(days("2024-01-01", "2024-06-01"), 60, 40)
    continued(days("2024-01-01", "2024-06-01"), 3, 40)


@pytest.mark.parametrize("name", ["us20", "tech4"])
def test_holidays_that_came_back_every_year_are_foreseen(name):
    stamps = sample_bars(name).timestamps
    wrong = 0
    for cut in range(len(stamps) // 2, len(stamps) - 70, 97):
        found = stamps_to_come(stamps[:cut], 63)
        wrong += not np.array_equal(found, stamps[cut : cut + 63])
    assert wrong <= 4  # storms, mournings, and a holiday that was new


def test_an_exchange_says_what_nobody_could_have_learned():
    pytest.importorskip("exchange_calendars")
    stamps = sample_bars("us20").timestamps
    for cut in range(300, len(stamps) - 70, 401):
        continued(stamps, cut, 63, "XNYS")
    with pytest.raises(ConfigError, match="no calendar of an exchange 'XNYZ'"):
        stamps_to_come(stamps, 5, "XNYZ")


def test_bars_around_the_clock_follow_each_other():
    continued(minutes(60, 2000), 1000, 500)
    continued(minutes(60, 30), 20, 10)
    continued(minutes(15, 3000), 700, 900)


def test_sessions_come_again_without_nights_weekends_and_holidays():
    every = [
        np.datetime64(f"{day}T14:30", "ns") + np.arange(13) * np.timedelta64(30, "m")
        for day in weekdays("2024-01-01", "2024-06-30", ["2024-03-29"]).astype("datetime64[D]")
    ]
    stamps = np.concatenate(every)
    for cut in (13 * 70, 13 * 70 + 5, 13 * 90 + 12):  # after the holiday
        continued(stamps, cut, 400)


def test_a_day_that_ends_early_is_not_taken_for_the_rule():
    every = [
        np.datetime64(f"{day}T14:00", "ns") + np.arange(7) * np.timedelta64(60, "m")
        for day in weekdays("2024-01-01", "2024-04-30").astype("datetime64[D]")
    ]
    every[-30] = every[-30][:3]
    stamps = np.concatenate(every)
    continued(stamps, len(stamps) - 7 * 28, 7 * 20)


def test_weeks_and_months_keep_their_place():
    continued(np.arange("2020-01-06", "2024-01-01", 7, dtype="datetime64[D]"), 100, 50)
    first = np.arange("2015-01", "2024-01", dtype="datetime64[M]").astype("datetime64[D]")
    last = first[1:] - np.timedelta64(1, "D")
    weekday = np.busday_offset(first, 0, roll="forward"), np.busday_offset(last, 0, "backward")
    for stamps in (first, last, *weekday, first[::3], last[2::3], first[::12]):
        continued(stamps.astype("datetime64[ns]"), len(stamps) // 2, len(stamps) // 3)
    middle = (first + np.timedelta64(14, "D")).astype("datetime64[ns]")
    continued(middle, 50, 20)


def test_times_of_day_stay():
    stamps = weekdays("2024-01-01", "2024-09-01") + np.timedelta64(21, "h")
    continued(stamps, 100, 20)


def test_one_bar_tells_nothing():
    with pytest.raises(DataError, match="told by two at least"):
        stamps_to_come(days("2024-01-01", "2024-01-02"), 3)
