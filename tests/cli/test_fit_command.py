"""`fastsim forecast fit`."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastsim.cli import main, parse
from fastsim.cli.fit import FitCommand
from fastsim.forecast.registry import load_forecaster

FEW = ["--steps", "4", "--evaluate-every", "2", "--batch-size", "8", "--validation-windows", "40"]


def test_a_fit_is_made_told_of_and_named_by_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["forecast", "fit", "fastsim-prior", *FEW, "--data.num-assets", "2", "--mode", "head"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Wrote fits/fastsim-prior-head-us20: name it fit:fits/fastsim-prior-head-us20" in told
    assert "loss on validation" in told
    folder = tmp_path / "fits" / "fastsim-prior-head-us20"
    assert load_forecaster(f"fit:{folder}").card.name == folder.name
    assert json.loads((folder / "fit.json").read_text())["data"]["source"] == "us20"
    curves = EventAccumulator(str(folder / "tensorboard")).Reload()
    wanted = {"loss/train", "loss/validation", "time/epoch_seconds", "memory/peak_mib"}
    assert wanted <= set(curves.Tags()["scalars"])
    assert [event.step for event in curves.Scalars("loss/validation")] == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tirex2"], "forecaster 'tirex2' cannot be fitted; fastsim-prior"),
        (["fastsim-prior", "--data.end", "2000-04-01"], "no window for train: 63 bars hold"),
        (["fastsim-prior", "--simulated", "2"], "--simulated must be >= 0 and <= 1, got 2"),
        (
            ["fastsim-prior", "--data.source", "none"],
            "--simulated must be 1 where there are no bars",
        ),
        (["fastsim-prior", "--horizons", "5", "3"], "--horizons must be bars from 1 up"),
        (["fastsim-prior", "--horizons", "1", "65"], "fastsim-prior forecasts 1 to 64 bars ahead"),
        (["fit:nowhere"], "nowhere: no fit.json here"),
        (["fastsim-prior", "--dense"], "--dense must be false for fastsim-prior"),
        (["nhits", "--mode", "scratch", "--covariates", "huor"], "--covariates must be of hour"),
        (["nhits", "--mode", "scratch", "--architecture", "x"], "--architecture must be of sizes"),
        (["fastsim-prior", "--architecture", "x=1"], "--architecture is of a network from scratch"),
        (["chronos2", "--mode", "scratch"], "--mode of chronos-2 must be one of full, head, lora"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "fit", *arguments])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_folder_that_holds_a_fit_is_not_written_over(tmp_path, capsys):
    (tmp_path / "fit.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["forecast", "fit", "fastsim-prior", "--out", str(tmp_path)])
    assert "holds a fit already" in capsys.readouterr().err


def test_who_is_stopped_is_told_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastsim.cli.fit.fit", stopped)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "fit", "fastsim-prior", "--out", str(tmp_path / "x")])
    assert ended.value.code == 130
    assert "the same command goes on from the last validation" in capsys.readouterr().err


def test_settings_reach_the_fit():
    arguments = ["forecast", "fit", "fastsim-prior", "--centre", "fitted", "--split.apart"]
    command = parse(arguments).action
    assert isinstance(command, FitCommand)
    assert command.fit.centre == "fitted" and command.fit.split.apart


def test_one_season_is_for_every_mode():
    arguments = ["forecast", "fit", "fastsim-prior", "--season", "America/New_York"]
    assert parse(arguments).action.fit.season == "America/New_York"
    for mode in ("volatility", "lora"):
        assert parse([*arguments, "--mode", mode]).action.fit.mode == mode


def test_tirex_of_any_size_and_networks_with_covariates_are_made_from_scratch(tmp_path, capsys):
    few = [*FEW, "--mode", "scratch", "--data.num-assets", "2", "--horizons", "1", "5"]
    sizes = ["blocks=1", "width=16", "heads=2", "block_hidden=64", "embedding_hidden=16"]
    more = {
        "tirex": ["--architecture", *sizes, "context=512", "--dense", "--centre", "fitted"],
        "nhits": ["--covariates", "weekday,parkinson,volume", "--architecture", "hidden=8"],
    }
    for model, given in more.items():
        main(["forecast", "fit", model, *few, *given, "--out", str(tmp_path / model)])
        about = json.loads((tmp_path / model / "fit.json").read_text())
        assert about["network"] == model
        assert load_forecaster(f"fit:{tmp_path / model}").card.max_horizon == 5
    assert about["settings"]["covariates"] == ["weekday", "parkinson", "volume"]
    assert (tmp_path / "tirex" / "model.ckpt").exists()
    assert "Wrote" in capsys.readouterr().out


def test_too_little_memory_is_one_line_with_what_to_make_smaller(tmp_path, monkeypatch, capsys):
    def short(loop, batches):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr("fastsim.forecast.training.loop.Loop.learn", short)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "fit", "fastsim-prior", *FEW, "--out", str(tmp_path / "x")])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "can't allocate memory" in told and "--batch-size" in told
    assert not (tmp_path / "x" / "fit.json").exists()
