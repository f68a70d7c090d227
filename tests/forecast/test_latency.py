"""How long forecasters take: percentiles, warm and cold, of models, files and ensembles."""

import time
from functools import partial

import pytest
from forecasters import Counting, TinyModel, random_context

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.latency import benchmark_forecaster, spread_of
from fastsim.forecast.registry import load_ensemble


class Sleeping(Counting):
    """Takes so many seconds for each call in turn."""

    def __init__(self, seconds):
        super().__init__()
        self.left = list(seconds)

    def forecast(self, context, horizon):
        time.sleep(self.left.pop(0))
        return super().forecast(context, horizon)


def test_percentiles_are_of_calls_after_one_that_does_not_count():
    asked = Sleeping([0.2, *[0.01] * 9, 0.06])
    found = benchmark_forecaster(lambda: asked, random_context(4), 3, calls=10)
    assert asked.asked == 44 and found.batch == 4 and found.cold is None
    assert 0.01 <= found.warm.p50 < 0.03 < found.warm.p95 <= found.warm.p99 < 0.15
    assert found.forecasts_per_s == 4 / found.warm.p50
    assert spread_of([3.0, 1.0, 2.0]) == (2.0, 2.0, 2.9, 2.98)


@pytest.mark.long
def test_a_file_and_an_ensemble_are_timed_cold_as_well(tmp_path):
    path, windows = tmp_path / "tiny.pt", random_context(33)
    export(TinyModel(), path, windows=windows, horizon=4, precision="float32")
    for load in (
        partial(load_artifact, path),
        partial(load_ensemble, ("fastsim-prior", "random-walk-60")),
    ):
        found = benchmark_forecaster(load, windows, 4, calls=3, processes=2)
        assert found.key == load().key
        assert found.cold.p50 > found.warm.p50
    with pytest.raises(ForecastError, match="in a process of its own the forecaster fails"):
        benchmark_forecaster(partial(load_artifact, tmp_path / "no.pt"), windows, 4, processes=1)


def test_no_calls_are_no_benchmark():
    with pytest.raises(ConfigError, match="calls must be a whole number >= 1"):
        benchmark_forecaster(Counting, random_context(1), 1, calls=0)
