"""Dense targets: each patch an origin, its scale from what lies before it, and what comes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.bars import CLOSE, Bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import Context
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model
from fastsim.forecast.networks.chronos2_network import Chronos2Config
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.dense import unfolded
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.loop import Student
from fastsim.forecast.training.loss import scale_of, scaled_quantiles
from fastsim.forecast.training.windows import Windows
from fastsim.progress import SILENT

CPU = torch.device("cpu")
PATCH = 8
TIREX = TiRexConfig(
    blocks=2, width=16, heads=2, block_hidden=64, embedding_hidden=16, patch=PATCH, context=64
)
TOTO = Toto2Config(
    patch_size=PATCH, d_model=16, d_ff=16, num_heads=2, num_layers=2, layer_group_size=2
)
HORIZONS = torch.tensor([1, 3, 8])


def tirex():
    return TiRexModel.random(TIREX, 0)


def toto():
    torch.manual_seed(0)
    return Toto2Model(TOTO).eval()


MODELS = {"tirex": tirex, "toto2-4m": toto}


def walks(batch, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = 0.01 * torch.randn(batch, length, generator=generator, dtype=torch.float64)
    return (100.0 * steps.cumsum(1).exp()).float()


def windows_of(closes, ahead=8):
    """Windows of paths [B, L + ahead]: the last closes are what came."""
    past = closes[:, :-ahead]
    future = (closes[:, -ahead:][:, HORIZONS - 1] / past[:, -1:]).double().log().float()
    bars = past[..., None].expand(-1, -1, 6)
    return Windows(
        Context(bars, torch.arange(past.shape[1]).expand(len(past), -1)), future[:, None]
    )


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_later_closes_move_nothing_that_is_told_at_a_patch(name):
    model, closes = MODELS[name](), walks(4, 60)
    before = model.after_patches(closes)
    count = before.quantiles.shape[1]
    assert count > 3
    for place in range(count):
        end = 60 - (count - 1 - place) * PATCH
        altered = closes.clone()
        altered[:, end:] *= 1.5
        after = model.after_patches(altered)
        assert torch.equal(after.quantiles[:, : place + 1], before.quantiles[:, : place + 1])
        assert torch.equal(after.ready[:, : place + 1], before.ready[:, : place + 1])
        if place < count - 1:
            assert not torch.equal(after.quantiles, before.quantiles)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_later_closes_are_targets_and_nothing_else_of_the_loss(name):
    """Altering what comes after each origin leaves its forecast and its unit as they were."""
    model, closes = MODELS[name](), walks(4, 68)
    before = unfolded(model, windows_of(closes), HORIZONS, CPU)
    count = len(before.future) // 4
    for place in range(count):
        end = 60 - (count - 1 - place) * PATCH
        altered = closes.clone()
        altered[:, end:] *= torch.linspace(1.1, 1.5, 68 - end)
        after = unfolded(model, windows_of(altered), HORIZONS, CPU)
        for pair in zip(before.scaled, after.scaled, strict=True):
            old, new = (torch.unflatten(each, 0, (4, count))[:, : place + 1] for each in pair)
            assert torch.equal(old, new)
        old, new = (torch.unflatten(each, 0, (4, count)) for each in (before.future, after.future))
        assert not torch.equal(old[:, place], new[:, place])


@torch.no_grad()
def test_each_patch_of_toto_is_its_forecast_of_the_bars_until_there():
    model, closes = toto(), walks(4, 60)
    told, ready = model.after_patches(closes)
    assert ready.tolist() == [[False] + 7 * [True]] * 4  # four closes are too few
    for place in range(1, told.shape[1]):
        end = 60 - (told.shape[1] - 1 - place) * PATCH
        alone = model(closes[:, :end], horizon=PATCH)
        torch.testing.assert_close(told[:, place], alone, rtol=1e-5, atol=0.0)


@torch.no_grad()
def test_tirex_is_scaled_by_the_first_half_and_the_first_origin_is_its_forecast():
    model, closes = TiRexModel.random(TIREX, 0, pad=False), walks(4, 60)
    told = model.after_patches(closes).quantiles
    assert told.shape == (4, 5, PATCH, 9)
    alone = model(closes[:, :28], horizon=PATCH)
    torch.testing.assert_close(told[:, 0], alone, rtol=1e-5, atol=0.0)
    # A window whose halves are alike is scaled alike: the last origin is the usual forecast.
    half = walks(4, 32, seed=2)
    even = torch.cat([half, half], 1)
    found, wanted = model.after_patches(even).quantiles[:, -1], model(even, horizon=PATCH)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_origins_have_the_targets_and_units_of_their_own_windows(name):
    model, closes = MODELS[name](), walks(3, 68)
    found = unfolded(model, windows_of(closes), HORIZONS, CPU)
    count = len(found.future) // 3
    scale = found.scaled.scale.view(3, count)
    future = found.future.view(3, count, len(HORIZONS))
    for place in range(count):
        end = 60 - (count - 1 - place) * PATCH
        wanted, last = scale_of(closes[:, :end])
        torch.testing.assert_close(scale[:, place], wanted)
        came = (closes[:, end - 1 + HORIZONS] / last[:, None]).log()
        torch.testing.assert_close(future[:, place], came, rtol=1e-4, atol=1e-6)
    usual = scaled_quantiles(model, windows_of(closes), HORIZONS, CPU)
    if name == "toto2-4m":
        last = found.scaled.quantiles.view(3, count, len(HORIZONS), -1)[:, -1]
        torch.testing.assert_close(last, usual.quantiles, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_missing_has_no_part_and_gradients_stay_numbers(name):
    model, closes = MODELS[name](), walks(4, 68)
    closes[1] = torch.nan  # nothing
    closes[1, 50:] = 100.0 + torch.arange(18.0)  # listed late
    closes[2, 20:40:2] = torch.nan
    closes[3, :60] = 100.0  # has not moved
    student = Student(model.train(), None)
    losses = student.dense_losses(windows_of(closes), HORIZONS)
    assert bool(losses.pinball.isfinite().all())
    losses.pinball.mean().backward()
    assert all(
        bool(each.grad.isfinite().all()) for each in model.parameters() if each.grad is not None
    )
    with pytest.raises(ForecastError, match="no patch of 60 bars has enough known before it"):
        student.dense_losses(windows_of(closes[3:]), HORIZONS)


def bars_of(count=700, assets=2):
    steps = np.random.default_rng(0).standard_t(4, (count, assets)) * 0.01
    days = np.datetime64("2000-01-03", "ns") + np.arange(count) * np.timedelta64(1, "D")
    closes = 100.0 * np.exp(steps.cumsum(0))
    symbols = tuple(f"S{asset}" for asset in range(assets))
    return Bars(symbols=symbols, timestamps=days.astype("datetime64[ns]"), close=closes)


SMALL = FitConfig(
    mode="full",
    dense=True,
    steps=6,
    evaluate_every=3,
    batch_size=16,
    context=64,
    validation_windows=40,
    warmup=1,
    sure=False,
    horizons=(1, 3, 8),
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("centre", ["kept", "last", "fitted"])
def test_a_fit_learns_from_every_patch(name, centre, monkeypatch):
    monkeypatch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 32)
    config = replace(SMALL, centre=centre)
    report = fit(MODELS[name](), bars_of(), config, progress=SILENT).report
    sparse = fit(MODELS[name](), bars_of(), replace(config, dense=False), progress=SILENT).report
    assert report.start_loss == sparse.start_loss  # judged alike
    assert report.tried_loss < report.start_loss
    assert report.tried_loss != sparse.tried_loss


def test_dense_targets_reach_no_return_to_the_mean():
    """On a random walk the median after a fit is the last close, as in the trap it would not be."""
    config = replace(
        SMALL, mode="scratch", centre="fitted", steps=60, batch_size=64, learning_rate=3e-3
    )
    model = fit(tirex(), bars_of(3000), config, progress=SILENT).model
    closes = walks(400, 64, seed=5)
    away = (closes[:, -1] / closes.mean(1)).log()  # from the mean of the window
    median = (model(closes, horizon=8)[:, -1, 4] / closes[:, -1]).log()
    slope = float((median * away).mean() / away.square().mean())
    assert abs(slope) < 0.2


def test_models_that_tell_the_end_alone_are_refused_by_name():
    with pytest.raises(ConfigError, match="dense must be false for fastsim-prior"):
        fit(load_prior(), bars_of(), SMALL, progress=SILENT)
    small = Chronos2Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ConfigError, match="dense must be false for chronos-2"):
        fit(Chronos2Model(small), bars_of(), SMALL, progress=SILENT)
    with pytest.raises(ConfigError, match="horizons must lie within a patch of tirex, 8 bars"):
        fit(tirex(), bars_of(), replace(SMALL, horizons=(1, 9)), progress=SILENT)


def test_the_close_alone_is_read():
    windows = windows_of(walks(2, 68))
    bars = windows.context.bars.clone()
    bars[..., :CLOSE] = 7.0
    other = windows._replace(context=Context(bars, windows.context.timestamps))
    one, two = (unfolded(toto(), each, HORIZONS, CPU).future for each in (windows, other))
    assert torch.equal(one, two)
