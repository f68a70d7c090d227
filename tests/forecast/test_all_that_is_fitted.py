"""All that is fitted is like others: by name, key, ensemble, tape, agent and artefact."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasters import random_context
from test_fit import SMALL, bars_of, planted

from fastsim.agent.artifact import _kept
from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.artifacts.formats import SUFFIX
from fastsim.forecast.correction.fit import fit_correction
from fastsim.forecast.correction.folder import save_correction
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)
from fastsim.forecast.recalibration.fit import fit_recalibration
from fastsim.forecast.recalibration.folder import save_recalibration
from fastsim.forecast.registry import load_ensemble, load_forecaster, load_network
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.network import SeasonalModel
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import write_season
from fastsim.forecast.tape import build_forecast_tape
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import save_fit
from fastsim.market.tape import make_tape
from fastsim.progress import SILENT

NETWORKS = {
    "nhits": lambda: NhitsModel(NhitsConfig(hidden=8)),
    "lstm": lambda: LstmModel(LstmConfig(hidden=8, patch=8)),
    "patch-transformer": lambda: PatchTransformerModel(
        PatchTransformerConfig(width=8, heads=2, layers=1, hidden=8, patch=32)
    ),
}
AROUND = ("corrected", "recalibrated")
"""What is fitted around a forecaster: what season is there by then is its own."""
NAMES = (*NETWORKS, "head", "lora", *AROUND)
HORIZONS = (1, 3)


@pytest.fixture(scope="module")
def bars():
    return bars_of(planted(420, 3)[0])


@pytest.fixture(scope="module")
def fitted(bars, tmp_path_factory):
    """Names of forecasters, each of a folder of its own."""
    folder, names = tmp_path_factory.mktemp("fits"), {}
    for name in NAMES:
        if name == "corrected":
            walk = ModuleForecaster(load_prior())
            found = fit_correction(walk, bars, horizons=HORIZONS, context=128, name=name)
            # What did not come of so few bars is put in by hand.
            found.corrected.correction.weights.normal_(std=0.02)
            save_correction(found, folder / name, base="fastsim-prior", path=None, source="")
            names[name] = f"corrected:{folder / name}"
            continue
        if name == "recalibrated":
            right = fit_recalibration(
                ModuleForecaster(load_prior()), bars, horizons=HORIZONS, context=128, name=name
            )
            right.recalibrated.levels.maps.mul_(1.2)
            save_recalibration(right, folder / name, base="fastsim-prior", path=None, source="")
            names[name] = f"recalibrated:{folder / name}"
            continue
        mode = "scratch" if name in NETWORKS else name
        config = replace(SMALL, mode=mode, steps=4, evaluate_every=2, horizons=HORIZONS)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = NETWORKS[name]() if name in NETWORKS else load_prior()
        result = fit(model, bars, config, name=name, progress=SILENT)
        save_fit(result, folder / name, config)
        names[name] = f"fit:{folder / name}"
    return names


def test_each_has_a_key_of_its_own_and_a_season_around_it_another(fitted, tmp_path):
    keys = {load_forecaster(name).key for name in fitted.values()}
    write_season(Season("UTC", torch.ones(170).double() * 2.0), tmp_path / "season.json")
    for season in ("UTC", "America/New_York", str(tmp_path / "season.json")):
        around = [load_ensemble([name], season=season) for name in fitted.values()]
        keys |= {each.key for each in around if isinstance(each, Seasonal)}
    assert len(keys) == len(NAMES) + 3 * (len(NAMES) - len(AROUND))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_in_ensembles_and_tables(fitted, bars, tmp_path, name):
    both = Ensemble([load_forecaster(fitted[name]), trailing_random_walk()], [0.7, 0.3])
    market = make_tape(bars.take(slice(280, 420)))
    told = build_forecast_tape(market, both, tmp_path, horizons=HORIZONS, progress=SILENT)
    assert bool(told.values[-1].isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_along_with_an_agent_under_its_key(fitted, tmp_path, name):
    spelled = fitted[name]
    head, _, path = spelled.partition(":")
    shutil.copytree(path, tmp_path / "here" / name)
    key = load_forecaster(spelled).key
    kept = _kept(f"{head}:{tmp_path / 'here' / name}", tmp_path / "agent")
    shutil.rmtree(tmp_path / "here")
    assert kept == f"{head}:forecaster/{name}"
    assert load_forecaster(f"{head}:{tmp_path / 'agent' / 'forecaster' / name}").key == key


def windows(bars, length=100):
    closes = torch.from_numpy(bars.close.T.copy()).unfold(1, length, 7).flatten(0, 1)[:40].float()
    stamps = 3_600 * torch.arange(length).expand(len(closes), -1)
    return Context(closes[..., None].expand(-1, -1, 6).contiguous(), stamps)


@pytest.mark.parametrize("season", [None, "UTC"])
@pytest.mark.parametrize(
    ("name", "format"),
    [
        *((name, "torchscript") for name in NAMES),
        *(pytest.param(name, "onnx", marks=pytest.mark.long) for name in NAMES),
    ],
)
def test_each_exports_and_says_the_same(fitted, bars, tmp_path, name, format, season):
    if name in AROUND and season is not None:
        pytest.skip("it has a season of its own")
    model, context = load_network(fitted[name]), windows(bars)
    if season is not None:
        model = SeasonalModel(model, Season(season))
    path = tmp_path / f"x{SUFFIX[format]}"
    wish = {"windows": context, "horizon": 3, "precision": "float32", "format": format}
    if (name, format) == ("recalibrated", "onnx"):  # ONNX has no quantiles of a normal
        with pytest.raises(ForecastError, match="recalibrated cannot be exported as onnx"):
            export(model, path, **wish)
        assert not path.exists()
        return
    export(model, path, **wish)
    asked = load_ensemble([fitted[name]], season=season or "none")
    few = Context(*(part[5:9] for part in context))
    found, wanted = (one.forecast(few, 3).quantiles for one in (load_artifact(path), asked))
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_exported_in_int8_as_well(fitted, bars, tmp_path, name):
    model, path = load_network(fitted[name]), tmp_path / "x.pt"
    parity = export(model, path, windows=windows(bars), horizon=3, precision="int8")
    assert 0.0 < parity.against_float32 <= 0.3


def test_a_correction_of_what_is_no_network_is_refused_by_name(bars, tmp_path):
    found = fit_correction(trailing_random_walk(), bars, horizons=HORIZONS, context=128, name="w")
    save_correction(found, tmp_path / "w", base="random-walk-60", path=None, source="")
    with pytest.raises(ForecastError, match="random-walk-60 is no network"):
        load_network(f"corrected:{tmp_path / 'w'}")


@pytest.mark.parametrize("name", AROUND)
def test_what_is_around_says_as_a_network_what_it_says_as_a_forecaster(fitted, name):
    context = random_context(6, 128)
    hours = Context(context.bars, context.timestamps // 24)
    for each in (context, hours):
        asked = load_forecaster(fitted[name]).forecast(each, 3)
        found = ModuleForecaster(load_network(fitted[name])).forecast(each, 3)
        torch.testing.assert_close(found.quantiles, asked.quantiles, rtol=1e-6, atol=0.0)
    plain = ModuleForecaster(load_prior()).forecast(context, 3)
    assert not np.allclose(plain.quantiles, asked.quantiles, rtol=1e-4)
