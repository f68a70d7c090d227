"""Which assets are scored from which bars: one set for all who are held to each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.data.bars import Bars
from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecaster,
    can_forecast,
    check_horizon,
    check_horizons,
)
from fastsim.stats.comparison import newey_west_lags, overlapping

STILL = 4 * float(np.finfo(np.float32).eps)
"""A mean move of a bar below this share of the price is none: forecasts are float32."""


class Windows(NamedTuple):
    """Which assets are scored from which origins: one set for all who are held to each other.

    What is skipped counts under the first reason that applies.
    """

    origins: tuple[int, ...]  # R  rows of the bars
    usable: Tensor  # [R, A]  bool
    unknown: int  # of which the close at the origin is missing: not listed yet, or halted
    young: int  # of which too little is known for one of the forecasters
    constant: int  # whose closes did not move in the context, which leaves errors without a scale
    open: int  # of which an outcome is missing

    @property
    def rows(self) -> NDArray[np.int64]:
        """The origins that have a window: those of R in `Scores`."""
        found: NDArray[np.int64] = np.asarray(self.origins)[self.usable.any(1).numpy()]
        return found

    @property
    def scored(self) -> int:
        """How many are scored."""
        return int(self.usable.sum())

    @property
    def skipped(self) -> dict[str, int]:
        """How many are not, by why: for people and for JSON."""
        return {
            "no close at the origin": self.unknown,
            "too few known closes": self.young,
            "closes that never move": self.constant,
            "an outcome missing": self.open,
        }


def spaced_origins(
    bars: Bars, *, context: int, horizon: int, step: int, first: int | None = None
) -> NDArray[np.int64]:
    """Rows [R] to forecast from, `step` apart, with a whole context before and horizon after.

    They begin at row `first`, if it has a whole context, else where one has.

    Raises
    ------
    ForecastError
        Context, horizon or step is no whole number from 1 up, or the bars are too few for one row.
    """
    for name, count in (("context", context), ("horizon", horizon), ("step", step)):
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ForecastError(f"{name} must be a whole number of bars from 1 up, got {count!r}")
    begin = context - 1 if first is None else max(first, context - 1)
    origins: NDArray[np.int64] = np.arange(begin, len(bars) - horizon, step, dtype=np.int64)
    if not len(origins):
        raise ForecastError(
            f"{len(bars)} bars hold no context of {context} with {horizon} bars after it"
            f"{'' if first is None else f' from row {first} on'}: "
            f"use less of either, or more bars"
        )
    return origins


def common_windows(
    bars: Bars,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
) -> Windows:
    """The windows that every one of these forecasters can be scored on.

    A window is one asset from one origin. It counts if its last close and its outcomes are known,
    as much of its context as each forecaster needs, and if its closes move by more than float32
    can round away.

    Raises
    ------
    ForecastError
        Horizons or origins do not increase or do not fit the bars or a forecaster, or no window is
        left.
    """
    longest = check_plan(bars, forecasters, horizons, origins, context)
    history, ahead = history_of(bars), torch.tensor(list(horizons))
    usable, counts = [], torch.zeros(4, dtype=torch.int64)
    for row in map(int, origins):
        past, outcome = past_of(history, row, context), history.close[:, row + ahead]
        closes = past.close
        lasting = closes[:, -1].isfinite()
        enough = closes.isfinite().sum(1) >= 2
        for forecaster in forecasters:
            enough = enough & can_forecast(forecaster, past)
        moving = scale_of(closes)[:, 0] > STILL * closes[:, -1]
        told = outcome.isfinite().all(1)
        held, reasons = torch.ones_like(lasting), []
        for fits in (lasting, enough, moving, told):
            reasons.append((held & ~fits).sum())
            held = held & fits
        counts += torch.stack(reasons)
        usable.append(held)
    windows = Windows(tuple(map(int, origins)), torch.stack(usable), *counts.tolist())
    if not windows.scored:
        skipped = ", ".join(f"{count} {why}" for why, count in windows.skipped.items() if count)
        raise ForecastError(
            f"no origin has an asset whose context and outcomes are known ({skipped}) over "
            f"{longest} bars: use a shorter context or horizon, or more bars"
        )
    return windows


def dependent_origins(windows: Windows, horizon: int) -> int:
    """How many origins after one share its luck, among those that have a window.

    As many as have outcomes, up to `horizon` bars ahead, within its own; good and bad times come
    in spells, so at least as many as `newey_west_lags` takes.
    """
    rows = windows.rows
    return max(overlapping(rows, horizon), newey_west_lags(len(rows)))


def origins_apart(rows: NDArray[np.int64], horizon: int) -> NDArray[np.int64]:
    """Places of rows [R], increasing, of which no two are less than `horizon` bars apart.

    The first, and then always the next whose outcomes begin where the last one's have ended.
    """
    places, free = [], int(rows[0])
    for place, row in enumerate(rows.tolist()):
        if row >= free:
            places.append(place)
            free = row + horizon
    return np.array(places, dtype=np.int64)


def check_plan(
    bars: Bars,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
) -> int:
    """The longest horizon; ForecastError unless horizons and origins fit bars and forecasters."""
    longest = check_horizons(horizons)
    if list(horizons) != sorted(horizons):
        raise ForecastError(f"horizons must be in increasing order, got {list(horizons)}")
    for forecaster in forecasters:
        check_horizon(forecaster.card, longest)
    rows = list(map(int, origins))
    if not rows or any(later <= earlier for earlier, later in pairwise(rows)):
        raise ForecastError(f"origins must be rows that increase, got {rows[:5]}")
    for row in rows:
        if not context - 1 <= row < len(bars) - longest:
            raise ForecastError(
                f"origin {row} lacks {context} bars up to it or {longest} after it: use rows "
                f"{context - 1} to {len(bars) - longest - 1}"
            )
    return longest


def history_of(bars: Bars) -> Context:
    """All bars [A, T, 6], as one context of every asset."""
    table = torch.from_numpy(bars.table()).transpose(0, 1).contiguous()
    seconds = torch.from_numpy(bars.timestamps.astype("datetime64[s]").astype(np.int64))
    return Context(table, seconds.expand(len(table), -1))


def past_of(history: Context, row: int, context: int) -> Context:
    """The context of every asset that ends at `row`."""
    span = slice(row + 1 - context, row + 1)
    return Context(history.bars[:, span], history.timestamps[:, span])


def scale_of(closes: Tensor) -> Tensor:
    """Mean absolute one-bar change [B, 1] of closes [B, L]; 0 where no two neighbours are known."""
    return closes.diff().abs().nanmean(1, keepdim=True).nan_to_num(nan=0.0)
