"""Splits of a calendar by date: train, validation and test, and walk-forward folds."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.data.dates import iso_stamp, show
from fastsim.errors import ConfigError, DataError

Timestamps = NDArray[np.datetime64]

MIN_BARS = 2
"""Bars that a part needs at least: one return."""
TRAIN, VALIDATION = 0.6, 0.2
"""Shares of the bars that no dates were given for; the rest is for the test."""


class Split(NamedTuple):
    """Rows of three parts that follow each other; apply with `Bars.take`."""

    train: slice
    validation: slice
    test: slice


class Fold(NamedTuple):
    """Rows to train on and the rows right after them to test on."""

    train: slice
    test: slice


def split_by_date(timestamps: Timestamps, validation_start: str, test_start: str) -> Split:
    """Cut a calendar [T] into train, validation and test.

    Parameters
    ----------
    timestamps
        The calendar, strictly increasing.
    validation_start, test_start
        ISO dates: the first day of validation and of test; or stamps, to cut within a day.

    Raises
    ------
    DataError
        A date is not ISO, the dates are in the wrong order or outside the calendar, or a part
        has fewer than 2 bars; names dates that would do.
    """
    first = iso_stamp(validation_start, "validation_start")
    second = iso_stamp(test_start, "test_start")
    _check_calendar(timestamps)
    _require_inside(timestamps, "validation_start", first)
    _require_inside(timestamps, "test_start", second)
    if first >= second:
        raise DataError(
            f"TrainConfig.validation_start {validation_start} must be before "
            f"TrainConfig.test_start {test_start}: "
            f"{_remedy(timestamps)}"
        )
    one, two = (int(row) for row in np.searchsorted(timestamps, np.array([first, second])))
    split = Split(slice(0, one), slice(one, two), slice(two, len(timestamps)))
    for name, rows in split._asdict().items():
        if rows.stop - rows.start < MIN_BARS:
            raise DataError(
                f"the {name} part has {rows.stop - rows.start} bars, at least {MIN_BARS} are "
                f"needed: move TrainConfig.validation_start {validation_start} or "
                f"TrainConfig.test_start {test_start}; "
                f"{_remedy(timestamps)}"
            )
    return split


def dates_of_split(
    timestamps: Timestamps,
    validation_start: str | None = None,
    test_start: str | None = None,
    *,
    usual: tuple[str, str] | None = None,
) -> tuple[str, str]:
    """Where a calendar [T] is cut: as given, else at the usual dates, else by shares of its bars.

    With neither date given, validation begins after 60 % of the bars and the test after 80 %. With
    one given, validation takes a quarter of the bars before the test, or the test half of those
    from validation on.

    Parameters
    ----------
    timestamps
        The calendar, strictly increasing.
    validation_start, test_start
        ISO dates or stamps, as of `split_by_date`, or None.
    usual
        Both, for what is not given, where the calendar holds them.

    Raises
    ------
    DataError
        A date is not ISO or outside the calendar, or there are too few bars for three parts.
    """
    if validation_start is not None and test_start is not None:
        return validation_start, test_start
    within = [timestamps[0] < iso_stamp(day, "usual") <= timestamps[-1] for day in usual or ()]
    if usual is not None and all(within):
        return validation_start or usual[0], test_start or usual[1]
    one, two = _rows_of_shares(timestamps)
    if validation_start is not None:
        one = _row_of(timestamps, validation_start, "validation_start")
        two = one + (len(timestamps) - one + 1) // 2
    elif test_start is not None:
        two = _row_of(timestamps, test_start, "test_start")
        one = two - two // 4
    given = (
        validation_start or show(timestamps[min(one, len(timestamps) - 1)]),
        test_start or show(timestamps[min(two, len(timestamps) - 1)]),
    )
    split_by_date(timestamps, *given)
    return given


def _rows_of_shares(timestamps: Timestamps) -> tuple[int, int]:
    """First rows of validation and test where no dates are given."""
    _check_calendar(timestamps)
    rows = len(timestamps)
    if rows < 3 * MIN_BARS:
        raise DataError(
            f"{rows} bars, {show(timestamps[0])} to {show(timestamps[-1])}, are too few for "
            f"training, validation and test: give at least {3 * MIN_BARS}"
        )
    one = min(max(MIN_BARS, round(TRAIN * rows)), rows - 2 * MIN_BARS)
    two = min(max(one + MIN_BARS, round((TRAIN + VALIDATION) * rows)), rows - MIN_BARS)
    return one, two


def _row_of(timestamps: Timestamps, text: str, name: str) -> int:
    start = iso_stamp(text, name)
    _require_inside(timestamps, name, start)
    return int(np.searchsorted(timestamps, start))


def _require_inside(timestamps: Timestamps, name: str, start: np.datetime64) -> None:
    if not timestamps[0] < start <= timestamps[-1]:
        raise DataError(
            f"TrainConfig.{name} {show(start)} is outside the data, which run from "
            f"{show(timestamps[0])} to {show(timestamps[-1])}: {_remedy(timestamps)}"
        )


def _remedy(timestamps: Timestamps) -> str:
    """What to do about dates that do not fit the data."""
    one, two = (show(timestamps[row]) for row in _rows_of_shares(timestamps))
    return (
        f"leave both out for 60, 20 and 20 % of the bars, or give TrainConfig.validation_start = "
        f"{one!r} TrainConfig.test_start = {two!r}"
    )


def walk_forward(
    timestamps: Timestamps,
    *,
    train_years: float,
    test_years: float,
    step_years: float | None = None,
    anchored: bool = False,
) -> list[Fold]:
    """Folds that train on some years and test on those right after, moving forward.

    Parameters
    ----------
    timestamps
        The calendar [T], strictly increasing.
    train_years, test_years
        Lengths in calendar years; whole months, such as 0.5.
    step_years
        From one fold to the next; by default `test_years`, so that test rows neither overlap
        between folds nor leave a hole.
    anchored
        Start every training part at the first bar, so that it grows.

    Returns
    -------
    list of Fold
        In order. The last test part ends with the data and may be shorter, so that no bar is
        left out.

    Raises
    ------
    ConfigError
        A length is not a positive number of whole months.
    DataError
        The calendar is too short for one fold, or a part has fewer than 2 bars.
    """
    _check_calendar(timestamps)
    train = _months("train_years", train_years)
    test = _months("test_years", test_years)
    step = test if step_years is None else _months("step_years", step_years)
    origin: date = timestamps[0].astype("datetime64[D]").item()
    rows = len(timestamps)
    folds: list[Fold] = []
    while not folds or folds[-1].test.stop < rows:
        shift = len(folds) * step
        start = 0 if anchored else _row(timestamps, origin, shift)
        cut = _row(timestamps, origin, shift + train)
        stop = _row(timestamps, origin, shift + train + test)
        if rows - cut < MIN_BARS and folds:
            break
        if min(cut - start, stop - cut) < MIN_BARS:
            raise DataError(
                f"fold {len(folds) + 1} trains on {cut - start} and tests on {stop - cut} bars, "
                f"at least {MIN_BARS} are needed: the data run from {show(timestamps[0])} to "
                f"{show(timestamps[-1])}, with train_years={train_years}, test_years={test_years}"
            )
        folds.append(Fold(slice(start, cut), slice(cut, stop)))
    return folds


def _check_calendar(timestamps: Timestamps) -> None:
    if len(timestamps) < MIN_BARS:
        raise DataError(f"{len(timestamps)} timestamps cannot be split")
    back = np.flatnonzero(timestamps[1:] <= timestamps[:-1])
    if back.size:
        raise DataError(
            f"timestamps must increase, but {show(timestamps[back[0] + 1])} follows "
            f"{show(timestamps[back[0]])}"
        )


def _months(name: str, years: float) -> int:
    months = round(years * 12) if np.isfinite(years) else 0
    if months <= 0 or abs(months - years * 12) > 1e-6:
        raise ConfigError(f"{name} must be a positive number of whole months, got {years!r} years")
    return months


def _row(timestamps: Timestamps, origin: date, months: int) -> int:
    """First row at or after the day `months` after `origin`, at month end if there is no such."""
    years, month = divmod(origin.month - 1 + months, 12)
    year, month = origin.year + years, month + 1
    day = min(origin.day, monthrange(year, month)[1])
    return int(np.searchsorted(timestamps, np.datetime64(date(year, month, day), "ns")))
