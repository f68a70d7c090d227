"""Metrics: what empyrical says, batched; turnover and costs by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fastsim.backtest.history import History
from fastsim.backtest.summary import summarize
from fastsim.errors import DataError
from fastsim.stats import metrics

with warnings.catch_warnings():
    # empyrical imports yfinance and pandas, whose import-time deprecations are not ours to fix.
    warnings.simplefilter("ignore")
    import empyrical

PERIODS = 252.0
PEERS = {
    "total_return": (metrics.total_return, empyrical.cum_returns_final),
    "annual_return": (metrics.annual_return, empyrical.annual_return),
    "annual_volatility": (metrics.annual_volatility, empyrical.annual_volatility),
    "downside_risk": (metrics.downside_risk, empyrical.downside_risk),
    "sharpe_ratio": (metrics.sharpe_ratio, empyrical.sharpe_ratio),
    "sortino_ratio": (metrics.sortino_ratio, empyrical.sortino_ratio),
    "max_drawdown": (metrics.max_drawdown, empyrical.max_drawdown),
    "calmar_ratio": (metrics.calmar_ratio, empyrical.calmar_ratio),
}
every_metric = pytest.mark.parametrize("name", PEERS)


def on_a_grid(low, high):
    # Whole basis points: dispersion and drawdown are either exactly zero or well above rounding.
    return st.integers(low, high).map(lambda ticks: ticks / 10_000)


LENGTHS = st.integers(0, 60)


def series(length=LENGTHS):
    everyday = npst.arrays(np.float64, length, elements=on_a_grid(-300, 300))
    wild = npst.arrays(np.float64, length, elements=on_a_grid(-5_000, 5_000))
    constant = st.builds(np.full, length, on_a_grid(-300, 300))
    return everyday | wild | constant


def empyrical_says(name, returns, **options):
    with np.errstate(all="ignore"):
        return PEERS[name][1](returns, **options)


def close_to(name, expected):
    # Sums and products that cancel keep an absolute error near 1e-14, which annual returns multiply
    # by up to 252 and Calmar divides by a drawdown that the grid keeps above 1e-4.
    absolute = 1e-9 if name == "calmar_ratio" else 1e-12
    return pytest.approx(expected, rel=1e-12, abs=absolute, nan_ok=True)


@every_metric
@given(returns=series())
@settings(max_examples=60, deadline=None)
def test_a_metric_of_one_series_equals_empyrical(name, returns):
    ours = float(PEERS[name][0](torch.from_numpy(returns)))
    assert ours == close_to(name, float(empyrical_says(name, returns)))


@every_metric
def test_a_metric_of_ten_years_of_days_equals_empyrical_to_twelve_digits(name):
    returns = np.random.default_rng(7).normal(4e-4, 0.012, 2520)
    ours = float(PEERS[name][0](torch.from_numpy(returns)))
    assert ours == pytest.approx(float(empyrical_says(name, returns)), rel=1e-12, abs=0.0)


@every_metric
def test_a_batch_gives_each_column_what_it_gets_alone(name):
    returns = torch.from_numpy(np.random.default_rng(1).normal(2e-4, 0.01, (300, 3, 4)))
    batched = PEERS[name][0](returns)
    assert batched.shape == (3, 4)
    for row in range(3):
        for column in range(4):
            alone = returns[:, row, column].numpy()
            expected = float(empyrical_says(name, alone))
            assert float(batched[row, column]) == pytest.approx(expected, rel=1e-12)


@every_metric
def test_missing_returns_are_left_out_as_empyrical_does(name):
    returns = np.random.default_rng(2).normal(0.0, 0.01, 50)
    returns[[0, 7, 8, 49]] = np.nan
    expected = float(empyrical_says(name, returns))
    assert float(PEERS[name][0](torch.from_numpy(returns))) == pytest.approx(expected, rel=1e-12)


@every_metric
@pytest.mark.parametrize("returns", [[], [0.01], [-0.01], [0.0], [0.0, 0.0], [0.1, 0.1, 0.1]])
def test_short_and_constant_series_follow_empyrical(name, returns):
    values = np.array(returns, dtype=np.float64)
    expected = float(empyrical_says(name, values))
    ours = float(PEERS[name][0](torch.from_numpy(values)))
    assert ours == pytest.approx(expected, rel=1e-12, abs=1e-15, nan_ok=True)


@pytest.mark.parametrize("name", ["annual_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio"])
def test_other_years_than_252_periods_follow_empyrical(name):
    returns = np.random.default_rng(3).normal(1e-3, 0.02, 400)
    ours = float(PEERS[name][0](torch.from_numpy(returns), periods_per_year=365.0))
    assert ours == pytest.approx(float(empyrical_says(name, returns, annualization=365)), rel=1e-12)


def test_a_risk_free_return_lowers_sharpe_and_sortino_as_in_empyrical():
    returns = np.random.default_rng(4).normal(1e-3, 0.01, 400)
    tensor = torch.from_numpy(returns)
    assert float(metrics.sharpe_ratio(tensor, risk_free=2e-4)) == pytest.approx(
        empyrical_says("sharpe_ratio", returns, risk_free=2e-4), rel=1e-12
    )
    assert float(metrics.sortino_ratio(tensor, required_return=2e-4)) == pytest.approx(
        empyrical_says("sortino_ratio", returns, required_return=2e-4), rel=1e-12
    )


@given(returns=series(st.integers(1, 60)))
@settings(max_examples=60, deadline=None)
def test_the_drawdown_series_equals_empyrical(returns):
    expected = torch.from_numpy(empyrical.stats.drawdown_series(returns))
    ours = metrics.drawdown(torch.from_numpy(returns))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


def test_single_precision_stays_single_and_agrees_to_its_digits():
    returns = torch.from_numpy(np.random.default_rng(5).normal(1e-3, 0.01, 500))
    for ours, _ in PEERS.values():
        single = ours(returns.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), ours(returns), rtol=2e-4, atol=1e-6)


def hand_computed_history():
    """Two strategies over two days: one trades and pays, the other stays in cash."""
    return History(
        names=("agent", "idle"),
        symbols=("A",),
        timestamps=np.array(["2024-01-02", "2024-01-03", "2024-01-04"], dtype="datetime64[ns]"),
        wealth=torch.tensor([[100.0, 200.0], [110.0, 200.0], [99.0, 200.0]], dtype=torch.float64),
        weights=torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]]).double(),
        turnover=torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64),
        costs={
            "commission": torch.tensor([[0.5, 0.0], [0.25, 0.0]], dtype=torch.float64),
            "spread": torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64),
            "impact": torch.tensor([[0.125, 0.0], [0.125, 0.0]], dtype=torch.float64),
            "borrow": torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64),
        },
    )


def test_a_summary_adds_up_turnover_and_costs_by_hand():
    summary = summarize(hand_computed_history(), periods_per_year=252.0)
    # Day one +10 %, day two -10 %: 1.1 * 0.9 = 0.99.
    assert summary.total_return.tolist() == pytest.approx([-0.01, 0.0])
    assert summary.max_drawdown.tolist() == pytest.approx([-0.1, 0.0])
    # (1.0 + 0.5) / 2 days * 252 days
    assert summary.turnover.tolist() == pytest.approx([189.0, 0.0])
    assert summary.costs["commission"].tolist() == pytest.approx([0.75, 0.0])
    assert summary.costs["spread"].tolist() == pytest.approx([1.5, 0.0])
    assert summary.costs["impact"].tolist() == pytest.approx([0.25, 0.0])
    assert summary.costs["borrow"].tolist() == pytest.approx([2.0, 0.0])
    assert summary.cost.tolist() == pytest.approx([4.5, 0.0])
    # 4.5 paid of the 100 there were at first
    assert summary.relative_cost.tolist() == pytest.approx([0.045, 0.0])


def test_a_summary_measures_both_ratios_against_the_risk_free_return():
    history = hand_computed_history()
    summary = summarize(history, periods_per_year=PERIODS, risk_free=0.01)
    returns = history.simple_returns[:, 0].numpy()
    assert float(summary.sharpe_ratio[0]) == pytest.approx(
        empyrical_says("sharpe_ratio", returns, risk_free=0.01), rel=1e-12
    )
    assert float(summary.sortino_ratio[0]) == pytest.approx(
        empyrical_says("sortino_ratio", returns, required_return=0.01), rel=1e-12
    )


def constant(rate, *, dtype, steps=4000, wealth=1e6):
    """Returns of wealth that grows by the same rate at every step, as an account keeps it."""
    growth = (1.0 + rate) ** torch.arange(steps + 1, dtype=torch.float64)
    account = (wealth * growth).to(dtype)
    returns = account[1:] / account[:-1] - 1.0
    assert rate == 0 or len(returns.unique()) > 1  # rounding makes them differ
    return returns


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.04 / 365, 3e-6, -1e-4, 0.002])
def test_a_constant_return_has_no_deviation_but_for_rounding(rate, dtype):
    returns = constant(rate, dtype=dtype)
    sign = float(np.sign(rate))
    assert float(metrics.sharpe_ratio(returns, periods_per_year=365.0)) == sign * float("inf")
    sortino = float(metrics.sortino_ratio(returns, periods_per_year=365.0))
    # Where every return r is a loss, r / |r| times the root of a year.
    wanted = float("inf") if rate > 0 else pytest.approx(-(365.0**0.5), rel=1e-3)
    assert sortino == wanted
    if rate > 0:
        assert np.isnan(float(metrics.calmar_ratio(returns)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_earns_the_required_return_but_for_rounding_says_nothing(dtype):
    returns = constant(0.04 / 365, dtype=dtype)
    assert np.isnan(float(metrics.sharpe_ratio(returns, risk_free=0.04 / 365)))
    assert np.isnan(float(metrics.sortino_ratio(returns, required_return=0.04 / 365)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wealth_that_flutters_by_rounding_has_no_ratio(dtype):
    flutter = torch.finfo(dtype).eps * torch.tensor([0.0, 1.0, 0.0, -1.0]).repeat(100).to(dtype)
    wealth = 1e6 * (1.0 + flutter)
    returns = wealth[1:] / wealth[:-1] - 1.0
    assert returns.any()
    for ratio in (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.calmar_ratio):
        assert np.isnan(float(ratio(returns)))


def test_a_small_but_true_deviation_is_kept():
    returns = torch.from_numpy(np.random.default_rng(8).normal(1e-6, 2e-6, 5000))
    for kept in (returns, returns.float()):
        expected = empyrical_says("sharpe_ratio", returns.numpy())
        assert float(metrics.sharpe_ratio(kept)) == pytest.approx(expected, rel=1e-4)


def every(start, stop, step):
    return np.arange(start, stop, step, dtype="datetime64[m]").astype("datetime64[ns]")


def test_daily_stocks_have_252_bars_a_year_and_daily_crypto_365():
    week = every("2019-01-01", "2023-01-01", 24 * 60)
    weekdays = week[np.is_busday(week.astype("datetime64[D]"))]
    assert metrics.periods_per_year(weekdays) == 252.0
    assert metrics.periods_per_year(week) == 365.0


def test_hourly_crypto_is_counted_round_the_clock():
    assert metrics.periods_per_year(every("2022-01-01", "2023-01-01", 60)) == pytest.approx(8760)


def test_minutes_of_a_stock_session_are_counted_over_weekdays():
    minutes = every("2024-01-01", "2024-01-29", 1)
    of_day = (minutes - minutes.astype("datetime64[D]")) / np.timedelta64(1, "m")
    session = (of_day >= 870) & (of_day < 1260) & np.is_busday(minutes.astype("datetime64[D]"))
    assert metrics.periods_per_year(minutes[session]) == pytest.approx(390 * 365 * 5 / 7)


def test_weeks_and_months_count_52_and_12():
    months = np.arange("2015-01", "2020-01", dtype="datetime64[M]").astype("datetime64[ns]")
    assert metrics.periods_per_year(every("2015-01-05", "2020-01-06", 7 * 24 * 60)) == 52.0
    assert metrics.periods_per_year(months) == 12.0


WEEK = {"Monday to Friday": range(5), "Sunday to Thursday": (6, 0, 1, 2, 3), "all": range(7)}
SIX = {"Sunday to Friday": (6, 0, 1, 2, 3, 4), "Monday to Saturday": range(6)}


def open_on(weekdays, start="2021-01-03", stop="2021-05-23", holidays=()):
    days = every(start, stop, 24 * 60)
    dates = days.astype("datetime64[D]")
    kept = np.isin((dates.astype(int) + 3) % 7, list(weekdays))
    return days[kept & ~np.isin(dates, np.array(holidays, dtype="datetime64[D]"))]


@pytest.mark.parametrize("stop", ["2021-01-15", "2021-02-01", "2021-05-23", "2024-01-01"])
@pytest.mark.parametrize("name", [*WEEK, *SIX])
def test_daily_bars_are_counted_by_the_days_of_their_own_week(name, stop):
    days = open_on((WEEK | SIX)[name], stop=stop, holidays=["2021-01-06", "2021-04-02"])
    wanted = {5: 252.0, 6: 365 * 6 / 7, 7: 365.0}[len((WEEK | SIX)[name])]
    assert metrics.periods_per_year(days) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("count", [2, 200, 1440, 3 * 1440, 6 * 1440, 30 * 1440])
@pytest.mark.parametrize("start", ["2021-03-01T00:00", "2021-03-05T13:17", "2021-03-07T23:59"])
def test_minutes_without_gaps_are_525_600_a_year_from_wherever_they_begin(count, start):
    minutes = every(start, np.datetime64(start, "m") + count, 1)
    assert metrics.periods_per_year(minutes) == pytest.approx(525_600, rel=1e-12)
    if count > 1000:
        outage = np.delete(minutes, np.arange(500, 530))
        assert metrics.periods_per_year(outage) == pytest.approx(525_600, rel=1e-12)


def test_sessions_are_counted_whole_where_the_sample_cuts_them():
    minutes = every("2024-01-01", "2024-01-29", 1)
    of_day = (minutes - minutes.astype("datetime64[D]")) / np.timedelta64(1, "m")
    session = (of_day >= 870) & (of_day < 1260) & np.is_busday(minutes.astype("datetime64[D]"))
    whole = 390 * 365 * 5 / 7
    assert metrics.periods_per_year(minutes[session][200:-150]) == pytest.approx(whole)
    assert metrics.periods_per_year(minutes[session][: 3 * 390]) == pytest.approx(whole)


def test_currencies_trade_from_sunday_evening_to_friday_evening():
    hours = every("2020-01-05", "2021-01-05", 60)
    weekday = (hours.astype("datetime64[D]").astype(int) + 3) % 7
    hour = (hours - hours.astype("datetime64[D]")) / np.timedelta64(1, "h")
    week = (weekday < 4) | ((weekday == 4) & (hour < 22)) | ((weekday == 6) & (hour >= 22))
    assert metrics.periods_per_year(hours[week]) == pytest.approx(120 * 365 / 7, rel=5e-3)


def test_one_timestamp_or_a_step_back_says_what_is_wrong():
    days = every("2024-01-01", "2024-01-05", 24 * 60)
    with pytest.raises(DataError, match="at least 2 timestamps, got 1"):
        metrics.periods_per_year(days[:1])
    with pytest.raises(DataError, match="must increase"):
        metrics.periods_per_year(days[[0, 2, 1]])
