"""Forecasts: what their figures mean, and what requests are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasters import CARD, TinyModel, random_context
from scipy import integrate, stats

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import Context, Forecast, ModuleForecaster
from fastsim.forecast.registry import load_ensemble, load_forecaster

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


@pytest.mark.parametrize(
    ("quantiles", "rise"),
    [
        ((100.0, 100.0, 100.0, 100.0, 100.0), 0.5),  # pegged: as likely up as down
        ((90.0, 95.0, 100.0, 105.0, 110.0), 0.5),
        ((90.0, 100.0, 100.0, 100.0, 110.0), 0.5),
        ((100.0, 100.0, 100.0, 105.0, 110.0), 0.75),  # at the price until level 0.5
        ((80.0, 90.0, 95.0, 100.0, 100.0), 0.15),  # at the price from level 0.7
        ((80.0, 90.0, 100.0, 100.0, 110.0), 0.4),  # from 0.5 to 0.7
        ((100.0, 105.0, 110.0, 115.0, 120.0), 0.9),  # one quantile is no run
        ((80.0, 85.0, 90.0, 95.0, 100.0), 0.1),
        ((101.0, 101.0, 101.0, 101.0, 101.0), 0.95),
        ((99.0, 99.0, 99.0, 99.0, 99.0), 0.05),
    ],
)
def test_a_run_of_quantiles_at_the_price_counts_half_as_a_rise(quantiles, rise):
    forecast = Forecast(torch.tensor([[quantiles]]), (0.1, 0.3, 0.5, 0.7, 0.9))
    assert float(forecast.probability_of_rise(torch.tensor([100.0]))) == pytest.approx(rise)
    rounded = Forecast(forecast.quantiles * (1.0 + 1e-7), forecast.levels)
    assert float(rounded.probability_of_rise(torch.tensor([100.0]))) == pytest.approx(rise)


@pytest.mark.parametrize("levels", [(0.5,), (0.2, 0.9), (0.05, 0.1, 0.5, 0.75)])
def test_a_peg_is_even_whatever_the_levels(levels):
    pegged = Forecast(torch.full((1, 2, len(levels)), 1.1), levels)
    assert pegged.probability_of_rise(torch.tensor([1.1], dtype=torch.float64)).tolist() == [
        [0.5, 0.5]
    ]


WITH_WEIGHTS = [
    "random-walk-60",
    "random-walk-ewma-0.94",
    "fastsim-prior",
    "fracast",
    "garch-t",
    "auto-ets",
    "theta",
]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
@pytest.mark.parametrize("price", [1.0, 1.1, 7.7501, 97_000.3])
def test_a_pegged_asset_is_as_likely_to_rise_as_to_fall(name, price):
    context = random_context(2, length=100)
    context.bars[:] = price
    forecast = load_forecaster(name).forecast(context, 5)
    rise = forecast.probability_of_rise(context.close[:, -1])
    torch.testing.assert_close(rise, torch.full_like(rise, 0.5))


def test_members_of_an_ensemble_agree_on_a_peg():
    context = random_context(2, length=100)
    context.bars[:] = 1.1
    ensemble = load_ensemble(["random-walk-60", "random-walk-ewma-0.94", "fastsim-prior"])
    rise = ensemble.forecast(context, 5).probability_of_rise(context.close[:, -1])
    torch.testing.assert_close(rise, torch.full_like(rise, 0.5))


def test_a_quantile_below_zero_says_as_little_of_the_mean_as_the_next_one():
    levels = tuple(round(0.1 * rank, 1) for rank in range(1, 10))
    calm = torch.linspace(96.0, 104.0, 9)[None, None]
    price = torch.tensor([100.0])
    for lowest in (-5.0, 0.0, 1e-30, 0.5):
        broken = calm.clone()
        broken[..., 0] = lowest
        forecast = Forecast(broken, levels)
        returns = forecast.log_returns(price).quantiles[0, 0]
        assert returns[0] == returns[1] == pytest.approx(np.log(0.97), rel=1e-5)
        assert abs(float(forecast.expected_return(price))) < 0.01
        assert 0.0 < float(forecast.dispersion(price)) < 0.04
    worthless = Forecast(torch.full((1, 1, 9), -1.0), levels)
    assert float(worthless.expected_return(price)) == pytest.approx(np.log(0.01), rel=1e-5)
    kept = Forecast(calm, levels)
    assert torch.equal(kept.log_returns(price).quantiles, (calm / 100.0).log())


def context_with(value: float) -> Context:
    context = random_context(3)
    context.bars[1, 40] = value
    return context


@pytest.mark.parametrize("value", [-3.0, 0.0, float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["fastsim-prior", "random-walk-60", "garch-t"])
def test_closes_that_are_no_prices_are_refused_by_the_row(name, value):
    with pytest.raises(ForecastError, match=f"above 0 and finite.*series 1 .*{value}") as caught:
        load_forecaster(name).forecast(context_with(value), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fastsim-prior", "random-walk-60", "garch-t", "fracast"])
def test_no_series_have_no_forecasts(name):
    nothing = Context(*(part[:0] for part in random_context(3)))
    forecaster = load_forecaster(name)
    assert forecaster.forecast(nothing, 4).quantiles.shape == (0, 4, len(forecaster.card.levels))


def strange(change):
    return change(random_context(3))


@pytest.mark.parametrize(
    ("change", "horizon", "told"),
    [
        (lambda c: c, 1.5, "1 to 32 bars ahead, not 1.5"),
        (lambda c: c, True, "1 to 32 bars ahead, not True"),
        (lambda c: c, "3", "1 to 32 bars ahead, not '3'"),
        (lambda c: c, None, "1 to 32 bars ahead, not None"),
        (lambda c: c._replace(bars=c.bars[0]), 3, r"\[B, L, 6\] .* got \(64, 6\)"),
        (lambda c: Context(c.bars[:, :0], c.timestamps[:, :0]), 3, "with at least one bar"),
        (lambda c: c._replace(timestamps=c.timestamps[0]), 3, r"timestamps must be \(3, 64\)"),
        (
            lambda c: c._replace(timestamps=c.timestamps.float()),
            3,
            "int64 seconds, got torch.float32",
        ),
        (lambda c: c._replace(bars=c.bars.long()), 3, "floating point .* got torch.int64"),
        (
            lambda c: c._replace(bars=c.bars * torch.nan),
            3,
            "series 0 of the context has 0: leave it",
        ),
    ],
)
def test_requests_that_cannot_be_are_named_in_one_line(change, horizon, told):
    with pytest.raises(ForecastError, match=told) as caught:
        ModuleForecaster(TinyModel()).forecast(strange(change), horizon)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"levels": ()}, "levels of tiny must increase"),
        ({"levels": (0.5, 0.1)}, "levels of tiny must increase"),
        ({"levels": (0.0, 0.5)}, "lie between 0 and 1"),
        ({"levels": (0.1, float("nan"))}, "lie between 0 and 1"),
        ({"max_context": 0}, "max_context of tiny must be at least 1, got 0"),
        ({"max_horizon": -2}, "max_horizon of tiny must be at least 1, got -2"),
        ({"min_context": 0}, "min_context of tiny must be at least 1, got 0"),
    ],
)
def test_cards_that_cannot_be_are_refused(change, told):
    with pytest.raises(ConfigError, match=told):
        replace(CARD, **change)


def test_a_callers_model_is_left_as_it_is():
    model = TinyModel().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    half = ModuleForecaster(model, precision="float16")
    ModuleForecaster(model, precision="bfloat16")
    assert model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    context = random_context(2)
    told = half.forecast(context, 3).quantiles
    with torch.no_grad():
        model.layer.weight.mul_(2.0)
    assert torch.equal(half.forecast(context, 3).quantiles, told)


def test_another_precision_is_refused_and_named():
    with pytest.raises(ConfigError, match=r"precision must be one of float32, .* got 'float8'"):
        ModuleForecaster(TinyModel(), precision="float8")
