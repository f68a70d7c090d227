"""Quantiles at any level: a normal between two levels, an exponential beyond the outermost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import expon, norm

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Forecast

DECILES = tuple(round(0.1 * step, 1) for step in range(1, 10))


def normal(levels, mean=3.0, deviation=2.0):
    quantiles = torch.from_numpy(norm.ppf(levels, mean, deviation))
    return Forecast(quantiles[None, None], tuple(levels))


def test_of_a_normal_every_level_between_is_that_of_the_normal():
    wanted = np.linspace(0.1, 0.9, 41)
    found = normal(DECILES).to_levels(wanted)
    np.testing.assert_allclose(found.quantiles[0, 0], norm.ppf(wanted, 3.0, 2.0), atol=1e-12)
    assert found.levels == tuple(wanted)


def test_of_an_exponential_every_level_beyond_is_that_of_the_exponential():
    known, wanted = (0.8, 0.9), (0.95, 0.99, 0.999)
    above = Forecast(torch.from_numpy(expon.ppf(known))[None, None], known).to_levels(wanted)
    np.testing.assert_allclose(above.quantiles[0, 0], expon.ppf(wanted), rtol=1e-12)
    mirror, low = (0.1, 0.2), (0.001, 0.01, 0.05)
    quantiles = torch.from_numpy(-expon.ppf([0.9, 0.8]))[None, None]
    below = Forecast(quantiles, mirror).to_levels(low)
    np.testing.assert_allclose(below.quantiles[0, 0], -expon.ppf([0.999, 0.99, 0.95]), rtol=1e-12)


def test_known_levels_come_back_to_the_bit_and_tails_are_wider_than_a_normals():
    told = normal(DECILES)
    assert torch.equal(told.to_levels(DECILES).quantiles, told.quantiles)
    outer = told.to_levels((0.001, 0.999)).quantiles[0, 0]
    assert outer[0] < norm.ppf(0.001, 3.0, 2.0) and outer[1] > norm.ppf(0.999, 3.0, 2.0)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_quantiles_never_cross_whatever_the_levels(data):
    level = st.floats(1e-6, 1.0 - 1e-6)
    steps = st.sets(st.integers(1, 999), min_size=1, max_size=9)
    known = [step / 1000 for step in sorted(data.draw(steps))]
    wanted = sorted(data.draw(st.sets(level, min_size=2, max_size=30)))
    steps = data.draw(
        st.lists(st.floats(0.0, 1e3, width=32), min_size=len(known), max_size=len(known))
    )
    quantiles = torch.tensor(steps).cumsum(0)[None, None] - 500.0
    found = Forecast(quantiles, tuple(known)).to_levels(wanted).quantiles
    assert bool((found.diff(dim=-1) >= 0).all())


def test_one_level_is_all_that_is_known():
    single = Forecast(torch.tensor([[[7.0]]]), (0.5,))
    assert single.to_levels((0.01, 0.99)).quantiles.tolist() == [[[7.0, 7.0]]]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "lie between 0 and 1"),
        ((0.0, 0.5), "lie between 0 and 1"),
        ((0.5, 1.0), "lie between 0 and 1"),
        ((0.5, 0.5), "must increase"),
        ((0.9, 0.1), "must increase"),
    ],
)
def test_levels_that_are_none_are_refused(levels, message):
    with pytest.raises(ForecastError, match=message):
        normal(DECILES).to_levels(levels)
