"""Skill across assets: what is planted is found, and where nothing is intervals contain zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.bars import Bars
from fastsim.errors import ForecastError
from fastsim.forecast.interface import Forecast, ModelCard, ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.skill import (
    known_styles,
    rank_skill,
    realised,
    rises,
    scores_of,
)
from fastsim.forecast.tape import build_forecast_tape, forecast_rows
from fastsim.market.tape import make_tape
from fastsim.progress import SILENT
from fastsim.stats.comparison import dependent_mean
from fastsim.stats.ranks import rank_correlation

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
ASSETS, BARS = 12, 900
HORIZONS = (1, 5)


def bars_of(returns):
    closes = 100.0 * np.exp(np.cumsum(returns, 0))
    days = np.datetime64("2000-01-03", "ns") + np.arange(len(closes)) * np.timedelta64(1, "D")
    return Bars(
        symbols=tuple(f"S{n}" for n in range(closes.shape[1])), timestamps=days, close=closes
    )


def returns_of(seed=0, bars=BARS, assets=ASSETS):
    rng = np.random.default_rng(seed)
    return 0.01 * rng.normal(size=(bars, assets)) + 0.01 * rng.normal(size=(bars, 1))


class Leaning:
    """Expects of an asset what a function of its closes [B, L] says, with a spread of 1 %."""

    def __init__(self, lean, name="leaning"):
        self.lean, self.key = lean, name
        self.card = ModelCard(
            name=name, licence="", parameters=0, max_context=512, max_horizon=64, levels=LEVELS
        )

    def forecast(self, context, horizon):
        normal = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
        root = torch.arange(1, horizon + 1).double().sqrt()[:, None]
        law = self.lean(context.close.double())[:, None, None] + 0.01 * root * normal
        return Forecast((context.close[:, -1:, None].double() * law.exp()).float(), LEVELS)


def last_return(closes):
    return (closes[:, -1] / closes[:, -2]).log()


@pytest.fixture(scope="module")
def reversing():
    """Returns a fifth of which the next bar takes back, so that minus the last one orders them."""
    returns = returns_of(3)
    for row in range(1, len(returns)):
        returns[row] -= 0.2 * returns[row - 1]
    return make_tape(bars_of(returns))


def skill(tape, forecaster, horizon=1, *, step=2, by="return", beyond=False):
    rows = np.arange(200, len(tape) - max(HORIZONS), step)
    told = forecast_rows(tape, forecaster, rows.tolist(), horizons=HORIZONS, context_length=64)
    styles = known_styles(tape, rows) if beyond else ()
    scores, came = scores_of(told, horizon, by), realised(tape, rows, horizon)
    return rank_skill(scores, came, rows, horizon, beyond=styles)


@pytest.mark.parametrize("by", ["return", "ratio", "rise"])
def test_a_planted_order_is_found(reversing, by):
    found = skill(reversing, Leaning(lambda closes: -last_return(closes)), by=by)
    assert found.newey_west.mean.low > 0.05 and found.bootstrap.low > 0.05
    assert found.newey_west.p_value < 1e-6 and found.above > 0.6
    assert found.origins >= 347 and found.assets == ASSETS  # after a shock all may be as sure
    other = skill(reversing, Leaning(last_return), by=by)
    apart = other.newey_west.mean.estimate + found.newey_west.mean.estimate
    assert apart == pytest.approx(0.0, abs=1e-3)


def test_it_is_found_beyond_momentum_and_volatility_and_momentum_is_not(reversing):
    fast = skill(reversing, Leaning(lambda closes: -last_return(closes)), beyond=True)
    assert fast.newey_west.mean.low > 0.05

    def momentum(closes):
        return (closes[:, -22] / closes[:, -127]).log()

    rows = np.arange(200, len(reversing) - 5, 2)
    slow = Leaning(momentum)
    told = forecast_rows(reversing, slow, rows.tolist(), horizons=(1,), context_length=200)
    came = realised(reversing, rows, 1)
    scores = scores_of(told, 1, "return")
    assert rank_skill(scores, came, rows, 1).origins == len(rows)
    assert rank_skill(scores, came, rows, 1, beyond=known_styles(reversing, rows)).origins == 0


def test_a_driftless_walk_orders_nothing(reversing):
    for by in ("return", "ratio", "rise"):
        found = skill(reversing, trailing_random_walk(), by=by)
        assert found.origins == 0 and found.newey_west is None
        assert np.isnan(found.bootstrap.estimate) and np.isnan(found.above)


def test_the_mean_is_that_of_the_rows_and_its_error_statsmodels():
    linear = pytest.importorskip("statsmodels.api")
    rows = np.arange(0, 1500, 3)
    scores, came = (
        torch.from_numpy(each) for each in np.random.default_rng(1).normal(size=(2, 500, 9))
    )
    found = rank_skill(scores, came, rows, 10)
    series = rank_correlation(scores, came)
    assert found.newey_west.lags == 9  # three rows share outcomes
    settings = {"maxlags": 9, "use_correction": False, "kernel": "bartlett"}
    fitted = linear.OLS(series.numpy(), np.ones(500)).fit(cov_type="HAC", cov_kwds=settings)
    reach = 10
    few = np.sqrt((501 - 2 * reach + reach * (reach - 1) / 500) / 500)
    assert found.newey_west.statistic == pytest.approx(fitted.tvalues[0] * few, rel=1e-9)
    assert found.newey_west.mean.estimate == pytest.approx(float(series.mean()), rel=1e-12)


def worlds_without_skill(count, horizon, step, *, bars=400, assets=10):
    """Rank ICs of scores that last as long as outcomes do, in worlds whose returns are noise."""
    rng = np.random.default_rng(horizon)
    rows = np.arange(50, bars - horizon, step)
    for _ in range(count):
        closes = rng.normal(size=(bars, assets)).cumsum(0)
        signal = rng.normal(size=(bars, assets)).cumsum(0)
        past = torch.from_numpy(signal[rows] - signal[rows - horizon])
        came = torch.from_numpy(closes[rows + horizon] - closes[rows])
        yield rank_skill(past, came, rows, horizon)


@pytest.mark.parametrize(("horizon", "step"), [(1, 1), (5, 1), (21, 5)])
def test_where_there_is_no_skill_intervals_contain_zero_about_as_often_as_they_say(horizon, step):
    """Of 150 worlds at 95 %: 142.5, three deviations 8; few origins cost some more."""
    found = list(worlds_without_skill(150, horizon, step))
    assert 128 <= sum(each.newey_west.mean.contains_zero for each in found) <= 150
    assert 128 <= sum(each.bootstrap.contains_zero for each in found) <= 150


def test_outcomes_that_overlap_would_be_taken_for_skill_by_who_ignores_it():
    rng, ignored = np.random.default_rng(5), 0
    rows = np.arange(50, 379)
    for _ in range(40):
        closes, signal = rng.normal(size=(2, 400, 10)).cumsum(1)
        past = torch.from_numpy(signal[rows] - signal[rows - 21])
        came = torch.from_numpy(closes[rows + 21] - closes[rows])
        assert rank_skill(past, came, rows, 21).newey_west.lags == 60
        ignored += not dependent_mean(rank_correlation(past, came), 0).mean.contains_zero
    assert ignored > 15


def test_outcomes_and_styles_by_hand():
    returns = returns_of(5, bars=300)
    bars = bars_of(returns)
    close = bars.close.copy()
    close[210, 2] = np.nan
    tape = make_tape(replace(bars, close=close))
    rows = np.array([130, 200, 205, 290, 296])
    came = realised(tape, rows, 5)
    wanted = np.log(close[[135, 205, 210, 295]] / close[[130, 200, 205, 290]])
    np.testing.assert_allclose(came[:4].numpy(), wanted, atol=1e-6)
    assert bool(came[4].isnan().all())
    momentum, volatility = known_styles(tape, rows)
    np.testing.assert_allclose(momentum[1].numpy(), np.log(close[179] / close[74]), atol=1e-6)
    own = returns[200 - 62 : 201].std(0)
    kept = np.arange(ASSETS) != 2
    np.testing.assert_allclose(volatility[1].numpy()[kept], own[kept], rtol=1e-3)
    assert bool(known_styles(tape, np.array([100]))[0].isnan().all())


def test_rises_leave_out_what_did_not_move(reversing):
    rows = np.array([200, 300])
    told = forecast_rows(
        reversing, Leaning(last_return), [200, 300], horizons=(1,), context_length=9
    )
    came = realised(reversing, rows, 1)
    came[0, 0], came[1, 1] = 0.0, torch.nan
    probability, rose = rises(told, came, 1)
    assert len(probability) == len(rose) == 2 * ASSETS - 2
    assert int(rose.sum()) == int((came > 0).sum())


def test_rows_are_forecast_as_the_table_of_all_bars_has_them(tmp_path):
    tape = make_tape(bars_of(returns_of(7, bars=260)))
    prior = ModuleForecaster(load_prior())
    settings = {"horizons": HORIZONS, "context_length": 100}
    whole = build_forecast_tape(tape, prior, tmp_path, progress=SILENT, **settings)
    rows = [3, 150, 151, 259]
    few = forecast_rows(tape, prior, rows, batch_size=30, **settings)
    assert few.names == whole.names
    torch.testing.assert_close(few.values, whole.values[rows], equal_nan=True, rtol=1e-4, atol=1e-6)
    assert bool(few.values[0].isnan().all())  # four closes are too few
    with pytest.raises(ForecastError, match="forecasts 1 to 64 bars ahead, not 65"):
        forecast_rows(tape, prior, rows, horizons=(1, 65), context_length=100)
