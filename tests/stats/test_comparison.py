"""Diebold and Mariano's test is statsmodels' regression on a constant, with scipy's Student."""

import math

import numpy as np
import pytest
import torch

from fastsim.errors import ConfigError, DataError
from fastsim.stats.comparison import (
    dependent_mean,
    diebold_mariano,
    long_run_variance,
    newey_west_lags,
    overlap_lags,
    overlapping,
)
from fastsim.stats.student import student_p_value

stats = pytest.importorskip("scipy.stats")


def dependent(shape, mean=0.0, seed=0):
    """Moving averages over three periods [..., T], of a mean."""
    *batch, length = shape
    noise = torch.randn((*batch, length + 2), generator=torch.Generator().manual_seed(seed))
    noise = noise.double()
    return mean + noise[..., 2:] + 0.8 * noise[..., 1:-1] + 0.4 * noise[..., :-2]


@pytest.mark.parametrize(("length", "lags"), [(12, 0), (40, 3), (251, 4), (1000, 20)])
def test_it_is_a_regression_on_a_constant_with_the_correction_for_few_periods(length, lags):
    linear = pytest.importorskip("statsmodels.api")
    differences = dependent([length], mean=0.1)
    found = diebold_mariano(differences, lags, level=0.9)
    settings = {"maxlags": lags, "use_correction": False, "kernel": "bartlett"}
    regression = linear.OLS(differences.numpy(), torch.ones(length).double().numpy())
    fitted = regression.fit(cov_type="HAC", cov_kwds=settings)
    reach = lags + 1
    corrected = math.sqrt((length + 1 - 2 * reach + reach * (reach - 1) / length) / length)
    statistic = fitted.tvalues[0] * corrected
    assert found.statistic == pytest.approx(statistic, rel=1e-9)
    law = stats.t(length - 1)
    assert found.p_value == pytest.approx(2 * law.sf(abs(statistic)), abs=1e-9)
    margin = law.ppf(0.95) * fitted.bse[0] / corrected
    mean = float(differences.mean())
    assert found.difference == pytest.approx((mean, mean - margin, mean + margin, 0.9), rel=1e-9)
    assert long_run_variance(differences, lags) == pytest.approx(
        length * float(fitted.bse[0]) ** 2, rel=1e-9
    )


def test_the_long_run_variance_worked_by_hand():
    # Less their mean of 2: -1, 1, 2, -2; squares 10, neighbours -1 + 2 - 4, two apart -2 - 2.
    values = torch.tensor([1.0, 3.0, 4.0, 0.0])
    assert long_run_variance(values, 0) == pytest.approx(10 / 4)
    assert long_run_variance(values, 1) == pytest.approx((10 + 2 * 0.5 * -3) / 4)
    assert long_run_variance(values, 2) == pytest.approx((10 + 2 * (2 / 3 * -3 + 1 / 3 * -4)) / 4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 251, 3000])
@pytest.mark.parametrize("statistic", [0.0, 0.3, -2.0, 5.0, math.inf])
def test_the_p_value_is_that_of_scipy(statistic, degrees):
    wanted = 2 * stats.t(degrees).sf(abs(statistic))
    assert student_p_value(statistic, degrees) == pytest.approx(wanted, abs=1e-12)


def test_lags_are_those_of_newey_and_west():
    assert [newey_west_lags(length) for length in (2, 100, 251, 2000)] == [1, 4, 4, 7]


def test_equal_forecasters_that_depend_are_told_apart_about_as_often_as_is_said():
    """Of 200 series, 5 % is 10, three deviations 9. Without lags, dependence alone tells."""
    series = dependent((200, 300), seed=1)
    assert 1 <= sum(diebold_mariano(each, 8).p_value < 0.05 for each in series) <= 19
    assert sum(diebold_mariano(each, 0).p_value < 0.05 for each in series) > 30


def test_the_sign_is_that_of_the_mean_and_a_real_difference_is_found():
    worse, better = (diebold_mariano(dependent([400], mean), 4) for mean in (0.5, -0.5))
    assert worse.statistic > 2.5 and worse.difference.low > 0 and worse.p_value < 0.01
    assert better.statistic < -2.5 and better.difference.high < 0 and better.lags == 4


@pytest.mark.parametrize("level", [0.0, 0.1, -1e6])
def test_differences_that_do_not_vary_have_no_statistic(level):
    found = diebold_mariano(torch.full((50,), level), 2)
    assert math.isnan(found.statistic) and math.isnan(found.p_value)
    assert found.difference.low == found.difference.estimate == pytest.approx(level)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="3 lags need at least 5 values, got 4"):
        diebold_mariano(torch.zeros(4), 3)
    with pytest.raises(DataError, match="4 lags need more than 4 values, got 4"):
        long_run_variance(torch.zeros(4), 4)
    with pytest.raises(DataError, match="finite series"):
        diebold_mariano(torch.tensor([1.0, math.nan, 2.0]), 0)
    with pytest.raises(ConfigError, match="lags must be a whole number"):
        diebold_mariano(torch.arange(5.0), -1)
    with pytest.raises(ConfigError, match="level must be between 0 and 1"):
        diebold_mariano(torch.arange(5.0), 0, level=1.0)


def test_a_test_of_losses_is_one_of_the_mean_of_their_differences():
    differences = dependent([200], 0.2)
    found, mean = diebold_mariano(differences, 5), dependent_mean(differences, 5)
    assert tuple(found) == tuple(mean) and mean.mean.estimate == float(differences.mean())


@pytest.mark.parametrize(("step", "reach", "wanted"), [(1, 21, 20), (5, 21, 4), (21, 21, 0)])
def test_rows_that_share_what_comes_after_them_are_counted(step, reach, wanted):
    rows = np.arange(7, 400, step)
    assert overlapping(rows, reach) == wanted
    assert overlapping(rows[:2], reach) == min(wanted, 1)
    assert overlapping(rows[:1], reach) == 0
    assert overlap_lags(rows, reach) == max(3 * wanted, newey_west_lags(len(rows)))
