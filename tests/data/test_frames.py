"""Higher bars: what they hold, and from which bar on they are known."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from worlds import random_bars

from fastsim.data.bars import Bars
from fastsim.data.frames import (
    LEAST,
    Spans,
    bar_length,
    bars_back,
    check_frames,
    cut,
    frame_length,
    higher_bars,
)
from fastsim.errors import ConfigError, DataError

MONDAY = pd.Timestamp("1970-01-05")
FIELDS = ("open", "high", "low", "close", "volume")
NAN = np.nan


def stamps(first, count, step):
    return pd.date_range(first, periods=count, freq=step).to_numpy().astype("datetime64[ns]")


def sessions(days, opens="09:30", bars=13, step="30min", zone="America/New_York"):
    """Stamps in UTC of the beginnings of bars of sessions by a local clock."""
    found = [
        pd.date_range(f"{day:%Y-%m-%d} {opens}", periods=bars, freq=step, tz=zone)
        for day in pd.bdate_range(*days)
    ]
    local = found[0].append(found[1:])
    return local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")


def with_stamps(timestamps, *, seed=0, holes=False, adjusted=False):
    bars = random_bars(len(timestamps), 3, seed, holes=holes, adjusted=adjusted)
    return replace(bars, timestamps=timestamps)


def without_some(bars, seed=1, share=0.3):
    """The same with this share of the bars left out of the calendar."""
    kept = np.random.default_rng(seed).random(len(bars)) > share
    kept[:2] = True  # the length of a bar stays to be seen
    arrays = {name: getattr(bars, name)[kept] for name in FIELDS}
    return replace(bars, timestamps=bars.timestamps[kept], **arrays)


CALENDARS = {
    "minutes": with_stamps(stamps("2024-02-28 22:58", 700, "1min"), holes=True),
    "minutes with gaps": without_some(with_stamps(stamps("2024-02-28", 700, "1min"), holes=True)),
    "sessions over spring": with_stamps(sessions(("2024-03-04", "2024-03-19")), holes=True),
    "sessions over autumn": with_stamps(sessions(("2024-10-30", "2024-11-12")), holes=True),
    "hours with gaps": without_some(with_stamps(stamps("2023-12-30", 600, "1h"), holes=True)),
    "days": with_stamps(stamps("1969-12-10", 90, "1D"), holes=True),
    "weekdays": random_bars(90, 3, holes=True),
}
FRAMES = {
    "minutes": ("2min", "5min", "15min", "1h", "150s", "7min"),
    "minutes with gaps": ("2min", "5min", "1h", "3h"),
    "sessions over spring": ("1h", "2h", "4h", "1d", "2d", "1w"),
    "sessions over autumn": ("1h", "3h", "1d", "1w"),
    "hours with gaps": ("2h", "5h", "1d", "1w"),
    "days": ("2d", "1w", "2w"),
    "weekdays": ("2d", "1w"),
}
CASES = [(name, frame) for name, frames in FRAMES.items() for frame in frames]


def by_pandas(bars, frame):
    """Fields of higher bars as pandas makes them, spans without bars left out."""
    length = pd.Timedelta(frame_length(frame))

    def resampled(values):
        table = pd.DataFrame(values, index=pd.DatetimeIndex(bars.timestamps))
        return table.resample(length, origin=MONDAY, closed="left", label="left")

    some = resampled(bars.close).size() > 0
    some = some if some.ndim == 1 else some.any(axis=1)
    made = {
        "open": resampled(bars.open).first(),
        "high": resampled(bars.high).max(),
        "low": resampled(bars.low).min(),
        "close": resampled(bars.close).last(),
        "volume": resampled(bars.volume).sum(min_count=1),
    }
    return some.index[some].to_numpy(), {
        name: table[some].to_numpy() for name, table in made.items()
    }


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_they_are_those_of_pandas(name, frame):
    bars = CALENDARS[name]
    spans = cut(bars.timestamps, frame)
    higher = higher_bars(bars, spans)
    starts, expected = by_pandas(bars, frame)
    assert len(starts) - len(higher) in (0, 1), "but for the last, which may not have closed"
    assert (higher.timestamps == starts[: len(higher)]).all()
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(higher, field), expected[field][: len(higher)], rtol=1e-12, err_msg=field
        )
    assert higher.symbols == bars.symbols and higher.adj_close is None


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_they_are_known_once_their_time_is_over_and_not_before(name, frame):
    bars = CALENDARS[name]
    spans = cut(bars.timestamps, frame)
    length, bar = frame_length(frame), bar_length(bars.timestamps)
    starts, _ = by_pandas(bars, frame)
    closes = bars.timestamps + bar
    for t in range(len(bars)):
        over = (starts <= bars.timestamps[t]) & (starts + length <= closes[t])
        assert spans.closed[t] == over.sum()
    assert spans.closed[-1] == len(spans.starts)
    # No bar of a higher bar comes after the bar from which on it is known.
    known_from = np.searchsorted(spans.closed, np.arange(1, len(spans.starts) + 1))
    assert (spans.stop - 1 <= known_from).all()
    assert (spans.stop[:-1] == spans.first[1:]).all() and spans.first[0] == 0


def test_a_table_by_hand():
    """Quarters of an hour from 09:30 on; the second asset does not trade in the first two."""
    bars = Bars(
        symbols=("A", "B"),
        timestamps=stamps("2024-01-02 09:30", 7, "15min"),  # to 11:00, so closes are to 11:15
        open=np.array([[10, NAN], [11, NAN], [12, 50], [13, 51], [14, 52], [15, 53], [16, 54.0]]),
        high=np.array([[20, NAN], [19, NAN], [18, 60], [25, 61], [16, 62], [15, 61], [16, 64.0]]),
        low=np.array([[9, NAN], [8, NAN], [7, 40], [6, 41], [9, 42], [8, 43], [7, 44.0]]),
        close=np.array([[11, NAN], [12, NAN], [13, 55], [14, 56], [15, NAN], [16, 58], [17, 59.0]]),
        volume=np.array([[1, NAN], [2, NAN], [3, 5], [4, 6], [5, 7], [6, 8], [7, 9.0]]),
    )
    spans = cut(bars.timestamps, "1h")
    # Rows at 09:30 and 09:45 are nine o'clock's; 10:00 to 10:45 are ten's; 11:00 is not over.
    assert spans.closed.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert spans.first.tolist() == [0, 2] and spans.stop.tolist() == [2, 6]
    higher = higher_bars(bars, spans)
    assert [str(stamp)[11:16] for stamp in higher.timestamps] == ["09:00", "10:00"]
    np.testing.assert_array_equal(higher.open, [[10, NAN], [12, 50]])
    np.testing.assert_array_equal(higher.high, [[20, NAN], [25, 61]])  # 62 had no close
    np.testing.assert_array_equal(higher.low, [[8, NAN], [6, 40]])
    np.testing.assert_array_equal(higher.close, [[12, NAN], [16, 58]])
    np.testing.assert_array_equal(higher.volume, [[3, NAN], [18, 19]])
    shown = spans.shown(higher.close)
    np.testing.assert_array_equal(shown[:, 0], [0, 12, 12, 12, 12, 16, 16])
    np.testing.assert_array_equal(shown[:, 1], [0, NAN, NAN, NAN, NAN, 58, 58])


def test_a_split_within_a_span_leaves_no_jump():
    """Two for one between the second and the third bar: 100 a share before is 50 after."""
    bars = Bars(
        symbols=("A",),
        timestamps=stamps("2024-01-01", 7, "1D"),  # Monday to Sunday
        open=np.array([[98, 100, 52, 51, 50, 49, 48.0]]).T,
        high=np.array([[104, 102, 53, 52, 51, 50, 49.0]]).T,
        low=np.array([[97, 96, 49, 48, 47, 46, 45.0]]).T,
        close=np.array([[100, 100, 50, 50, 50, 50, 50.0]]).T,
        adj_close=np.array([[50, 50, 50, 50, 50, 50, 50.0]]).T,
        volume=np.ones((7, 1)),
    )
    higher = higher_bars(bars, cut(bars.timestamps, "1w"))
    found = [float(getattr(higher, name)[0, 0]) for name in (*FIELDS, "adj_close")]
    assert found == [49, 53, 45, 50, 7, 50]


@pytest.mark.parametrize("frame", ["2d", "1w"])
def test_adjusted_prices_are_those_of_the_adjusted_bars(frame):
    bars = random_bars(90, 3, holes=True, adjusted=True)
    spans = cut(bars.timestamps, frame)
    higher = higher_bars(bars, spans)
    plain = replace(bars, adj_close=None, **{name: bars.adjusted(name) for name in FIELDS[:4]})
    for name in FIELDS[:4]:
        np.testing.assert_allclose(
            higher.adjusted(name), getattr(higher_bars(plain, spans), name), rtol=1e-12
        )
    np.testing.assert_array_equal(
        higher.close, higher_bars(replace(bars, adj_close=None), spans).close
    )


def test_bars_of_closes_alone_stay_so():
    bars = random_bars(40, 2, opens=False, volume=False)
    bars = replace(bars, high=None, low=None)
    higher = higher_bars(bars, cut(bars.timestamps, "1w"))
    assert higher.open is higher.high is higher.low is higher.volume is None
    assert np.isfinite(higher.close).all()


def test_days_stamped_at_the_close_of_a_session_are_an_hour_shorter_in_spring():
    """Bars last the shortest time between stamps: nothing is known before it may be."""
    days = sessions(("2024-03-04", "2024-03-29"), opens="16:00", bars=1)
    assert bar_length(days) == np.timedelta64(24, "h")  # the clocks change on a Sunday
    every = pd.date_range("2024-03-04 16:00", "2024-03-29 16:00", tz="America/New_York")
    daily = every.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    assert bar_length(daily) == np.timedelta64(23, "h")
    with pytest.raises(ConfigError, match=r"room for 2 bars of the data, which last 23h: name a"):
        cut(daily, "1d")
    spans = cut(daily, "1w")
    assert (spans.stop - spans.first).tolist() == [7, 7, 7]
    assert spans.closed[6] == 1 and spans.closed[5] == 0


def test_a_day_of_a_session_is_known_from_the_next_session_on():
    spans = cut(sessions(("2024-03-04", "2024-03-15")), "1d")
    assert (spans.stop - spans.first).tolist() == [13] * 9
    assert np.flatnonzero(np.diff(spans.closed)).tolist() == [12 + 13 * day for day in range(9)]


def test_a_day_that_ends_at_midnight_is_known_at_its_last_bar():
    spans = cut(stamps("2024-01-01", 72, "1h"), "1d")
    assert spans.closed.tolist() == [0] * 23 + [1] * 24 + [2] * 24 + [3]


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_so_many_bars_hold_the_higher_bars_that_closed_last(name, frame):
    timestamps = CALENDARS[name].timestamps
    spans = cut(timestamps, frame)
    for count in (1, 3):
        bars, closed = bars_back(spans, count), int(spans.closed[-1])
        if closed < count:
            assert bars == len(timestamps) * -(-count // closed)
            continue
        lengths = []
        for bar in np.flatnonzero(spans.closed >= count):
            start = spans.first[spans.closed[bar] - count]
            lengths.append(bar - start + 1)
        assert bars == max(lengths)
        assert bars >= count * np.median(spans.stop - spans.first)


def test_values_are_shown_from_their_close_on():
    spans = Spans(None, None, None, np.array([0, 0, 1, 1, 2]))
    values = np.array([[5.0, NAN], [7.0, 8.0]])
    np.testing.assert_array_equal(spans.shown(values), [[0, 0], [0, 0], [5, NAN], [5, NAN], [7, 8]])
    assert values[0, 0] == 5


@pytest.mark.parametrize(
    ("frame", "seconds"),
    [("30s", 30), ("5min", 300), ("1h", 3600), ("12h", 43_200), ("1d", 86_400), ("2w", 1_209_600)],
)
def test_frames_are_counts_and_units(frame, seconds):
    assert frame_length(frame) == np.timedelta64(seconds, "s")


@dataclass
class Holder:
    frames: object


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ("1h", r'Holder.frames must be a tuple such as \("15min", "1h"\), got \'1h\''),
        (None, "must be a tuple"),
        (("5m",), "Holder.frames must be a count below 10000 and one of s, min, h, d, w, .*'5m'"),
        (("1H",), "got '1H'"),
        (("0h",), "got '0h'"),
        (("01h",), "got '01h'"),
        (("10000min",), "got '10000min'"),
        (("1.5h",), "got '1.5h'"),
        (("h",), "got 'h'"),
        ((" 1h",), "got ' 1h'"),
        (("1h\n",), "got "),
        ((3600,), "got 3600"),
        (("1h", "60min"), "'60min' is as long as '1h': name each length once"),
        (("1d", "1h", "1d"), "'1d' is as long as '1d'"),
    ],
)
def test_what_is_no_frame_is_refused_by_name(frames, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_frames(Holder(frames), "frames")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "step"),
    [("1h", "1h"), ("1h", "45min"), ("5min", "1h"), ("1d", "1D"), ("90s", "1min")],
)
def test_a_frame_without_room_for_two_bars_is_refused(frame, step):
    assert LEAST == 2
    with pytest.raises(ConfigError, match=rf"MyConfig.frames: a bar of {frame} must have room for"):
        cut(stamps("2024-01-01", 50, step), frame, "MyConfig.frames")


def test_a_frame_of_which_no_bar_has_closed_is_refused():
    with pytest.raises(DataError, match=r"MyConfig.frames: no bar of 1d has closed by the end"):
        cut(stamps("2024-01-01", 22, "1h"), "1d", "MyConfig.frames")
    assert len(cut(stamps("2024-01-01", 24, "1h"), "1d").starts) == 1
