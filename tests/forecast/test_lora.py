"""Adapters: no change at the start, one base for several, no other base, merged for export."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastsim.agent.artifact import _kept
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model
from fastsim.forecast.networks.chronos2_network import Chronos2Config
from fastsim.forecast.registry import load_forecaster, load_network
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.folder import load_fit
from fastsim.forecast.training.keep import Base, save_fit
from fastsim.forecast.training.lora import (
    LoraConfig,
    LoraLinear,
    adapter_state,
    base_of,
    merged,
    with_adapters,
)
from fastsim.progress import SILENT

SMALL = FitConfig(
    mode="lora",
    steps=6,
    evaluate_every=3,
    batch_size=16,
    validation_windows=40,
    warmup=1,
    sure=False,
    horizons=(1, 3),
    learning_rate=1e-2,
    lora=LoraConfig(rank=2),
)
TIREX = TiRexConfig(
    blocks=2, width=16, heads=2, block_hidden=16, embedding_hidden=16, patch=4, context=64
)
TOTO = Toto2Config(patch_size=8, d_model=16, d_ff=16, num_heads=2, num_layers=2, layer_group_size=2)
CHRONOS = Chronos2Config(
    d_model=16,
    d_kv=4,
    d_ff=16,
    num_layers=2,
    num_heads=2,
    context_length=64,
    time_encoding_scale=64,
)


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch):
    monkeypatch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 32)


def random_tirex():
    return TiRexModel.random(TIREX, 0)


def random_toto():
    torch.manual_seed(0)
    return Toto2Model(TOTO).eval()


def random_chronos():
    torch.manual_seed(0)
    return Chronos2Model(CHRONOS).eval()


MODELS = {
    "fastsim-prior": load_prior,
    "tirex": random_tirex,
    "toto2-4m": random_toto,
    "chronos2": random_chronos,
}


@pytest.fixture(scope="module")
def bars():
    steps = np.random.default_rng(0).standard_t(4, (300, 2)) * 0.01
    days = np.datetime64("2000-01-03", "ns") + np.arange(300) * np.timedelta64(1, "D")
    closes = 100.0 * np.exp(steps.cumsum(0))
    return Bars(symbols=("A", "B"), timestamps=days.astype("datetime64[ns]"), close=closes)


@pytest.fixture(scope="module")
def closes(bars):
    return torch.from_numpy(bars.close.T[:, -60:].copy()).float()


@pytest.fixture(scope="module")
def adapted(bars):
    return fit(load_prior(), bars, SMALL, progress=SILENT)


def learned(model, seed=3):
    """Adapters that change something."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("lora_up"):
                weight.normal_(std=0.1)
    model.weights_changed()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_at_the_start_nothing_is_changed_and_merged_the_change_stays(name, closes):
    model = MODELS[name]().requires_grad_(False)
    adapter = with_adapters(model, LoraConfig(rank=2, alpha=3.0)).eval()
    before = model(closes, horizon=3)
    assert torch.equal(adapter(closes, horizon=3), before)
    learned(adapter).requires_grad_(False)
    told = adapter(closes, horizon=3)
    width = (before[..., -1:] - before[..., :1]).abs()
    assert float(((told - before).abs() / width).max()) > 1e-3
    whole = merged(adapter)
    assert not any(isinstance(each, LoraLinear) for each in whole.modules())
    assert float(((whole(closes, horizon=3) - told).abs() / closes[:, -1:, None]).max()) < 1e-5
    assert fingerprint(base_of(adapter)) == fingerprint(model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["full", "head", "lora"])
def test_every_mode_of_every_model_learns_and_leaves_the_model_alone(name, mode, bars):
    model = MODELS[name]()
    before = fingerprint(model)
    config = replace(SMALL, mode=mode, steps=2, evaluate_every=2, context=32, learning_rate=1e-3)
    result = fit(model, bars, config, progress=SILENT)
    assert fingerprint(model) == before
    assert result.report.tried_loss != result.report.start_loss
    if mode == "lora":
        assert fingerprint(base_of(result.model.spread)) == before


def test_tirex_learns_with_the_padding_of_its_weights(bars, closes):
    """The states that missing patches leave are made again: as if the weights had been loaded."""
    config = replace(SMALL, mode="full", steps=2, evaluate_every=2, context=32, centre="fitted")
    fitted = fit(random_tirex(), bars, config, progress=SILENT).model.spread
    fresh = TiRexModel(TIREX)
    fresh.load_state_dict(fitted.state_dict())
    short = closes[:, -12:]
    assert torch.equal(fitted(short, horizon=3), fresh.eval()(short, horizon=3))


def test_an_adapter_is_a_file_of_its_own_that_names_its_base(adapted, tmp_path, closes):
    save_fit(adapted, tmp_path / "fit", SMALL)
    path = tmp_path / "fit" / "adapter.safetensors"
    assert not (tmp_path / "fit" / "model.safetensors").exists()
    assert all("lora_" in name for name in load_file(path))
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["licence"] == "MIT" and "simulated paths" in told["attribution"]
    assert told["base"] == fingerprint(load_prior())
    loaded = load_forecaster(f"fit:{tmp_path / 'fit'}").model
    assert torch.equal(loaded(closes, horizon=3), adapted.model(closes, horizon=3))
    assert ModuleForecaster(loaded).key == ModuleForecaster(adapted.model).key


def test_several_adapters_share_the_tensors_of_one_base(adapted, bars, tmp_path):
    base = load_prior()
    for seed in range(2):
        config = replace(SMALL, seed=seed)
        save_fit(fit(base, bars, config, progress=SILENT), tmp_path / str(seed), config)
    one, two = (load_fit(tmp_path / str(seed), base=base) for seed in range(2))
    for name in ("first", "second", "head", "skip"):
        places = {base.get_submodule(name).weight.data_ptr()}
        for model in (one, two):
            places.add(model.spread.get_submodule(name).base.weight.data_ptr())
            places.add(model.centre.get_submodule(name).weight.data_ptr())
        assert len(places) == 1
    assert fingerprint(one) != fingerprint(two)
    assert all(each.requires_grad for each in base.parameters())  # the caller's, as it was


def test_another_base_is_refused(adapted, tmp_path):
    save_fit(adapted, tmp_path / "fit", SMALL)
    other = load_prior()
    with torch.no_grad():
        other.head.bias.add_(1.0)
    with pytest.raises(ForecastError, match="an adapter of fastsim-prior with weights"):
        load_fit(tmp_path / "fit", base=other)


def test_a_base_from_a_path_travels_with_an_agent(bars, tmp_path, closes):
    weights = tmp_path / "own.safetensors"
    base = load_prior()
    with torch.no_grad():
        base.head.bias.add_(0.01)
    save_file({name: each.contiguous() for name, each in base.state_dict().items()}, weights)
    result = fit(base, bars, SMALL, progress=SILENT)
    save_fit(result, tmp_path / "fit", SMALL, base=Base(weights))
    kept = _kept(f"fit:{tmp_path / 'fit'}", tmp_path / "agent")
    shutil.rmtree(tmp_path / "fit")
    weights.unlink()
    assert kept == "fit:forecaster/fit"
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "agent", moved)
    model = load_network(f"fit:{moved / 'forecaster' / 'fit'}")
    assert torch.equal(model(closes, horizon=3), result.model(closes, horizon=3))


def test_an_adapter_is_merged_for_export(adapted, bars, tmp_path):
    closes = torch.from_numpy(bars.close.T.copy()).unfold(1, 64, 9).flatten(0, 1)
    stamps = 86_400 * torch.arange(64).expand(len(closes), -1)
    windows = Context(closes[:, :, None].expand(-1, -1, 6), stamps)
    export(adapted.model, tmp_path / "x.pt", windows=windows, horizon=3, precision="float32")
    found = load_artifact(tmp_path / "x.pt").forecast(windows, 3).quantiles
    wanted = ModuleForecaster(adapted.model).forecast(windows, 3).quantiles
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0.0)
    assert not any("lora" in name for name, _ in adapted.model.for_export().named_parameters())
    assert adapter_state(adapted.model.spread)  # its own is left as it is


def test_layers_are_chosen_by_pattern_and_named_where_none_fits():
    adapter = with_adapters(load_prior(), LoraConfig(layers=("first", "s*d")))
    found = {name for name, each in adapter.named_modules() if isinstance(each, LoraLinear)}
    assert found == {"first", "second"}
    with pytest.raises(ConfigError, match="layers must name linear layers of fastsim-prior, such"):
        with_adapters(load_prior(), LoraConfig(layers=("blocks.*",)))


def test_an_adapter_of_what_was_fitted_is_refused(adapted, bars):
    with pytest.raises(ConfigError, match="mode lora is for published weights"):
        fit(adapted.model, bars, SMALL, progress=SILENT)
