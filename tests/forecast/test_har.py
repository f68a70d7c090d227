"""HAR is statsmodels' regression, and its variances are those of the recursion."""

import logging
import math

import numpy as np
import pandas as pd
import pytest
import torch

from fastsim.forecast.interface import Context
from fastsim.forecast.models.baselines import ewma_random_walk
from fastsim.forecast.models.har import (
    LEAST_ROWS,
    SPANS,
    har,
    har_coefficients,
    har_variances,
)
from fastsim.forecast.networks.return_network import LEVELS
from fastsim.forecast.registry import load_forecaster

WEIGHTS = np.array([0.05, 0.15, 0.3, 0.5])


@pytest.fixture(scope="module")
def returns():
    """Returns [6, 511] whose variance is a HAR of their own squares."""
    generator = np.random.default_rng(0)
    squares = np.ones((6, 22))
    drawn = []
    for _ in range(511):
        means = [squares[:, -span:].mean(1) for span in SPANS]
        variance = WEIGHTS @ np.stack([np.ones(6), *means])
        shock = np.sqrt(variance) * generator.standard_normal(6)
        drawn.append(0.01 * shock)
        squares = np.concatenate([squares[:, 1:], shock[:, None] ** 2], 1)
    return np.stack(drawn, 1)


def context_of(returns):
    close = 50.0 * np.exp(np.pad(returns.cumsum(1), ((0, 0), (1, 0))))
    closes = torch.from_numpy(close)
    stamps = (86_400 * torch.arange(closes.shape[1])).expand(len(closes), -1)
    return Context(closes[..., None].expand(*closes.shape, 6), stamps)


def log_quantiles(context, horizon):
    told = har().forecast(context, horizon).quantiles.double()
    return (told / context.close[:, -1, None, None]).log().numpy()


def test_coefficients_are_those_of_statsmodels(returns):
    sm = pytest.importorskip("statsmodels.api")
    for row in returns:
        squares = pd.Series(row**2 / (row**2).mean())
        means = pd.DataFrame({span: squares.rolling(span).mean().shift(1) for span in SPANS})
        known = means.notna().all(axis=1)
        fitted = sm.OLS(squares[known].to_numpy(), sm.add_constant(means[known].to_numpy())).fit()
        found = har_coefficients(squares.to_numpy())
        np.testing.assert_allclose(found, fitted.params, rtol=1e-9, atol=1e-9)


def test_variances_follow_the_recursion_by_hand(returns):
    squares = returns[0] ** 2 / (returns[0] ** 2).mean()
    fitted, ahead = har_variances(squares, WEIGHTS, 3)
    path = squares.tolist()
    monthly = [np.mean(path[end - 22 : end]) for end in range(22, len(path) + 1)]
    wanted = []
    for _ in range(3):
        means = [1.0, *(np.mean(path[-span:]) for span in SPANS)]
        wanted.append(float(np.clip(WEIGHTS @ means, min(monthly), max(monthly))))
        path.append(wanted[-1])
    np.testing.assert_allclose(ahead, wanted, rtol=1e-10)
    first = [1.0, squares[21], squares[17:22].mean(), squares[:22].mean()]
    assert fitted[0] == pytest.approx(np.clip(WEIGHTS @ first, min(monthly), max(monthly)))
    assert len(fitted) == len(squares) - 22


def test_what_a_wild_regression_foretells_stays_within_what_was_seen():
    squares = np.ones(100)
    squares[50:72] = np.linspace(1.0, 4.0, 22)
    fitted, ahead = har_variances(squares, np.array([-50.0, 3.0, 3.0, 90.0]), 10)
    top = squares[50:72].mean()
    assert ahead.min() >= 1.0 - 1e-12 and ahead.max() <= top + 1e-12
    assert fitted.min() >= 1.0 - 1e-12 and fitted.max() <= top + 1e-12


def test_the_true_volatility_is_found_in_a_world_of_its_own(returns):
    spread = log_quantiles(context_of(returns), 5)
    at = LEVELS.index(0.9)
    for row, told in zip(returns, spread, strict=True):
        squares = np.concatenate([np.ones(22), (row / 0.01) ** 2])
        _, ahead = har_variances(squares, WEIGHTS, 5)
        wanted = 0.01 * np.sqrt(ahead.cumsum()) * 1.2815515655446004
        assert np.abs(np.log(told[:, at] / wanted)).max() < 0.35
    squares = np.concatenate([np.ones((6, 22)), (returns / 0.01) ** 2], 1)
    truth = [np.sqrt(har_variances(each, WEIGHTS, 1)[1][0]) for each in squares]
    assert np.mean(spread[:, 0, at] / (0.01 * 1.2815515655446004 * np.array(truth))) == (
        pytest.approx(1.0, abs=0.1)
    )


def test_the_law_is_symmetric_about_the_last_close(returns):
    spread = log_quantiles(context_of(returns), 21)
    np.testing.assert_allclose(spread, -spread[..., ::-1], atol=2e-6)
    assert (np.diff(spread, axis=-1) > 0).all()


def test_a_window_is_forecast_the_same_in_any_company_unit_and_padding(returns):
    context = context_of(returns[:3, -300:])
    one = har().forecast(context, 5).quantiles
    dear = har().forecast(Context(8.0 * context.bars, context.timestamps), 5).quantiles
    alone = har().forecast(Context(*(part[1:2] for part in context)), 5).quantiles
    assert torch.equal(dear, 8.0 * one) and torch.equal(alone, one[1:2])
    padded = torch.nn.functional.pad(context.bars, (0, 0, 200, 0), value=math.nan)
    stamps = (86_400 * torch.arange(501)).expand(3, -1)
    assert torch.equal(har().forecast(Context(padded, stamps), 5).quantiles, one)


def test_a_window_that_holds_no_regression_is_the_ewma_walk_and_counted(returns, caplog):
    short = context_of(returns[:2, -(22 + LEAST_ROWS - 1) :])
    forecaster = har()
    with caplog.at_level(logging.WARNING):
        told = forecaster.forecast(short, 5).quantiles
    assert torch.equal(told, ewma_random_walk().forecast(short, 5).quantiles)
    assert forecaster.fallbacks == 2 and "har: no fit of the window" in caplog.text


def test_a_price_that_stood_still_for_long_is_forecast_to_move(returns):
    returns = returns[:1].copy()
    returns[:, -100:] = 0.0
    spread = log_quantiles(context_of(returns), 5)
    assert np.isfinite(spread).all() and (np.diff(spread, axis=-1) > 0).all()


def test_it_is_named_as_others_are():
    assert load_forecaster("har").key == har().key
    assert har(levels=(0.1, 0.5, 0.9)).key != har().key
