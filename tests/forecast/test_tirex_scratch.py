"""TiRex from scratch: all of it initialised, and what is learned is the official package's too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Context
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel, read_checkpoint
from fastsim.forecast.models.tirex_official import read_official
from fastsim.forecast.models.tirex_scratch import initialise, write_checkpoint
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.training.architectures import from_scratch
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.training.prior_paths import draw_paths
from fastsim.progress import SILENT

TINY = TiRexConfig(
    blocks=2, width=32, heads=2, block_hidden=64, embedding_hidden=32, patch=16, context=256
)
SIZES = (
    "blocks=2", "width=32", "heads=2", "block_hidden=64", "embedding_hidden=32", "patch=16",
    "context=256",
)  # fmt: skip
SMALL = FitConfig(
    mode="scratch",
    centre="fitted",
    simulated=0.5,
    steps=30,
    evaluate_every=15,
    average=0.9,
    batch_size=16,
    context=128,
    validation_windows=60,
    warmup=2,
    sure=False,
    horizons=(1, 3, 8),
)


def new(seed=0, config=TINY):
    torch.manual_seed(seed)
    return initialise(TiRexModel(config)).eval()


def walks(batch, length, seed=0):
    past, _ = draw_paths(batch, length, 1, 1, torch.Generator().manual_seed(seed))
    return (100.0 * past.double().cumsum(1).exp()).float()


def bars_of(count=600, assets=3):
    steps = np.random.default_rng(0).standard_t(4, (count, assets)) * 0.01
    days = np.datetime64("2000-01-03", "ns") + np.arange(count) * np.timedelta64(1, "D")
    symbols = tuple(f"S{asset}" for asset in range(assets))
    closes = 100.0 * np.exp(steps.cumsum(0))
    return Bars(symbols=symbols, timestamps=days.astype("datetime64[ns]"), close=closes)


def test_every_weight_is_initialised_whatever_lay_in_memory_before():
    model = TiRexModel(TINY)
    for poison in (float("nan"), 1e30):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(poison)
        torch.manual_seed(3)
        initialise(model)
        wanted = new(3).state_dict()
        assert all(torch.equal(each, wanted[name]) for name, each in model.state_dict().items())
    assert all(bool(each.isfinite().all()) for each in model.parameters())
    told = [each for name, each in model.named_parameters() if each.dim() > 1]
    assert all(bool(each.any()) for each in told)


@torch.no_grad()
def test_a_new_network_forecasts_about_a_random_walk():
    model, closes = new(), walks(200, 256, seed=1)
    told = model(closes, horizon=16)
    deviation = closes.std(1)
    median = ((told[..., 4] - closes[:, -1:]).abs() / deviation[:, None]).median()
    assert float(median) < 0.15
    width = (told[..., 8] - told[..., 0]).mean(0)
    assert 3.0 < float(width[-1] / width[0]) < 5.0  # the root of 16
    assert bool((told.diff(dim=-1) > 0).float().mean() > 0.95)


def test_all_of_it_learns():
    model = new().train()
    model(walks(8, 128, seed=2), horizon=16).square().mean().backward()
    assert all(each.grad is not None and bool(each.grad.any()) for each in model.parameters())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit that is better than its start, in its folder."""
    result = fit(from_scratch("tirex", SIZES), bars_of(), SMALL, progress=SILENT)
    assert result.report.tried_loss < result.report.start_loss
    folder = tmp_path_factory.mktemp("tirex") / "fit"
    save_fit(result, folder, SMALL)
    return result, folder


@pytest.mark.parametrize("length", [40, 256, 300])
def test_the_official_package_forecasts_the_same_from_what_was_fitted(fitted, length):
    result, folder = fitted
    steps = torch.randn(6, length, generator=torch.Generator().manual_seed(3))
    closes = 100.0 * (0.01 * steps).cumsum(1).exp()
    closes[1, : length // 2] = torch.nan
    closes[2, ::3] = torch.nan
    closes[2, -1] = 100.0
    ours = load_forecaster(f"fit:{folder}")
    context = Context(closes[..., None].expand(-1, -1, 6), torch.arange(length).expand(6, -1))
    mine = ours.forecast(context, 8).quantiles
    official = read_official(folder / "model.ckpt")
    theirs = official(closes, horizon=8).sort(-1).values
    deviation = torch.from_numpy(np.nanstd(closes.numpy(), 1))[:, None, None]
    assert float(((mine - theirs).abs() / deviation).max()) < 1e-5
    back = read_checkpoint(folder / "model.ckpt").requires_grad_(False)
    assert torch.equal(back(closes, horizon=8), result.model.spread(closes, horizon=8))


def test_sizes_are_chosen_by_name():
    assert from_scratch("tirex", SIZES).config == TINY
    assert from_scratch("nhits", ["pools=[8, 2]", "points=[2, 8]"]).config.pools == (8, 2)
    assert from_scratch("patch-transformer", ["decoder=1"]).config.decoder == 1
    for choices, message in (
        (["blocks"], "must be of sizes such as hidden=32, got 'blocks'"),
        (["blocs=2"], "TiRexConfig has no field 'blocs'"),
        (["blocks=two"], "TiRexConfig.blocks must be a whole number"),
        (["heads=3"], "TiRexConfig.width must be a multiple of heads 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_scratch("tirex", choices)
    with pytest.raises(ConfigError, match="architecture must be empty: fastsim-prior has one size"):
        from_scratch("fastsim-prior", ["width=3"])


def test_a_size_that_the_package_has_not_gets_no_checkpoint(tmp_path):
    odd = replace(TINY, block_hidden=40)
    with pytest.raises(ConfigError, match="block_hidden must be a multiple of 64"):
        write_checkpoint(new(config=odd), tmp_path / "model.ckpt")
    result = fit(new(config=odd), None, replace(SMALL, simulated=1.0, steps=2), progress=SILENT)
    save_fit(result, tmp_path / "fit", SMALL)
    assert not (tmp_path / "fit" / "model.ckpt").exists()


def test_the_seed_alone_decides():
    config = replace(SMALL, steps=2, simulated=1.0)
    one, two = (fit(new(seed), None, config, progress=SILENT).model for seed in (0, 1))
    assert all(
        torch.equal(mine, yours)
        for mine, yours in zip(one.parameters(), two.parameters(), strict=True)
    )
