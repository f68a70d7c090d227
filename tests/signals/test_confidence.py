"""Direction, confidence, and how often a threshold trades."""

import numpy as np
import pytest
import torch
from scipy import stats

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Forecast
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import make_tape
from fastsim.signals.confidence import (
    ThresholdConfig,
    confidence_rank,
    count_trades,
    leaning,
    passes,
)

LEVELS = tuple(np.linspace(0.01, 0.99, 99).round(6).tolist())


def confidences(length=200, assets=3, seed=0):
    draws = np.random.default_rng(seed).uniform(0.5, 1.0, (length, assets))
    return torch.from_numpy(draws)


def test_direction_is_the_likelier_side_and_confidence_its_probability():
    rise = torch.tensor([0.7, 0.2, 0.5, 1.0, 0.0, torch.nan], dtype=torch.float64)
    found = leaning(rise)
    assert found.direction.tolist() == [1, -1, 0, 1, -1, 0]
    assert found.confidence[:5].tolist() == [0.7, 0.8, 0.5, 1.0, 1.0]
    assert found.confidence[5].isnan()


@pytest.mark.parametrize("mean", [-0.02, 0.0, 0.01, 0.03])
def test_the_confidence_of_a_normal_is_that_of_its_mean_over_its_deviation(mean):
    quantiles = torch.tensor(100.0 * np.exp(stats.norm.ppf(LEVELS, mean, 0.02)))[None, None]
    forecast, price = Forecast(quantiles, LEVELS), torch.tensor([100.0], dtype=torch.float64)
    found = leaning(forecast.probability_of_rise(price))
    assert float(found.confidence) == pytest.approx(stats.norm.cdf(abs(mean) / 0.02), abs=2e-3)
    assert float(found.direction) == np.sign(mean)


def test_a_threshold_is_reached_at_its_value():
    confidence = torch.tensor([[0.59, 0.6, 0.61, torch.nan]], dtype=torch.float64)
    assert passes(confidence, ThresholdConfig(least=0.6)).tolist() == [[False, True, True, False]]


def test_trades_are_counted():
    confidence = torch.tensor([[0.55, 0.7], [0.6, torch.nan]], dtype=torch.float64)
    found = count_trades(confidence, ThresholdConfig(least=0.6))
    assert (found.traded, found.forecasts, found.highest) == (2, 3, 0.7)
    assert found.share == pytest.approx(2 / 3)
    nothing = count_trades(torch.full((2, 2), torch.nan), ThresholdConfig())
    assert nothing.forecasts == 0 and np.isnan(nothing.share) and np.isnan(nothing.highest)


def test_the_best_tenth_is_that_of_the_bars_before():
    confidence, config = confidences(), ThresholdConfig(best=0.1, history=20)
    found = passes(confidence, config).numpy()
    values = confidence.numpy()
    for bar, asset in np.ndindex(values.shape):
        past = values[max(bar - 20, 0) : bar, asset]
        best = len(past) == 20 and np.mean(past < values[bar, asset]) >= 0.9
        assert found[bar, asset] == best


@pytest.mark.parametrize("best", [0.05, 0.25, 1.0])
def test_of_what_does_not_change_its_ways_about_that_share_is_traded(best):
    confidence = confidences(20_000, 1, seed=3)
    config = ThresholdConfig(best=best, history=100)
    share = count_trades(confidence[200:], config).share
    assert share == pytest.approx(best, abs=0.02)


def test_it_adapts_where_a_fixed_threshold_never_trades_again():
    confidence = confidences(600, 1)
    confidence[300:] = 0.5 + (confidence[300:] - 0.5) / 10  # from now on it is never sure
    fixed, best = ThresholdConfig(least=0.6), ThresholdConfig(best=0.1, history=50)
    assert not passes(confidence, fixed)[300:].any()
    assert 0.05 < passes(confidence, best)[400:].double().mean() < 0.2
    assert not passes(confidence, ThresholdConfig(least=0.6, best=0.1, history=50))[300:].any()


def test_later_confidences_change_nothing():
    one, two = confidences(), confidences()
    two[120:] = 0.5
    config = ThresholdConfig(best=0.2, history=30)
    assert torch.equal(passes(one, config)[:120], passes(two, config)[:120])
    assert not torch.equal(passes(one, config), passes(two, config))


def test_assets_are_ranked_among_themselves_in_any_order():
    confidence, order = confidences(), torch.tensor([1, 2, 0])
    rank = confidence_rank(confidence, 30)
    permuted = confidence_rank(confidence[:, order], 30)
    assert torch.equal(rank[:, order].nan_to_num(9), permuted.nan_to_num(9))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"least": 0.4}, r"ThresholdConfig.least must be >= 0.5 and <= 1, got 0.4"),
        ({"least": 60}, "ThresholdConfig.least"),
        ({"best": 0.0}, r"ThresholdConfig.best must be > 0 and <= 1, got 0.0"),
        ({"best": "10%"}, "ThresholdConfig.best"),
        ({"history": 1}, "ThresholdConfig.history"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ThresholdConfig(**settings)


@pytest.mark.long
def test_on_tech4_a_threshold_of_0_6_trades_as_often_as_was_measured(tmp_path):
    tape = make_tape(sample_bars("tech4"))
    table = build_forecast_tape(tape, load_forecaster("fastsim-prior"), tmp_path)

    def trades(horizon, rows, **settings):
        rise = table.figure(f"forecast_rise_{horizon}")[rows]
        return count_trades(leaning(rise).confidence, ThresholdConfig(**settings))

    whole, test = slice(None), slice(1605, None)
    assert trades(1, whole, least=0.6).traded == 0
    assert trades(1, whole, least=0.6).highest == pytest.approx(0.557, abs=1e-3)
    assert 0.006 < trades(5, test, least=0.6).share < 0.016
    assert 0.11 < trades(21, test, least=0.6).share < 0.19
    assert trades(5, whole, least=0.6).share == pytest.approx(0.004, abs=5e-4)
    assert trades(21, whole, least=0.6).share == pytest.approx(0.126, abs=2e-3)
    best = [trades(horizon, whole, best=0.1).share for horizon in table.horizons]
    assert best == pytest.approx([0.104, 0.141, 0.154], abs=3e-3)
