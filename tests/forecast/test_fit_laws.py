"""Fits to planted laws, beside the law itself; and to what holds none, where nothing is claimed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.bars import CLOSE, Bars
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.return_network import LEVELS
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.training.loss import scale_of
from fastsim.progress import SILENT

HOUR = 3_600
P = torch.tensor(LEVELS, dtype=torch.float64)
NORMAL = torch.special.ndtri(P)
STEP = 0.01
ALPHA, BETA = 0.3, 0.6
BUSY, CALM = 0.012, 0.003
"""Volatility of hours 13 to 16, and of others."""


def bars_of(returns, step="D"):
    closes = 100.0 * np.exp(np.cumsum(returns, 0))
    stamps = np.datetime64("2000-01-03", "ns") + np.arange(len(closes)) * np.timedelta64(1, step)
    symbols = tuple(f"S{column}" for column in range(closes.shape[1]))
    return Bars(symbols=symbols, timestamps=stamps.astype("datetime64[ns]"), close=closes)


def garch(count, assets, rng):
    """GARCH(1,1) that reacts and forgets more than prices do."""
    returns, variance = np.empty((count, assets)), np.full(assets, STEP**2)
    for row in range(count):
        returns[row] = np.sqrt(variance) * rng.standard_normal(assets)
        variance = STEP**2 * (1 - ALPHA - BETA) + ALPHA * returns[row] ** 2 + BETA * variance
    return bars_of(returns)


def garch_law(closes, stamps):
    returns = closes.log().diff(dim=1).nan_to_num()
    variance = torch.full_like(closes[:, 0], STEP**2)
    for each in returns.unbind(1):
        variance = STEP**2 * (1 - ALPHA - BETA) + ALPHA * each**2 + BETA * variance
    return variance.sqrt()[:, None] * NORMAL


def skewed(count, assets, rng):
    """Small gains and large losses, by an exponential law."""
    return bars_of(STEP * (1.0 - rng.exponential(size=(count, assets))))


def skewed_law(closes, stamps):
    return (STEP * (1.0 + P.log())).expand(len(closes), -1)


def hourly(count, assets, rng):
    """Busy hours and calm ones."""
    hours = np.arange(count) % 24
    sizes = np.where((hours >= 13) & (hours < 17), BUSY, CALM)[:, None]
    return bars_of(sizes * rng.standard_normal((count, assets)), "h")


def hourly_law(closes, stamps):
    hours = (stamps[:, -1] // HOUR + 1) % 24
    sizes = torch.where((hours >= 13) & (hours < 17), BUSY, CALM).double()
    return sizes[:, None] * NORMAL


def lstm():
    return LstmModel(LstmConfig(hidden=32, patch=8))


LAWS = {
    "garch": (garch, garch_law, load_prior, {"mode": "full"}),
    "skew": (skewed, skewed_law, load_prior, {"mode": "full", "centre": "fitted"}),
    "hour": (
        hourly,
        hourly_law,
        lstm,
        {"mode": "scratch", "covariates": "hour", "season": "none", "centre": "last"},
    ),
}


def beside(name, count, assets, config):
    """A fit to a planted law, and the loss of that law on the windows that judged it."""
    planted, law, model, changed = LAWS[name]
    bars = planted(count, assets, np.random.default_rng(0))
    config, start = replace(config, **changed), model()
    report = fit(start, bars, config, progress=SILENT).report
    return report, loss_of(law, lesson_of(start.card, bars, None, config, None))


def loss_of(law, lesson):
    losses = []
    for windows in lesson.judge.windows:
        closes = windows.context.close
        unit = scale_of(closes)[0].double()[:, None]
        quantiles = law(closes.double(), windows.context.timestamps) / unit
        error = windows.future[:, 0].double() / unit - quantiles
        losses.append(torch.maximum(P * error, (P - 1.0) * error).mean(1))
    return float(torch.cat(losses).mean())


QUICK = FitConfig(
    horizons=(1,),
    steps=80,
    evaluate_every=20,
    learning_rate=3e-3,
    batch_size=128,
    warmup=10,
    average=0.95,
    context=256,
    validation_windows=2000,
)
LONG = replace(
    QUICK, steps=1500, evaluate_every=250, batch_size=256, average=0.998, validation_windows=8192,
    patience=20, context=None, learning_rate=2e-3,
)  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_a_planted_law_is_approached(name):
    report, law = beside(name, 1500, 6, QUICK)
    assert not report.keeps_start
    assert report.loss / law < 1.03
    assert report.loss - law < 0.6 * (report.start_loss - law)


@pytest.mark.long
@pytest.mark.parametrize("name", LAWS)
def test_a_planted_law_is_learned_to_half_a_percent_of_its_loss(name):
    report, law = beside(name, 8000, 8, LONG)
    print(name, report.start_loss / law, report.loss / law, report.coverage, report.windows)
    assert report.loss / law < 1.005
    error = (0.8 * 0.2 / report.windows) ** 0.5  # of the share that so few windows tell
    assert abs(report.coverage - 0.8) < 0.01 + error


def known_noise(rng, count=900, assets=4):
    """Returns of one law without a memory."""
    return bars_of(STEP * rng.standard_normal((count, assets)))


@pytest.fixture(scope="module")
def taught_noise():
    """The prior after it has learned that law: there is nothing left to gain."""
    config = replace(QUICK, mode="full", steps=200, sure=False)
    return fit(load_prior(), known_noise(np.random.default_rng(1)), config, progress=SILENT).model


@pytest.mark.parametrize("seed", range(3))
def test_no_gain_is_claimed_on_noise(taught_noise, seed):
    bars = known_noise(np.random.default_rng(10 + seed))
    report = fit(taught_noise, bars, replace(QUICK, mode="full"), progress=SILENT).report
    assert report.keeps_start
    assert report.loss == report.start_loss


@pytest.mark.parametrize("name", ["garch", "hour"])
def test_no_gain_of_memory_is_claimed_once_bars_are_shuffled_in_time(name):
    """What a fit may still learn is the law of all bars together, and its loss is not beaten."""
    planted, _, model, changed = LAWS[name]
    closes = planted(1500, 6, np.random.default_rng(0)).close
    returns = np.diff(np.log(closes), axis=0)
    order = np.random.default_rng(1).permutation(len(returns))
    step = "h" if name == "hour" else "D"
    bars, config = bars_of(returns[order], step), replace(QUICK, **changed)
    report = fit(model(), bars, config, progress=SILENT).report
    pooled = torch.quantile(torch.from_numpy(returns.ravel()), P)
    losses = []
    for windows in lesson_of(model().card, bars, None, config, None).judge.windows:
        unit = scale_of(windows.context.bars[..., CLOSE])[0].double()[:, None]
        error = windows.future[:, 0].double() / unit - pooled / unit
        losses.append(torch.maximum(P * error, (P - 1.0) * error).mean(1))
    assert report.loss / float(torch.cat(losses).mean()) > 0.995
