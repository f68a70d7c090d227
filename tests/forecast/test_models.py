"""Forecasters by name: what is known of them, and what happens without their weights."""

import pytest
import torch
from safetensors.torch import save_file

from fastsim.cli import main
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.known import FORECASTERS, MODELS
from fastsim.forecast.registry import (
    load_ensemble,
    load_forecaster,
    parse_names,
    parse_weights,
    random_model,
)

FOREIGN = [model.name for model in MODELS if model.card.hub_id is not None]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """No network, and a cache of the hub that is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", FOREIGN)
def test_without_weights_a_model_is_an_error_that_says_how_to_get_them(name, offline):
    with pytest.raises(ForecastError, match="hf download") as caught:
        load_forecaster(name)
    assert FORECASTERS[name].card.hub_id in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_missing_local_file_is_named(name, tmp_path):
    with pytest.raises(ForecastError, match="nowhere"):
        load_forecaster(name, path=tmp_path / "nowhere")


@pytest.mark.parametrize("name", sorted(set(FOREIGN) - {"kronos-base", "timesfm"}))
def test_every_model_has_the_parameters_that_its_card_says(name):
    model = random_model(name)
    assert sum(weight.numel() for weight in model.parameters()) == FORECASTERS[name].card.parameters


def test_the_default_needs_no_hub(offline):
    forecaster = load_forecaster("fastsim-prior")
    assert isinstance(forecaster, ModuleForecaster)
    weights = sum(weight.nbytes for weight in forecaster.model.state_dict().values())
    assert weights < 2_000_000


def test_names_and_weights_are_read_as_typed():
    assert parse_names("tirex, toto,kronos") == ("tirex", "toto", "kronos")
    assert parse_names("none") == ()
    assert parse_names("my/tirex-float16.pt") == ("my/tirex-float16.pt",)
    assert parse_weights("0.4,0.4,0.2") == (0.4, 0.4, 0.2)
    assert parse_weights("") is None
    for wrong in ("tirx", "", ","):
        with pytest.raises(ConfigError):
            parse_names(wrong)
    with pytest.raises(ConfigError, match="two"):
        parse_weights("1,two")
    with pytest.raises(ConfigError, match="2 weights"):
        load_ensemble(["fastsim-prior", "fastsim-prior"], [1.0])


def test_other_weights_of_one_model_have_another_key(tmp_path):
    shipped = load_forecaster("fastsim-prior")
    state = {name: weight.clone() for name, weight in shipped.model.state_dict().items()}
    name = next(name for name, weight in state.items() if weight.is_floating_point())
    state[name] += 1e-3
    save_file(state, tmp_path / "prior.safetensors")
    other = load_forecaster("fastsim-prior", path=tmp_path / "prior.safetensors")
    assert shipped.key != other.key
    assert shipped.key == load_forecaster("fastsim-prior").key


def test_several_names_are_an_ensemble():
    forecaster = load_ensemble(["fastsim-prior", "fastsim-prior"], [3.0, 1.0])
    assert isinstance(forecaster, Ensemble)
    assert forecaster.weights == (0.75, 0.25)


def test_models_are_listed_with_licence_size_and_place(capsys):
    main(["models"])
    told = capsys.readouterr().out
    for words in ("fastsim-prior", "35,291,200", "Apache-2.0", "in the package", "NXAI"):
        assert words in told


def test_an_asset_can_be_forecast_and_plotted(capsys, tmp_path):
    page = tmp_path / "fan.html"
    main(["forecast", "show", "AAPL", "--date", "2020-03-02", "--plot", str(page)])
    told = capsys.readouterr().out
    assert "AAPL from 2020-03-02" in told
    assert "Probability of a rise" in told
    assert "median" in page.read_text()


def test_forecasters_are_scored_beside_random_walks(capsys):
    main(["forecast", "evaluate", "--source", "tech4", "--step", "200", "--horizons", "1", "5"])
    told = capsys.readouterr().out
    assert "fastsim-prior" in told
    assert "random-walk-60" in told


def test_the_default_is_exported_and_read_back(capsys, tmp_path):
    path = tmp_path / "prior.pt"
    main(["export", "fastsim-prior", "--out", str(path), "--precision", "bfloat16"])
    assert "Wrote" in capsys.readouterr().out
    assert load_forecaster(str(path)).card.name == "fastsim-prior"
    assert (tmp_path / "prior.pt.json").exists()


def test_an_artefact_of_weights_by_path_is_called_by_its_model(tmp_path, monkeypatch):
    weights = tmp_path / "elsewhere" / "mine.safetensors"
    weights.parent.mkdir()
    save_file(load_forecaster("fastsim-prior").model.state_dict(), weights)
    monkeypatch.chdir(tmp_path)
    main(["export", f"fastsim-prior:{weights}", "--precision", "float32"])
    assert load_forecaster("fastsim-prior-float32.pt").card.name == "fastsim-prior"
    assert [path.name for path in weights.parent.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["forecast", "show", "TSLA"], "TSLA"),
        (["forecast", "show", "AAPL", "--date", "soon"], "soon"),
        (["forecast", "show", "AAPL", "--date", "1999-01-01"], "1999-01-01"),
        (["forecast", "show", "AAPL", "--horizon", "0"], "not 0"),
        (["forecast", "show", "AAPL", "--horizon", "65"], "not 65"),
        (["forecast", "show", "AAPL", "--forecaster", "arima"], "arima"),
        (["export", "arima"], "arima"),
        (["forecast", "show", "AAPL", "--horizon", "1.5"], "whole number, got 1.5"),
        (["forecast", "show", "AAPL", "--horizon", "-1"], "not -1"),
        (["forecast", "show", "AAPL", "--context", "0"], "--context must be >= 1, got 0"),
        (["forecast", "show", "AAPL", "--context", "10"], "has 10: leave it out"),
        (["forecast", "show", "AAPL", "--weights", "1,2"], "1 forecasters need 1 weights, got 2"),
        (["forecast", "show", "AAPL", "--weights", "-1"], "weights must be >= 0"),
        (["forecast", "show", "AAPL", "--forecaster", "none"], "at least one member"),
        (["forecast", "show", "AAPL", "--forecaster", "x/tirex.pt2"], "no such artefact"),
        (["forecast", "show", "AAPL", "--plot", "."], "plot must be a file to write"),
        (["forecast", "show", "AAPL", "--implementation", "official"], "only of tirex"),
        (["export", "fastsim-prior", "--out", "prior.bin"], "prior.bin"),
        (["export", "fastsim-prior", "--horizon", "0"], "1 to 64 bars ahead, not 0"),
        (["export", "fastsim-prior", "--horizon", "65"], "1 to 64 bars ahead, not 65"),
        (["export", "fastsim-prior", "--context", "0"], "reads 32 to 512 bars, not 0"),
        (["export", "fastsim-prior", "--context", "513"], "reads 32 to 512 bars, not 513"),
        (["export", "fastsim-prior", "--context", "64.5"], "whole number, got 64.5"),
        (["export", "random-walk-60"], "random-walk-60 is no network"),
        (["export", "prior.pt"], "prior.pt is no network"),
        (["train", "--forecast.weights", "1,-1", "--forecaster", "theta,theta"], "must be >= 0"),
        (["train", "--forecast.horizons", "1", "1"], "different whole numbers"),
        (["train", "--forecast.horizons", "0"], "different whole numbers"),
        (["train", "--forecaster", "tirex:/nowhere"], "no weights at /nowhere"),
        (["train", "--forecaster", "arima"], "arima"),
        (["train", "--weights", "one"], "one"),
        (["train", "--weights", "1,2"], "1 weights"),
        (["ablate", "--seeds", "1"], "2"),
        (["ablate", "--forecaster", "none"], "no forecaster"),
    ],
)
def test_wrong_requests_are_named(arguments, culprit, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert culprit in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nothing_is_predicted_by_random_weights_unless_they_are_asked_for():
    with pytest.raises(ForecastError, match="ships with its weights"):
        random_model("fastsim-prior")
    assert isinstance(
        random_model("toto2-4m").forward(torch.rand(1, 64) + 1, horizon=3), torch.Tensor
    )
