"""Rank correlations are scipy's, row by row; what they look beyond is a regression's rest."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastsim.errors import DataError
from fastsim.stats.ranks import average_ranks, rank_correlation

stats = pytest.importorskip("scipy.stats")


def tables(rows, columns, count=2, seed=0, *, ticks=None, holes=0.0):
    """Tables [rows, columns]; on a grid of so many ticks, that some tie."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(count, rows, columns))
    made = made if ticks is None else np.round(made * ticks) / ticks
    made[rng.random(made.shape) < holes] = np.nan
    return [torch.from_numpy(each) for each in made]


@given(st.integers(3, 40), st.integers(0, 999), st.sampled_from([None, 1, 2]), st.booleans())
def test_each_row_is_scipys(columns, seed, ticks, halted):
    one, other = tables(5, columns, seed=seed, ticks=ticks, holes=0.3 if halted else 0.0)
    found = rank_correlation(one, other)
    for row, value in enumerate(found.tolist()):
        known = (one[row].isfinite() & other[row].isfinite()).numpy()
        x, y = one[row].numpy()[known], other[row].numpy()[known]
        if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@given(st.integers(1, 30), st.integers(0, 999), st.sampled_from([None, 1]))
def test_ranks_are_scipys_with_ties_shared(columns, seed, ticks):
    (values,) = tables(3, columns, count=1, seed=seed, ticks=ticks)
    wanted = stats.rankdata(values.numpy(), axis=1)
    np.testing.assert_array_equal(average_ranks(values).numpy(), wanted)


def test_infinite_values_are_ranked_and_missing_ones_are_not():
    values = torch.tensor([[torch.inf, 1.0, torch.nan, -torch.inf, torch.inf]])
    found = average_ranks(values)
    assert found[0, [0, 1, 3, 4]].tolist() == [3.5, 2.0, 1.0, 3.5] and bool(found[0, 2].isnan())


@given(st.integers(5, 40), st.integers(0, 999), st.sampled_from([None, 2]))
def test_what_is_beyond_others_is_what_a_regression_of_ranks_leaves(columns, seed, ticks):
    one, other, first, second = tables(4, columns, count=4, seed=seed, ticks=ticks)
    found = rank_correlation(one, other, beyond=(first, second))
    for row, value in enumerate(found.tolist()):
        ranks = [stats.rankdata(table[row].numpy()) for table in (one, other, first, second)]
        design = np.stack([np.ones(columns), *ranks[2:]], 1)
        rest = ranks[0] - design @ np.linalg.lstsq(design, ranks[0], rcond=None)[0]
        if rest.std() < 1e-6 or len(set(ranks[1])) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.corrcoef(rest, ranks[1])[0, 1], abs=1e-9)


def test_nothing_is_left_beyond_oneself_nor_beyond_any_growing_function_of_it():
    one, other = tables(6, 12)
    assert bool(rank_correlation(one, other, beyond=(one,)).isnan().all())
    assert bool(rank_correlation(one.exp(), other, beyond=(one,)).isnan().all())
    torch.testing.assert_close(
        rank_correlation(one, other), rank_correlation(one.exp(), other.pow(3))
    )


def test_controls_that_say_the_same_count_once_and_constant_ones_not():
    one, other, control = tables(6, 12, count=3)
    alone = rank_correlation(one, other, beyond=(control,))
    torch.testing.assert_close(rank_correlation(one, other, beyond=(control, control)), alone)
    torch.testing.assert_close(
        rank_correlation(one, other, beyond=(control, torch.ones_like(control))), alone
    )
    plain = rank_correlation(one, other, beyond=(torch.ones_like(control),))
    torch.testing.assert_close(plain, rank_correlation(one, other))


def test_too_few_columns_have_no_correlation():
    one, other, first, second = tables(3, 4, count=4)
    assert bool(rank_correlation(one[:, :2], other[:, :2]).isnan().all())
    assert bool(rank_correlation(one[:, :3], other[:, :3]).isfinite().all())
    assert bool(rank_correlation(one, other, beyond=(first, second)).isnan().all())
    assert bool(rank_correlation(one, other, beyond=(first,)).isfinite().all())


def test_tables_of_other_shapes_are_refused():
    with pytest.raises(DataError, match=r"tables \[R, A\] of one shape"):
        rank_correlation(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(DataError, match=r"tables \[R, A\] of one shape"):
        rank_correlation(torch.zeros(3), torch.zeros(3))
