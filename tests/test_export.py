"""An artefact agrees with its model, or is not written."""

import json
import subprocess
import sys

import pytest
import torch
from forecasters import TinyModel, random_context

from fastsim.errors import ForecastError
from fastsim.forecast.export import export, load_artifact
from fastsim.forecast.interface import ModuleForecaster

WINDOWS = random_context(40)


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


def test_artefacts_of_other_weights_have_other_keys(tmp_path):
    keys = set()
    for seed in (0, 1):
        path = tmp_path / f"{seed}.pt"
        export(TinyModel(seed), path, windows=WINDOWS, horizon=8, precision="float32")
        keys.add(load_artifact(path).key)
    assert len(keys) == 2


class Forgetful(TinyModel):
    """Bakes the batch of the trace into the artefact: right at that size alone."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        if torch.jit.is_tracing():
            return quantiles + 1.0
        return quantiles


class Fragile(TinyModel):
    """Loses its spread in half precision."""

    def forward(self, *inputs, horizon):
        quantiles = super().forward(*inputs, horizon=horizon)
        return quantiles if self.layer.weight.dtype == torch.float32 else quantiles * 1.1


@pytest.mark.parametrize(
    ("model", "precision"), [(Forgetful(), "float32"), (Fragile(), "bfloat16")]
)
def test_an_artefact_that_disagrees_is_not_written(tmp_path, model, precision):
    with pytest.raises(ForecastError, match="was not written"):
        export(model, tmp_path / "bad.pt", windows=WINDOWS, horizon=8, precision=precision)
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_neither_the_models_code_nor_the_hub(tmp_path):
    path = tmp_path / "tiny.pt"
    export(TinyModel(), path, windows=WINDOWS, horizon=8, precision="float32")
    code = (
        "import sys; from pathlib import Path;"
        "from fastsim.forecast.export import load_artifact;"
        f"print(load_artifact(Path({str(path)!r})).card.name);"
        "assert 'forecasters' not in sys.modules and 'huggingface_hub' not in sys.modules"
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
