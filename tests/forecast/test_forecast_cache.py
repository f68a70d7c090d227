"""Forecasts are computed once, and never stale."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forecasters import Counting, TinyModel

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.cache import ForecastCache, ForecastKey, MarketForecasts
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.tape import build_forecast_tape
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.tape import MarketTape, make_tape


@pytest.fixture(scope="module")
def tape() -> MarketTape:
    return make_tape(sample_bars("tech4").take(slice(0, 400)))


def altered(tape: MarketTape, bar: int) -> MarketTape:
    bars = tape.known.bars.clone()
    bars[bar] *= 1.01
    return replace(tape, known=tape.known._replace(bars=bars))


def key(bar: int) -> ForecastKey:
    return ForecastKey("model", "market", 0, bar, 64, 21)


def test_the_second_look_up_is_a_hit(tape):
    forecaster = Counting()
    forecasts = MarketForecasts(tape, forecaster, context_length=32, horizon=3)
    first = forecasts.at(200).quantiles
    assert torch.equal(forecasts.at(200).quantiles, first)
    assert forecaster.asked == 4
    statistics = forecasts.cache.statistics
    assert (statistics.hits, statistics.misses, statistics.entries) == (4, 4, 4)
    assert statistics.hit_rate == 0.5
    assert statistics.bytes == first.nbytes


def test_the_least_recent_is_forgotten_first():
    cache = ForecastCache(max_bytes=3 * 40)
    for bar in range(3):
        cache.put(key(bar), torch.zeros(10))
    cache.get(key(0))
    cache.put(key(3), torch.zeros(10))
    assert [key(bar) in cache for bar in range(4)] == [True, False, True, True]
    assert cache.statistics.evictions == 1
    assert cache.statistics.bytes == 120


def test_the_latest_is_kept_even_where_it_alone_is_too_large():
    cache = ForecastCache(max_bytes=3 * 40)
    cache.put(key(0), torch.zeros(10))
    cache.put(key(1), torch.ones(100))
    assert key(0) not in cache
    assert torch.equal(cache.get(key(1)), torch.ones(100))
    assert cache.statistics[2:] == (1, 1, 400)
    cache.put(key(2), torch.zeros(10))
    assert key(1) not in cache and key(2) in cache
    assert cache.statistics[2:] == (2, 1, 40)


def test_what_is_put_again_takes_the_place_and_the_room_of_the_old():
    cache = ForecastCache(max_bytes=3 * 40)
    for bar in range(3):
        cache.put(key(bar), torch.zeros(10))
    cache.put(key(0), torch.ones(5))
    assert cache.get(key(0)).sum() == 5
    assert cache.statistics[2:] == (0, 3, 100)
    cache.put(key(3), torch.zeros(10))
    assert [key(bar) in cache for bar in range(4)] == [True, False, True, True]


def test_a_cache_without_room_is_refused():
    with pytest.raises(ConfigError, match="max_bytes"):
        ForecastCache(max_bytes=0)


def test_another_bar_asset_model_precision_or_length_is_never_a_stale_hit(tape):
    cache = ForecastCache()

    def misses(market: MarketTape, forecaster, length: int = 32, horizon: int = 3) -> int:
        before = cache.statistics.misses
        MarketForecasts(market, forecaster, context_length=length, horizon=horizon, cache=cache).at(
            200
        )
        return cache.statistics.misses - before

    single, half = (
        ModuleForecaster(TinyModel(), precision=name) for name in ("float32", "bfloat16")
    )
    assert misses(tape, single) == 4
    assert misses(tape, single) == 0
    assert misses(tape, half) == 4
    assert misses(tape, single, length=40) == 4
    assert misses(tape, single, horizon=4) == 4
    assert misses(altered(tape, 190), single) == 4


def test_prefetch_computes_the_next_bars_in_the_background(tape):
    forecaster = Counting()
    forecasts = MarketForecasts(tape, forecaster, context_length=32, horizon=3, prefetch=2)
    forecasts.at(200)
    forecasts.at(201)
    forecasts.at(202)
    assert forecasts.cache.statistics.misses == 4
    forecasts.close()
    assert forecaster.asked >= 12


def test_threads_share_a_cache(tape):
    cache, failures = ForecastCache(max_bytes=4000), []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for bar in generator.integers(0, 50, 300).tolist():
            found = cache.get(key(bar))
            if found is not None and float(found[0]) != bar:
                failures.append(bar)
            cache.put(key(bar), torch.full((10,), float(bar)))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    statistics = cache.statistics
    assert failures == []
    assert statistics.hits + statistics.misses == 1200
    assert statistics.bytes == 40 * statistics.entries <= 4000


def test_a_context_holds_the_bars_up_to_its_own_and_none_after(tape):
    context = context_at(tape, slice(100, 103), 20)
    rows = context.close.view(3, 4, 20)
    for offset in range(3):
        expected = tape.known.bars[81 + offset : 101 + offset, :, 3].T
        assert torch.equal(rows[offset], expected)
    stamps = tape.timestamps[81:101].astype("datetime64[s]").astype(int)
    assert context.timestamps[0].tolist() == stamps.tolist()


def test_a_context_before_the_first_bar_is_padded_on_the_left(tape):
    context = context_at(tape, slice(2, 3), 10)
    assert context.close[:, :7].isnan().all()
    assert context.close[:, 7:].isfinite().all()
    assert (context.timestamps.diff(dim=1) > 0).all()


def test_no_forecast_sees_the_future(tape, tmp_path):
    forecaster = ModuleForecaster(TinyModel())
    before = build_forecast_tape(tape, forecaster, tmp_path, context_length=32).values
    later = tape.known.bars.clone()
    later[250:] *= 1.5
    other = replace(tape, known=tape.known._replace(bars=later))
    after = build_forecast_tape(other, forecaster, tmp_path, context_length=32).values
    assert torch.equal(before[:250].nan_to_num(), after[:250].nan_to_num())
    assert not torch.equal(before[250:].nan_to_num(), after[250:].nan_to_num())


def test_a_table_agrees_with_forecasts_asked_for_one_by_one(tape, tmp_path):
    forecaster = ModuleForecaster(TinyModel())
    table = build_forecast_tape(tape, forecaster, tmp_path, horizons=(1, 5), context_length=64)
    forecasts = MarketForecasts(tape, forecaster, context_length=64, horizon=5)
    price = tape.known.bars[300, :, 3]
    forecast = forecasts.at(300)
    rise = forecast.probability_of_rise(price)[:, 4]
    column = table.names.index("forecast_rise_5")
    torch.testing.assert_close(table.values[300, :, column], rise)
    column = table.names.index("forecast_return_1")
    torch.testing.assert_close(
        table.values[300, :, column], forecast.expected_return(price)[:, 0], rtol=1e-4, atol=1e-7
    )


def test_a_second_run_only_reads(tape, tmp_path):
    forecaster = Counting()
    first = build_forecast_tape(tape, forecaster, tmp_path, context_length=32)
    asked = forecaster.asked
    again = build_forecast_tape(tape, forecaster, tmp_path, context_length=32)
    assert forecaster.asked == asked > 0
    assert torch.equal(first.values.nan_to_num(), again.values.nan_to_num())


def test_any_change_is_another_table(tape, tmp_path):
    forecaster = Counting()

    def asks(market: MarketTape, **settings: object) -> bool:
        before = forecaster.asked
        build_forecast_tape(market, forecaster, tmp_path, **{"context_length": 32, **settings})
        return forecaster.asked > before

    assert asks(tape)
    assert not asks(tape)
    assert asks(tape, context_length=33)
    assert asks(tape, horizons=(1, 2))
    assert asks(altered(tape, 399))
    assert market_fingerprint(tape) != market_fingerprint(altered(tape, 0))
    forecaster.key = "counting@2"
    assert asks(tape)


def test_the_batch_size_does_not_change_the_table(tape, tmp_path):
    forecaster = ModuleForecaster(TinyModel())
    tables = [
        build_forecast_tape(
            tape, forecaster, tmp_path / str(size), context_length=32, batch_size=size
        ).values
        for size in (4, 1000)
    ]
    torch.testing.assert_close(*tables, equal_nan=True, rtol=1e-4, atol=1e-6)


class Cramped(ModuleForecaster):
    """Has memory for so many series at once."""

    def __init__(self, room: int, error: Exception | None = None):
        super().__init__(TinyModel())
        self.room, self.batches = room, []
        self.error = error or torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
        )

    def forecast(self, context, horizon):
        self.batches.append(len(context.bars))
        if self.batches[-1] > self.room:
            raise self.error
        return super().forecast(context, horizon)


@pytest.mark.parametrize("room", [100, 7, 3, 1])
def test_a_table_is_made_by_smaller_batches_where_memory_is_too_small(tape, tmp_path, room, caplog):
    settings = {"horizons": (1, 3), "context_length": 32, "batch_size": 256}
    wanted = build_forecast_tape(tape, ModuleForecaster(TinyModel()), tmp_path / "1", **settings)
    forecaster = Cramped(room)
    found = build_forecast_tape(tape, forecaster, tmp_path / "2", **settings)
    torch.testing.assert_close(found.values, wanted.values, equal_nan=True, rtol=1e-5, atol=1e-6)
    refused = [size for size in forecaster.batches if size > room]
    assert refused == sorted(refused, reverse=True)
    assert len(refused) <= 8  # 256 is halved once for all parts, not once for each
    (line,) = caplog.messages
    assert "series at once" in line
    assert "Tried to allocate 2.00 GiB" in line


def test_what_torchscript_says_of_memory_is_understood_and_other_errors_are_not_tried_again(
    tape, tmp_path
):
    settings = {"horizons": (1,), "context_length": 32}
    said = "The following operation failed in the TorchScript interpreter.\nRuntimeError: CUDA out "
    script = Cramped(50, RuntimeError(f"{said}of memory. Tried to allocate 1.00 GiB."))
    build_forecast_tape(tape, script, tmp_path / "1", **settings)
    other = Cramped(50, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        build_forecast_tape(tape, other, tmp_path / "2", **settings)
    assert len(other.batches) == 1


def test_a_single_series_that_does_not_fit_is_an_error_after_which_a_build_goes_on(tape, tmp_path):
    settings = {"horizons": (1, 3), "context_length": 32}
    wanted = build_forecast_tape(tape, ModuleForecaster(TinyModel()), tmp_path / "1", **settings)
    forecaster = Cramped(1000)

    def fails_later(context, horizon, forecast=forecaster.forecast):
        forecaster.room = 0 if len(forecaster.batches) else 1000
        return forecast(context, horizon)

    forecaster.forecast = fails_later
    with pytest.raises(ForecastError, match="memory is too small for a single series") as caught:
        build_forecast_tape(tape, forecaster, tmp_path / "2", batch_size=1024, **settings)
    assert "\n" not in str(caught.value)
    (folder,) = (tmp_path / "2").iterdir()
    assert [path.name for path in folder.iterdir()] == ["00000000.safetensors"]
    again = build_forecast_tape(tape, ModuleForecaster(TinyModel()), tmp_path / "2", **settings)
    assert torch.equal(again.values.nan_to_num(-1), wanted.values.nan_to_num(-1))


def test_a_damaged_part_is_named(tape, tmp_path):
    build_forecast_tape(tape, Counting(), tmp_path, context_length=32)
    part = sorted(tmp_path.rglob("*.safetensors"))[1]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ForecastError, match=part.name):
        build_forecast_tape(tape, Counting(), tmp_path, context_length=32)


@pytest.mark.parametrize("horizons", [(), (0,), (1, 33)])
def test_horizons_that_do_not_fit_are_refused_and_leave_nothing(tape, tmp_path, horizons):
    with pytest.raises(ForecastError, match="horizons"):
        build_forecast_tape(tape, Counting(), tmp_path, horizons=horizons)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_was_killed_goes_on_with_the_parts_it_has(tape, tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from forecasters import Counting
        from fastsim.forecast.tape import build_forecast_tape
        from fastsim.data.sample import sample_bars
        from fastsim.market.tape import make_tape

        class Slow(Counting):
            def forecast(self, context, horizon):
                time.sleep(0.05)
                return super().forecast(context, horizon)

        tape = make_tape(sample_bars("tech4").take(slice(0, 400)))
        build_forecast_tape(
            tape, Slow(), Path({str(tmp_path)!r}), context_length=32, batch_size=16
        )
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=dict(os.environ), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the build ended before it could be killed"
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(kept) == 1
    forecaster = Counting()
    table = build_forecast_tape(tape, forecaster, tmp_path, context_length=32)
    assert forecaster.asked < 4 * len(tape) / 2
    whole = build_forecast_tape(tape, Counting(), tmp_path / "whole", context_length=32)
    assert torch.equal(table.values.nan_to_num(), whole.values.nan_to_num())
    part = next(path for path in tmp_path.rglob("*.safetensors") if path.name in kept)
    assert part.stat().st_mtime_ns == kept[part.name]


def test_features_are_of_order_one_and_zero_where_nothing_could_be_forecast(tape, tmp_path):
    table = build_forecast_tape(tape, ModuleForecaster(TinyModel()), tmp_path, context_length=64)
    features = table.features(tape)
    assert len(features) == 9
    for name, values in features.items():
        assert values.shape == (400, 4), name
        assert values.isfinite().all()
        assert (values[:5] == 0).all()
    grown = tape.with_features(features)
    assert grown.feature_names[-9:] == tuple(features)
    assert grown.known.features.shape[-1] == tape.known.features.shape[-1] + 9


def market_forecasts(tape: MarketTape, forecaster=None, **settings) -> MarketForecasts:
    return MarketForecasts(
        tape, forecaster or Counting(), **{"context_length": 32, "horizon": 3, **settings}
    )


def test_forecasts_can_be_asked_for_after_prefetching_has_stopped(tape):
    forecasts = market_forecasts(tape, prefetch=3)
    first = forecasts.at(200).quantiles
    forecasts.close()
    forecasts.close()
    assert torch.equal(forecasts.at(200).quantiles, first)
    assert forecasts.at(300).quantiles.shape == (4, 3, 5)
    assert forecasts._pending == {}


def test_whoever_waits_for_a_bar_is_not_left_waiting_when_prefetching_stops(tape):
    class Slow(Counting):
        def forecast(self, context, horizon):
            started.set()
            time.sleep(0.05)
            return super().forecast(context, horizon)

    started, answers = threading.Event(), []
    forecasts = market_forecasts(tape, Slow(), prefetch=8)
    forecasts.at(200)
    waiting = threading.Thread(target=lambda: answers.append(forecasts.at(208).quantiles))
    waiting.start()
    started.wait()
    forecasts.close()
    waiting.join(timeout=20)
    assert [answer.shape for answer in answers] == [(4, 3, 5)]


def test_what_is_waited_for_does_not_grow(tape):
    forecasts = market_forecasts(tape, prefetch=4)
    for bar in range(50, 350, 7):
        forecasts.at(bar)
        assert len(forecasts._pending) <= 4 + 1, "what follows, and what cannot be stopped any more"
    forecasts.close()


def test_a_prefetch_that_fails_fails_only_whoever_asks_for_its_bar(tape):
    forecaster = Counting()
    forecasts = market_forecasts(tape, forecaster, prefetch=1)
    forecasts.at(200)
    forecasts._worker.submit(lambda: None).result()
    forecaster.failing = True
    forecasts.at(200)  # kept; the bar after it is, too
    forecasts.at(201)
    forecasts._worker.submit(lambda: None).result()
    with pytest.raises(ForecastError, match="counting fails"):
        forecasts.at(202)
    forecaster.failing = False
    assert forecasts.at(202).quantiles.isfinite().all()
    forecasts.close()


@pytest.mark.parametrize(
    ("bar", "assets", "told"),
    [
        (400, None, "there is no bar 400 in this market, it has 0 to 399"),
        (-1, None, "there is no bar -1"),
        (1.5, None, "there is no bar 1.5"),
        (True, None, "there is no bar True"),
        (200, [4], "there is no asset 4 in this market, it has 0 to 3"),
        (200, [0, -1], "there is no asset -1"),
        (200, ["AAPL"], "there is no asset 'AAPL'"),
        (3, None, "too few closes of AAPL are known at bar 3 for counting"),
    ],
)
def test_places_that_are_not_there_are_named(tape, bar, assets, told):
    forecasts = market_forecasts(tape)
    with pytest.raises(ForecastError, match=told) as caught:
        forecasts.at(bar, assets)
    assert "\n" not in str(caught.value)
    assert forecasts.cache.statistics.entries == 0


def test_no_assets_have_no_forecasts_and_one_may_be_asked_for_twice(tape):
    forecasts = market_forecasts(tape)
    assert forecasts.at(200, []).quantiles.shape == (0, 3, 5)
    twice = forecasts.at(200, [2, 2, 0]).quantiles
    assert torch.equal(twice[0], twice[1])
    assert not torch.equal(twice[0], twice[2])


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"horizon": 33}, ForecastError, "1 to 32 bars ahead, not 33"),
        ({"horizon": 0}, ForecastError, "1 to 32 bars ahead, not 0"),
        ({"horizon": 2.5}, ForecastError, "1 to 32 bars ahead, not 2.5"),
        ({"context_length": 0}, ConfigError, "context_length must be a whole number >= 1, got 0"),
        ({"context_length": -5}, ConfigError, "context_length"),
        ({"prefetch": -1}, ConfigError, "prefetch must be a whole number"),
        ({"prefetch": 1.5}, ConfigError, "prefetch must be a whole number"),
    ],
)
def test_settings_of_a_market_that_cannot_be_are_refused_at_once(tape, settings, error, told):
    with pytest.raises(error, match=told):
        market_forecasts(tape, **settings)


@pytest.mark.parametrize(
    ("bars", "length", "told"),
    [
        (slice(10, 11), 0, "whole number of bars from 1 up, not 0"),
        (slice(10, 11), -3, "not -3"),
        (slice(10, 11), 2.5, "not 2.5"),
        (slice(399, 401), 20, "bars 399 to 401 are not on the tape, which has bars 0 to 399"),
        (slice(-1, 1), 20, "bars -1 to 1 are not on the tape"),
        (slice(400, 401), 20, "bars 400 to 401 are not on the tape"),
        (slice(5, 5), 20, "bars 5 to 5 are not on the tape"),
    ],
)
def test_contexts_that_cannot_be_cut_are_named(tape, bars, length, told):
    with pytest.raises(ForecastError, match=told):
        context_at(tape, bars, length)


@pytest.mark.parametrize("horizons", [(1, 1), (1.5,), (-2, 1), (True,), ("1",)])
def test_horizons_of_a_table_are_different_whole_numbers(tape, tmp_path, horizons):
    with pytest.raises(ForecastError, match="horizons must be different whole numbers of bars"):
        build_forecast_tape(tape, Counting(), tmp_path, horizons=horizons)
    with pytest.raises(ConfigError, match="horizons must be"):
        ForecastConfig(horizons=horizons)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_batch_of_a_table_has_a_whole_number_of_forecasts(tape, tmp_path, size):
    with pytest.raises(ConfigError, match="batch_size must be"):
        build_forecast_tape(tape, Counting(), tmp_path, batch_size=size)
