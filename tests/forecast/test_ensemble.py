"""Several forecasters as one."""

import logging
from dataclasses import replace

import pytest
import torch
from forecasters import LEVELS, Counting, random_context

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble, fit_on_market, fit_weights
from fastsim.forecast.evaluate import DECILES
from fastsim.forecast.interface import Context, Forecast
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.registry import load_ensemble, parse_weights
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import make_tape


def test_quantiles_are_averaged_by_weight():
    low, high = Counting(name="low"), Counting(name="high", shift=0.1)
    context = random_context(3)
    both = Ensemble([low, high], [1.0, 3.0]).forecast(context, 4).quantiles
    expected = (
        0.25 * low.forecast(context, 4).quantiles + 0.75 * high.forecast(context, 4).quantiles
    )
    torch.testing.assert_close(both, expected)


def test_members_of_different_levels_meet_on_the_union_of_their_levels():
    fine, coarse = Counting(name="fine"), Counting(name="coarse", levels=(0.1, 0.9))
    forecast = Ensemble([fine, coarse]).forecast(random_context(2), 3)
    assert forecast.levels == LEVELS
    torch.testing.assert_close(forecast.quantiles, fine.forecast(random_context(2), 3).quantiles)


def test_bars_beyond_a_members_horizon_are_left_to_the_others():
    near, far = Counting(name="near", shift=0.2, horizon=2), Counting(name="far")
    context = random_context(2)
    quantiles = Ensemble([near, far]).forecast(context, 5).quantiles
    alone = far.forecast(context, 5).quantiles
    torch.testing.assert_close(quantiles[:, 2:], alone[:, 2:])
    assert (quantiles[:, :2] > alone[:, :2]).all()


def test_a_member_that_fails_drops_out_with_a_warning(caplog):
    good, bad = Counting(name="good"), Counting(name="bad", shift=0.5)
    bad.failing = True
    with caplog.at_level(logging.WARNING):
        quantiles = Ensemble([good, bad]).forecast(random_context(2), 3).quantiles
    torch.testing.assert_close(quantiles, good.forecast(random_context(2), 3).quantiles)
    assert "bad drops out" in caplog.text


def test_a_failure_stops_the_run_where_that_is_wanted():
    bad = Counting(name="bad")
    bad.failing = True
    with pytest.raises(ForecastError, match="bad fails"):
        Ensemble([Counting(), bad], on_failure="stop").forecast(random_context(2), 3)
    with pytest.raises(ForecastError, match="no member"):
        Ensemble([bad]).forecast(random_context(2), 3)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        Ensemble([Counting(), Counting()], weights)


def test_no_members_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        Ensemble([])


def test_fitted_weights_find_the_mixture_that_made_the_data():
    generator = torch.Generator().manual_seed(0)
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels))
    first = torch.randn(4000, 1, 1, generator=generator)
    second = torch.randn(4000, 1, 1, generator=generator)
    truth = 0.3 * first + 0.7 * second
    target = (truth + 0.5 * torch.randn(4000, 1, 1, generator=generator)).squeeze(-1)
    forecasts = [Forecast(center + 0.5 * normal, levels) for center in (first, second)]
    weights = fit_weights(forecasts, target)
    assert weights == pytest.approx((0.3, 0.7), abs=0.03)
    assert sum(weights) == pytest.approx(1.0)


def test_a_useless_member_gets_no_weight():
    generator = torch.Generator().manual_seed(1)
    levels = (0.25, 0.5, 0.75)
    spread = 0.6745 * torch.tensor([-1.0, 0.0, 1.0])
    target = torch.randn(2000, 1, generator=generator)
    good = Forecast(target[..., None] * 0.9 + 0.1 * spread, levels)
    bad = Forecast(10.0 + torch.zeros(2000, 1, 1) + spread, levels)
    assert fit_weights([good, bad], target)[0] > 0.98


def test_weights_are_fitted_on_the_rows_that_are_given_and_no_others():
    tape = make_tape(sample_bars("tech4"))
    rows, settings = slice(700, 1200), {"horizons": (1, 5), "context_length": 64}
    members = [trailing_random_walk(20), Counting(name="off", shift=0.2, levels=DECILES)]
    weights = fit_on_market(members, tape, rows, **settings)
    assert weights[0] > 0.95
    assert sum(weights) == pytest.approx(1.0, abs=2e-3)
    bars = tape.known.bars.clone()
    bars[1200:] *= 3.0
    altered = replace(tape, known=tape.known._replace(bars=bars))
    assert fit_on_market(members, altered, rows, **settings) == weights


def test_rows_without_an_outcome_cannot_fit_weights():
    tape = make_tape(sample_bars("tech4"))
    with pytest.raises(ForecastError, match="no window with a known outcome"):
        fit_on_market([Counting()], tape, slice(700, 710), horizons=(21,), context_length=64)


def with_young_rows(known: int = 10) -> Context:
    """Three series, the second with few known closes."""
    context = random_context(3)
    context.bars[1, :-known] = torch.nan
    return context


def test_a_series_that_is_too_short_for_a_member_is_left_to_the_others_and_that_alone(caplog):
    easy, hard = Counting(name="easy"), Counting(name="hard", shift=0.1)
    hard.card = replace(hard.card, min_context=32)
    context = with_young_rows()
    both = Ensemble([easy, hard])
    with caplog.at_level(logging.WARNING):
        quantiles = both.forecast(context, 4).quantiles
        both.forecast(context, 4)
    low, high = (
        easy.forecast(context, 4).quantiles,
        Counting(shift=0.1).forecast(context, 4).quantiles,
    )
    torch.testing.assert_close(quantiles[[0, 2]], (0.5 * (low + high))[[0, 2]])
    torch.testing.assert_close(quantiles[1], low[1])
    assert hard.asked == 4, "two calls of two series"
    assert caplog.text.count("hard drops out of the ensemble for 1 of 3 series") == 1


def test_what_is_known_counts_where_the_member_looks():
    """Ten closes long ago are out of sight of a member that looks back a little."""
    near, far = Counting(name="near"), Counting(name="far", shift=0.1)
    near.card = replace(near.card, max_context=16)
    context = random_context(2)
    context.bars[1, 20:-3] = torch.nan
    both = Ensemble([near, far])
    assert both.can_forecast(context).tolist() == [True, True]
    quantiles = both.forecast(context, 4).quantiles
    torch.testing.assert_close(quantiles[1], far.forecast(context, 4).quantiles[1])


def test_a_series_that_no_member_can_forecast_is_named():
    hard = Counting(name="hard")
    hard.card = replace(hard.card, max_context=16)
    late = Counting(name="late", horizon=32)
    late.card = replace(late.card, min_context=40)
    context = random_context(2)
    context.bars[1, 20:-3] = torch.nan
    both = Ensemble([hard, late])
    assert both.can_forecast(context).tolist() == [True, False]
    with pytest.raises(ForecastError, match=r"no member of hard.late forecasts series 1") as caught:
        both.forecast(context, 4)
    assert "\n" not in str(caught.value)


def test_under_stop_every_member_has_to_forecast_every_series():
    easy, hard = Counting(name="easy"), Counting(name="hard")
    hard.card = replace(hard.card, min_context=32)
    with pytest.raises(ForecastError, match=r"needs 32 known closes; series 1 .* has 10"):
        Ensemble([easy, hard], on_failure="stop").forecast(with_young_rows(), 4)
    assert Ensemble([easy, hard], on_failure="stop").can_forecast(with_young_rows()).tolist() == [
        True,
        False,
        True,
    ]


def test_a_table_has_the_assets_that_any_member_can_forecast(tmp_path):
    tape = make_tape(sample_bars("tech4").take(slice(0, 140)))
    easy, hard = Counting(name="easy"), Counting(name="hard")
    hard.card = replace(hard.card, min_context=32)
    table = build_forecast_tape(tape, Ensemble([easy, hard]), tmp_path, context_length=64)
    assert table.values[6].isnan().all()
    assert table.values[7:].isfinite().all()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Ensemble([Counting()], on_failure="shrug"), 'on_failure must be "drop" or "stop"'),
        (lambda: Ensemble([Counting()], [float("inf")]), "weights must be >= 0 and not all 0"),
        (lambda: Ensemble([Counting()], [1.0, 1.0]), "1 forecasters need 1 weights, got 2"),
        (lambda: Ensemble([Counting()], []), "1 forecasters need 1 weights, got 0"),
        (lambda: load_ensemble([]), "at least one member"),
        (lambda: load_ensemble(["fastsim-prior"], [-1.0]), "weights must be >= 0"),
        (lambda: load_ensemble(["toto", "kronos"], [0.0, 0.0]), "weights must be >= 0 and not all"),
        (lambda: load_ensemble(["toto", "kronos"], [1.0]), "2 forecasters need 2 weights"),
        (lambda: parse_weights("1,-1"), "weights must be >= 0"),
        (lambda: parse_weights("0,0"), "not all 0"),
        (lambda: parse_weights("nan,1"), "weights must be >= 0"),
        (lambda: parse_weights("1,,2"), "weights must be numbers"),
    ],
)
def test_ensembles_that_cannot_be_are_refused_before_anything_is_loaded(make, told):
    with pytest.raises(ConfigError, match=told) as caught:
        make()
    assert "\n" not in str(caught.value)
