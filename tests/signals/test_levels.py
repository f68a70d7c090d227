"""Stops, targets and sizes by hand, and what they come to on tech4."""

import numpy as np
import pytest
import torch
from scipy import stats
from signalled import bars_of, market

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, DataError
from fastsim.forecast.interface import Forecast
from fastsim.market.tape import make_tape
from fastsim.signals.levels import (
    LevelConfig,
    average_true_range,
    levels_by_quantile,
    levels_by_range,
    log_quantiles_of,
    true_range,
)
from fastsim.signals.prices import prices_of, prices_of_table
from fastsim.signals.sizing import (
    SizingConfig,
    by_regime,
    coordinate,
    planned_risk,
    position_by_risk,
    stop_distance,
)


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def tech4():
    return prices_of_table(torch.from_numpy(sample_bars("tech4").table()))


def test_the_true_range_reaches_to_the_last_close():
    prices = bars_of(
        (10, 12, 9, 11),  # no close before: 12 - 9
        (11, 12, 10, 11),  # within: 12 - 10
        (14, 15, 13, 14),  # a gap up: 15 - 11
        (9, 10, 8, 9),  # a gap down: 14 - 8
        (np.nan, np.nan, np.nan, np.nan),
        (12, 12, 12, 12),  # after a halt: 12 - 9
    )
    found = true_range(prices)[:, 0]
    assert found[[0, 1, 2, 3, 5]].tolist() == [3, 2, 4, 6, 3] and found[4].isnan()
    mean = average_true_range(prices, 3)[:, 0]
    assert mean[:2].isnan().all() and mean[2:].tolist() == [3, 4, 5, 4.5]


def test_of_closes_alone_it_is_what_they_moved():
    bars = sample_bars("us20").take(slice(0, 50))
    prices = prices_of_table(torch.from_numpy(bars.table()))
    moved = torch.from_numpy(np.abs(np.diff(bars.adjusted("close"), axis=0)))
    torch.testing.assert_close(true_range(prices)[1:], moved, equal_nan=True)


def test_levels_lie_on_the_right_sides_of_the_entry():
    entry, side, ranges = real(100, 100, 100), real(1, -1, 0), real(2, 2, 2)
    found = levels_by_range(entry, side, ranges, LevelConfig(stop_atr=1.5, target_atr=3.0))
    assert found.stop[:2].tolist() == [97, 103] and found.target[:2].tolist() == [106, 94]
    assert found.stop[2].isnan() and found.target[2].isnan()
    open_ended = levels_by_range(entry, side, ranges, LevelConfig(target_atr=None))
    assert open_ended.target.isnan().all() and open_ended.stop[:2].tolist() == [96, 104]


def test_no_level_lies_at_or_below_nothing():
    found = levels_by_range(real(100, 100), real(1, -1), real(80, 80), LevelConfig())
    assert found.stop.tolist() == [1, 260] and found.target.tolist() == [420, 1]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_levels_at_quantiles_of_a_lognormal_are_its_closed_form(side):
    grid = tuple(np.linspace(0.001, 0.999, 999).round(6).tolist())
    quantiles = torch.tensor(50.0 * np.exp(stats.norm.ppf(grid, 0.01, 0.04)))[None, None]
    config = LevelConfig(kind="quantile", stop_level=0.1, target_level=0.8)
    price = real(50)
    told = log_quantiles_of(Forecast(quantiles, grid), price, 1, config)
    assert sorted(told) == [0.1, 0.2, 0.8, 0.9]
    found = levels_by_quantile(price, real(side), told, config)
    stop, target = (0.1, 0.8) if side > 0 else (0.9, 0.2)
    for level, price in ((stop, found.stop), (target, found.target)):
        assert float(price) == pytest.approx(50 * np.exp(stats.norm.ppf(level, 0.01, 0.04)), 1e-5)


def test_quantiles_that_are_missing_are_named():
    config = LevelConfig(kind="quantile")
    with pytest.raises(ConfigError, match=r"need the 0.9 quantile of the forecast.*are 0.1"):
        levels_by_quantile(real(1), real(1), {0.1: real(-0.1)}, config)
    forecast = Forecast(torch.ones(1, 3, 2), (0.1, 0.9))
    with pytest.raises(ConfigError, match="horizon must be from 1 to 3, which was forecast, got 4"):
        log_quantiles_of(forecast, real(1), 4, config)


def test_a_position_loses_the_risk_at_its_stop_and_is_capped():
    entry, stop = real(100, 100, 100, 100, 100), real(96, 104, 99, 100, torch.nan)
    distance = stop_distance(entry, stop)
    found = position_by_risk(distance, SizingConfig(risk=0.02, cap=1.5))
    assert found.tolist() == pytest.approx([0.5, 0.5, 1.5, 0.0, 0.0])
    risk = planned_risk(found, distance)
    assert risk.tolist() == pytest.approx([0.02, 0.02, 0.015, 0.0, 0.0])


def test_regimes_multiply_positions_within_the_cap():
    config = SizingConfig(cap=0.8, by_regime=(2.0, 1.0, 0.5, 0.25, 0.0, 1.0))
    positions, regimes = torch.full((7,), 0.6), torch.tensor([0, 1, 2, 3, 4, 5, -1])
    found = by_regime(positions, regimes, config)
    assert found.tolist() == pytest.approx([0.8, 0.6, 0.3, 0.15, 0.0, 0.6, 0.6])


@pytest.mark.parametrize(
    ("weights", "distance", "settings", "share"),
    [
        ((0.5, 0.5), (0.01, 0.01), {}, 1.0),
        ((0.5, -0.5), (0.1, 0.02), {}, 1.0),  # risks 0.06, all of the budget
        ((0.8, 0.8), (0.01, 0.01), {}, 1 / 1.6),  # gross
        ((0.8, -0.8), (0.01, 0.01), {}, 1 / 1.6),
        ((0.8, -0.8), (0.01, 0.01), {"gross": 2.0}, 1.0),
        ((0.8, 0.8), (0.01, 0.01), {"gross": 2.0}, 1 / 1.6),  # nothing on credit
        ((0.5, 0.5), (0.1, 0.1), {"budget": 0.04}, 0.4),  # risk 0.1
        ((0.0, 0.0), (0.0, 0.0), {}, 1.0),
    ],
)
def test_positions_are_scaled_down_together(weights, distance, settings, share):
    found = coordinate(real(*weights), real(*distance), SizingConfig(**settings))
    assert found.tolist() == pytest.approx([share * each for each in weights])


def test_rows_of_a_batch_are_coordinated_by_themselves_in_any_order():
    weights = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (50, 6)))
    distance = torch.from_numpy(np.random.default_rng(1).uniform(0, 0.2, (50, 6)))
    config, order = SizingConfig(gross=1.5), torch.tensor([3, 0, 5, 1, 4, 2])
    found = coordinate(weights, distance, config)
    assert (found.abs().sum(-1) <= 1.5 + 1e-12).all()
    assert (planned_risk(found, distance).sum(-1) <= config.budget + 1e-12).all()
    torch.testing.assert_close(found[7], coordinate(weights[7], distance[7], config))
    permuted = coordinate(weights[:, order], distance[:, order], config)
    torch.testing.assert_close(found[:, order], permuted, rtol=1e-12, atol=0)


def test_sizes_on_tech4_are_those_that_were_measured():
    prices = tech4()
    ranges = average_true_range(prices)
    asked = {}
    for stop in (1.0, 2.0):
        config = LevelConfig(stop_atr=stop)
        level = levels_by_range(prices.close, torch.ones_like(ranges), ranges, config).stop
        distance = stop_distance(prices.close, level)
        size = position_by_risk(distance, SizingConfig(risk=0.02, cap=10.0))
        asked[stop] = (size > 1.0).double().mean().item()
        if stop == 2.0:
            together = size.clamp_max(1.0).sum(-1).mean().item()
    assert asked[1.0] == pytest.approx(0.47, abs=0.01)
    assert asked[2.0] == pytest.approx(0.01, abs=0.006)
    assert together == pytest.approx(1.9, abs=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LevelConfig(kind="percent"), r"LevelConfig.kind must be one of 'atr', 'quantile'"),
        (lambda: LevelConfig(stop_atr=0.0), r"LevelConfig.stop_atr must be > 0"),
        (lambda: LevelConfig(target_atr=-1.0), r"LevelConfig.target_atr must be > 0"),
        (lambda: LevelConfig(stop_level=0.6), r"LevelConfig.stop_level must be"),
        (lambda: LevelConfig(target_level=0.4), r"LevelConfig.target_level must be"),
        (lambda: LevelConfig(atr_window=0), r"LevelConfig.atr_window must be"),
        (lambda: SizingConfig(risk=2), r"SizingConfig.risk must be > 0 and <= 1, got 2"),
        (lambda: SizingConfig(cap=0.0), r"SizingConfig.cap"),
        (lambda: SizingConfig(gross=11), r"SizingConfig.gross"),
        (lambda: SizingConfig(budget=0.01), r"SizingConfig.budget = 0.01 is of all .*risk = 0.02"),
        (lambda: SizingConfig(by_regime=(1.0, 2.0)), r"by_regime must be 6 numbers from 0 to 10"),
        (lambda: SizingConfig(by_regime=(-1.0,) * 6), r"by_regime must be 6 numbers"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_prices_of_several_worlds_are_refused():
    tape = make_tape(sample_bars("tech4").take(slice(0, 300))).fold(2)
    with pytest.raises(DataError, match=r"of one history, not of 2: use tape.world\(i\)"):
        prices_of(tape)
    assert prices_of(market()).close.dtype == torch.float64
