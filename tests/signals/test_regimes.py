"""Regimes: their closed forms, their shares on tech4, hysteresis, and that none looks ahead."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.market.features import rolling_std
from fastsim.signals.regimes import (
    REGIMES,
    RegimeConfig,
    efficiency_ratio,
    find_regimes,
    volatility_rank,
)
from fastsim.signals.trailing import log_returns, rank_among_previous, trailing_deviation

PLAIN = RegimeConfig(volatility_margin=0.0, trend_margin=0.0)
SHORT = RegimeConfig(volatility_window=4, history=10, trend_window=5, memory=8)


def closes(name="tech4"):
    return torch.from_numpy(sample_bars(name).adjusted("close"))


def walk(length=120, assets=3, seed=0, holes=False):
    rng = np.random.default_rng(seed)
    prices = 50.0 * np.exp(np.cumsum(rng.normal(0, 0.02, (length, assets)), axis=0))
    if holes:
        prices[:20, 0] = np.nan
        prices[50::9, 1] = np.nan
    return torch.from_numpy(prices)


def test_shares_on_tech4_are_those_that_were_measured():
    regimes = find_regimes(closes(), PLAIN)
    assert REGIMES[:3] == ("low ranging", "low trending", "middle ranging")
    shares = [round(each, 2) for each in regimes.shares().tolist()]
    assert shares == [0.16, 0.19, 0.19, 0.12, 0.21, 0.13]
    assert float(regimes.changes()) == pytest.approx(0.20, abs=0.01)


def test_volatility_persists_and_trend_does_not():
    close = closes()
    regimes, moves = find_regimes(close, PLAIN), log_returns(close).abs()
    after = [moves[1:][regimes.volatility[:-1] == third].nanmean().item() for third in range(3)]
    assert [round(100 * each, 1) for each in after] == [1.1, 1.2, 1.7]
    later, now = regimes.efficiency[20:], regimes.number[:-20]
    known = (now >= 0) & later.isfinite()
    means = [
        later[known & (regimes.trending[:-20] == trending)].mean().item()
        for trending in (True, False)
    ]
    assert means == pytest.approx([0.253, 0.251], abs=2e-3)


def test_hysteresis_keeps_a_regime_and_its_share():
    plain, settled = find_regimes(closes(), PLAIN), find_regimes(closes(), RegimeConfig())
    assert float(settled.changes()) < 0.6 * float(plain.changes())
    torch.testing.assert_close(settled.shares(), plain.shares(), atol=0.04, rtol=0)
    assert torch.equal(settled.number >= 0, plain.number >= 0)


@pytest.mark.parametrize(
    ("returns", "ratio"),
    [
        ([0.01] * 5, 1.0),
        ([-0.03, -0.01, -0.02, -0.01, -0.01], 1.0),
        ([0.01, -0.01, 0.01, -0.01, 0.0], 0.0),
        ([0.03, -0.01, 0.0, 0.0, 0.0], 0.5),
        ([0.0] * 5, 0.0),
    ],
)
def test_efficiency_is_the_distance_over_the_way(returns, ratio):
    close = torch.tensor([0.0, *returns], dtype=torch.float64).cumsum(0).exp()[:, None] * 7.0
    found = efficiency_ratio(close, 5)
    assert found[:5].isnan().all()
    assert float(found[5, 0]) == pytest.approx(ratio, abs=1e-12)


def test_a_halt_is_part_of_the_way():
    close = torch.tensor([1.0, 1.1, torch.nan, torch.nan, 1.0, 1.2, 1.3], dtype=torch.float64)
    found = efficiency_ratio(close[:, None], 4)[:, 0]
    assert found[:4].isnan().all()
    way = np.log(1.1) * 2  # up and down again over the halt
    assert float(found[4]) == pytest.approx(0.0 / way, abs=1e-12)
    assert float(found[5]) == pytest.approx(np.log(1.2 / 1.1) / (np.log(1.1) + np.log(1.2)))


@pytest.mark.parametrize("holes", [False, True])
def test_the_trailing_deviation_is_that_of_features(holes):
    returns = log_returns(walk(holes=holes))
    expected = rolling_std(returns.numpy(), 21)
    listed = returns.isfinite().double().argmax(0)
    early = torch.arange(len(returns))[:, None] < listed + 20  # ours waits for a whole window
    expected[early.numpy()] = np.nan
    np.testing.assert_allclose(trailing_deviation(returns, 21), expected, rtol=1e-10, atol=1e-15)


def test_what_stands_still_has_no_deviation_whatever_its_level():
    values = torch.full((60, 1), 0.1, dtype=torch.float64)
    values[:30] = 3.7
    assert (trailing_deviation(values, 21)[50:] == 0.0).all()


def test_a_rank_counts_what_lies_below_and_half_of_what_is_equal():
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0, 0.0], dtype=torch.float64)[:, None]
    found = rank_among_previous(values, 4)[:, 0]
    assert found[:4].isnan().all()
    assert found[4:].tolist() == [1.0, 0.0]
    assert rank_among_previous(values, 3)[3:, 0].tolist() == [0.5, 1.0, 0.0]


@given(st.integers(0, 2**31), st.integers(2, 30))
def test_a_rank_is_that_of_a_plain_loop(seed, window):
    values = np.random.default_rng(seed).integers(0, 6, (40, 2)).astype(float)
    values[values == 5] = np.nan
    found = rank_among_previous(torch.from_numpy(values), window).numpy()
    for bar, asset in np.ndindex(values.shape):
        past = values[max(bar - window, 0) : bar, asset]
        past = past[np.isfinite(past)]
        here = values[bar, asset]
        begun = np.isfinite(values[: max(bar - window + 1, 0), asset]).any()
        if np.isnan(here) or not begun or 2 * len(past) < window:
            assert np.isnan(found[bar, asset])
        else:
            expected = (np.sum(past < here) + 0.5 * np.sum(past == here)) / len(past)
            assert found[bar, asset] == pytest.approx(expected)


def settled_by_hand(values, cuts, margin, memory):
    """Bar by bar, from `memory` bars ago: left only once a cut is passed by the margin."""
    places = np.full(values.shape, -1)
    for bar in range(len(values)):
        place = None
        for value in values[max(bar - memory + 1, 0) : bar + 1]:
            if np.isnan(value):
                continue
            if place is None:
                place = sum(value >= cut for cut in cuts)
            while place < len(cuts) and value - margin >= cuts[place]:
                place += 1
            while place > 0 and value + margin < cuts[place - 1]:
                place -= 1
        places[bar] = -1 if place is None else place
    return places


@pytest.mark.parametrize("memory", [1, 2, 7, 8, 64, 500])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.15])
def test_hysteresis_is_that_of_a_plain_loop_over_its_memory(memory, margin):
    close = walk(300, 2, seed=4)
    config = RegimeConfig(
        volatility_window=4,
        history=30,
        trend_window=5,
        memory=memory,
        volatility_margin=margin,
        trend_margin=margin,
    )
    found = find_regimes(close, config)
    for asset in range(2):
        rank, efficiency = found.rank[:, asset].numpy(), found.efficiency[:, asset].numpy()
        thirds = settled_by_hand(rank, (1 / 3, 2 / 3), margin, memory)
        trends = settled_by_hand(efficiency, (0.25,), margin, memory)
        np.testing.assert_array_equal(found.volatility[:, asset], thirds)
        np.testing.assert_array_equal(found.trending[:, asset], trends == 1)
        known = (thirds >= 0) & (trends >= 0)
        number = np.where(known, 2 * thirds + (trends == 1), -1)
        np.testing.assert_array_equal(found.number[:, asset], number)


@pytest.mark.parametrize("holes", [False, True])
def test_bars_after_t_change_nothing_up_to_t(holes):
    close = walk(holes=holes)
    other = close.clone()
    other[80:] = other[80:].flip(0) * 1.5
    for one, two in zip(find_regimes(close, SHORT), find_regimes(other, SHORT), strict=True):
        torch.testing.assert_close(one[:80], two[:80], equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(find_regimes(close, SHORT).number, find_regimes(other, SHORT).number)


def test_the_last_bars_alone_say_the_same_to_the_bit():
    close, needed = walk(200), SHORT.bars_needed
    whole = find_regimes(close, SHORT)
    for bar in range(needed, 200):
        last = find_regimes(close[bar - needed + 1 : bar + 1], SHORT)
        assert all(torch.equal(one[bar], two[-1]) for one, two in zip(whole, last, strict=True))


def test_one_bar_less_is_one_too_few():
    close, config = walk(300), replace(SHORT, volatility_margin=1 / 6, trend_margin=0.15)
    whole, needed = find_regimes(close, config), config.bars_needed
    last = [find_regimes(close[bar - needed + 2 : bar + 1], config) for bar in range(needed, 300)]
    numbers = torch.stack([each.number[-1] for each in last])
    assert not torch.equal(numbers, whole.number[needed:])


def test_assets_in_another_order_have_the_same_regimes():
    close, order = walk(holes=True), torch.tensor([2, 0, 1])
    one, two = find_regimes(close, SHORT), find_regimes(close[:, order], SHORT)
    assert all(
        torch.equal(a[:, order].nan_to_num(9), b.nan_to_num(9))
        for a, b in zip(one, two, strict=True)
    )


def test_a_scale_of_prices_or_of_returns_changes_no_regime():
    close = walk()
    for other in (3.0 * close, close**2):
        torch.testing.assert_close(
            volatility_rank(other, 4, 10), volatility_rank(close, 4, 10), equal_nan=True
        )
        assert torch.equal(find_regimes(other, SHORT).number, find_regimes(close, SHORT).number)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"history": 1}, r"RegimeConfig.history must be >= 2 and <= 100000, got 1"),
        ({"volatility_window": 2.5}, "whole number"),
        ({"trending": 1.5}, r"RegimeConfig.trending must be >= 0 and <= 1, got 1.5"),
        ({"volatility_margin": 0.2}, r"RegimeConfig.volatility_margin must be"),
        ({"trend_margin": float("nan")}, r"RegimeConfig.trend_margin must be"),
        ({"memory": 0}, r"RegimeConfig.memory must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        RegimeConfig(**settings)
