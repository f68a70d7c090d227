"""Higher bars out of the bars at hand: which belong together, and from which bar on they are known.

A frame such as "1h" cuts time into spans of one length, counted in UTC from a Monday at midnight,
so that hours, days and weeks begin where clocks and calendars begin them. Bars whose stamps lie in
one span make one higher bar; a span without bars, as in a night or over a weekend, makes none.

Stamps are the beginnings of bars, and a bar lasts the shortest time between two of them. A higher
bar is known at the close of bar t if its span is over by then: never by what comes later, so that
the last bar of a session closes a day only where the session ends at midnight, and otherwise the
next bar does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import PRICES, Bars, FloatArray
from fastsim.errors import ConfigError, DataError

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""Seconds of what a frame is counted in."""
SPELLING = re.compile(rf"([1-9]\d{{0,3}})({'|'.join(UNITS)})")
ORIGIN = np.datetime64("1970-01-05", "ns")
"""A Monday, from which spans are counted."""
LEAST = 2
"""Bars that have room in a higher bar, at least."""


class Spans(NamedTuple):
    """The K higher bars of one frame that have closed by the end of a calendar of T bars."""

    starts: NDArray[np.datetime64]  # [K]  when each begins, UTC
    first: NDArray[np.int64]  # [K]  its first bar
    stop: NDArray[np.int64]  # [K]  the bar after its last
    closed: NDArray[np.int64]  # [T]  how many have closed by the close of each bar

    def shown(self, values: FloatArray) -> FloatArray:
        """Values [K, ...] of higher bars at every bar [T, ...]: the last that has closed, or 0."""
        found = values[np.maximum(self.closed - 1, 0)]
        found[self.closed == 0] = 0.0
        return found


def check_frames(config: object, name: str) -> None:
    """Raise ConfigError unless `config.name` is a tuple of frames, each length once."""
    given, owner = getattr(config, name), f"{type(config).__name__}.{name}"
    if isinstance(given, str) or not isinstance(given, tuple | list):
        raise ConfigError(f'{owner} must be a tuple such as ("15min", "1h"), got {given!r}')
    lengths = [frame_length(frame, owner) for frame in given]
    for place, length in enumerate(lengths):
        if length in lengths[:place]:
            raise ConfigError(
                f"{owner}: {given[place]!r} is as long as {given[lengths.index(length)]!r}: "
                f"name each length once"
            )


def frame_length(frame: object, owner: str = "frame") -> np.timedelta64:
    """How long a bar of a frame such as "15min" is; ConfigError, naming `owner`, if it is none."""
    match = SPELLING.fullmatch(frame) if isinstance(frame, str) else None
    if match is None:
        raise ConfigError(
            f"{owner} must be a count below 10000 and one of {', '.join(UNITS)}, such as 15min, "
            f"1h, 1d or 1w, got {frame!r}"
        )
    return np.timedelta64(int(match[1]) * UNITS[match[2]], "s")


def bar_length(timestamps: NDArray[np.datetime64]) -> np.timedelta64:
    """How long a bar of a calendar [T] is: the shortest time between two stamps."""
    shortest: np.timedelta64 = np.diff(timestamps).min()
    return shortest


def cut(timestamps: NDArray[np.datetime64], frame: str, owner: str = "frame") -> Spans:
    """The higher bars of a frame over a calendar [T].

    Raises
    ------
    ConfigError
        Two bars have no room in one of the frame, or its text is none; `owner` says whose it is.
    DataError
        None has closed by the end.
    """
    length, bar = frame_length(frame, owner), bar_length(timestamps)
    if length < LEAST * bar:
        raise ConfigError(
            f"{owner}: a bar of {frame} must have room for {LEAST} bars of the data, which last "
            f"{_spelled(bar)}: name a longer frame"
        )
    number = (timestamps - ORIGIN) // length  # [T]  of its span
    begins = np.diff(number, prepend=number[0] - 1) > 0
    over = timestamps + bar >= ORIGIN + (number + 1) * length
    closed = np.cumsum(begins) - 1 + over
    first = np.flatnonzero(begins)
    stop, count = np.append(first[1:], len(timestamps)), int(closed[-1])
    if not count:
        raise DataError(
            f"{owner}: no bar of {frame} has closed by the end of the data: use more bars, or a "
            f"shorter frame"
        )
    starts = ORIGIN + number[first[:count]] * length
    return Spans(starts, first[:count], stop[:count], closed)


def bars_back(spans: Spans, count: int) -> int:
    """Bars that hold the last `count` higher bars to have closed, at any bar of the calendar.

    Where fewer have closed by its end, as many times the calendar as would hold them.
    """
    length, closed = len(spans.closed), int(spans.closed[-1])
    if closed < count:
        return length * -(-count // closed)
    bars = np.flatnonzero(spans.closed >= count)
    begun = spans.first[spans.closed[bars] - count]
    return int((bars - begun).max()) + 1


def higher_bars(bars: Bars, spans: Spans) -> Bars:
    """The bars of each span as one: first open, highest high, lowest low, last close, all volume.

    Bars at which an asset did not trade have no part in it, and where it did not trade at all it
    has none. With `adj_close`, prices are in shares of the span's last close, so that a split
    within a span leaves no jump in them.
    """
    rows = slice(int(spans.stop[-1]))
    traded = np.isfinite(bars.close[rows])
    scale = (
        1.0 if bars.adj_close is None else _to_last(bars.adj_close[rows] / bars.close[rows], spans)
    )
    made: dict[str, Any] = {}
    for name in PRICES:
        prices = getattr(bars, name)
        if prices is not None:
            made[name] = TOGETHER[name](np.where(traded, prices[rows] * scale, np.nan), spans)
    if bars.adj_close is not None:
        made["adj_close"] = last_known(bars.adj_close[rows], spans)
    if bars.volume is not None:
        made["volume"] = total(np.where(traded, bars.volume[rows], np.nan), spans)
    return replace(bars, timestamps=spans.starts, **made)


def first_known(values: FloatArray, spans: Spans) -> FloatArray:
    """First number [K, A] of values [T, A] in every span; NaN where there is none."""
    row = np.arange(len(values))[:, None]
    place = np.where(np.isfinite(values), row, len(values))
    return _at(values, np.minimum.reduceat(place, spans.first), len(values))


def last_known(values: FloatArray, spans: Spans) -> FloatArray:
    """Last number [K, A] of values [T, A] in every span; NaN where there is none."""
    place = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    return _at(values, np.maximum.reduceat(place, spans.first), -1)


def highest(values: FloatArray, spans: Spans) -> FloatArray:
    """Largest number [K, A] of values [T, A] in every span; NaN where there is none."""
    found: FloatArray = np.fmax.reduceat(values, spans.first)
    return found


def lowest(values: FloatArray, spans: Spans) -> FloatArray:
    """Smallest number [K, A] of values [T, A] in every span; NaN where there is none."""
    found: FloatArray = np.fmin.reduceat(values, spans.first)
    return found


def total(values: FloatArray, spans: Spans) -> FloatArray:
    """Sum [K, A] of the numbers of values [T, A] in every span; NaN where there is none."""
    known = np.isfinite(values)
    some = np.logical_or.reduceat(known, spans.first)
    return np.where(some, np.add.reduceat(np.where(known, values, 0.0), spans.first), np.nan)


TOGETHER: dict[str, Callable[[FloatArray, Spans], FloatArray]] = {
    "open": first_known,
    "high": highest,
    "low": lowest,
    "close": last_known,
    "volume": total,
    "amount": total,
}
"""What the values [T, A] of a field are in a higher bar [K, A], up to the end of its last."""


def _at(values: FloatArray, place: NDArray[np.int64], nowhere: int) -> FloatArray:
    """Values [K, A] at rows [K, A], NaN where the row is `nowhere`."""
    known = place != nowhere
    return np.where(known, np.take_along_axis(values, np.where(known, place, 0), axis=0), np.nan)


def _to_last(ratio: FloatArray, spans: Spans) -> FloatArray:
    """Adjustment [T, A] relative to that of the last close of each span: 1 where there was none."""
    return ratio / np.repeat(last_known(ratio, spans), spans.stop - spans.first, axis=0)


def _spelled(length: np.timedelta64) -> str:
    """A length as a frame is spelled, in the largest unit that leaves no rest."""
    seconds = length / np.timedelta64(1, "s")
    unit = next((name for name in reversed(UNITS) if seconds % UNITS[name] == 0), "s")
    return f"{seconds / UNITS[unit]:g}{unit}"
