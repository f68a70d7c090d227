"""Forecasters tell how often they were asked, how long it took, and how often they need not be."""

import copy
import math
import pickle
import threading
import time

import pytest
from forecasters import Counting, TinyModel, random_context

from fastsim.data.sample import sample_bars
from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.cache import ForecastCache, MarketForecasts
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.evaluate import Centred
from fastsim.forecast.foreign import ForeignForecaster
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import make_tape


def module():
    return ModuleForecaster(TinyModel())


FORECASTERS = {
    "module": module,
    "ensemble": lambda: Ensemble([module(), Counting()]),
    "foreign": lambda: ForeignForecaster(Counting(), "counting", ""),
    "centred": lambda: Centred(module()),
    "prior": lambda: load_forecaster("fastsim-prior"),
    "random walk": trailing_random_walk,
    "fitted": lambda: load_forecaster("theta"),
}


@pytest.mark.parametrize("name", list(FORECASTERS))
def test_calls_series_and_seconds_are_counted(name):
    forecaster = FORECASTERS[name]()
    assert forecaster.statistics == (0, 0, 0.0, 0)
    assert math.isnan(forecaster.statistics.latency) and forecaster.statistics.hit_rate == 0.0
    started = time.perf_counter()
    forecaster.forecast(random_context(3), 2)
    forecaster.forecast(random_context(5), 1)
    elapsed = time.perf_counter() - started
    counts = forecaster.statistics
    assert (counts.calls, counts.series, counts.hits) == (2, 8, 0)
    assert 0 < counts.seconds <= elapsed
    assert counts.latency == counts.seconds / 2


def test_an_artefact_counts_too(tmp_path):
    path = tmp_path / "tiny.pt"
    export(TinyModel(), path, windows=random_context(40), horizon=4, precision="float32")
    artefact = load_artifact(path)
    artefact.forecast(random_context(3), 2)
    assert artefact.statistics[:2] == (1, 3)


def test_latency_is_the_time_of_the_forecast_itself():
    class Slow(Counting):
        def forecast(self, context, horizon):
            time.sleep(0.02)
            return super().forecast(context, horizon)

    forecaster = ForeignForecaster(Slow(), "slow", "")
    for _ in range(3):
        forecaster.forecast(random_context(1), 1)
    assert forecaster.statistics.latency >= 0.02


def test_members_of_an_ensemble_are_counted_each():
    members = [module(), module()]
    ensemble = Ensemble(members, [1.0, 0.0])
    ensemble.forecast(random_context(4), 2)
    assert [member.statistics.calls for member in members] == [1, 0]


def test_what_fails_is_no_answer():
    forecaster = module()
    with pytest.raises(ForecastError):
        forecaster.forecast(random_context(2), 99)
    assert forecaster.statistics == (0, 0, 0.0, 0)


def test_a_copy_counts_anew_and_threads_count_together():
    forecaster = module()
    forecaster.forecast(random_context(2), 1)
    for other in (copy.deepcopy(forecaster), pickle.loads(pickle.dumps(forecaster))):
        assert other.statistics.calls == 0
        other.forecast(random_context(2), 1)
    assert forecaster.statistics.calls == 1

    def ask():
        for _ in range(50):
            forecaster.found(1)

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert forecaster.statistics.hits == 200


def test_a_cache_counts_what_it_knew_and_what_it_asked():
    tape = make_tape(sample_bars("tech4").take(slice(0, 300)))
    forecaster, cache = Counting(), ForecastCache()
    online = MarketForecasts(tape, forecaster, context_length=32, horizon=3, cache=cache)
    for bar in (200, 200, 201):
        online.at(bar)
    counts = online.statistics
    assert (counts.calls, counts.series, counts.hits) == (2, 8, 4)
    assert counts.hit_rate == pytest.approx(1 / 3) and counts.latency > 0
    again = MarketForecasts(tape, forecaster, context_length=32, horizon=3, cache=cache)
    again.at(201, [0, 2])
    assert again.statistics[:2] == (0, 0) and again.statistics.hits == 2


def test_what_was_prefetched_is_a_hit():
    tape = make_tape(sample_bars("tech4").take(slice(0, 300)))
    online = MarketForecasts(tape, Counting(), context_length=32, horizon=3, prefetch=1)
    for bar in (200, 201):
        online.at(bar)
    online.close()
    assert online.statistics.hits == 4


def test_a_table_that_is_there_is_hits(tmp_path):
    tape = make_tape(sample_bars("tech4").take(slice(0, 300)))
    settings = {"horizons": (1,), "context_length": 48}
    first, second = trailing_random_walk(), trailing_random_walk()
    table = build_forecast_tape(tape, first, tmp_path, **settings)
    made = int((~table.values.isnan()).any(-1).sum())
    assert (first.statistics.series, first.statistics.hits) == (made, 0)
    build_forecast_tape(tape, second, tmp_path, **settings)
    assert (second.statistics.calls, second.statistics.hits) == (0, made)
    assert second.statistics.hit_rate == 1.0
    later = next(iter(tmp_path.glob("*/00000256.safetensors")))
    later.unlink()
    third = trailing_random_walk()
    build_forecast_tape(tape, third, tmp_path, **settings)
    assert third.statistics.series + third.statistics.hits == made
    assert 0 < third.statistics.series < third.statistics.hits
