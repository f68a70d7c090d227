"""Tests of bands are of outcomes that do not overlap, and tell true laws from others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.bars import Bars
from fastsim.forecast.evaluate import common_windows, rolling_windows, spaced_origins
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.scoring.bands import LEAST_ORIGINS, band_tests
from fastsim.forecast.scoring.losses import BAND_SHARES
from fastsim.forecast.scoring.windows import origins_apart
from fastsim.stats.exceedances import conditional_coverage, independence, unconditional_coverage

CONTEXT = 100
LEVELS = (0.025, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.975)


@pytest.fixture(scope="module")
def walk():
    """Bars [4000, 5] of Gaussian walks with a common factor and a volatility of 0.01."""
    drawn = np.random.default_rng(0)
    returns = 0.007 * (drawn.standard_normal((4000, 1)) + drawn.standard_normal((4000, 5)))
    stamps = np.datetime64("2000-01-03", "ns") + np.arange(4000) * np.timedelta64(1, "D")
    close = 100.0 * np.exp(returns.cumsum(0))
    return Bars(symbols=tuple("ABCDE"), timestamps=stamps, close=close)


def scored(bars, forecaster, horizons, step):
    origins = spaced_origins(bars, context=CONTEXT, horizon=max(horizons), step=step)
    windows = common_windows(bars, [forecaster], horizons, origins, CONTEXT)
    return rolling_windows(bars, forecaster, horizons, origins, CONTEXT, windows=windows), windows


@pytest.mark.parametrize(
    ("rows", "horizon", "wanted"),
    [
        ([0, 1, 2, 3, 4, 5], 1, [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 3, 4, 5], 2, [0, 2, 4]),
        ([10, 14, 15, 19, 20, 30], 5, [0, 2, 4, 5]),
        ([7], 21, [0]),
    ],
)
def test_origins_are_taken_that_lie_a_horizon_apart(rows, horizon, wanted):
    assert origins_apart(np.array(rows), horizon).tolist() == wanted


def test_one_asset_is_tested_as_its_hits_counted_by_hand(walk):
    alone = walk.take(slice(None), [2])
    forecaster = trailing_random_walk(levels=LEVELS)
    told, windows = scored(alone, forecaster, (1, 5), 3)
    found = band_tests(told, windows, (1, 5))
    for place, horizon in enumerate((1, 5)):
        kept = slice(None) if horizon == 1 else slice(None, None, 2)  # 6 bars apart, not 3
        for band, share in enumerate(BAND_SHARES):
            left = told.covered[kept, place, band] == 0
            test = found[place][band]
            assert test.kupiec == pytest.approx(unconditional_coverage(left, 1 - share))
            assert test.independence == pytest.approx(independence(left))
            assert test.christoffersen == pytest.approx(conditional_coverage(left, 1 - share))
            assert (test.origins, test.outcomes) == (len(left), len(left))
            assert test.outside == pytest.approx(float(left.double().mean()))
            assert (test.assets, test.effects) == (1, pytest.approx((1.0, 1.0)))
            assert test.refused == (test.kupiec.p_value < 0.05, test.independence.p_value < 0.05)


def test_assets_of_one_market_count_as_fewer_than_they_are(walk):
    told, windows = scored(walk, trailing_random_walk(levels=LEVELS), (1, 5), 5)
    for tests in band_tests(told, windows, (1, 5)):
        for test in tests:
            assert test.outcomes == 5 * test.origins and test.assets == 5
            assert 1.2 < test.effects[0] < 5.0
            assert test.independence.p_value > 0.001


def test_a_band_that_is_too_narrow_is_refused(walk):
    class Narrow:
        def __init__(self):
            self.walk = trailing_random_walk(levels=LEVELS)
            self.card, self.key = replace(self.walk.card, name="narrow"), "narrow"

        def forecast(self, context, horizon):
            told = self.walk.forecast(context, horizon)
            last = context.close[:, -1, None, None].float()
            return told._replace(quantiles=last * (told.quantiles / last) ** 0.7)

    told, windows = scored(walk, Narrow(), (5,), 5)
    for test in band_tests(told, windows, (5,))[0]:
        assert test.kupiec.p_value < 1e-6 and test.christoffersen.p_value < 1e-5
        assert test.refused[0] == 5


def test_there_is_no_test_of_few_origins_or_beyond_the_levels(walk):
    told, windows = scored(walk, trailing_random_walk(levels=LEVELS[2:7]), (1, 250), 21)
    near, far = band_tests(told, windows, (1, 250))
    assert near[0] is not None and near[1:] == (None, None)
    assert len(origins_apart(np.array(windows.origins), 250)) < LEAST_ORIGINS
    assert far == (None, None, None)


def test_an_asset_that_is_listed_late_is_tested_from_there(walk):
    close = walk.close.copy()
    close[:3300, 4] = np.nan
    bars = replace(walk, close=close)
    told, windows = scored(bars, trailing_random_walk(levels=LEVELS), (1,), 21)
    test = band_tests(told, windows, (1,))[0][1]
    late = int(torch.bincount(told.asset)[4])
    assert test.outcomes == 4 * test.origins + late
    assert test.assets == 4 + (late >= LEAST_ORIGINS)
