"""The stationary bootstrap: it covers, it is paired, it repeats."""

from __future__ import annotations

import math
from math import isfinite, isnan

import pytest
import torch

from fastsim.errors import ConfigError, DataError
from fastsim.stats.bootstrap import _resampled_ratios, percentile_interval, sharpe_difference
from fastsim.stats.metrics import sharpe_ratio
from fastsim.stats.resample import circular_rows, resampled_blocks, resampled_rows


def equal_sharpe_pairs(length, pairs, seed, *, persistence=0.0, common=0.6):
    """Pairs [T, pairs, 2] of correlated AR(1) series of one mean and variance: equal Sharpe."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(length, pairs, 3, generator=generator, dtype=torch.float64)
    shocks = math.sqrt(common) * noise[..., :1] + math.sqrt(1 - common) * noise[..., 1:]
    rows = [shocks[0]]
    for shock in shocks[1:]:
        rows.append(persistence * rows[-1] + math.sqrt(1 - persistence**2) * shock)
    return 0.0005 + 0.01 * torch.stack(rows)


def equal_sharpe_pair(length, seed, **options):
    return equal_sharpe_pairs(length, 1, seed, **options)[:, 0].unbind(-1)


@pytest.mark.parametrize("persistence", [0.0, 0.3])
def test_the_interval_covers_a_true_difference_of_zero_about_as_often_as_it_says(
    persistence, threads
):
    threads(1)  # many small tensors
    trials = 200
    pairs = equal_sharpe_pairs(600, trials, seed=20, persistence=persistence)
    settings = {"block_length": 6, "resamples": 150, "level": 0.9}
    intervals = [
        sharpe_difference(*pairs[:, trial].unbind(-1), seed=trial, **settings)
        for trial in range(trials)
    ]
    # Two standard errors of 200 trials are 4.2 points. A percentile interval of 100 blocks is
    # itself narrow by up to two points here, so more is allowed below 0.9 than above.
    assert 0.84 <= sum(interval.contains_zero for interval in intervals) / trials <= 0.945


@pytest.mark.parametrize(("level", "deviates"), [(0.8, 1.2816), (0.9, 1.6449), (0.95, 1.96)])
def test_the_interval_of_independent_days_is_as_wide_as_the_normal_law_says(level, deviates):
    first, second = equal_sharpe_pair(1000, seed=10)
    interval = sharpe_difference(first, second, block_length=1, level=level)
    # For small ratios the variance of the difference is (2 - 2 rho) / T per period.
    rho = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    error = math.sqrt(252 * (2 - 2 * rho) / 1000)
    assert interval.high - interval.low == pytest.approx(2 * deviates * error, rel=0.08)


def test_an_interval_of_days_taken_singly_misses_dependence_that_blocks_keep():
    pair = equal_sharpe_pair(2000, seed=3, persistence=0.6, common=0.0)
    single = sharpe_difference(*pair, block_length=1, resamples=1000)
    blocks = sharpe_difference(*pair, block_length=21, resamples=1000)
    # The true standard error is sqrt((1 + 0.6) / (1 - 0.6)) = 2 times that of independent days.
    assert 1.6 < (blocks.high - blocks.low) / (single.high - single.low) < 2.4


def test_a_clear_difference_is_found_with_its_sign():
    first, second = equal_sharpe_pair(1000, seed=4)
    better = sharpe_difference(first + 0.002, second)
    assert better.low > 0 and not better.contains_zero


def test_the_estimate_is_the_difference_of_the_two_ratios():
    pair = equal_sharpe_pair(300, seed=5)
    expected = float(sharpe_ratio(pair[0]) - sharpe_ratio(pair[1]))
    assert sharpe_difference(*pair, resamples=10).estimate == pytest.approx(expected, rel=1e-12)


def test_a_series_differs_from_itself_by_exactly_nothing():
    series, _ = equal_sharpe_pair(400, seed=6)
    interval = sharpe_difference(series, series.clone())
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_swapping_the_series_mirrors_the_interval():
    first, second = equal_sharpe_pair(400, seed=7)
    one_way, other_way = sharpe_difference(first, second), sharpe_difference(second, first)
    assert one_way.estimate == pytest.approx(-other_way.estimate, rel=1e-12)
    assert one_way.low == pytest.approx(-other_way.high, rel=1e-9)
    assert one_way.high == pytest.approx(-other_way.low, rel=1e-9)


def test_a_seed_repeats_itself_and_leaves_the_global_generator_alone():
    pair = equal_sharpe_pair(300, seed=8)
    before = torch.get_rng_state()
    assert sharpe_difference(*pair, seed=1) == sharpe_difference(*pair, seed=1)
    assert sharpe_difference(*pair, seed=1) != sharpe_difference(*pair, seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_follow_on_wrap_round_and_have_the_mean_length_asked_for():
    chunks = resampled_rows(500, 10, 6000, torch.Generator().manual_seed(9))
    rows = torch.cat(list(chunks), dim=1)
    assert rows.shape == (500, 6000)
    assert rows.min() == 0 and rows.max() == 499
    follows_on = rows[1:] == (rows[:-1] + 1) % 500
    # A new block starts with probability 1 / 10, and 1 in 500 of those happens to follow on.
    expected = 1 - 1 / 10 * (1 - 1 / 500)
    assert float(follows_on.double().mean()) == pytest.approx(expected, abs=1e-3)
    assert float(rows.double().mean()) == pytest.approx(499 / 2, rel=0.01)


@pytest.mark.parametrize("length", [12, 50])
def test_circular_blocks_have_one_length_and_begin_anywhere(length):
    rows = circular_rows(length, 6, 4000, torch.Generator().manual_seed(3))
    assert rows.shape == (4000, length)
    within = torch.arange(1, length) % 6 != 0
    follows_on = rows[:, 1:] == (rows[:, :-1] + 1) % length
    assert follows_on[:, within].all()
    assert float(follows_on[:, ~within].double().mean()) == pytest.approx(1 / length, abs=0.01)
    counts = rows.flatten().bincount(minlength=length).double() / rows.numel() * length
    assert (counts - 1).abs().max() < 0.15


def test_blocks_of_one_row_are_the_plain_bootstrap():
    rows = circular_rows(7, 1, 100, torch.Generator().manual_seed(0))
    assert torch.equal(rows, torch.randint(7, (100, 7), generator=torch.Generator().manual_seed(0)))


def test_a_percentile_interval_holds_the_middle_of_the_draws():
    draws = torch.cat([torch.arange(101.0), torch.tensor([math.nan])])
    assert percentile_interval(3.0, draws, 0.9) == pytest.approx((3.0, 5.0, 95.0, 0.9), rel=1e-6)


def test_a_series_of_zeros_has_no_ratio_and_the_interval_says_so():
    zeros = torch.zeros(100, dtype=torch.float64)
    interval = sharpe_difference(zeros, torch.randn(100).double(), resamples=20)
    assert math.isnan(interval.estimate) and math.isnan(interval.low)
    assert not interval.contains_zero


@pytest.mark.parametrize(
    ("setting", "value"),
    [("block_length", 0.5), ("resamples", 0), ("resamples", 9.5), ("level", 1.0)],
)
def test_a_setting_out_of_range_is_named(setting, value):
    with pytest.raises(ConfigError, match=setting):
        sharpe_difference(torch.randn(10), torch.randn(10), **{setting: value})


def test_series_that_do_not_pair_are_refused():
    with pytest.raises(DataError, match="two series"):
        sharpe_difference(torch.randn(10), torch.randn(11))
    broken = torch.tensor([0.1, float("nan"), 0.2])
    with pytest.raises(DataError, match="row 1"):
        sharpe_difference(torch.zeros(3), broken)


def test_a_series_that_does_not_vary_but_for_rounding_cannot_be_compared():
    wealth = (1e6 * (1 + 0.04 / 365) ** torch.arange(501).double()).float()
    cash = wealth[1:] / wealth[:-1] - 1.0
    other = 0.01 * torch.randn(500, generator=torch.Generator().manual_seed(0))
    for pair in ((cash, other), (other, cash), (cash, cash.double())):
        assert all(isnan(figure) for figure in sharpe_difference(*pair, resamples=20)[:3])


def test_resamples_that_do_not_vary_are_left_out():
    rare = torch.zeros(60).double() + 1e-4
    rare[7] = 0.02
    other = 0.01 * torch.randn(60, generator=torch.Generator().manual_seed(1)).double()
    interval = sharpe_difference(rare, other, block_length=5, resamples=200)
    assert all(isfinite(figure) for figure in interval)


@pytest.mark.parametrize(("length", "block_length"), [(2, 1), (50, 1), (300, 21), (40, 500)])
def test_blocks_are_so_long_on_average_and_make_a_series_as_long_as_the_first(length, block_length):
    generator = torch.Generator().manual_seed(0)
    chunks = list(resampled_blocks(length, block_length, 3000, generator))
    starts, ends = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    sizes = ends - starts
    assert (sizes >= 0).all() and (sizes.sum(1) == length).all()
    assert starts.min() >= 0 and starts.max() < length
    number = (sizes > 0).double().sum(1).mean().item()
    assert number == pytest.approx(1 + (length - 1) / block_length, rel=0.03)


def test_ratios_from_sums_over_blocks_are_those_of_the_rows_themselves():
    series = 0.01 * torch.randn(120, 2, generator=torch.Generator().manual_seed(3)).double() + 0.001
    drawn = [
        resampled_blocks(120, 9, 40, torch.Generator().manual_seed(1)),
        _resampled_ratios(series, 9, 40, 4e-16, torch.Generator().manual_seed(1)),
    ]
    for (starts, ends), ratios in zip(*drawn, strict=True):
        for row, (first, end) in enumerate(zip(starts, ends, strict=True)):
            rows = torch.cat([torch.arange(a, b) for a, b in zip(first, end, strict=True)]) % 120
            expected = sharpe_ratio(series[rows], periods_per_year=1)
            torch.testing.assert_close(ratios[row], expected, rtol=1e-9, atol=0)
