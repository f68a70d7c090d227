"""A linear correction of volatility: what it is made of, what it learns, and how it is kept."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.correction.corrected import INPUTS, Corrected, Correction
from fastsim.forecast.correction.fit import fit_correction
from fastsim.forecast.correction.folder import save_correction
from fastsim.forecast.correction.inputs import inputs_of
from fastsim.forecast.covariates.calendar import ends_month
from fastsim.forecast.covariates.ranges import garman_klass, parkinson
from fastsim.forecast.evaluate import relative, rolling_origins
from fastsim.forecast.interface import Context
from fastsim.forecast.models import prior
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import read_season
from fastsim.forecast.training.config import SplitConfig

WALK = trailing_random_walk(60)
HORIZONS = (1, 2, 5)
SHIPPED = Path(prior.__file__).parent / "weights" / "prior.safetensors"


def market(bars=6000, seed=0, persistence=0.9):
    """Hourly bars of one asset whose volatility comes and goes, with ranges of 32 steps."""
    random = np.random.default_rng(seed)
    level = np.zeros(bars)
    for bar in range(1, bars):
        level[bar] = persistence * level[bar - 1] + 0.5 * random.standard_normal()
    inside = random.standard_normal((bars, 32)) * (0.002 * np.exp(level) / math.sqrt(32))[:, None]
    path = inside.cumsum().reshape(bars, 32)
    start = np.append(0.0, path[:-1, -1])
    whole = np.concatenate([start[:, None], path], 1)
    stamps = np.datetime64("2023-01-02T00", "ns") + np.arange(bars) * np.timedelta64(1, "h")
    prices = [np.exp(each)[:, None] * 100.0 for each in (start, whole.max(1), whole.min(1))]
    opens, highs, lows = prices
    return Bars(
        timestamps=stamps,
        symbols=("X",),
        open=opens,
        high=highs,
        low=lows,
        close=np.exp(path[:, -1:]) * 100.0,
        volume=np.ones((bars, 1)),
    )


def context_of(bars, rows=slice(None)):
    table = torch.from_numpy(bars.table()[rows]).transpose(0, 1)
    seconds = torch.from_numpy(bars.timestamps[rows].astype("datetime64[s]").astype(np.int64))
    return Context(table, seconds.expand(len(table), -1))


def test_ranges_have_the_variance_of_their_bars():
    """Of a Brownian motion, which 32 steps an hour see 10 to 30 % too narrow."""
    random = np.random.default_rng(0)
    path = (random.standard_normal((20_000, 2048)) * 0.01 / math.sqrt(2048)).cumsum(1)
    whole = np.concatenate([np.zeros((20_000, 1)), path], 1)
    columns = (whole[:, 0], whole.max(1), whole.min(1), whole[:, -1])
    bars = torch.from_numpy(np.exp(np.stack([*columns, columns[0], columns[0]], -1)))
    for estimate in (parkinson(bars[None]), garman_klass(bars[None])):
        assert float(estimate.mean()) == pytest.approx(1e-4, rel=0.06)


def test_the_end_of_a_month_is_that_of_the_calendar():
    days = [datetime(1999, 11, 27, 13, tzinfo=UTC) + timedelta(days=each) for each in range(1900)]
    told = ends_month(torch.tensor([int(day.timestamp()) for day in days]))
    assert told.tolist() == [day.month != (day + timedelta(days=2)).month for day in days]


def test_there_are_as_many_inputs_as_weights_and_they_are_of_order_one():
    bars = market(400)
    context = context_of(bars)
    told = WALK.forecast(context, 5)
    inputs = inputs_of(context, told, context.timestamps)
    assert inputs.shape == (1, INPUTS)
    assert inputs.isfinite().all() and float(inputs.abs().max()) <= 3.0


def test_multiplying_prices_changes_no_input():
    context = context_of(market(400))
    dear = Context(context.bars * 50.0, context.timestamps)
    one, other = (
        inputs_of(each, WALK.forecast(each, 5), each.timestamps) for each in (context, dear)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_bars_without_a_range_have_their_return_in_its_place():
    context = context_of(market(400))
    bare = context.bars.clone()
    bare[..., :3] = torch.nan
    alone = Context(bare, context.timestamps)
    inputs = inputs_of(alone, WALK.forecast(alone, 5), alone.timestamps)
    assert inputs.isfinite().all()
    torch.testing.assert_close(inputs[:, 1:9], inputs[:, 9:17])


def test_no_weights_correct_nothing():
    context, season = context_of(market(500)), Season("America/New_York")
    corrected = Corrected(WALK, Correction(), season, name="none", known_until=None)
    told = corrected.forecast(context, 5).quantiles
    wanted = Seasonal(WALK, season).forecast(context, 5).quantiles
    torch.testing.assert_close(told, wanted, rtol=1e-6, atol=0)


def test_a_weight_on_nothing_but_one_widens_every_horizon_alike():
    context = context_of(market(500))
    weights = torch.zeros(INPUTS, 8, dtype=torch.float64)
    weights[0] = math.log(2.0)
    wide = Corrected(WALK, Correction(weights), Season(), name="wide", known_until=None)
    plain = Corrected(WALK, Correction(), Season(), name="plain", known_until=None)
    price = context.bars[:, -1, 3]
    one, other = (each.forecast(context, 5).dispersion(price) for each in (plain, wide))
    torch.testing.assert_close(2.0 * one, other, rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def fitted():
    bars = market()
    split = SplitConfig(validation_start="2023-07-01")
    return fit_correction(WALK, bars.take(slice(0, 5200)), horizons=HORIZONS, split=split), bars


def test_what_ranges_know_is_learned(fitted):
    fit, bars = fitted
    assert fit.kept and fit.ratio.high < 0.99
    origins = np.arange(5300, 5990, 5)
    scores = [
        rolling_origins(bars, each, HORIZONS, origins, 512)
        for each in (fit.corrected, Seasonal(WALK, fit.corrected.season))
    ]
    assert relative(*scores).estimate < 0.99


def test_where_nothing_is_to_be_learned_the_forecaster_is_kept():
    """Constant volatility, which 300 bars know as well as any range."""
    bars = market(4000, persistence=0.0)
    flat = bars.table()[..., 3]
    random = np.random.default_rng(1)
    close = np.exp(0.002 * random.standard_normal(flat.shape).cumsum(0)) * 100.0
    still = Bars(timestamps=bars.timestamps, symbols=bars.symbols, close=close)
    fit = fit_correction(trailing_random_walk(300), still, horizons=HORIZONS)
    assert not fit.kept
    assert not bool(fit.corrected.correction.weights.any())


def test_bars_of_validation_do_not_move_the_season():
    bars, other = market(1500), market(1500, seed=5)
    border = "2023-02-20"
    row = int(np.searchsorted(bars.timestamps, np.datetime64(border)))
    close = bars.close.copy()
    close[row:] = close[row - 1] * other.close[row:] / other.close[row - 1]
    seasons = [
        fit_correction(
            WALK,
            Bars(timestamps=bars.timestamps, symbols=bars.symbols, close=each),
            horizons=HORIZONS,
            context=200,
            split=SplitConfig(validation_start=border),
        ).corrected.season
        for each in (bars.close, close)
    ]
    assert torch.equal(seasons[0].before, seasons[1].before)


class Knowing:
    """A random walk that says it has seen markets until some day."""

    key = "knowing"

    def __init__(self, known_until):
        self.card, self.forecast = replace(WALK.card, known_until=known_until), WALK.forecast


@pytest.mark.parametrize("day", [None, "2024-06-01", "unknown"])
def test_it_has_seen_its_bars_and_what_it_corrects_has_seen(day):
    bars = market(1416)
    fit = fit_correction(Knowing(day), bars, horizons=HORIZONS, context=200)
    assert fit.corrected.card.known_until == (str(bars.timestamps[-1])[:10] if day is None else day)


def test_what_was_fitted_is_kept_in_a_folder(fitted, tmp_path):
    fit, bars = fitted
    folder = tmp_path / "mine"
    save_correction(fit, folder, base="random-walk-60", path=None, source="here")
    kept = load_forecaster(f"corrected:{folder}")
    theirs = read_season(folder / "season.json")
    assert theirs.zone == fit.corrected.season.zone
    assert torch.equal(theirs.before, fit.corrected.season.before)
    assert kept.key == fit.corrected.key
    context = context_of(bars, slice(0, 512))
    one, other = (each.forecast(context, 5).quantiles for each in (kept, fit.corrected))
    assert torch.equal(one, other)
    with pytest.raises(ConfigError, match="holds a correction already"):
        save_correction(fit, folder, base="random-walk-60", path=None, source="here")
    about = json.loads((folder / "correction.json").read_text())
    for change, wrong in (
        ({"base": "random-walk-ewma-0.94"}, "fit it anew"),
        ({"format": 7}, "format 1"),
        ({"zone": 3}, "damaged"),
    ):
        (folder / "correction.json").write_text(json.dumps(about | change))
        with pytest.raises(ForecastError, match=wrong):
            load_forecaster(f"corrected:{folder}")
    with pytest.raises(ForecastError, match=r"no correction\.json here"):
        load_forecaster(f"corrected:{tmp_path}")
    with pytest.raises(ForecastError, match="is of a folder"):
        load_forecaster("corrected")


def test_weights_from_a_path_travel_with_it(fitted, tmp_path):
    weights = tmp_path / "prior.safetensors"
    weights.write_bytes(SHIPPED.read_bytes())
    base = load_forecaster(f"fastsim-prior:{weights}")
    fit, _ = fitted
    corrected = fit._replace(
        corrected=Corrected(
            base, fit.corrected.correction, fit.corrected.season, name="mine", known_until=None
        )
    )
    save_correction(corrected, tmp_path / "kept", base="fastsim-prior:", path=weights, source="")
    weights.unlink()
    (tmp_path / "kept").rename(tmp_path / "moved")
    assert load_forecaster(f"corrected:{tmp_path / 'moved'}").key == corrected.corrected.key
