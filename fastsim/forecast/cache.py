"""Forecasts on demand, each computed once: an LRU cache keyed by what a forecast depends on."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import require_count, require_positive
from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    can_forecast,
    check_horizon,
    no_forecasts,
)
from fastsim.forecast.statistics import ForecasterStatistics, Meter
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.tape import MarketTape


class ForecastKey(NamedTuple):
    """All that one forecast depends on. Never the contents of a tensor."""

    forecaster: str  # model, revision, precision, settings
    market: str  # fingerprint of the bars
    asset: int
    bar: int
    context_length: int
    horizon: int


class CacheStatistics(NamedTuple):
    """Counts since the cache was made."""

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that were hits; 0 before the first."""
        total = self.hits + self.misses
        return self.hits / total if total else 0.0


class ForecastCache:
    """Least recently used forecasts, up to `max_bytes`; safe to share between threads."""

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        require_positive("max_bytes", max_bytes)
        self.max_bytes = max_bytes
        self._entries: OrderedDict[ForecastKey, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = self._bytes = 0

    def get(self, key: ForecastKey) -> Tensor | None:
        """Quantiles [H, Q] under `key`, now the most recent; None if there are none."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: ForecastKey, quantiles: Tensor) -> None:
        """Keep quantiles [H, Q], and forget the least recent beyond `max_bytes`.

        The latest are kept even where they alone are larger, so that what was prefetched is found.
        """
        with self._lock:
            self._forget(key)
            self._entries[key] = quantiles
            self._bytes += quantiles.nbytes
            while self._bytes > self.max_bytes and len(self._entries) > 1:
                self._forget(next(iter(self._entries)))
                self._evictions += 1

    def __contains__(self, key: ForecastKey) -> bool:
        with self._lock:
            return key in self._entries

    @property
    def statistics(self) -> CacheStatistics:
        """Hits, misses, evictions, entries and bytes."""
        with self._lock:
            return CacheStatistics(
                self._hits, self._misses, self._evictions, len(self._entries), self._bytes
            )

    def _forget(self, key: ForecastKey) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= old.nbytes


class MarketForecasts:
    """Forecasts of a market's assets by bar, through a cache, with prefetch of the next bars.

    Parameters
    ----------
    tape
        The market.
    forecaster
        Who forecasts.
    context_length, horizon
        Bars looked back and ahead.
    cache
        Shared or its own; forecasts of different markets, models or settings never meet in it.
    prefetch
        After a bar is asked for, this many following bars are forecast in the background. What is
        asked for next decides: those that no longer follow are called off.

    Raises
    ------
    ForecastError
        The tape holds several worlds, or context and horizon are not the forecaster's.
    ConfigError
        `prefetch` is no whole number from 0 up.
    """

    def __init__(
        self,
        tape: MarketTape,
        forecaster: Forecaster,
        *,
        context_length: int = 512,
        horizon: int = 21,
        cache: ForecastCache | None = None,
        prefetch: int = 0,
    ) -> None:
        if tape.worlds > 1:
            raise ForecastError(f"forecast one world at a time, tape.world(i), not {tape.worlds}")
        check_horizon(forecaster.card, horizon)
        require_count("context_length", context_length)
        if prefetch != 0:
            require_count("prefetch", prefetch)
        self.tape, self.forecaster = tape, forecaster
        self.context_length, self.horizon, self.prefetch = context_length, horizon, prefetch
        self.cache = cache or ForecastCache()
        self._market = market_fingerprint(tape)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastsim-prefetch")
        self._pending: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._meter = Meter()

    @property
    def statistics(self) -> ForecasterStatistics:
        """How often the forecaster was asked for this market, and how often the cache knew."""
        return self._meter.statistics

    def at(self, bar: int, assets: Sequence[int] | None = None) -> Forecast:
        """Forecast from the close of `bar`, for all assets or these, as rows.

        Raises
        ------
        ForecastError
            There is no such bar or asset, or too little of an asset is known there.
        """
        wanted = list(range(self.tape.num_assets)) if assets is None else list(assets)
        self._check_places(bar, wanted)
        with self._lock:
            waiting = self._pending.pop(bar, None)
        if waiting is not None:
            with suppress(CancelledError):
                waiting.exception()  # only waits: what failed is tried again, and tells why
        quantiles = self._rows(bar, wanted)
        self._look_ahead(bar, wanted)
        return Forecast(quantiles, self.forecaster.card.levels)

    def close(self) -> None:
        """Stop prefetching; forecasts can still be asked for."""
        with self._lock:
            self._closed = True
            self._pending.clear()
        self._worker.shutdown(cancel_futures=True)

    def key(self, bar: int, asset: int) -> ForecastKey:
        """Key of one forecast."""
        return ForecastKey(
            self.forecaster.key, self._market, asset, bar, self.context_length, self.horizon
        )

    def _check_places(self, bar: int, assets: Sequence[int]) -> None:
        for kind, places, count in (
            ("bar", (bar,), len(self.tape)),
            ("asset", assets, self.tape.num_assets),
        ):
            for place in places:
                whole = isinstance(place, Integral) and not isinstance(place, bool)
                if not whole or not 0 <= place < count:
                    raise ForecastError(
                        f"there is no {kind} {place!r} in this market, it has 0 to {count - 1}"
                    )

    def _look_ahead(self, bar: int, assets: list[int]) -> None:
        """Forecast the following bars in the background, and call off what no longer follows."""
        ahead = range(bar + 1, min(bar + self.prefetch, self.tape.last) + 1)
        with self._lock:
            if self._closed:
                return
            for place, future in list(self._pending.items()):
                if future.done() or (place not in ahead and future.cancel()):
                    del self._pending[place]
            for following in ahead:
                if following not in self._pending:
                    future = self._worker.submit(self._fetch, following, assets)
                    self._pending[following] = future

    def _rows(self, bar: int, assets: list[int]) -> Tensor:
        if not assets:
            return no_forecasts(self.forecaster.card, self.horizon).quantiles
        found = {asset: self.cache.get(self.key(bar, asset)) for asset in assets}
        missing = [asset for asset, quantiles in found.items() if quantiles is None]
        self._meter.add(hits=len(found) - len(missing))
        if missing:
            found |= self._compute(bar, missing)
        return torch.stack([row for asset in assets if (row := found[asset]) is not None])

    def _fetch(self, bar: int, assets: list[int]) -> None:
        missing = [asset for asset in assets if self.key(bar, asset) not in self.cache]
        if missing:
            self._compute(bar, missing)

    def _compute(self, bar: int, assets: list[int]) -> dict[int, Tensor]:
        context: Context = context_at(self.tape, slice(bar, bar + 1), self.context_length)
        chosen = Context(context.bars[assets], context.timestamps[assets])
        able = can_forecast(self.forecaster, chosen).tolist()
        if not all(able):
            symbol = self.tape.symbols[assets[able.index(False)]]
            raise ForecastError(
                f"too few closes of {symbol} are known at bar {bar} for "
                f"{self.forecaster.card.name}: leave it out, or ask for a later bar"
            )
        started = time.perf_counter()
        quantiles = self.forecaster.forecast(chosen, self.horizon).quantiles
        elapsed = time.perf_counter() - started
        self._meter.add(calls=1, series=len(assets), seconds=elapsed)
        rows = dict(zip(assets, quantiles.clone().unbind(0), strict=True))
        for asset, row in rows.items():
            self.cache.put(self.key(bar, asset), row.clone())
        return rows
