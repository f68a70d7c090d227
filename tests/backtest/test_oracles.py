"""Other people's backtesters, fed the same trades, arrive at the same wealth.

Three conventions of what a target weight means are in use. fastsim's weights are exact after costs.
vectorbt and cvxportfolio take them of the wealth before costs and let cash pay, so they are fed
mu w, with mu = wealth after / wealth before costs. bt lets each leg pay its own cost: there the
fed weights cannot be made equal, and only closeness is asked for.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.orders import OrderConfig
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

with warnings.catch_warnings():
    # Deprecations that these packages and theirs trigger on import are not ours to fix.
    warnings.simplefilter("ignore")
    import bt
    import cvxportfolio
    import vectorbt

FEE, SLIPPAGE = 12e-4, 7e-4
RATES = {"with costs": (FEE, SLIPPAGE), "free": (0.0, 0.0)}
MARKETS = [("us20", "close"), ("tech4", "close"), ("tech4", "next_open")]
BARS = 250


class Played(NamedTuple):
    """One strategy played by fastsim over T decisions, and what an oracle needs to repeat it."""

    opens: np.ndarray  # [T + 1, A]  adjusted; closes where there are none
    closes: np.ndarray  # [T + 1, A]
    dates: pd.DatetimeIndex  # [T + 1]
    target: np.ndarray  # [T, A]  what was asked for; NaN rows hold
    scaled: np.ndarray  # [T, A]  what was held after the trade, of wealth before the trade
    at_fill: np.ndarray  # [T]
    traded: np.ndarray  # [T]
    wealth: np.ndarray  # [T + 1]  at closes


def random_targets(steps, assets, seed):
    """Weights with up to 98 % invested, some assets left out; every third bar holds."""
    rng = np.random.default_rng(seed)
    raw = rng.exponential(1.0, (steps, assets)) * (rng.random((steps, assets)) < 0.6)
    target = 0.98 * rng.random((steps, 1)) * raw / np.maximum(raw.sum(1, keepdims=True), 1e-9)
    target[2::3] = np.nan
    return target


def play(name, fill, fee, slippage, seed=0):
    bars = sample_bars(name)
    bars = bars.take(slice(len(bars) - BARS - 127, len(bars)))
    tape = make_tape(bars, TapeConfig(fill=fill), dtype=torch.float64)
    costs = CostConfig(
        fee_bps=fee * 1e4,
        half_spread_bps=slippage * 1e4,
        impact=0.0,
        participation=1e12,
        borrow_bps_per_year=0.0,
    )
    episode = EpisodeConfig(horizon=None, random_start=False, staggered=False)
    env = PortfolioEnv(tape, 1, EnvConfig(costs=costs, episode=episode))
    target = random_targets(tape.last - tape.first, tape.num_assets, seed)
    outcomes = [env.step(torch.from_numpy(row[None])).outcome for row in target]
    at_fill, traded, wealth = (
        torch.cat([getattr(outcome, field) for outcome in outcomes]).numpy()
        for field in ("wealth_at_fill", "wealth_traded", "wealth")
    )
    rows = slice(tape.first, tape.last + 1)
    closes = bars.adjusted("close")[rows]
    return Played(
        opens=closes if bars.open is None else bars.adjusted("open")[rows],
        closes=closes,
        dates=pd.DatetimeIndex(tape.timestamps[rows]),
        target=target,
        scaled=np.stack([outcome.holdings[0].numpy() for outcome in outcomes]) / at_fill[:, None],
        at_fill=at_fill,
        traded=traded,
        wealth=np.append(env.config.initial_cash, wealth),
    )


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize(("name", "fill"), MARKETS)
def test_vectorbt_agrees_on_the_whole_path(name, fill, rates):
    fee, slippage = RATES[rates]
    played = play(name, fill, fee, slippage)
    mu = (played.traded / played.at_fill)[:, None]
    size = np.full(played.closes.shape, np.nan)
    # An order decided at bar t is filled in row t at the close, or in row t + 1 at the open.
    price = played.closes if fill == "close" else played.opens
    size[slice(0, -1) if fill == "close" else slice(1, None)] = mu * played.target
    portfolio = vectorbt.Portfolio.from_orders(
        close=pd.DataFrame(played.closes, index=played.dates),
        size=size,
        size_type="targetpercent",
        price=price,
        val_price=price,
        fees=fee,
        slippage=slippage,
        init_cash=played.wealth[0],
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        freq="1D",
    )
    theirs = portfolio.value().to_numpy()
    # At the close vectorbt marks after the trade of that close, fastsim before it.
    ours = played.wealth if fill == "next_open" else np.append(played.traded, played.wealth[-1])
    np.testing.assert_allclose(theirs, ours, rtol=1e-9)
    assert portfolio.orders.count() > 300
    if fee:
        assert ours[-1] < 0.9 * play(name, fill, 0.0, 0.0).wealth[-1]


def test_vectorbt_agrees_on_whole_shares_and_commissions_by_order():
    bars = replace(sample_bars("tech4"), adj_close=None)
    bars = bars.take(slice(len(bars) - BARS - 127, len(bars)))
    tape = make_tape(bars, TapeConfig(fill="next_open"), dtype=torch.float64)
    costs = CostConfig(
        fee_bps=0.0, half_spread_bps=0.0, minimum_fee=3.0, impact=0.0, participation=1e12
    )
    config = EnvConfig(
        costs=costs,
        orders=OrderConfig(whole_shares=True),
        initial_cash=50_000.0,
        episode=EpisodeConfig(horizon=None, random_start=False),
    )
    env = PortfolioEnv(tape, 1, config)
    size = np.zeros((tape.last - tape.first + 1, tape.num_assets))
    wealth = [config.initial_cash]
    for row, target in enumerate(random_targets(len(size) - 1, tape.num_assets, seed=1)):
        outcome = env.step(torch.from_numpy(target[None])).outcome
        size[row + 1] = outcome.trade.numpy() / bars.open[tape.first + row + 1]
        wealth.append(float(outcome.wealth))
    np.testing.assert_allclose(size, np.rint(size), atol=1e-9)
    rows = slice(tape.first, tape.last + 1)
    portfolio = vectorbt.Portfolio.from_orders(
        close=pd.DataFrame(bars.close[rows], index=pd.DatetimeIndex(tape.timestamps[rows])),
        size=np.rint(size),
        size_type="amount",
        price=bars.open[rows],
        fixed_fees=3.0,
        init_cash=config.initial_cash,
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        freq="1D",
    )
    np.testing.assert_allclose(portfolio.value().to_numpy(), wealth, rtol=1e-9)
    assert portfolio.orders.count() == np.count_nonzero(np.rint(size)) > 300


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize(("name", "fill"), MARKETS)
def test_cvxportfolio_agrees_on_the_whole_path(name, fill, rates, tmp_path):
    fee, slippage = RATES[rates]
    played = play(name, fill, fee, slippage)
    # It knows one price a bar: that of the fill, and values accounts there before they trade.
    prices = played.closes if fill == "close" else played.opens[1:]
    index = (played.dates if fill == "close" else played.dates[1:]).tz_localize("UTC")
    returns = pd.DataFrame(np.zeros(prices.shape), index=index).rename(columns=str)
    returns.iloc[:-1] = prices[1:] / prices[:-1] - 1.0
    returns["cash"] = 0.0
    weights = pd.DataFrame(np.nan, index=index, columns=returns.columns)
    weights.iloc[: len(played.scaled), :-1] = played.scaled
    weights["cash"] = 1.0 - weights.iloc[:, :-1].sum(axis=1)
    simulator = cvxportfolio.MarketSimulator(
        returns=returns,
        cash_key="cash",
        min_history=pd.Timedelta(0),
        round_trades=False,
        # kb = f + s + f s and ks = f + s - f s: the part that depends on the sign is `c`.
        costs=[cvxportfolio.TransactionCost(a=fee + slippage, b=None, c=fee * slippage)],
        base_location=tmp_path,
    )
    policy = cvxportfolio.FixedWeights(weights)
    with warnings.catch_warnings():
        # It spells its own time spans in a way that pandas deprecates.
        warnings.simplefilter("ignore")
        result = simulator.backtest(policy, index[0], index[-1], initial_value=played.wealth[0])
    ours = played.wealth if fill == "close" else played.at_fill
    np.testing.assert_allclose(result.v.to_numpy(), ours, rtol=1e-9)


@pytest.mark.parametrize("rates", RATES)
def test_bt_agrees_up_to_its_own_convention(rates):
    fee, _ = RATES[rates]
    played = play("us20", "close", fee, 0.0)
    closes = pd.DataFrame(played.closes, index=played.dates).rename(columns=str)
    weights = pd.DataFrame(played.target, index=played.dates[:-1], columns=closes.columns)
    strategy = bt.Strategy(
        "random",
        [
            bt.algos.RunOnDate(*weights.dropna().index),
            bt.algos.SelectAll(),
            bt.algos.WeighTarget(weights.dropna()),
            bt.algos.Rebalance(),
        ],
    )
    backtest = bt.Backtest(
        strategy,
        closes,
        initial_capital=played.wealth[0],
        commissions=lambda quantity, price: abs(quantity) * price * fee,
        integer_positions=False,
        progress_bar=False,
    )
    result = bt.run(backtest)
    theirs = result.backtests["random"].strategy.values.to_numpy()[-len(played.closes) :]
    ours = np.append(played.traded, played.wealth[-1])
    apart = abs(theirs / ours - 1).max()
    # Its convention costs a little: 4e-5 of wealth after these 250 bars. Without fees, nothing.
    assert 1e-6 < apart < 1e-3 if fee else apart < 1e-9
