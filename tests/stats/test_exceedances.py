"""Kupiec's and Christoffersen's tests are scipy's tests of tables, and know good bands from bad."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsim.errors import ConfigError, DataError
from fastsim.stats.exceedances import conditional_coverage, independence, unconditional_coverage

stats = pytest.importorskip("scipy.stats")
SERIES = st.lists(st.booleans(), min_size=2, max_size=300).map(torch.tensor)
SHARES = st.floats(0.01, 0.99)


def expected_counts(few, many, share):
    """Log-likelihood statistic of so many periods of two kinds against a share of the second."""
    total = few + many
    if not total:
        return 0.0
    wanted = [(1.0 - share) * total, share * total]
    return stats.power_divergence([few, many], wanted, lambda_="log-likelihood").statistic


def table(series):
    """How often each kind of period follows each, [2, 2], counted one by one."""
    counts = [[0, 0], [0, 0]]
    for before, after in zip(series[:-1].tolist(), series[1:].tolist(), strict=True):
        counts[before][after] += 1
    return counts


@settings(max_examples=60)
@given(SERIES, SHARES)
def test_kupiec_is_the_likelihood_ratio_of_two_counts(series, share):
    found = unconditional_coverage(series, share)
    many = sum(series.tolist())
    wanted = expected_counts(len(series) - many, many, share)
    assert found.statistic == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 1), rel=1e-9)
    assert found.degrees == 1


@settings(max_examples=60)
@given(SERIES)
def test_independence_is_the_likelihood_ratio_of_the_table_of_transitions(series):
    found, counts = independence(series), table(series)
    if all(map(sum, counts)) and all(map(sum, zip(*counts, strict=True))):
        wanted = stats.chi2_contingency(
            counts, correction=False, lambda_="log-likelihood"
        ).statistic
    else:
        wanted = 0.0  # a row or a column without entries: nothing to tell apart
    assert found.statistic == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 1), rel=1e-9)


@settings(max_examples=60)
@given(SERIES, SHARES)
def test_conditional_coverage_holds_both_rows_of_the_table_to_the_share(series, share):
    found = conditional_coverage(series, share)
    wanted = sum(expected_counts(*row, share) for row in table(series))
    assert found.statistic == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 2), rel=1e-9)
    parts = independence(series).statistic + unconditional_coverage(series[1:], share).statistic
    assert found.statistic == pytest.approx(parts, rel=1e-9, abs=1e-9)


def test_a_fair_band_is_refused_as_often_as_is_said():
    """Of 1000 series at a level of 5 %: within three deviations of 50, and of 50 all the same."""
    fair = torch.rand((1000, 500), generator=torch.Generator().manual_seed(0)) < 0.2
    for test in (lambda row: unconditional_coverage(row, 0.2), independence):
        refused = sum(test(row).p_value < 0.05 for row in fair)
        assert 29 <= refused <= 71
    both = sum(conditional_coverage(row, 0.2).p_value < 0.05 for row in fair)
    assert 29 <= both <= 71


def test_runs_are_seen_by_independence_and_a_wrong_share_by_coverage():
    runs = torch.tensor(([True] * 10 + [False] * 40) * 10)
    assert unconditional_coverage(runs, 0.2).p_value == 1.0
    assert independence(runs).p_value < 1e-12
    assert conditional_coverage(runs, 0.2).p_value < 1e-12
    assert unconditional_coverage(runs, 0.1).p_value < 1e-6


@pytest.mark.parametrize("kind", [True, False])
def test_a_series_of_one_kind_says_nothing_of_independence(kind):
    found = independence(torch.tensor([kind] * 50))
    assert (found.statistic, found.p_value) == (0.0, 1.0)


def test_what_is_no_series_of_exceedances_is_refused():
    with pytest.raises(DataError, match="bool"):
        unconditional_coverage(torch.zeros(5), 0.2)
    with pytest.raises(DataError, match="at least 2 periods, got 1"):
        independence(torch.tensor([True]))
    with pytest.raises(DataError, match="at least 1 periods, got 0"):
        unconditional_coverage(torch.zeros(0, dtype=torch.bool), 0.2)
    with pytest.raises(ConfigError, match="share must be between 0 and 1"):
        conditional_coverage(torch.tensor([True, False]), 1.0)
