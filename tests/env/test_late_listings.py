"""What lists after an episode has begun costs what the law says, on every backend."""

import math

import numpy as np
import pytest
import torch
from worlds import weekdays

from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.market.costs import CostConfig
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import TapeConfig, make_tape, scale_impact

BACKENDS = ["torch", "numba", pytest.param("triton", marks=pytest.mark.long)]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
LISTED, LENGTH, WINDOW = 90, 120, 8
VOLATILITY, VOLUME = 0.0083, 4e5
FEATURES = FeatureConfig(
    return_windows=(1,), momentum_window=5, momentum_skip=2, short_window=4,
    volatility_window=WINDOW,
)  # fmt: skip
FROM_THE_START = EpisodeConfig(horizon=None, random_start=False)
LIMITLESS = 1e9


def late_bars(listed=LISTED, sizes=(0.5, 1.0, 3.0)):
    """Prices that go up and down by one log return; another asset lists later and stands still.

    The volatility of the first three is `sizes` times VOLATILITY, so their median is that.
    """
    steps = np.resize([0.0, 1.0], LENGTH)[:, None]
    close = 100.0 * np.exp(VOLATILITY * steps * np.array([*sizes, 0.0]))
    volume = VOLUME / close * np.array([*(1.0 for _ in sizes), 1.0])
    volume[:, : len(sizes)] *= np.array([0.5, 1.0, 3.0])[: len(sizes)]
    close[:listed, -1] = volume[:listed, -1] = np.nan
    names = tuple(f"S{number}" for number in range(len(sizes)))
    return Bars(symbols=(*names, "LATE"), timestamps=weekdays(LENGTH), close=close, volume=volume)


def wealth_of_a_round_trip(backend, config, weight, wait=1):
    """Wealth before and after LATE is bought for a part of it and sold `wait` bars later."""
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(late_bars(), TapeConfig(features=FEATURES), dtype=torch.float64)
    env = PortfolioEnv(tape, 1, config, backend=backend)
    observation = env.reset(0)
    assert int(observation.bar) < LISTED - 70
    hold, order = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[0.0, 0.0, 0.0, weight]])
    costs = []
    for bar in range(int(observation.bar), LISTED + wait + 3):
        action = order.double() if LISTED <= bar < LISTED + wait else hold
        outcome = env.step(action).outcome
        costs.append(float(outcome.total_cost))
    return config.initial_cash, float(env.state.wealth), [cost for cost in costs if cost > 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_whole_days_volume_bought_at_its_listing_and_sold_costs_what_the_closed_form_says(
    backend,
):
    config = EnvConfig(
        initial_cash=2 * VOLUME,
        costs=CostConfig(participation=LIMITLESS),
        episode=FROM_THE_START,
    )
    before, after, costs = wealth_of_a_round_trip(backend, config, 0.5)
    buy, sell = (1 + 2e-4) * (1 + 1e-4) - 1, 1 - (1 - 2e-4) * (1 - 1e-4)
    # V+ = V - (k + sigma sqrt(u / volume)) u with u = V+ / 2, by iteration
    traded = VOLUME
    for _ in range(50):
        paid = traded * (buy + VOLATILITY * math.sqrt(traded / VOLUME))
        traded = 0.5 * (before - paid)
    assert costs == pytest.approx(
        [paid, traded * (sell + VOLATILITY * math.sqrt(traded / VOLUME))], rel=1e-9
    )
    assert traded == pytest.approx(VOLUME, rel=0.01)  # a whole day's
    assert after == pytest.approx(before - sum(costs), rel=1e-12)
    assert 1e4 * sum(costs) / traded == pytest.approx(172.0, abs=1.0)  # basis points


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_late_listing_whose_price_is_moved_costs_what_the_closed_form_says(backend):
    config = EnvConfig(
        initial_cash=2 * VOLUME,
        costs=CostConfig(fee_bps=0, half_spread_bps=0, impact=0, participation=LIMITLESS),
        impact=ImpactConfig(transient=1.0, half_life=1e-3),
        episode=FROM_THE_START,
    )
    before, after, _ = wealth_of_a_round_trip(backend, config, 0.5)
    # Bought through a displacement of x that is gone at the next fill, sold through one of -x.
    x = VOLATILITY
    assert before - after == pytest.approx(VOLUME * (2 * math.cosh(x) - 2) / x, rel=1e-6)
    assert 1e4 * (before - after) / VOLUME == pytest.approx(83.0, abs=0.1)


def test_until_a_window_is_full_impact_is_scaled_by_the_bars_since_listing():
    bars = late_bars()
    moves = np.array([0.0, 0.02, -0.01, 0.03, 0.0, 0.01, -0.02, 0.01, 0.02, 0.0])
    bars.close[LISTED : LISTED + 10, -1] = 100.0 * np.exp(np.cumsum(moves))
    bars.volume[LISTED : LISTED + 10, -1] = 1e3 * np.arange(1, 11)
    sigma, average = scale_impact(bars, WINDOW)
    dollars = (bars.volume * bars.close)[:, -1]
    for since in range(10):
        bar = LISTED + since
        returns = moves[1 : since + 1][-WINDOW:]
        own = returns.std() if since >= 2 else VOLATILITY
        assert sigma[bar, -1] == pytest.approx(own, rel=1e-9), since
        traded = dollars[LISTED : bar + 1][-WINDOW:]
        own = traded.mean() if since >= 1 else np.median(average[bar, :3])
        assert average[bar, -1] == pytest.approx(own, rel=1e-9), since


def test_what_is_not_listed_is_taken_to_be_like_the_median_of_what_is():
    bars = late_bars()
    bars.close[30:40, 2] = np.nan  # halted for longer than the window, and not in the median then
    sigma, average = scale_impact(bars, WINDOW)
    np.testing.assert_allclose(sigma[20:29, -1], VOLATILITY, rtol=1e-9)
    np.testing.assert_allclose(sigma[33, -1], 0.75 * VOLATILITY, rtol=1e-9)
    np.testing.assert_allclose(sigma[39, 2], 0.75 * VOLATILITY, rtol=1e-9)
    np.testing.assert_allclose(average[20:29, -1], VOLUME, rtol=1e-9)


def test_where_nobody_trades_the_last_median_holds_and_without_volume_there_is_none():
    bars = late_bars()
    bars.close[50:60] = np.nan
    sigma, average = scale_impact(bars, WINDOW)
    np.testing.assert_allclose(sigma[59, -1], VOLATILITY, rtol=1e-9)
    assert np.isfinite(average).sum() > 0 and (average[:2] > 0).all()
    bars = late_bars()
    bars.volume[:] = 0.0
    assert np.isinf(scale_impact(bars, WINDOW)[1]).all()


def test_an_asset_without_trades_for_a_whole_window_is_not_free_to_trade_afterwards():
    bars = late_bars()
    bars.volume[40:60, 0] = 0.0
    average = scale_impact(bars, WINDOW)[1]
    np.testing.assert_allclose(average[55, 0], np.median(average[55, 1:3]), rtol=1e-9)


def test_a_full_window_is_scaled_by_itself_alone():
    tape = make_tape(late_bars(), TapeConfig(features=FEATURES), dtype=torch.float64)
    known = tape.known
    assert torch.equal(known.impact_sigma[20:, :3], known.sigma[20:, :3])
    assert (known.sigma[:LISTED, -1] == 0).all()
