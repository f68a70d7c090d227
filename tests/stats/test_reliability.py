"""Brier's score is scikit-learn's and the sum of its parts; shares have Wilson's intervals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastsim.errors import ConfigError, DataError
from fastsim.stats.reliability import reliability, wilson_interval

metrics = pytest.importorskip("sklearn.metrics")
proportions = pytest.importorskip("statsmodels.stats.proportion")


def drawn(count, seed=0, *, digits=None, wrong=0.0):
    """Probabilities, and what happens with them as they are or raised by something."""
    generator = torch.Generator().manual_seed(seed)
    told = torch.rand(count, generator=generator, dtype=torch.float64)
    told = told if digits is None else told.round(decimals=digits)
    happened = torch.rand(count, generator=generator, dtype=torch.float64) < told + wrong
    return told, happened


@given(st.integers(1, 300), st.integers(0, 999), st.sampled_from([None, 1]), st.integers(1, 20))
def test_the_score_is_scikit_learns_and_the_sum_of_its_parts(count, seed, digits, bins):
    told, happened = drawn(count, seed, digits=digits, wrong=0.1)
    found = reliability(told, happened, bins=bins)
    assert found.brier == pytest.approx(
        metrics.brier_score_loss(happened.numpy(), told.numpy(), pos_label=True), abs=1e-12
    )
    parts = found.reliability - found.resolution + found.uncertainty + found.within
    assert parts == pytest.approx(found.brier, abs=1e-12)
    assert sum(each.forecasts for each in found.bins) == count
    assert len(found.bins) <= bins
    assert all(one.high < two.low for one, two in zip(found.bins, found.bins[1:], strict=False))


def test_the_parts_worked_by_hand():
    # Two of 0.2, of which none happened, and two of 0.8, of which one did.
    told = torch.tensor([0.2, 0.2, 0.8, 0.8])
    found = reliability(told, torch.tensor([False, False, True, False]), bins=2)
    assert found.reliability == pytest.approx((0.2**2 + 0.3**2) / 2)
    assert found.resolution == pytest.approx((0.25**2 + 0.25**2) / 2)
    assert found.uncertainty == pytest.approx(0.25 * 0.75)
    assert found.within == pytest.approx(0.0, abs=1e-12)
    assert found.brier == pytest.approx((0.04 + 0.04 + 0.04 + 0.64) / 4)
    assert [each.observed.estimate for each in found.bins] == [0.0, 0.5]


def test_equal_forecasts_share_a_bin_and_tell_nothing_apart():
    found = reliability(torch.full((50,), 0.5), torch.arange(50) % 2 == 0)
    assert len(found.bins) == 1 and found.resolution == found.reliability == found.within == 0.0


def test_probabilities_that_are_right_lie_in_their_intervals_and_others_do_not():
    """Of 20 bins at 95 % one may be out; all of them move by 0.2."""
    right = reliability(*drawn(20_000, 1), bins=20)
    inside = [each.observed.low <= each.forecast <= each.observed.high for each in right.bins]
    assert sum(inside) >= 17 and right.reliability < 1e-3
    wrong = reliability(*drawn(20_000, 1, wrong=0.2), bins=20)
    inside = [each.observed.low <= each.forecast <= each.observed.high for each in wrong.bins]
    assert sum(inside) <= 2 and wrong.reliability == pytest.approx(0.2**2, rel=0.2)


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 30), (7, 30), (30, 30), (500, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wilsons_interval_is_that_of_statsmodels(count, total, level):
    found = wilson_interval(count, total, level)
    wanted = proportions.proportion_confint(count, total, 1.0 - level, method="wilson")
    assert (found.low, found.high) == pytest.approx(wanted, abs=1e-9)
    assert found.estimate == count / total


def test_what_is_no_probability_is_refused():
    happened = torch.tensor([True, False])
    for told in (torch.tensor([0.5, 1.5]), torch.tensor([0.5, math.nan])):
        with pytest.raises(DataError, match="between 0 and 1"):
            reliability(told, happened)
    with pytest.raises(DataError, match="at least one number"):
        reliability(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(DataError, match=r"bool \[N\]"):
        reliability(torch.tensor([0.5, 0.5]), torch.tensor([1, 0]))
    with pytest.raises(ConfigError, match="bins must be a whole number >= 1"):
        reliability(torch.tensor([0.5, 0.5]), happened, bins=0)
    with pytest.raises(DataError, match="at least one trial, got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ConfigError, match="level must be between 0 and 1"):
        wilson_interval(1, 2, level=1.0)
