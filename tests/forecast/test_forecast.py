"""Forecasts: what their figures mean, and what requests are refused."""

import numpy as np
import pytest
import torch
from forecasters import CARD, TinyModel, random_context
from scipy import integrate, stats

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, Forecast, ModuleForecaster

FINE = tuple(np.linspace(0.001, 0.999, 999).round(6).tolist())


def normal_forecast(mean: float, deviation: float, levels: tuple[float, ...] = FINE) -> Forecast:
    quantiles = stats.norm.ppf(levels, mean, deviation)
    return Forecast(torch.tensor(quantiles)[None, None], levels)


def test_mean_median_and_quantiles_are_those_of_the_distribution():
    forecast = normal_forecast(105.0, 2.0)
    assert float(forecast.mean) == pytest.approx(105.0, abs=1e-6)
    assert float(forecast.median) == pytest.approx(105.0, abs=1e-6)
    assert float(forecast.at(0.8415)) == pytest.approx(stats.norm.ppf(0.8415, 105, 2), abs=1e-3)
    assert float(forecast.at(0.0001)) == float(forecast.quantiles[..., 0])


def test_log_returns_carry_the_lognormal_through():
    quantiles = torch.tensor(100.0 * np.exp(stats.norm.ppf(FINE, 0.01, 0.03)))[None, None]
    forecast, price = Forecast(quantiles, FINE), torch.tensor([100.0])
    assert float(forecast.expected_return(price)) == pytest.approx(0.01, abs=1e-4)
    assert float(forecast.dispersion(price)) == pytest.approx(0.03, rel=1e-3)
    assert float(forecast.confidence(price)) == pytest.approx(np.tanh(1 / 3), rel=1e-2)


@pytest.mark.parametrize("price", [98.0, 100.0, 105.0, 108.3])
def test_probability_of_rise_inverts_the_quantile_function(price):
    forecast = normal_forecast(105.0, 2.0)
    expected = stats.norm.sf(price, 105.0, 2.0)
    rise = float(forecast.probability_of_rise(torch.tensor([price], dtype=torch.float64)))
    assert rise == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("target", [-1.5, 0.0, 0.3, 2.0])
def test_crps_of_a_normal_is_its_closed_form(target):
    z = target
    closed = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    found = normal_forecast(0.0, 1.0).crps(torch.tensor([[target]], dtype=torch.float64))
    assert float(found) == pytest.approx(closed, abs=2e-3)


def test_crps_of_uneven_levels_weighs_each_level_by_what_it_stands_for():
    levels = (0.05, 0.1, 0.5, 0.75)
    forecast = Forecast(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), levels)
    pinball = [
        max(p * (2.5 - q), (p - 1) * (2.5 - q)) for p, q in zip(levels, (1, 2, 3, 4), strict=True)
    ]
    weights = [0.075, 0.225, 0.325, 0.375]
    expected = 2 * sum(loss * weight for loss, weight in zip(pinball, weights, strict=True))
    assert float(forecast.crps(torch.tensor([[2.5]]))) == pytest.approx(expected, rel=1e-6)
    assert sum(weights) == 1.0
    assert integrate.trapezoid([1, 1], [0, 1]) == 1.0


def test_quantiles_never_cross():
    class Crossing(TinyModel):
        def forward(self, *inputs, horizon):
            return super().forward(*inputs, horizon=horizon).flip(-1)

    forecast = ModuleForecaster(Crossing()).forecast(random_context(4), 5)
    assert (forecast.quantiles.diff(dim=-1) >= 0).all()


def test_a_context_longer_than_the_model_takes_is_cut_to_its_end():
    forecaster, context = ModuleForecaster(TinyModel()), random_context(3, length=100)
    cut = Context(context.bars[:, -64:], context.timestamps[:, -64:])
    assert torch.equal(
        forecaster.forecast(context, 4).quantiles, forecaster.forecast(cut, 4).quantiles
    )


@pytest.mark.parametrize("horizon", [0, -1, CARD.max_horizon + 1])
def test_a_horizon_beyond_the_model_is_refused(horizon):
    with pytest.raises(ForecastError, match=rf"1 to 32 bars ahead, not {horizon}"):
        ModuleForecaster(TinyModel()).forecast(random_context(1), horizon)


def missing(count: int) -> Context:
    context = random_context(3)
    context.bars[1, : 64 - count] = torch.nan
    return context


@pytest.mark.parametrize("known", [0, 7])
def test_too_few_known_closes_are_refused_by_the_row(known):
    with pytest.raises(ForecastError, match=f"series 1 of the context has {known}"):
        ModuleForecaster(TinyModel()).forecast(missing(known), 3)
    assert ModuleForecaster(TinyModel()).forecast(missing(8), 3).quantiles.isfinite().all()


def test_misshapen_contexts_are_refused():
    context = random_context(2)
    with pytest.raises(ForecastError, match=r"\[B, L, 6\]"):
        ModuleForecaster(TinyModel()).forecast(
            Context(context.bars[..., :5], context.timestamps), 3
        )
    with pytest.raises(ForecastError, match="timestamps"):
        ModuleForecaster(TinyModel()).forecast(Context(context.bars, context.timestamps[:, 1:]), 3)


def test_keys_tell_models_revisions_and_precisions_apart():
    keys = {
        ModuleForecaster(TinyModel(), precision=precision, revision=revision).key
        for precision in ("float32", "float16", "bfloat16")
        for revision in ("a", "b")
    }
    assert len(keys) == 6
