"""Classic portfolio selection comes to its published wealth in the environment's own books.

NYSE(O) is Cover's (1991) set, MSCI, SP500 and DJIA are from OLPS, the toolbox of Li, Sahoo and Hoi
(2016), whose manual the figures of MSCI and SP500 stand in. The files are those of the
`universal-portfolios` wheel: prices whose first, 1, is left out.
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import tensor

from fastsim.backtest.simplex import maximize_growth, minimize_quadratic, project_simplex
from fastsim.backtest.strategies import (
    BuyAndHold,
    ConstantRebalanced,
    ExponentiatedGradient,
    MovingAverageReversion,
    PassiveAggressive,
    Trailing,
    classic_strategies,
    exponentiated_gradient,
    hindsight_bounds,
    inverse_volatility,
    ledoit_wolf,
    mean_variance,
    minimum_variance,
    moving_average_forecast,
    passive_aggressive,
    play_strategies,
    price_relatives,
    toward_forecast,
)
from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError, DataError
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

ROOT = Path(__file__).parents[2]
FREE = EnvConfig(
    costs=CostConfig(fee_bps=0.0, half_spread_bps=0.0, impact=0.0, borrow_bps_per_year=0.0)
)


def market(closes, first=0):
    """Daily closes as a tape on which the first decision falls on bar `first`."""
    days = np.datetime64("1962-07-02", "ns") + np.arange(len(closes)) * np.timedelta64(1, "D")
    names = tuple(f"S{column}" for column in range(closes.shape[1]))
    bars = Bars(symbols=names, timestamps=days, close=closes)
    return replace(make_tape(bars, TapeConfig(fill="close"), dtype=torch.float64), first=first)


def closes_of(name):
    spec = find_spec("universal")
    assert spec is not None, "universal-portfolios is not installed: see tests/oracles.txt"
    prices = pd.read_csv(Path(spec.origin).parent / "data" / f"{name}.csv").to_numpy()
    return np.vstack([np.ones(prices.shape[1]), prices])


def random_closes(bars, assets, seed=0, scale=0.02):
    steps = np.random.default_rng(seed).normal(0.0005, scale, (bars - 1, assets))
    return np.exp(np.vstack([np.zeros(assets), steps.cumsum(0)]))


def wealth_of(history):
    """Multiples of the initial wealth at the last close, by name."""
    growth = history.wealth[-1] / history.wealth[0]
    return dict(zip(history.names, growth.tolist(), strict=True))


@pytest.mark.long
def test_nyse_o_comes_to_the_published_wealth():
    closes = closes_of("nyse_o")
    assert closes.shape == (5652, 36)
    tape = market(closes)
    online = [BuyAndHold(), ConstantRebalanced(), ExponentiatedGradient(), PassiveAggressive()]
    bounds = hindsight_bounds(tape)
    wealth = wealth_of(play_strategies(tape, [*online, *bounds], FREE))
    assert f"{wealth['buy and hold']:.2f}" == "14.50"
    assert f"{wealth['uniform rebalanced']:.2f}" == "27.08"
    assert f"{wealth['EG']:.2f}" == "27.09"  # 27.0949, for which some tables print 27.10
    assert f"{wealth['PAMR']:.2e}" == "5.14e+15"
    assert f"{wealth['best asset in hindsight']:.2f}" == "54.14"
    assert f"{wealth['best mix in hindsight']:.2f}" == "250.60"


def test_msci_comes_to_the_published_wealth():
    tape = market(closes_of("msci"))
    online = [ConstantRebalanced(), ExponentiatedGradient(), PassiveAggressive()]
    wealth = wealth_of(play_strategies(tape, [*online, *hindsight_bounds(tape)], FREE))
    assert {name: f"{figure:.4f}" for name, figure in wealth.items()} == {
        "uniform rebalanced": "0.9268",
        "EG": "0.9260",
        "PAMR": "15.2320",
        "best asset in hindsight": "1.5040",
        "best mix in hindsight": "1.5057",
    }


def test_the_best_mix_of_sp500_is_the_published_one():
    closes = closes_of("sp500")
    relatives = closes[1:] / closes[:-1]
    assert f"{(relatives @ maximize_growth(relatives)).prod():.2f}" == "4.07"


def test_olmar_follows_its_authors_own_run_on_djia():
    # Total returns that their toolbox logged for days 1 to 5, and for the last of the 507.
    history = play_strategies(
        market(closes_of("djia")), [MovingAverageReversion(), BuyAndHold()], FREE
    )
    growth = (history.wealth / history.wealth[0]).numpy()
    logged = [1.002615, 0.976054, 0.997153, 1.028448, 1.057175]
    assert growth[1:6, 0].round(6).tolist() == logged
    assert growth[-1].round(6).tolist() == [2.537232, 0.764361]


def nearest(point):
    """Nearest point of the simplex, by bisection of the shift that makes the sum one."""
    low, high = point.min() - 1.0, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        if np.maximum(point - middle, 0).sum() > 1:
            low = middle
        else:
            high = middle
    return np.maximum(point - high, 0)


def eg_of_the_paper(b, seen):
    x = seen[-1]
    b = [b_i * np.exp(0.05 * x_i / (b @ x)) for b_i, x_i in zip(b, x, strict=True)]
    return np.array(b) / sum(b)


def pamr_of_the_paper(b, seen):
    x = seen[-1]
    apart = x - x.mean()
    return nearest(b - max(0.0, b @ x - 0.5) / (apart @ apart) * apart)


def olmar_of_the_paper(b, seen, window=5, epsilon=10):
    if len(seen) < 2:
        return b
    prices = np.vstack([np.ones(seen.shape[1]), seen.cumprod(0)])
    forecast = seen[-1]
    if len(seen) > window:
        forecast = prices[-window:].mean(0) / prices[-1]
    apart = forecast - forecast.mean()
    return nearest(b + max(0.0, epsilon - b @ forecast) / (apart @ apart) * apart)


@pytest.mark.parametrize(
    ("strategy", "paper"),
    [
        (ExponentiatedGradient(), eg_of_the_paper),
        (PassiveAggressive(), pamr_of_the_paper),
        (MovingAverageReversion(), olmar_of_the_paper),
    ],
    ids=["EG", "PAMR", "OLMAR"],
)
def test_what_is_held_follows_the_equations_of_the_paper(strategy, paper):
    closes = random_closes(200, 7)
    held = play_strategies(market(closes), [strategy], FREE).weights[:, 0, :-1].numpy()
    relatives = closes[1:] / closes[:-1]
    weights = np.full(7, 1 / 7)
    for step, row in enumerate(held):
        if step:
            weights = paper(weights, relatives[:step])
        np.testing.assert_allclose(row, weights, atol=1e-9)


def test_steps_take_a_batch_of_portfolios_with_settings_of_their_own():
    weights = project_simplex(
        torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    )
    x = tensor([1.02, 0.97, 1.01, 1.0, 0.99], dtype=torch.float64)
    settings = tensor([[0.05], [0.5], [1.0]], dtype=torch.float64)
    for update in (exponentiated_gradient, passive_aggressive, toward_forecast):
        alone = [update(w, x, s.item()) for w, s in zip(weights, settings, strict=True)]
        torch.testing.assert_close(update(weights, x, settings), torch.stack(alone))


def test_where_all_assets_move_alike_mean_reversion_does_nothing():
    weights, flat = tensor([0.2, 0.8]).double(), tensor([1.1, 1.1]).double()
    torch.testing.assert_close(passive_aggressive(weights, flat, 0.5), weights)
    torch.testing.assert_close(toward_forecast(weights, flat, 10.0), weights)


def test_the_moving_average_is_of_the_last_prices_over_the_last():
    relatives = tensor([[2.0], [0.5], [1.25]]).double()  # prices 1, 2, 1, 1.25
    forecast = moving_average_forecast(relatives)
    assert forecast.item() == pytest.approx((1 + 2 + 1 + 1.25) / 4 / 1.25)


def test_the_future_changes_nothing_that_was_decided_before():
    closes, bar = random_closes(360, 6), 330
    altered = closes.copy()
    altered[bar + 1 :] *= random_closes(360, 6, seed=1, scale=0.1)[bar + 1 :]
    held, other = (
        play_strategies(market(prices, first=300), classic_strategies(), FREE).weights
        for prices in (closes, altered)
    )
    decided = bar - 300 + 1
    assert torch.equal(held[:decided], other[:decided])
    differs = (held[decided:] != other[decided:]).any(-1).any(0)
    assert differs[1:].sum() >= 7  # all but uniform weights, to which drift is nothing


def test_the_first_bars_weights_are_equal_before_anything_is_known():
    history = play_strategies(market(random_closes(140, 4)), classic_strategies(), FREE)
    torch.testing.assert_close(history.weights[0, :, :-1], torch.full((9, 4), 0.25).double())


def test_buy_and_hold_trades_once_and_trailing_weights_now_and_then():
    closes = random_closes(300, 5)
    volatile = Trailing(name="iv", method="inverse_volatility", window=50, every=20)
    history = play_strategies(market(closes, first=60), [BuyAndHold(), volatile], FREE)
    held, traded = (history.turnover > 1e-12).T
    assert held.nonzero()[:, 0].tolist() == [0]
    assert traded.nonzero()[:, 0].tolist() == list(range(0, 239, 20))
    returns = closes[11:61] / closes[10:60] - 1.0
    wanted = 1 / returns.std(0, ddof=1)
    np.testing.assert_allclose(history.weights[0, 1, :-1], wanted / wanted.sum(), rtol=1e-12)


def test_costs_are_paid_and_only_for_trading():
    tape = market(random_closes(300, 5), first=260)
    strategies = classic_strategies()
    free, paid = (
        wealth_of(play_strategies(tape, strategies, EnvConfig(costs=costs)))
        for costs in (FREE.costs, CostConfig())
    )
    assert all(paid[name] < free[name] for name in free)
    assert free["buy and hold"] - paid["buy and hold"] == pytest.approx(3e-4, rel=0.2)


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.01, 1.5))
def test_the_best_mix_meets_its_conditions_and_beats_every_other(seed, assets, scale):
    rng = np.random.default_rng(seed)
    relatives = np.exp(rng.normal(0.0, scale, (60, assets)))
    relatives[:, -1] = relatives[:, 0]  # two assets as one
    best = maximize_growth(relatives)
    assert best.min() >= 0
    assert best.sum() == pytest.approx(1.0, abs=1e-12)
    slope = (relatives / (relatives @ best)[:, None]).mean(0)
    assert slope.max() <= 1 + 1e-10
    np.testing.assert_allclose(slope[best > 1e-8], 1.0, atol=1e-8)
    mixes = np.vstack([rng.dirichlet(np.ones(assets), 500), np.eye(assets)])
    growth = np.log(relatives @ mixes.T).mean(0)
    assert np.log(relatives @ best).mean() >= growth.max() - 1e-12


@given(st.integers(0, 10_000), st.integers(2, 15), st.floats(0.0, 2.0))
def test_a_quadratic_minimum_on_the_simplex_meets_its_conditions(seed, assets, lean):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(assets + 3, assets))
    matrix, linear = 1e-4 * factors.T @ factors, 1e-4 * lean * rng.normal(size=assets)
    weights = minimize_quadratic(matrix, linear)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    gradient = matrix @ weights - linear
    level = weights @ gradient
    assert (gradient >= level - 1e-14).all()
    np.testing.assert_allclose(gradient[weights > 0], level, atol=1e-14)


@given(st.integers(0, 10_000), st.integers(1, 20), st.floats(1e-3, 1e3))
def test_the_projection_is_the_nearest_point(seed, assets, scale):
    points = np.random.default_rng(seed).normal(0, scale, (4, assets))
    wanted = [minimize_quadratic(np.eye(assets), point) for point in points]
    np.testing.assert_allclose(project_simplex(torch.from_numpy(points)), wanted, atol=1e-9)


@pytest.mark.parametrize("aversion", [None, 1.0, 20.0])
def test_markowitz_weights_are_those_of_another_solver(aversion):
    returns = torch.from_numpy(random_closes(260, 8)).diff(dim=0)
    covariance = ledoit_wolf(returns)
    mean = 0.0 * returns.mean(0) if aversion is None else returns.mean(0)
    ours = (
        minimum_variance(covariance)
        if aversion is None
        else mean_variance(mean, covariance, aversion)
    )
    gamma, mu, sigma = aversion or 1.0, mean.numpy(), covariance.numpy()
    scale = 1 / np.diag(sigma).mean()
    theirs = minimize(
        lambda w: scale * (gamma / 2 * w @ sigma @ w - mu @ w),
        np.full(8, 1 / 8),
        jac=lambda w: scale * (gamma * sigma @ w - mu),
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(8)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(ours, theirs.x, atol=1e-6)
    loss = scale * (gamma / 2 * ours.numpy() @ sigma @ ours.numpy() - mu @ ours.numpy())
    assert loss <= theirs.fun + 1e-12


def test_an_asset_that_never_moved_has_no_volatility_to_invert():
    returns = tensor([[0.0, 0.1], [0.0, -0.1], [0.0, 0.2]])
    assert inverse_volatility(returns).tolist() == [1.0, 0.0]


def test_a_gap_is_made_up_for_by_the_next_close():
    closes = random_closes(150, 2)
    closes[140, 1] = np.nan
    relatives = price_relatives(market(closes))
    assert relatives[139, 1] == 1.0
    assert relatives[140, 1].item() == pytest.approx(closes[141, 1] / closes[139, 1])


def test_an_asset_that_is_listed_later_is_refused():
    closes = random_closes(200, 3)
    closes[:150, 1] = np.nan
    with pytest.raises(DataError, match=r"S1 has no close up to 1962-11-\d\d: .*start later"):
        play_strategies(market(closes, first=149), [BuyAndHold()], FREE)
    assert play_strategies(market(closes, first=150), [BuyAndHold()], FREE).wealth[-1] > 0


def test_bad_settings_are_named(monkeypatch):
    with pytest.raises(ConfigError, match=r"MovingAverageReversion\.window"):
        MovingAverageReversion(window=1)
    with pytest.raises(ConfigError, match=r"Trailing.method must be one of 'equal'"):
        Trailing(name="", method="momentum")
    with pytest.raises(DataError, match="finite numbers"):
        minimize_quadratic(np.full((2, 2), np.nan), np.zeros(2))
    with pytest.raises(DataError, match="> 0"):
        maximize_growth(np.zeros((3, 3)))
    monkeypatch.setitem(sys.modules, "sklearn.covariance", None)
    with pytest.raises(ConfigError, match=r"scikit-learn is not installed: pip install"):
        Trailing(name="minimum variance", method="minimum_variance")


@pytest.fixture
def run_script(monkeypatch, capsys):
    def run(*options):
        script = str(ROOT / "agents" / "baselines.py")
        monkeypatch.setattr(sys, "argv", [script, *options])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_script_prints_every_strategy(run_script):
    printed = run_script("--source", "us20", "--start", "2022-06-01", "--costs", "default")
    names = [strategy.name for strategy in classic_strategies()]
    for name in (*names, "best mix in hindsight", "2022-06-01 to 2022-12-28, 20 assets"):
        assert name in printed


@pytest.mark.parametrize(
    ("start", "wrong"),
    [("2037-01-01", "--start 2037-01-01 leaves no step: us20"), ("soon", "'soon'")],
)
def test_the_script_says_in_one_line_what_is_wrong(run_script, capsys, start, wrong):
    with pytest.raises(SystemExit) as end:
        run_script("--start", start)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("baselines: ") and wrong in line
    assert end.value.code == 2
