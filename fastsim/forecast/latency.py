"""How long a forecaster takes: warm, call after call, and cold, in a process that is new."""

from __future__ import annotations

import multiprocessing
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastsim.config import require_count
from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, Forecaster

PERCENTILES = (50, 95, 99)


class Spread(NamedTuple):
    """Times in seconds."""

    mean: float
    p50: float
    p95: float
    p99: float


class Benchmarked(NamedTuple):
    """What a forecaster takes for one batch."""

    key: str
    batch: int
    warm: Spread
    """Of a call, after one that does not count."""
    cold: Spread | None
    """Of loading and the first call, each in a process of its own; None where none was asked."""

    @property
    def forecasts_per_s(self) -> float:
        """Series forecast a second, at the median of warm calls."""
        return self.batch / self.warm.p50


def benchmark_forecaster(
    load: Callable[[], Forecaster],
    context: Context,
    horizon: int,
    *,
    calls: int = 100,
    processes: int = 0,
) -> Benchmarked:
    """Time a forecaster on one batch: a model, an artefact or an ensemble.

    Parameters
    ----------
    load
        Gives it: `partial(load_artifact, path)`, `partial(load_ensemble, names)`. For cold calls it
        must be of a module, as it goes to other processes.
    context
        The batch.
    calls
        Warm ones, of which percentiles are taken.
    processes
        In which it is loaded and asked once, one after the other.

    Raises
    ------
    ConfigError
        `calls` is no whole number from 1 up.
    ForecastError
        It cannot be loaded, the request does not fit it, or a process of its own fails.
    """
    require_count("calls", calls)
    cold = [_cold(load, context, horizon) for _ in range(processes)]
    forecaster = load()
    _seconds(forecaster, context, horizon)
    warm = [_seconds(forecaster, context, horizon) for _ in range(calls)]
    return Benchmarked(
        forecaster.key,
        len(context.bars),
        spread_of(warm),
        spread_of(cold) if cold else None,
    )


def spread_of(seconds: Sequence[float]) -> Spread:
    """Mean and percentiles of times."""
    return Spread(statistics.fmean(seconds), *map(float, np.percentile(seconds, PERCENTILES)))


def _seconds(forecaster: Forecaster, context: Context, horizon: int) -> float:
    started = time.perf_counter()
    told = forecaster.forecast(context, horizon)
    if told.quantiles.is_cuda:
        torch.cuda.synchronize(told.quantiles.device)
    return time.perf_counter() - started


def _cold(load: Callable[[], Forecaster], context: Context, horizon: int) -> float:
    """Seconds of loading and one call in a process that has imported fastsim and done no more."""
    process = multiprocessing.get_context("spawn")
    mine, its = process.Pipe(duplex=False)
    content = pickle.dumps((load, tuple(part.cpu() for part in context), horizon))
    worker = process.Process(target=_first_call, args=(content, torch.get_num_threads(), its))
    worker.start()
    its.close()
    try:
        told = mine.recv()
    except EOFError:
        raise ForecastError("a process that was to load the forecaster has died") from None
    finally:
        worker.join()
    if isinstance(told, str):
        raise ForecastError(f"in a process of its own the forecaster fails: {told}")
    return float(told)


def _first_call(content: bytes, threads: int, answer: Any) -> None:
    try:
        load, parts, horizon = pickle.loads(content)
        torch.set_num_threads(threads)
        started = time.perf_counter()
        forecaster = load()
        _seconds(forecaster, Context(*parts), horizon)
        answer.send(time.perf_counter() - started)
    except Exception as error:  # whatever it is, it is told
        answer.send(f"{type(error).__name__}: {error}")
