"""Small cases of the scripts that measure forecasters, and what their markets are held to."""

import importlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from fastsim.data.bars import CLOSE
from fastsim.forecast.interface import Context
from fastsim.forecast.models.classical import garch_t
from fastsim.forecast.models.fitted import FittedModel
from fastsim.forecast.models.prior import PriorModel, load_prior
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.progress import SILENT

FOLDER = Path(__file__).parents[2] / "benchmarks"
PEER = Path(__file__).parent / "nhits_peer.npz"
"""Written by `python benchmarks/peers/neuralforecast_fit.py trace` with neuralforecast 3.3.0."""
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def local_times(bars):
    seconds = bars.timestamps.astype("datetime64[s]").astype(int).tolist()
    return [datetime.fromtimestamp(each, UTC).astimezone(NEW_YORK) for each in seconds]


@pytest.mark.parametrize(("minutes", "a_day"), [(60, 7), (15, 26)])
def test_sessions_keep_their_hours_when_clocks_change(load, minutes, a_day):
    module = load("planted_seasons")
    world = module.World(minutes=minutes, hours="session", season="weak")
    bars = module.planted_bars(world, 75 * a_day, 2, seed=0)
    times = local_times(bars)
    days = {each.date() for each in times}
    assert len(days) == 75
    assert {each.utcoffset() for each in times} > {times[0].utcoffset()}, "clocks have changed"
    assert {each.weekday() for each in times} == set(range(5))
    for day in days:
        of_day = [each for each in times if each.date() == day]
        assert (of_day[0].hour, of_day[0].minute, len(of_day)) == (9, 30, a_day)
        assert (of_day[-1].hour, of_day[-1].minute) == (15, 30 if minutes == 60 else 45)


@pytest.mark.parametrize("season", ["weak", "strong"])
def test_variance_by_the_hour_is_what_was_planted(load, season):
    module = load("planted_seasons")
    world = module.World(season=season, law="garch-t")
    bars = module.planted_bars(world, 24 * 500, 20, seed=1)
    square = np.square(np.diff(np.log(bars.close), axis=0)).mean(1)
    hours = np.array([each.hour for each in local_times(bars)][1:])
    found = np.array([square[hours == hour].mean() for hour in range(24)])
    wave = np.cos(2 * np.pi * (np.arange(24) - 10) / 24)
    planted = np.exp(module.STRENGTHS[season] * wave)
    np.testing.assert_allclose(found / found.mean(), planted / planted.mean(), rtol=0.25)
    assert np.corrcoef(np.log(found), wave)[0, 1] > 0.95


def test_nights_are_as_wild_as_planted(load):
    module = load("planted_seasons")
    world = module.World(hours="session", season="weak", law="garch-t")
    bars = module.planted_bars(world, 7 * 1500, 10, seed=2)
    night = np.square(np.log(bars.open[1:] / bars.close[:-1]))
    opens = np.array([each.hour == 9 for each in local_times(bars)][1:])
    whole = np.square(np.diff(np.log(bars.close), axis=0))[~opens].mean()
    assert night[opens].mean() / whole == pytest.approx(module.NIGHTS["weak"], rel=0.2)
    assert night[~opens].max() < 1e-20


@pytest.mark.parametrize("law", ["gjr", "the prior's"])
def test_a_hole_leaves_everything_else_as_it_was(load, law):
    module = load("planted_seasons")
    world = module.World(season="strong", law=law)
    whole = module.planted_bars(world, 2000, 1, seed=3)
    holes = module.planted_bars(replace(world, holes=3), 2000, 1, seed=3)
    kept = np.isin(whole.timestamps, holes.timestamps)
    np.testing.assert_array_equal(whole.close[kept], holes.close)
    pauses = np.diff(holes.timestamps).astype("timedelta64[h]").astype(int)
    assert sorted(pauses)[-3:] == [9 * 24 + 1] * 3
    assert (holes.high is None) == (law == "the prior's")


def test_garch_that_is_fitted_to_every_window_is_garch(load):
    pytest.importorskip("arch")
    module = load("rolling_garch")
    generator = torch.Generator().manual_seed(5)
    returns = 0.01 * torch.randn(2, 200, generator=generator)
    close = returns.cumsum(1).exp()
    bars = torch.full((2, 200, 6), torch.nan)
    bars[..., CLOSE] = close
    stamps = 3600 * torch.arange(200).expand(2, -1)
    always, seldom = module.RollingGarch(1), module.RollingGarch(50)
    for last in (150, 160):
        seen = Context(bars[:, :last], stamps[:, :last])
        told = garch_t().forecast(seen, 5).quantiles
        assert torch.equal(always.forecast(seen, 5).quantiles, told)
        assert torch.equal(seldom.forecast(seen, 5).quantiles, told) == (last == 150)
    assert {each.stamp for each in seldom._fits.values()} == {149 * 3600}
    later = Context(bars, stamps)
    again = garch_t().forecast(later, 5).quantiles
    assert torch.equal(seldom.forecast(later, 5).quantiles, again)


@pytest.mark.long
def test_where_the_season_is_strong_the_recommended_mean_beats_garch(load):
    pytest.importorskip("arch")
    module = load("intraday_worlds")
    world = module.World(season="strong", law="log volatility", holes=1)
    few = module.Options(bars=3000, assets=2, step=37)
    row = module.row_of(world, few, seed=4)
    estimate, _, high = row["combined_over_garch"]
    assert estimate < 0.99
    assert high < 1.0
    assert row["windows"] == 2 * len(range(int(0.7 * row["bars"]), row["bars"] - 21, 37))
    table = load("forecast_tables").worlds_table([row])
    assert "| 60 min | all | strong | log volatility | 1 |" in table


def test_our_blocks_with_the_weights_of_neuralforecast_say_what_it_says(load, tmp_path):
    module = load("neural_peers")
    assert module.distance_from_official(PEER) <= module.PARITY
    held = dict(np.load(PEER))
    moved = 0
    for name in [name for name in held if name.startswith("weights.blocks.")]:
        other = held | {name: held[name] + 0.1}
        np.savez(tmp_path / "other.npz", **other)
        assert module.distance_from_official(tmp_path / "other.npz") > 1e-3, name
        moved += 1
    assert moved == 3 * 10, "five layers of three blocks, weights and biases"


def test_what_a_fit_is_worth_elsewhere_is_one_where_it_keeps_its_start(load):
    module = load("forgetting")
    grounds = module.grounds_of(module.Options(every=500))
    assert list(grounds) == ["us20 after 2016", "tech4", "a simulated market"]
    ground = grounds["tech4"]
    kept = fit(
        load_prior(),
        ground.bars,
        FitConfig(steps=1, warmup=0, validation_windows=100, learning_rate=1e-9),
        progress=SILENT,
    )
    assert kept.report.keeps_start
    assert module.after_over_before(kept, ground) == pytest.approx([1.0] * 3, abs=1e-5)
    torch.manual_seed(0)
    random = FittedModel(PriorModel().eval(), None, name="none", reach=21, known_until=None)
    worse = kept._replace(model=random)
    ratio = module.after_over_before(worse, ground)
    assert ratio[0] > 1.01


def test_the_fit_that_is_measured_is_told_as_a_row(load):
    module, tables = load("forgetting"), load("forecast_tables")
    options = module.Options(modes=("head",), steps=2, every=900)
    grounds = {"tech4": module.grounds_of(options)["tech4"]}
    row = module.row_of("head", options, grounds)
    assert row["steps"] == 2
    assert set(row["after_over_before"]) == {"tech4"}
    assert "| head |" in tables.forgetting_table([row])


def test_a_prior_from_scratch_is_judged_beside_the_one_that_ships(load):
    module, tables = load("scratch"), load("forecast_tables")
    row = module.measure(module.Options(steps=2, batch_size=8, worlds=64))
    low, high = row["over_shipped"][1:]
    assert 1.0 < row["over_shipped"][0] == pytest.approx(row["loss"] / row["shipped_loss"])
    assert low < high
    assert "| 2 | 8 |" in tables.scratch_table([row])


def test_a_forecast_of_each_own_network_is_timed(load):
    module, tables = load("own_networks"), load("forecast_tables")
    names = module.Options().networks
    rows = [module.measure(name, module.one_window(), 3) for name in names]
    for row in rows:
        assert 0 < row["median_ms"] <= row["p99_ms"] <= row["most_ms"]
    assert [row["network"] for row in rows] == list(names)
    assert "| nhits |" in tables.latency_table(rows)
