"""`fastsim forecast tune`."""

import json

import pytest

from fastsim.cli import main, parse
from fastsim.cli.tune import TuneCommand
from fastsim.forecast.registry import load_forecaster

FEW = ["--steps", "4", "--evaluate-every", "2", "--batch-size", "8", "--validation-windows", "40"]
SMALL = [*FEW, "--data.num-assets", "2", "--data.end", "2003-12-31", "--mode", "head"]


def test_a_search_is_made_told_of_and_named_by_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("learning_rate: {log: [1e-4, 1e-2]}\nbatch_size: [4, 8]\n")
    command = ["forecast", "tune", "fastsim-prior", *SMALL, "--trials", "3"]
    main([*command, "--space", "space.yaml"])
    told = " ".join(capsys.readouterr().out.split())
    folder = tmp_path / "fits" / "fastsim-prior-head-us20-tuned"
    assert "The best of 3 trials" in told and "Best of 3 trials" in told
    assert "which no trial saw" in told and f"name it fit:{folder.relative_to(tmp_path)}" in told
    about = json.loads((folder / "fit.json").read_text())
    assert about["trials"] == 3 and set(about["tuned"]["values"]) == {"learning_rate", "batch_size"}
    assert about["config"]["batch_size"] == about["tuned"]["values"]["batch_size"]
    assert about["tuned"]["final"]["start"] > about["known_until"]
    loaded = load_forecaster(f"fit:{folder}")
    assert loaded.card.trials == 3
    main(["forecast", "show", "AAPL", "--forecaster", f"fit:{folder}"])
    assert "best of 3 trials on validation" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials must be >= 1, got 0"),
        (["--workers", "0"], "--workers must be >= 1, got 0"),
        (["--test", "0"], "--test must be > 0 and <= 0.9, got 0"),
        (["--test-start", "soon"], "--test-start must be an ISO date"),
        (["--test-start", "2031-01-01"], "leave none for one of the parts"),
        (["--space", "none.yaml"], "none.yaml: no such configuration file"),
        (["--data.source", "none", "--simulated", "1"], "a search is judged by bars"),
        (["--mode", "volatility"], "--mode of fastsim-prior must be one of"),
    ],
)
def test_what_cannot_be_searched_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "tune", "fastsim-prior", *arguments])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (tmp_path / "fits").exists()


def test_settings_reach_the_search():
    arguments = ["forecast", "tune", "nhits", "--mode", "scratch", "--trials", "7"]
    command = parse([*arguments, "--workers", "2", "--no-prune"]).action
    assert isinstance(command, TuneCommand)
    assert (command.search.trials, command.search.workers, command.search.prune) == (7, 2, False)
    assert command.fit.mode == "scratch"


def test_scores_of_the_best_of_several_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["forecast", "tune", "fastsim-prior", *SMALL, "--trials", "2", "--out", "best"])
    source = ["--data.num-assets", "2", "--data.start", "2010-01-01", "--step", "400"]
    main(["forecast", "evaluate", "--forecaster", "fit:best", *source, "--json", "x.json"])
    told = " ".join(capsys.readouterr().out.split())
    assert "best of 2 trials" in told and "It is the best of 2 trials on validation" in told
    record = json.loads((tmp_path / "x.json").read_text())
    trials = {each["name"]: each["trials"] for each in record["forecasters"]}
    assert trials["best"] == 2 and trials["random-walk-60"] == 1
