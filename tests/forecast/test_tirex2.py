"""TiRex-2: what its package forecasts, behind our interface.

Weights are random and seeded, in checkpoints of the official format. The package starts torch's
compiler by itself; here it is held back on both sides.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from forecasters import random_context
from safetensors.torch import save_model
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.tirex2 import (
    CARD,
    load_tirex2,
    official_settings,
    random_tirex2,
    read_checkpoint,
)

TINY = official_settings(blocks=2, width=64, hidden=64, patch=8, context=128, horizon=32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub would give it, its network spread out as a trained one."""
    folder = tmp_path_factory.mktemp("tirex2")
    model = random_tirex2(TINY, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            scale = 0.3 if "gate" in name or "recurrent" in name else 0.05
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    save(model.network, folder)
    return folder


def save(network: nn.Module, folder: Path) -> None:
    save_model(network, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(TINY))


@pytest.fixture(scope="module")
def forecaster(checkpoint: Path) -> ModuleForecaster:
    return ModuleForecaster(read_checkpoint(checkpoint))


@pytest.fixture(scope="module")
def package(forecaster: ModuleForecaster) -> ModuleType:
    return imported()


def imported() -> ModuleType:
    """The package, once our loader has imported it."""
    return sys.modules["tirex2"]


def official(package: ModuleType, folder: Path, closes: list[Tensor], horizon: int) -> Tensor:
    """What the package's own API forecasts [B, horizon, 9] of series of any length."""
    model: Any = package.load_model(folder, device="cpu")
    series = [
        package.TimeseriesType(target=row[None], past_covariates=None, future_covariates=None)
        for row in closes
    ]
    with torch.compiler.set_stance("force_eager"):
        forecasts = model.forecast(series, prediction_length=horizon)
    return torch.cat(forecasts).transpose(1, 2)


def off_by(found: Tensor, wanted: Tensor, context: Context) -> float:
    """Largest difference, in deviations of the series."""
    close = context.close
    spread = (close - close.nanmean(1, keepdim=True)).square().nanmean(1).sqrt()
    return float(((found - wanted).abs() / spread[:, None, None]).max())


def some_that_trend(length: int = 100) -> Context:
    """Four random walks and four straight rises: the package forecasts the latter's steps."""
    context = random_context(8, length=length)
    rise = torch.linspace(0.0, 200.0, length)[None, :, None]
    context.bars[4:] += rise
    return context


def test_it_forecasts_what_its_own_package_does(checkpoint, forecaster, package):
    context = some_that_trend()
    wanted = official(package, checkpoint, list(context.close), horizon=20)
    ours = forecaster.forecast(context, 20).quantiles
    assert off_by(ours, wanted.sort(-1).values, context) < 1e-4
    assert float((wanted[..., -1] - wanted[..., 0]).abs().mean()) > 0.1, "the weights say nothing"


def test_trends_are_forecast_as_differences(package, forecaster):
    detect = package.model.tirex2.PostProcessor()._detect_trends
    assert detect(some_that_trend().close)[4:] == [True] * 4
    assert False in detect(random_context(8, length=100).close)


def test_gaps_are_those_of_the_package(checkpoint, forecaster, package):
    context = some_that_trend()
    context.bars[:, 40:47] = torch.nan
    context.bars[2, -1] = torch.nan
    wanted = official(package, checkpoint, list(context.close), horizon=12).sort(-1).values
    ours = forecaster.forecast(context, 12).quantiles
    assert ours.isfinite().all()
    assert off_by(ours, wanted, context) < 1e-4


def test_padding_on_the_left_changes_nothing(checkpoint, forecaster, package):
    context = some_that_trend()
    starts = [0, 10, 30, 60, 0, 10, 30, 60]
    for row, start in enumerate(starts):
        context.bars[row, :start] = torch.nan
    ours = forecaster.forecast(context, 20).quantiles
    closes = [row[start:] for row, start in zip(context.close, starts, strict=True)]
    wanted = torch.cat([official(package, checkpoint, [row], horizon=20) for row in closes])
    assert off_by(ours, wanted.sort(-1).values, context) < 1e-4


def test_each_series_alone_equals_its_row_in_the_batch(forecaster):
    context = some_that_trend()
    context.bars[::3, :50] = torch.nan
    batch = forecaster.forecast(context, 20).quantiles
    for row in range(len(batch)):
        alone = Context(context.bars[row : row + 1], context.timestamps[row : row + 1])
        forecast = forecaster.forecast(alone, 20).quantiles
        assert off_by(forecast, batch[row : row + 1], alone) < 1e-4


def test_quantiles_increase_and_a_longer_past_is_cut(forecaster):
    context = random_context(3, length=300)
    forecast = forecaster.forecast(context, 32)
    assert forecast.quantiles.shape == (3, 32, 9)
    assert forecast.levels == CARD.levels
    assert (forecast.quantiles.diff(dim=-1) >= 0).all()
    latest = Context(context.bars[:, -128:], context.timestamps[:, -128:])
    assert torch.equal(forecaster.forecast(latest, 32).quantiles, forecast.quantiles)


def test_loading_leaves_the_seed_and_the_matmul_precision_alone(checkpoint):
    torch.manual_seed(3)
    state, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    read_checkpoint(checkpoint)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == precision


def test_the_card_counts_what_the_paper_counts():
    model = random_tirex2(official_settings(), seed=0)
    whole = model.card.parameters
    for_several = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if "variate_mixer" in name or "combination" in name
    )
    assert whole == CARD.parameters
    assert (round((whole - for_several) / 1e6, 1), round(for_several / 1e6, 1)) == (38.4, 44.1)
    assert (model.card.max_context, model.card.max_horizon) == (2048, 320)
    assert model.card.levels == CARD.levels


def test_other_sizes_are_refused(checkpoint):
    with pytest.raises(ForecastError, match=r"82\.5 M parameters, these weights have"):
        load_tirex2(checkpoint)


def truncate(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def lack_a_weight(folder: Path) -> None:
    network = random_tirex2(TINY, seed=0).network
    network.stack_out_norm = nn.Identity()
    save_model(network, str(folder / "model.safetensors"))


def lack_a_setting(folder: Path) -> None:
    settings = {name: value for name, value in TINY.items() if name != "num_blocks"}
    (folder / "config.json").write_text(json.dumps(settings))


def lose_the_settings(folder: Path) -> None:
    (folder / "config.json").unlink()


def rename_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "damaged"),
        (lack_a_weight, "stack_out_norm"),
        (lack_a_setting, "num_blocks"),
        (lose_the_settings, "config.json"),
        (rename_the_weights, "no weights at"),
    ],
)
def test_checkpoints_that_are_none_are_named_in_one_line(damage, told, checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(ForecastError, match=told) as caught:
        read_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_name_is_not_taken_for_its_neighbour(checkpoint, tmp_path):
    for name in ("model.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert read_checkpoint(tmp_path / "model.safetensors").card.max_horizon == 32
    with pytest.raises(ForecastError, match=r"must be called model\.safetensors"):
        read_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize("missing", ["tirex2", "flashrnn"])
def test_without_the_package_it_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ForecastError, match=r"fastsim-rl\[tirex2\]"):
        load_tirex2()


def test_half_precision_is_refused(checkpoint):
    half = ModuleForecaster(read_checkpoint(checkpoint), precision="float16")
    with pytest.raises(ForecastError, match=r"float32 alone, not in torch\.float16"):
        half.forecast(random_context(1), 4)


@pytest.mark.parametrize(("format", "suffix"), [("torchscript", ".pt"), ("aoti", ".pt2")])
def test_it_says_that_it_cannot_be_exported(format, suffix, checkpoint, tmp_path):
    path = tmp_path / f"tirex2{suffix}"
    with pytest.raises(ForecastError, match="cannot be exported") as caught:
        export(
            read_checkpoint(checkpoint),
            path,
            windows=random_context(33, length=64),
            horizon=8,
            format=format,
        )
    assert "\n" not in str(caught.value)
    assert not path.exists()
