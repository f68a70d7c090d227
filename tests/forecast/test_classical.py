"""Classical baselines against known laws, their own packages, and windows with gaps."""

import json
import logging
import sys

import numpy as np
import pytest
import torch
from arch.univariate import GARCH, StudentsT, ZeroMean
from statsforecast.models import AutoETS, DynamicOptimizedTheta

from fastsim.cli import main
from fastsim.cli.score_tables import sparkline
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import Context
from fastsim.forecast.models import classical
from fastsim.forecast.models.baselines import ewma_random_walk
from fastsim.forecast.models.classical import auto_ets, garch_t, theta
from fastsim.forecast.networks.return_network import LEVELS
from fastsim.forecast.registry import parse_names

OMEGA, ALPHA, BETA, NU = 2e-6, 0.08, 0.9, 6.0
"""Of daily returns: a volatility of 1 % in the long run."""
MAKERS = [garch_t, auto_ets, theta]


def shocks(generator, shape):
    return generator.standard_t(NU, shape) * np.sqrt((NU - 2.0) / NU)


def garch_paths(generator, variance, bars):
    """Returns [S, bars] and the variance [S] of the bar after, from that of the first."""
    returns = np.empty((len(variance), bars))
    for bar in range(bars):
        returns[:, bar] = np.sqrt(variance) * shocks(generator, len(variance))
        variance = OMEGA + ALPHA * returns[:, bar] ** 2 + BETA * variance
    return returns, variance


@pytest.fixture(scope="module")
def world():
    """Closes [16, 512] of independent GARCH series, and the true variance [16] of the next bar."""
    generator = np.random.default_rng(5)
    _, variance = garch_paths(generator, np.full(16, OMEGA / (1 - ALPHA - BETA)), 500)
    returns, after = garch_paths(generator, variance, 511)
    return 50.0 * np.exp(np.pad(returns.cumsum(1), ((0, 0), (1, 0)))), after


def context_of(closes):
    closes = torch.as_tensor(closes)
    stamps = (86_400 * torch.arange(closes.shape[1])).expand(len(closes), -1)
    return Context(closes[..., None].expand(*closes.shape, 6), stamps)


def log_quantiles(forecaster, closes, horizon):
    last = np.asarray(closes)[:, -1, None, None]
    return np.log(forecaster.forecast(context_of(closes), horizon).quantiles.numpy() / last)


@pytest.mark.parametrize("horizon", [1, 10])
def test_garch_finds_the_true_conditional_quantiles(world, horizon):
    closes, after = world
    told = log_quantiles(garch_t(), closes, 10)[:, horizon - 1]
    generator = np.random.default_rng(6)
    truth = []
    for variance in after:
        paths, _ = garch_paths(generator, np.full(40_000, variance), horizon)
        truth.append(np.quantile(paths.sum(1), LEVELS))
    ratio = told / np.array(truth)
    # From 511 bars the volatility of the next is known to about 8 %, its tail at 1 % to about 12 %:
    # a quarter of that is left in the mean of 16 series, whose three deviations are 6 % and 9 %.
    for level, tolerance in ((0.01, 0.09), (0.1, 0.06), (0.2, 0.06), (0.9, 0.06), (0.99, 0.09)):
        column = ratio[:, LEVELS.index(level)]
        assert abs(column.mean() - 1.0) < tolerance
        assert abs(column - 1.0).max() < 0.4
    assert np.abs(told[:, LEVELS.index(0.5)]).max() < 1e-6  # the law is symmetric


def test_the_spread_of_garch_is_that_of_the_analytic_variance(world):
    closes = world[0][:1]
    middles = tuple((np.arange(1000) + 0.5) / 1000)
    told = log_quantiles(garch_t(paths=20_000, levels=middles), closes, 10)[0]  # [10, 1000]
    returns = 100.0 * np.diff(np.log(closes[0]))
    model = ZeroMean(returns, volatility=GARCH(), distribution=StudentsT(), rescale=False)
    analytic = model.fit(disp="off").forecast(horizon=10, reindex=False).variance.values[0]
    wanted = np.sqrt(analytic.cumsum()) / 100.0
    # 20,000 draws of kurtosis 6 know a deviation to 0.8 %; the middles leave out 1 % of the tail.
    np.testing.assert_allclose(np.sqrt(np.square(told).mean(-1)), wanted, rtol=0.03)


def test_the_first_bar_of_garch_is_student_t(world):
    closes = world[0][:1]
    told = log_quantiles(garch_t(paths=20_000), closes, 1)[0, 0]
    returns = 100.0 * np.diff(np.log(closes[0]))
    fitted = ZeroMean(returns, volatility=GARCH(), distribution=StudentsT(), rescale=False).fit(
        disp="off"
    )
    sigma = np.sqrt(fitted.forecast(horizon=1, reindex=False).variance.values[0, 0]) / 100.0
    wanted = sigma * StudentsT().ppf(np.array(LEVELS), [fitted.params["nu"]])
    np.testing.assert_allclose(told, wanted, rtol=0.06, atol=1e-6)  # 1 % of 40,000: 3 deviations


def test_a_fitted_drift_moves_the_median_by_the_mean(world):
    closes = world[0][:1] * np.exp(0.002 * np.arange(512))
    median = log_quantiles(garch_t(drift=True), closes, 10)[0, :, LEVELS.index(0.5)]
    steps = np.arange(1, 11)
    np.testing.assert_allclose(median, median[0] * steps, rtol=1e-3)
    assert 0.001 < median[0] < 0.003


@pytest.mark.parametrize(("make", "model"), [(auto_ets, AutoETS), (theta, DynamicOptimizedTheta)])
def test_quantiles_are_the_ends_of_the_packages_own_intervals(make, model, world):
    closes = world[0][:2]
    told = log_quantiles(make(), closes, 8)
    for row, series in zip(told, closes, strict=True):
        fitted = model(season_length=1).fit(np.log(series / series[-1]))
        bands = fitted.predict(h=8, level=[80, 98])
        for level, name in ((0.1, "lo-80"), (0.9, "hi-80"), (0.01, "lo-98"), (0.99, "hi-98")):
            np.testing.assert_allclose(row[:, LEVELS.index(level)], bands[name], atol=2e-6)
        np.testing.assert_allclose(row[:, LEVELS.index(0.5)], bands["mean"], atol=2e-6)


@pytest.mark.parametrize("make", MAKERS)
def test_a_window_is_forecast_the_same_in_any_company_and_unit(make, world):
    closes = world[0][:3]
    one, alone, dear = (
        make().forecast(context_of(part), 5).quantiles for part in (closes, closes[1:2], 8 * closes)
    )
    assert torch.equal(one[1:2], alone)
    assert torch.equal(dear, 8 * one)
    assert bool((one.diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("make", MAKERS)
def test_padding_changes_nothing_and_holes_are_stepped_over(make, world):
    closes = world[0][:1, -300:]
    padded = np.pad(closes, ((0, 0), (212, 0)), constant_values=np.nan)
    whole = make().forecast(context_of(closes), 5).quantiles
    assert torch.equal(make().forecast(context_of(padded), 5).quantiles, whole)
    holed = closes.copy()
    holed[0, 100:103] = np.nan
    near = make().forecast(context_of(holed), 5).quantiles
    assert bool(near.isfinite().all())
    torch.testing.assert_close(near, whole, rtol=0.02, atol=0.0)


def test_forecasts_leave_the_global_generator_of_numpy_alone(world):
    np.random.seed(3)
    wanted = np.random.random()
    np.random.seed(3)
    for make in MAKERS:
        make().forecast(context_of(world[0][:1]), 2)
    assert np.random.random() == wanted


def test_a_fit_that_fails_is_counted_and_is_the_ewma_walk(world, monkeypatch, caplog):
    context = context_of(world[0][:2])
    forecaster = garch_t()
    monkeypatch.setattr(classical, "_fitted_garch", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        told = forecaster.forecast(context, 5).quantiles
    assert torch.equal(told, ewma_random_walk().forecast(context, 5).quantiles)
    assert forecaster.fallbacks == 2
    assert "garch-t: no fit of the window up to 1971-05-27" in caplog.text
    assert "random-walk-ewma-0.94 instead (2 so far)" in caplog.text


@pytest.mark.parametrize("make", MAKERS)
def test_a_price_that_stands_still_is_forecast_to_stand_still(make):
    told = make().forecast(context_of(np.full((1, 100), 7.0)), 3).quantiles
    torch.testing.assert_close(told, torch.full_like(told, 7.0))


@pytest.mark.parametrize(
    ("make", "package", "module"),
    [
        (garch_t, "arch", "arch.univariate"),
        (auto_ets, "statsforecast", "statsforecast.models"),
        (theta, "statsforecast", "statsforecast.models"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(make, package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ForecastError) as caught:
        make()
    assert str(caught.value) == f"{package} is not installed: pip install 'fastsim-rl[baselines]'"


def test_what_cannot_be_asked_for_is_refused(world):
    with pytest.raises(ConfigError, match=r"no forecaster is called 'garch'; .* random-walk-60"):
        parse_names("random-walk-60,garch")
    with pytest.raises(ConfigError, match="paths"):
        garch_t(paths=1)
    with pytest.raises(ForecastError, match="32 known closes"):
        garch_t().forecast(context_of(world[0][:1, :20]), 5)


@pytest.mark.parametrize(
    ("options", "culprit"), [(["--baselines", "arima"], "arima"), (["--json", "."], "folder")]
)
def test_evaluate_refuses_before_it_scores(options, culprit, capsys):
    with pytest.raises(SystemExit):
        main(["forecast", "evaluate", *options])
    told = capsys.readouterr().err
    assert told.startswith("fastsim: ")
    assert told.count("\n") == 1
    assert culprit in told


def test_a_sparkline_is_level_for_even_shares():
    assert sparkline([0.1] * 10) == "▄" * 10
    assert sparkline([0.0, 0.05, 0.15, 0.2, 0.6]) == "▁▁▃▄█"


def test_evaluate_writes_what_it_shows(world, tmp_path, capsys):
    closes = world[0][:2].T
    stamps = np.datetime64("2001-01-01", "ns") + np.arange(512) * np.timedelta64(1, "D")
    write_bars(Bars(symbols=("A", "B"), timestamps=stamps, close=closes), tmp_path / "bars.parquet")
    out = tmp_path / "scores.json"
    options = [
        "--context",
        "128",
        "--step",
        "120",
        "--horizons",
        "1",
        "5",
        "--json",
        str(out),
        "--centred",
    ]
    baselines = "garch-t,auto-ets,theta"
    source = ["--source", str(tmp_path / "bars.parquet")]
    main(["forecast", "evaluate", *source, *options, "--baselines", baselines])
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 120
    record = json.loads(out.read_text())
    scored = {entry["name"]: entry for entry in record["forecasters"]}
    names = ["random-walk-60", "garch-t", "auto-ets", "theta", "fastsim-prior"]
    names.append("fastsim-prior, centred")
    assert list(scored) == names
    assert all(name in told for name in names)
    assert (record["origins"], record["horizons"], record["context"]) == (4, [1, 5], 128)
    assert {"arch", "statsforecast", "torch"} <= record["packages"].keys()
    for entry in scored.values():
        assert entry["windows"] == 8
        assert sum(entry["pit"]) == pytest.approx(1.0, abs=1e-5)
        for loss in ("quantile_loss", "crps"):
            value, low, high = entry["relative"]["garch-t"][loss]
            assert low <= value <= high
            wanted = entry[loss][0] / scored["garch-t"][loss][0]
            assert value == pytest.approx(wanted, rel=1e-5)
    assert scored["random-walk-60"]["hit_rate"] == [None, None, None]
    assert f"{scored['theta']['relative']['garch-t']['quantile_loss'][0]:.3f} [" in told
