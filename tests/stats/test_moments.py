"""Moments of trailing windows are those of NumPy, and nothing of what has left a window stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsim.stats.moments import trailing_moments


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3), st.integers(0, 99))
def test_moments_are_those_of_each_window_alone(length, window, least, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(3.0, 2.0, (length, 3))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[rng.random(values.shape) < 0.05] = np.inf
    mean, deviation = trailing_moments(values, window, least)
    for bar, asset in np.ndindex(values.shape):
        seen = values[max(0, bar + 1 - window) : bar + 1, asset]
        seen = seen[np.isfinite(seen)]
        if len(seen) < least:
            assert np.isnan(mean[bar, asset]) and np.isnan(deviation[bar, asset])
        else:
            assert mean[bar, asset] == pytest.approx(seen.mean(), abs=1e-12)
            assert deviation[bar, asset] == pytest.approx(seen.std(), abs=1e-12)


def test_half_a_window_is_enough_unless_it_is_said_otherwise():
    values = np.arange(9.0)[:, None]
    assert np.isfinite(trailing_moments(values, 6).mean[:, 0]).tolist() == [False] * 2 + [True] * 7
    assert np.isfinite(trailing_moments(values, 2).mean[:, 0]).tolist() == [False] + [True] * 8


@pytest.mark.parametrize("size", [1e-12, 0.3, 1e12])
def test_what_has_left_the_window_leaves_nothing_behind(size):
    values = np.full((300, 1), 0.1)
    values[100] += size
    mean, deviation = trailing_moments(values, 20)
    assert (deviation[120:] == 0).all() and (deviation[30:100] == 0).all()
    np.testing.assert_allclose(mean[120:], 0.1, rtol=1e-15)
    np.testing.assert_allclose(deviation[100:120], size * np.sqrt(19) / 20, rtol=1e-3, atol=1e-17)


def test_a_small_deviation_beside_a_large_mean_is_found():
    values = 1e6 + np.resize([1e-3, -1e-3], 80)[:, None]
    np.testing.assert_allclose(trailing_moments(values, 8).deviation[8:], 1e-3, rtol=1e-6)


def test_later_rows_change_no_bit():
    values = np.random.default_rng(0).normal(size=(50, 2))
    for length in range(1, 50):
        for early, late in zip(
            trailing_moments(values[:length], 7), trailing_moments(values, 7), strict=True
        ):
            np.testing.assert_array_equal(early, late[:length])
