"""What became of prices: alike, revised, or multiplied by one number."""

import numpy as np
import pytest

from fastsim.data.compare import ALIKE, difference

BEFORE = np.array([10.0, 11.0, 12.0, 13.0])


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ([1, 1, 1, 1], None),
        ([1 + ALIKE / 2, 1, 1 - ALIKE / 2, 1], None),
        ([1, 1.01, 1, 1], (1, 1, None)),
        ([1.01, 1, 1, 1], (0, 1, None)),  # one bar alone is no adjustment
        ([0.5, 0.5, 0.5, 0.5], (0, 4, 0.5)),
        ([0.5, 0.5, 0.5001, 0.5], (0, 4, 0.5)),  # prices are rounded after a split
        ([0.5, 0.5, 1, 1], (0, 2, 0.5)),  # it came after the third
        ([1, 1, 0.5, 0.5], (2, 2, None)),
        ([0.5, 0.6, 0.5, 0.5], (0, 4, None)),
        ([0.5, np.nan, 0.5, 0.5], (0, 4, None)),
        ([1.001, 1.0011, 1.0009, 1.001], (0, 4, None)),  # too unlike for so small a factor
    ],
)
def test_by_hand(now, found):
    found_now = difference(BEFORE, BEFORE * now)
    assert (found_now is None) == (found is None)
    if found is not None:
        assert found_now[:2] == found[:2]
        assert found_now.factor == (None if found[2] is None else pytest.approx(found[2]))


def test_a_bar_without_a_price_is_like_one_without_alone():
    gap = np.array([10.0, np.nan])
    assert difference(gap, gap) is None
    assert difference(gap, np.array([10.0, 11.0])) == (1, 1, None)
    assert difference(np.array([10.0, 11.0]), gap) == (1, 1, None)


def test_one_bar_that_is_all_there_is_to_compare_may_have_been_adjusted():
    assert difference(np.array([10.0]), np.array([5.0])) == (0, 1, 0.5)


def test_tolerance_is_relative_and_may_differ_by_bar():
    most = np.array([0.02, 0.0, 0.0, 0.0])
    assert difference(BEFORE, BEFORE * [1.019, 1, 1, 1], most) is None
    assert difference(BEFORE, BEFORE * [1.021, 1, 1, 1], most) == (0, 1, None)
