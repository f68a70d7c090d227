"""An artefact agrees with its model, or is not written."""

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import test_chronos2
import test_timesfm
import torch
from forecasters import TinyModel, random_context

from fastsim.cli import main
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts import export as exporting
from fastsim.forecast.artifacts import formats
from fastsim.forecast.artifacts.export import ROUNDING_BOUND, export, load_artifact
from fastsim.forecast.artifacts.formats import SUFFIX, _asinh, _log1p, _running_maximum, _sinh
from fastsim.forecast.artifacts.int8 import Int8Linear, quantised
from fastsim.forecast.interface import Context, ModuleForecaster, model_inputs
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.kronos import random_kronos
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.timesfm import TimesFMModel
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto import TotoConfig, TotoModel
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model, UnitLinear
from fastsim.forecast.networks.kronos_network import KronosConfig
from fastsim.forecast.networks.kronos_tokenizer import TokenizerConfig
from fastsim.forecast.networks.lstm_attention import LstmModel
from fastsim.forecast.networks.nhits import NhitsModel
from fastsim.forecast.networks.patch_transformer import PatchTransformerModel
from fastsim.forecast.registry import load_forecaster

WINDOWS = random_context(40)
BATCHES = (1, 2, 7, 33)


def tiny_tirex():
    sizes = {"blocks": 1, "width": 16, "heads": 2, "block_hidden": 16, "embedding_hidden": 16}
    return TiRexModel.random(TiRexConfig(**sizes, patch=8, context=64), 0)


def tiny_toto2():
    torch.manual_seed(0)
    sizes = {"patch_size": 16, "d_model": 32, "d_ff": 64, "num_heads": 2, "num_layers": 2}
    return Toto2Model(Toto2Config(**sizes, layer_group_size=2)).eval()


def tiny_kronos():
    sizes = {"d_model": 16, "n_heads": 2, "ff_dim": 24}
    network = KronosConfig(n_layers=2, s1_bits=4, s2_bits=3, **sizes)
    tokens = TokenizerConfig(
        s1_bits=4, s2_bits=3, group_size=7, n_enc_layers=2, n_dec_layers=2, **sizes
    )
    return random_kronos(network, tokens, seed=0, max_context=64)


def gappy_context(rows, length=64, seed=5):
    """Contexts of which the first is young and all have gaps."""
    context = random_context(rows, length, seed)
    context.bars[0, : length // 3] = torch.nan
    context.bars[:, length // 2 : length // 2 + 3] = torch.nan
    return context


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 2, 7, 33])
def test_an_artefact_forecasts_what_its_model_does(tmp_path, precision, batch):
    path = tmp_path / "tiny.pt"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision=precision)
    context = random_context(batch, seed=5)
    context.bars[0, :20] = torch.nan
    ours = load_artifact(path).forecast(context, 8).quantiles
    eager = ModuleForecaster(TinyModel(), precision=precision).forecast(context, 8).quantiles
    torch.testing.assert_close(ours, eager, rtol=1e-6, atol=1e-4)


def test_a_shorter_horizon_can_be_asked_of_it(tmp_path):
    export(TinyModel(), tmp_path / "tiny.pt", windows=WINDOWS, horizon=8, precision="float32")
    artifact = load_artifact(tmp_path / "tiny.pt")
    context = random_context(2)
    assert torch.equal(
        artifact.forecast(context, 3).quantiles, artifact.forecast(context, 8).quantiles[:, :3]
    )
    with pytest.raises(ForecastError, match="1 to 8 bars ahead"):
        artifact.forecast(context, 9)


def test_its_metadata_travel_inside_and_its_figures_beside(tmp_path):
    path = tmp_path / "tiny.pt"
    parity = export(
        TinyModel(), path, windows=WINDOWS, horizon=8, precision="float16", revision="abc"
    )
    artifact = load_artifact(path)
    assert artifact.card.name == "tiny"
    assert artifact.card.levels == TinyModel.card.levels
    assert artifact.metadata["revision"] == "abc"
    assert artifact.metadata["context_length"] == 64
    assert "float16" in artifact.key
    report = json.loads((tmp_path / "tiny.pt.json").read_text())
    assert report["parity"] == parity._asdict()
    assert 0 < parity.against_float32 <= report["bounds"][1]


def test_the_gate_runs_on_the_device_that_was_asked_for_and_the_metadata_say_so(
    tmp_path, monkeypatch
):
    """A processor of number 0 is called otherwise than one without, and is the same."""
    places, path = {"artefact": [], "inputs": []}, tmp_path / "tiny.pt"

    def unpack(content, format, path, device):
        places["artefact"].append(str(device))
        return formats.unpack(content, format, path, device)

    def inputs(card, context, length, device):
        places["inputs"].append(str(device))
        return model_inputs(card, context, length, device)

    monkeypatch.setattr(exporting, "unpack", unpack)
    monkeypatch.setattr(exporting, "model_inputs", inputs)
    monkeypatch.setattr(exporting, "device_name", str)
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32", device="cpu:0")
    assert places["artefact"] == ["cpu:0"]
    assert places["inputs"].count("cpu") == 1  # the example that the trace is made with
    assert set(places["inputs"]) == {"cpu", "cpu:0"}
    monkeypatch.undo()
    assert load_artifact(path).metadata["gated_on"] == "cpu:0"
    assert json.loads((tmp_path / "tiny.pt.json").read_text())["gated_on"] == "cpu:0"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32")
    assert load_artifact(path).metadata["gated_on"] == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_done(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastsim.cli.export.load_network", None)
    told = "device 'cuda' was asked for, but PyTorch finds no GPU; use \"cpu\""
    with pytest.raises(ConfigError, match=re.escape(told)):
        export(TinyModel(), tmp_path / "tiny.pt", windows=WINDOWS, horizon=8, device="cuda")
    with pytest.raises(SystemExit):
        main(["export", "fastsim-prior", "--device", "cuda"])
    assert capsys.readouterr().err == f"fastsim: {told}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "precision", "told"),
    [("aoti", "float32", "aoti"), ("onnx", "float32", "onnx"), ("torchscript", "int8", "int8")],
)
def test_what_runs_on_a_cpu_alone_is_not_gated_on_a_gpu(
    tmp_path, monkeypatch, format, precision, told
):
    monkeypatch.setattr(exporting, "resolve_device", torch.device)
    path = tmp_path / f"tiny{SUFFIX[format]}"
    wish = {"format": format, "precision": precision, "device": "cuda"}
    with pytest.raises(ForecastError, match=f"{told} artefacts run on a CPU, not on cuda"):
        export(TinyModel(), path, windows=WINDOWS, horizon=8, **wish)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [tiny_tirex, tiny_toto2])
def test_an_artefact_that_was_gated_on_a_gpu_runs_there_and_on_a_cpu(tmp_path, make):
    path, windows = tmp_path / "tiny.pt", random_context(40)
    export(make(), path, windows=windows, horizon=8, precision="float16", device="cuda")
    there, here = (load_artifact(path, device) for device in ("cuda", "cpu"))
    assert there.metadata["gated_on"].startswith("cuda (")
    found, wanted = (each.forecast(windows, 8).quantiles.cpu() for each in (there, here))
    deviation = windows.close.std(1)[:, None, None]
    assert float(((found - wanted) / deviation).abs().max()) <= 2 * ROUNDING_BOUND["float16"]


def test_artefacts_of_other_weights_have_other_keys(tmp_path):
    keys = set()
    for seed in (0, 1):
        path = tmp_path / f"{seed}.pt"
        export(TinyModel(seed), path, windows=WINDOWS, horizon=8, precision="float32")
        keys.add(load_artifact(path).key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    "model", [TinyModel(), tiny_tirex(), tiny_toto2()], ids=["tiny", "tirex", "toto2"]
)
def test_a_pegged_and_a_halted_asset_among_the_windows_are_no_obstacle(tmp_path, model):
    windows = random_context(40)
    windows.bars[0] = 1.1
    windows.bars[1, -40:] = torch.nan
    path = tmp_path / "model.pt"
    export(model, path, windows=windows, horizon=8, precision="float16")
    assert load_artifact(path).metadata["takes_padding"]


class Forgetful(TinyModel):
    """Bakes the batch of the trace into the artefact: right at that size alone."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        if torch.jit.is_tracing():
            return quantiles + 1.0
        return quantiles


class Speechless(TinyModel):
    """Says nothing in an artefact, for one of the series."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        if torch.jit.is_tracing():
            return torch.where(inputs[0][:, -1:, None] > 110.0, torch.nan, quantiles)
        return quantiles


class Fragile(TinyModel):
    """Loses its spread in half precision."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        is_exact = self.layer.bias.dtype == torch.float32 and isinstance(
            self.layer, torch.nn.Linear
        )
        return quantiles if is_exact else quantiles * 1.1


@pytest.mark.parametrize(
    ("model", "precision"),
    [(Forgetful(), "float32"), (Speechless(), "float32"), (Fragile(), "bfloat16")],
)
def test_an_artefact_that_disagrees_is_not_written(tmp_path, model, precision):
    with pytest.raises(ForecastError, match="was not written"):
        export(model, tmp_path / "bad.pt", windows=WINDOWS, horizon=8, precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "precision"),
    [
        ("torchscript", "float32"),
        pytest.param("torchscript", "int8", marks=pytest.mark.long),
        pytest.param("onnx", "float32", marks=pytest.mark.long),
    ],
)
def test_loading_needs_neither_the_models_code_nor_the_hub(tmp_path, format, precision):
    path, rows = tmp_path / f"tiny{SUFFIX[format]}", random_context(2)
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision=precision, format=format)
    torch.save(tuple(rows), tmp_path / "rows")
    code = (
        "import sys; from pathlib import Path; import torch;"
        "blocked = ('forecasters', 'huggingface_hub', 'onnx', 'onnxscript');"
        "sys.modules.update(dict.fromkeys(blocked));"
        "from fastsim.forecast.artifacts.export import load_artifact;"
        "from fastsim.forecast.interface import Context;"
        f"artifact = load_artifact(Path({str(path)!r}));"
        "forecast = artifact.forecast(Context(*torch.load('rows')), 8);"
        "assert forecast.quantiles.isfinite().all();"
        "print(artifact.card.name)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.stdout.strip() == "tiny", result.stderr


def test_bad_artefacts_are_named_in_one_line(tmp_path):
    path = tmp_path / "tiny.pt"
    with pytest.raises(ForecastError, match=r"tiny\.pt: no such artefact"):
        load_artifact(path)
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32")
    whole = path.read_bytes()
    for content in (whole[:500], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ForecastError, match=r"tiny\.pt: damaged") as caught:
            load_artifact(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ForecastError, match=r"must end in \.pt"):
        export(TinyModel(), tmp_path / "tiny.bin", windows=WINDOWS)
    with pytest.raises(ForecastError, match="33 contexts"):
        export(TinyModel(), path, windows=random_context(3))


@pytest.mark.long
def test_an_inductor_package_forecasts_what_its_model_does(tmp_path):
    path = tmp_path / "tiny.pt2"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32", format="aoti")
    artifact = load_artifact(path)
    for batch in (1, 2, 7, 33):
        context = random_context(batch, seed=6)
        eager = ModuleForecaster(TinyModel()).forecast(context, 8).quantiles
        torch.testing.assert_close(
            artifact.forecast(context, 8).quantiles, eager, rtol=1e-5, atol=1e-3
        )
    short = cut(random_context(3, seed=9), 20)
    eager = ModuleForecaster(TinyModel()).forecast(short, 8).quantiles
    torch.testing.assert_close(artifact.forecast(short, 8).quantiles, eager, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "bound"),
    [
        (TinyModel(), 1e-3),
        *(
            pytest.param(model, 1e-3, marks=pytest.mark.long)
            for model in (load_prior(), tiny_toto2(), tiny_tirex())
        ),
    ],
    ids=lambda given: type(given).__name__,
)
def test_an_onnx_model_forecasts_what_its_model_does(tmp_path, model, bound):
    length, path = min(model.card.max_context, 128), tmp_path / "model.onnx"
    windows = random_context(40, length)
    export(model, path, windows=windows, horizon=8, precision="float32", format="onnx")
    artifact = load_artifact(path)
    assert artifact.metadata["context_length"] == length
    for batch in BATCHES:
        context = gappy_context(batch, length)
        eager = model(context.close, horizon=8).sort(-1).values
        ours = artifact.forecast(context, 8).quantiles
        torch.testing.assert_close(ours, eager, rtol=1e-6, atol=bound)
    short = cut(random_context(3, length, seed=9), 50)
    eager = ModuleForecaster(model).forecast(short, 8).quantiles
    ours = artifact.forecast(short, 8).quantiles
    torch.testing.assert_close(ours, eager, rtol=1e-6, atol=bound)


def test_an_onnx_model_may_be_half(tmp_path):
    path = tmp_path / "tiny.onnx"
    parity = export(
        TinyModel(), path, windows=WINDOWS, horizon=8, precision="float16", format="onnx"
    )
    assert 0 < parity.against_float32 <= ROUNDING_BOUND["float16"]
    assert "float16" in load_artifact(path).key


class Map(torch.nn.Module):
    """A linear map of its own class."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(5, 8))
        self.bias = torch.nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


class Layerless(TinyModel):
    """Its map is no linear layer."""

    card = replace(TinyModel.card, name="layerless")

    def __init__(self):
        super().__init__()
        self.layer = Map()


def test_what_onnx_lacks_is_worked_out_exactly():
    values = torch.randn(3, 37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_running_maximum(values, 1)[0], values.cummax(1).values)
    assert torch.equal(_running_maximum(values, 0)[0], values.cummax(0).values)
    small = torch.tensor([0.0, 1e-12, -1e-9, 1e-7, 3e-7, 1e-4, -1e-3, 0.5, 2.0, 1e6])
    torch.testing.assert_close(_log1p(small), small.log1p(), rtol=3e-7, atol=0.0)
    wide = torch.cat([small.double(), torch.tensor([-20.0, -3.0, 20.0]).double()])
    torch.testing.assert_close(_asinh(wide), wide.asinh(), rtol=1e-14, atol=1e-15)
    few = wide[wide.abs() < 100]
    torch.testing.assert_close(_sinh(few), few.sinh(), rtol=1e-14, atol=1e-15)
    assert _asinh(small) is NotImplemented
    assert _sinh(small) is NotImplemented


class Drifting(TinyModel):
    """Says another thing to an exporter than to whoever runs it."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        return quantiles + 1.0 if torch.compiler.is_exporting() else quantiles


def test_an_onnx_model_that_disagrees_is_not_written(tmp_path):
    with pytest.raises(ForecastError, match="was not written"):
        export(
            Drifting(),
            tmp_path / "bad.onnx",
            windows=WINDOWS,
            horizon=8,
            precision="float32",
            format="onnx",
        )
    assert list(tmp_path.iterdir()) == []


def test_bad_onnx_models_are_named_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "tiny.onnx"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32", format="onnx")
    with pytest.raises(ForecastError, match="onnx artefacts run on a CPU, not on cuda"):
        load_artifact(path, "cuda")
    whole = path.read_bytes()
    for content in (whole[:500], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ForecastError, match=r"tiny\.onnx: damaged") as caught:
            load_artifact(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    need = r"ONNX needs its packages: pip install 'fastsim-rl\[onnx\]'"
    with pytest.raises(ForecastError, match=need):
        load_artifact(path)
    with pytest.raises(ForecastError, match=need):
        export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32", format="onnx")


@pytest.mark.parametrize(
    ("model", "format", "precision", "reason"),
    [
        (tiny_kronos(), "onnx", "float32", "kronos-random .* as onnx: it loops over data"),
        (tiny_kronos(), "aoti", "float32", "kronos-random .* as aoti: it loops over data"),
        (TinyModel(), "onnx", "bfloat16", "tiny .* as onnx: ONNX Runtime has no bfloat16"),
        (TinyModel(), "onnx", "int8", "tiny .* as onnx: int8 is for torchscript alone"),
        (TinyModel(), "aoti", "int8", "tiny .* as aoti: int8 is for torchscript alone"),
        (Layerless(), "torchscript", "int8", "layerless .* in int8: no layer to quantise"),
        (tiny_kronos(), "torchscript", "int8", "kronos-random .* in int8: it draws its paths"),
    ],
)
def test_what_a_format_cannot_hold_is_said_in_one_line(tmp_path, model, format, precision, reason):
    path = tmp_path / f"model{SUFFIX[format]}"
    windows = random_context(33)
    with pytest.raises(ForecastError, match=f"{reason}.*; use (torchscript|float16)$") as caught:
        export(model, path, windows=windows, horizon=4, precision=precision, format=format)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_int8_artefact_forecasts_what_its_model_does(tmp_path):
    model, path = load_prior(), tmp_path / "prior.pt"
    windows = random_context(40, 512)
    parity = export(model, path, windows=windows, horizon=8, precision="int8")
    assert parity.against_same_precision <= 1e-5
    assert 1e-4 < parity.against_float32 <= ROUNDING_BOUND["int8"]
    assert model.first.weight.dtype == torch.float32
    artifact, rounded = load_artifact(path), quantised(model)
    assert "int8" in artifact.key
    for batch in BATCHES:
        context = gappy_context(batch, 512)
        eager = rounded(context.close, horizon=8).sort(-1).values
        ours = artifact.forecast(context, 8).quantiles
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-4)


def test_in_int8_a_row_does_not_depend_on_its_neighbours(tmp_path):
    path, context = tmp_path / "prior.pt", gappy_context(7, 512)
    export(load_prior(), path, windows=random_context(40, 512), horizon=8, precision="int8")
    artifact = load_artifact(path)
    together = artifact.forecast(context, 8).quantiles
    for row in range(7):
        alone = Context(context.bars[row : row + 1], context.timestamps[row : row + 1])
        quantiles = artifact.forecast(alone, 8).quantiles
        torch.testing.assert_close(quantiles[0], together[row], rtol=1e-6, atol=1e-4)


def test_a_layer_that_scales_what_it_gives_scales_it_in_int8_too():
    layer = UnitLinear(3, 2)
    x = torch.tensor([[1.0, -2.0, 0.5], [30.0, 4.0, 0.1]])
    rounded = Int8Linear(layer)(x)
    torch.testing.assert_close(rounded, layer(x), rtol=0.02, atol=0.02)
    assert not torch.equal(rounded, layer(x))


@pytest.mark.parametrize("name", ["toto2", "chronos2", "timesfm", "nhits", "lstm", "patch"])
def test_models_with_linear_layers_are_exported_in_int8(tmp_path, name):
    make = {
        "toto2": tiny_toto2,
        "chronos2": lambda: Chronos2Model(test_chronos2.SMALL),
        "timesfm": lambda: TimesFMModel(test_timesfm.SMALL),
        "nhits": NhitsModel,
        "lstm": LstmModel,
        "patch": PatchTransformerModel,
    }[name]
    torch.manual_seed(0)
    model, path = make().eval(), tmp_path / "x.pt"
    parity = export(model, path, windows=random_context(40, 64), horizon=20, precision="int8")
    assert parity.against_same_precision <= 1e-4
    assert 0.0 < parity.against_float32 <= ROUNDING_BOUND["int8"]
    assert any(isinstance(part, Int8Linear) for part in quantised(model).modules())


def test_an_int8_layer_rounds_weights_by_output_and_inputs_by_row():
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, 0.504], [-254.0, 0.9]]))
        layer.bias.copy_(torch.tensor([1.0, 0.0]))
    # Steps of the weights are 0.01 and 2, of the row 2: 0.504 is 50 steps, 0.9 none; 127 and -3 it.
    found = Int8Linear(layer)(torch.tensor([[254.0, -5.8]]))
    wanted = torch.tensor([[127 * 127 * 0.02 - 50 * 3 * 0.02 + 1.0, -127 * 127 * 4.0]])
    torch.testing.assert_close(found, wanted)


@pytest.mark.long
def test_an_inductor_package_of_a_recurrent_model_takes_any_batch_and_past(tmp_path):
    model, path = tiny_tirex(), tmp_path / "tirex.pt2"
    export(model, path, windows=WINDOWS, horizon=8, precision="float32", format="aoti")
    artifact = load_artifact(path)
    for batch in BATCHES:
        context = gappy_context(batch)
        eager = model(context.close, horizon=8).sort(-1).values
        ours = artifact.forecast(context, 8).quantiles
        torch.testing.assert_close(ours, eager, rtol=1e-6, atol=1e-3)
    short = cut(random_context(3, seed=9), 20)
    eager = ModuleForecaster(model).forecast(short, 8).quantiles
    torch.testing.assert_close(artifact.forecast(short, 8).quantiles, eager, rtol=1e-6, atol=1e-3)


def cut(context: Context, length: int) -> Context:
    return Context(context.bars[:, -length:], context.timestamps[:, -length:])


SHORT = (9, 20, 33, 63)


@pytest.mark.parametrize("make", [TinyModel, load_prior, tiny_tirex, tiny_toto2])
def test_a_context_shorter_than_the_artefacts_is_forecast_as_the_model_forecasts_it(tmp_path, make):
    model, path = make(), tmp_path / "model.pt"
    export(model, path, windows=WINDOWS, horizon=8, precision="float32")
    artifact, whole = load_artifact(path), random_context(3, seed=9)
    for length in SHORT if model.card.min_context < 9 else (33, 63):
        context = cut(whole, length)
        eager = ModuleForecaster(model).forecast(context, 8).quantiles
        ours = artifact.forecast(context, 8).quantiles
        torch.testing.assert_close(ours, eager, rtol=1e-6, atol=1e-3)


def unpadded_tirex():
    return TiRexModel.random(tiny_tirex().config, 0, pad=False)


def tiny_toto():
    torch.manual_seed(0)
    sizes = {"patch_size": 16, "embed_dim": 32, "num_layers": 2, "num_heads": 2}
    return TotoModel(
        TotoConfig(**sizes, mlp_hidden_dim=48, spacewise_every_n_layers=2, k_components=3)
    ).eval()


@pytest.mark.parametrize(("make", "name"), [(unpadded_tirex, "tirex"), (tiny_toto, "Toto-Open")])
def test_a_context_that_cannot_be_padded_is_an_error_and_no_other_forecast(tmp_path, make, name):
    model, path = make(), tmp_path / "model.pt"
    export(model, path, windows=WINDOWS, horizon=8, precision="float32")
    artifact, context = load_artifact(path), cut(random_context(3), 20)
    told = f"{name}.* reads 64 bars, the context has 20, and missing bars .*: give 64 bars"
    with pytest.raises(ForecastError, match=told) as caught:
        artifact.forecast(context, 8)
    assert "\n" not in str(caught.value)
    whole = ModuleForecaster(model).forecast(random_context(3), 8).quantiles
    ours = artifact.forecast(random_context(3), 8).quantiles
    torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-3)


def test_an_artefact_forecasts_no_series_and_counts_closes_where_it_looks(tmp_path):
    path = tmp_path / "tirex.pt"
    export(tiny_tirex(), path, windows=cut(WINDOWS, 32), horizon=8, precision="float32")
    artifact = load_artifact(path)
    nothing = Context(*(part[:0] for part in random_context(2)))
    assert artifact.forecast(nothing, 5).quantiles.shape == (0, 5, 9)
    assert artifact.card.max_context == 32
    context = random_context(2)
    context.bars[1, -32:-3] = torch.nan
    with pytest.raises(ForecastError, match="series 1 of the context has 3"):
        artifact.forecast(context, 5)


def test_exporting_leaves_the_model_as_it_is_and_the_gate_is_not_fooled(tmp_path):
    model = TinyModel()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    half = export(model, tmp_path / "half.pt", windows=WINDOWS, horizon=8, precision="float16")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    export(model, tmp_path / "full.pt", windows=WINDOWS, horizon=8, precision="float32")
    context = random_context(3)
    full = load_artifact(tmp_path / "full.pt").forecast(context, 8).quantiles
    eager = ModuleForecaster(TinyModel()).forecast(context, 8).quantiles
    torch.testing.assert_close(full, eager, rtol=1e-6, atol=1e-4)
    again = export(model, tmp_path / "half.pt", windows=WINDOWS, horizon=8, precision="float16")
    assert again == half and half.against_float32 > 0


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(200)])
def test_what_is_no_artefact_is_named_the_same_in_python_and_on_the_command_line(
    suffix, content, tmp_path, capsys
):
    path = tmp_path / f"some{suffix}"
    path.write_bytes(content)
    with pytest.raises(ForecastError, match=f"some{suffix}: damaged") as caught:
        load_forecaster(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "show", "AAPL", "--forecaster", str(path)])
    assert ended.value.code == 2
    assert str(caught.value) in capsys.readouterr().err


def alter(path, change):
    """Rewrite an artefact's metadata."""
    extra = {"fastsim.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.load(path, _extra_files=extra)
        metadata = json.loads(extra["fastsim.json"])
        torch.jit.save(program, path, _extra_files={"fastsim.json": json.dumps(change(metadata))})


def without(name):
    return lambda metadata: {key: value for key, value in metadata.items() if key != name}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda metadata: metadata | {"format": 1}, "as format 1 of artefacts, not 2: export"),
        (lambda metadata: metadata | {"format": 99, "fastsim": "9.0"}, "by fastsim 9.0, as format"),
        (without("format"), "as format 1 of artefacts, not 2: export the model again"),
        (without("model"), "export the model again"),
        (without("takes_padding"), "export the model again"),
        (without("context_length"), "export the model again"),
        (lambda metadata: [1, 2], "made by fastsim something else"),
        (lambda metadata: metadata | {"model": {"name": "x"}}, "card of the model is damaged"),
        (lambda metadata: metadata | {"model": 3}, "card of the model is damaged"),
        (lambda metadata: metadata | {"horizon": 0}, "card of the model is damaged"),
    ],
)
def test_artefacts_of_other_versions_are_named_in_one_line(tmp_path, change, told):
    path = tmp_path / "tiny.pt"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32")
    alter(path, change)
    with pytest.raises(ForecastError, match=told) as caught:
        load_artifact(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "show", "AAPL", "--forecaster", str(path)])
    assert ended.value.code == 2


def test_a_program_that_fails_is_an_error_of_ours(tmp_path):
    path = tmp_path / "tirex.pt"
    export(tiny_tirex(), path, windows=WINDOWS, horizon=8, precision="float32")
    alter(path, lambda metadata: metadata | {"context_length": 40})
    with pytest.raises(ForecastError, match=r"artefact of tirex fails on 2 series") as caught:
        load_artifact(path).forecast(random_context(2), 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"precision": "float64"}, ConfigError, "precision must be one of .* got 'float64'"),
        ({"format": "tflite"}, ConfigError, "format must be one of torchscript, .* got 'tflite'"),
        ({"horizon": 0}, ForecastError, "1 to 32 bars ahead, not 0"),
        ({"horizon": 33}, ForecastError, "1 to 32 bars ahead, not 33"),
        ({"horizon": 2.5}, ForecastError, "1 to 32 bars ahead, not 2.5"),
        ({"windows": random_context(3)}, ForecastError, "needs 33 contexts, got 3"),
    ],
)
def test_wishes_that_no_artefact_can_fulfil_are_named(tmp_path, settings, error, told):
    wish = {"windows": WINDOWS, "horizon": 8, "precision": "float32"} | settings
    with pytest.raises(error, match=told):
        export(TinyModel(), tmp_path / "tiny.pt", **wish)
    folder = tmp_path / "folder.pt"
    folder.mkdir()
    with pytest.raises(ForecastError, match=r"folder\.pt is a folder"):
        export(TinyModel(), folder, windows=WINDOWS, horizon=8, precision="float32")
    assert list(tmp_path.iterdir()) == [folder]
