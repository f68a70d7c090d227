"""How often a forecaster was asked, how long it took, and how often it need not be asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cached_property, wraps
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

if TYPE_CHECKING:  # forecasters of that file are counted here
    from fastsim.forecast.interface import Context, Forecast

Asked = TypeVar("Asked", bound="Counted")


class ForecasterStatistics(NamedTuple):
    """Counts since a forecaster was made; a copy of it counts anew."""

    calls: int
    """Requests that it answered."""
    series: int
    """Series that it forecast in them."""
    seconds: float
    """Time that they took, a GPU's work included."""
    hits: int
    """Series whose forecasts were found, in a cache or a table on disk, in place of made."""

    @property
    def latency(self) -> float:
        """Mean seconds of a call; NaN before the first."""
        return self.seconds / self.calls if self.calls else nan

    @property
    def hit_rate(self) -> float:
        """Share of series whose forecasts were found; 0 before the first."""
        wanted = self.hits + self.series
        return self.hits / wanted if wanted else 0.0


class Meter:
    """The counts, safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = ForecasterStatistics(0, 0, 0.0, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Meter, ()

    @property
    def statistics(self) -> ForecasterStatistics:
        """The counts so far."""
        return self._counts

    def add(self, *, calls: int = 0, series: int = 0, seconds: float = 0.0, hits: int = 0) -> None:
        """Count these too."""
        with self._lock:
            old = self._counts
            self._counts = ForecasterStatistics(
                old.calls + calls, old.series + series, old.seconds + seconds, old.hits + hits
            )


class Counted:
    """A forecaster that counts: its `forecast` is `@counted`."""

    @cached_property
    def _meter(self) -> Meter:
        return Meter()

    @property
    def statistics(self) -> ForecasterStatistics:
        """How often it was asked, how long it took, and how often it need not be asked."""
        return self._meter.statistics

    def found(self, series: int) -> None:
        """Take note that forecasts of so many series were there already."""
        self._meter.add(hits=series)


def counted(
    forecast: Callable[[Asked, Context, int], Forecast],
) -> Callable[[Asked, Context, int], Forecast]:
    """Count and time the calls of a method that forecasts, but for those that fail."""

    @wraps(forecast)
    def timed(self: Asked, context: Context, horizon: int) -> Forecast:
        started = time.perf_counter()
        told = forecast(self, context, horizon)
        if told.quantiles.is_cuda:
            torch.cuda.synchronize(told.quantiles.device)
        elapsed = time.perf_counter() - started
        self._meter.add(calls=1, series=len(context.bars), seconds=elapsed)
        return told

    return timed
