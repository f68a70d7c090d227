"""Scores are scikit-learn's metrics and NumPy's counts, by horizon; differences add up."""

import json
import math

import numpy as np
import pytest
import torch

from fastsim.cli import main
from fastsim.data.sample import sample_bars
from fastsim.errors import ForecastError
from fastsim.forecast.evaluate import (
    DECILES,
    Scores,
    Windows,
    at_horizon,
    dependent_origins,
    loss_difference,
    rolling_origins,
    score,
    spaced_origins,
    summarise,
)
from fastsim.forecast.interface import Forecast
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk

LEVELS = (0.025, 0.1, 0.25, 0.4, 0.5, 0.7, 0.75, 0.9, 0.975)
CONTEXT = 100


@pytest.fixture(scope="module")
def made():
    """Quantiles [60, 3, 9] at uneven levels, closes [60, 20] and outcomes [60, 3]."""
    draw = torch.Generator().manual_seed(0)
    closes = 100.0 * (0.02 * torch.randn((60, 20), generator=draw).double().cumsum(1)).exp()
    spread = 0.05 * torch.randn((60, 3, len(LEVELS)), generator=draw).double().sort(-1).values
    outcome = closes[:, -1:] * (0.05 * torch.randn((60, 3), generator=draw).double()).exp()
    return closes[:, -1, None, None] * spread.exp(), closes, outcome


@pytest.fixture(scope="module")
def metrics():
    return pytest.importorskip("sklearn.metrics")


def by_level(quantiles, level):
    """Quantiles [B, h] at a level, by NumPy's interpolation of each window."""
    flat = quantiles.reshape(-1, len(LEVELS)).numpy()
    found = [np.interp(level, LEVELS, each) for each in flat]
    return np.array(found).reshape(quantiles.shape[:2])


def integral(values):
    """Over levels 0 to 1 of values [..., Q] at LEVELS, constant beyond them, by trapezoids."""
    ends = LEVELS[0] * values[..., 0] + (1.0 - LEVELS[-1]) * values[..., -1]
    return np.trapezoid(values, LEVELS, axis=-1) + ends


def test_losses_are_those_of_scikit_learn(made, metrics):
    quantiles, closes, outcome = made
    found = score(Forecast(quantiles, LEVELS), closes, outcome)
    weights = 1.0 / np.abs(np.diff(closes.numpy())).mean(1)  # of windows, by their scale
    told, median = outcome.numpy(), by_level(quantiles, 0.5)
    for place in range(3):

        def pinball(level, forecast, place=place):
            """Mean over windows of the loss divided by the scale."""
            return metrics.mean_pinball_loss(
                told[:, place] * weights, forecast * weights, alpha=level
            )

        deciles = [pinball(level, by_level(quantiles, level)[:, place]) for level in DECILES]
        assert float(found.quantile_loss[place]) == pytest.approx(2 * np.mean(deciles), rel=1e-9)
        own = [pinball(level, quantiles[:, place, at].numpy()) for at, level in enumerate(LEVELS)]
        assert float(found.crps[place]) == pytest.approx(2 * integral(np.array(own)), rel=1e-9)
        scaled = told[:, place] * weights
        absolute = metrics.mean_absolute_error(scaled, median[:, place] * weights)
        assert float(found.absolute[place]) == pytest.approx(absolute, rel=1e-9)
        mean = integral(quantiles[:, place].numpy())
        square = metrics.mean_squared_error(scaled, mean * weights)
        assert float(found.square[place]) == pytest.approx(square, rel=1e-9)
        share = metrics.mean_absolute_percentage_error(told[:, place], median[:, place])
        assert float(found.percentage[place]) == pytest.approx(share, rel=1e-9)


def test_bands_sides_and_ranks_are_counted(made):
    quantiles, closes, outcome = made
    found = score(Forecast(quantiles, LEVELS), closes, outcome)
    told, last = outcome.numpy(), closes[:, -1:].numpy()
    for band, (low, high) in enumerate(((0.25, 0.75), (0.1, 0.9), (0.025, 0.975))):
        inside = (by_level(quantiles, low) <= told) & (told <= by_level(quantiles, high))
        assert found.covered[:, band].tolist() == pytest.approx(inside.mean(0), abs=1e-12)
    same = np.sign(by_level(quantiles, 0.5) - last) == np.sign(told - last)
    assert found.hits.tolist() == pytest.approx(same.mean(0), abs=1e-12)
    assert (found.hits + found.misses).tolist() == pytest.approx([1.0] * 3)
    edges = np.stack([by_level(quantiles, level) for level in DECILES], -1)
    for place in range(3):
        ranks = [np.searchsorted(edges[row, place], told[row, place]) for row in range(60)]
        counts = np.bincount(ranks, minlength=10) / 60
        assert found.pit[place].tolist() == pytest.approx(counts, abs=1e-12)


def test_a_band_beyond_the_levels_of_a_forecast_is_not_told(made):
    quantiles, closes, outcome = made
    inner = score(Forecast(quantiles[..., 2:7], LEVELS[2:7]), closes, outcome)
    assert inner.covered.isnan().all(0).tolist() == [False, True, True]


@pytest.fixture(scope="module")
def scored():
    """Two random walks on tech4, horizons 1, 5 and 21, and which origins they were scored from."""
    bars = sample_bars("tech4")
    origins = spaced_origins(bars, context=CONTEXT, horizon=21, step=60)
    return tuple(
        rolling_origins(bars, walk, (1, 5, 21), origins, CONTEXT)
        for walk in (trailing_random_walk(), ewma_random_walk())
    )


def test_a_horizon_alone_is_scored_as_among_others(scored):
    bars = sample_bars("tech4")
    origins = spaced_origins(bars, context=CONTEXT, horizon=21, step=60)
    alone = rolling_origins(bars, trailing_random_walk(), [5], origins, CONTEXT)
    for one, other in zip(alone, at_horizon(scored[0], 1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0.0, equal_nan=True)


def test_horizons_weigh_alike_in_what_is_pooled(scored):
    walk = scored[0]
    parts = [summarise(at_horizon(walk, place)) for place in range(3)]
    whole = summarise(walk)
    for name in ("quantile_loss", "crps", "mase", "mape", "coverage_50", "coverage"):
        wanted = np.mean([getattr(part, name).estimate for part in parts])
        assert getattr(whole, name).estimate == pytest.approx(wanted, rel=1e-12)
    squares = np.mean([part.rmse.estimate**2 for part in parts])
    assert whole.rmse.estimate == pytest.approx(math.sqrt(squares), rel=1e-12)


def test_intervals_are_those_of_origins_drawn_one_by_one(scored):
    walk = scored[0]
    uneven = walk._replace(windows=torch.arange(1.0, len(walk.windows) + 1).double())
    weight, loss = uneven.windows.numpy(), uneven.crps.mean(1).numpy()
    found = summarise(uneven).crps
    assert found.estimate == pytest.approx(np.average(loss, weights=weight), rel=1e-12)
    draw = torch.Generator().manual_seed(0)
    starts = torch.randint(len(loss), (2000, -(-len(loss) // 6)), generator=draw).numpy()
    rows = ((starts[..., None] + np.arange(6)) % len(loss)).reshape(2000, -1)[:, : len(loss)]
    means = [np.average(loss[row], weights=weight[row]) for row in rows]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=1e-9)


def test_a_difference_is_that_of_the_two_means_whatever_an_origin_weighs(scored):
    weights = torch.arange(1.0, len(scored[0].windows) + 1).double()
    one, other = (each._replace(windows=weights) for each in scored)
    found = loss_difference(one, other, 2)
    wanted = summarise(one).quantile_loss.estimate - summarise(other).quantile_loss.estimate
    assert found.difference.estimate == pytest.approx(wanted, rel=1e-9)
    assert found.difference.low < wanted < found.difference.high and found.lags == 2
    assert loss_difference(other, one, 2).statistic == pytest.approx(-found.statistic)


def test_there_is_no_difference_to_oneself_nor_among_too_few_origins_or_others(scored):
    one, other = scored
    assert math.isnan(loss_difference(one, one, 2).p_value)
    origins = len(one.windows)
    assert loss_difference(one, other, origins - 1) is None
    assert loss_difference(one, other, origins - 2) is not None
    with pytest.raises(ForecastError, match="same origins and context"):
        loss_difference(one, Scores(*(part[1:] for part in other)), 2)


@pytest.mark.parametrize(("step", "horizon", "wanted"), [(1, 10, 9), (7, 21, 2), (4, 21, 5)])
def test_origins_share_the_luck_of_those_whose_outcomes_they_share(step, horizon, wanted):
    rows = tuple(range(100, 100 + 20 * step, step))
    usable = torch.ones((20, 2), dtype=torch.bool)
    windows = Windows(rows, usable, 0, 0, 0, 0)
    assert dependent_origins(windows, horizon) == wanted
    assert dependent_origins(windows, 1) == 2  # what Newey and West take of twenty
    usable[1::2] = False  # every other origin has no window
    assert dependent_origins(windows, horizon) == max(wanted // 2, 2)


def test_the_command_line_tells_them_by_horizon(tmp_path, capsys):
    out = tmp_path / "scores.json"
    flags = ["--source", "tech4", "--step", "200", "--horizons", "1", "5", "--context", "200"]
    main(["forecast", "evaluate", *flags, "--json", str(out)])
    told = capsys.readouterr().out
    assert "50 % band" in told and "MAPE, %" in told and "by bars ahead" in told
    entries = {each["name"]: each for each in json.loads(out.read_text())["forecasters"]}
    prior = entries["fastsim-prior"]
    assert [each["horizon"] for each in prior["by_horizon"]] == [1, 5]
    mean = np.mean([each["quantile_loss"][0] for each in prior["by_horizon"]])
    assert prior["quantile_loss"][0] == pytest.approx(mean, abs=2e-6)
    test = prior["relative"]["random-walk-60"]["diebold_mariano"]
    walk = entries["random-walk-60"]
    apart = prior["quantile_loss"][0] - walk["quantile_loss"][0]
    assert test["difference"][0] == pytest.approx(apart, abs=2e-6)
    assert 0 < test["p_value"] < 1 and test["lags"] == 2
    assert walk["relative"]["random-walk-60"]["diebold_mariano"]["p_value"] is None
