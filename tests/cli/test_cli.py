"""The command line: what a person types, and what they are told when it is wrong."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console

from fastsim.cli import main, parse
from fastsim.config import load_yaml
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.forecast.features import ForecastConfig
from fastsim.progress import ProgressBars

SHORT = [
    *("--data.start", "2013-01-01", "--data.end", "2016-12-30"),
    *("--validation-start", "2016-01-01", "--test-start", "2016-07-01"),
    *("--evaluations", "2", "--policy.hidden", "8", "--collect.rollout-steps", "8"),
]
TINY = [
    *("--data.symbols", "AAPL", "KO", "PG", *SHORT),
    *("--total-steps", "256", "--collect.num-envs", "8"),
]


def train(folder: Path, *options: str) -> None:
    main(["train", "--runs-dir", str(folder), *TINY, *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "--name", "first")
    return folder / "first"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_run_leaves_everything_an_owner_wants(run):
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "report.html",
        "checkpoints/best.pt",
        "checkpoints/latest.pt",
        "curves/equity.parquet",
        "curves/weights.parquet",
        "curves/costs.parquet",
    } <= left
    assert any(name.startswith("tensorboard/events") for name in left)
    equity = pl.read_parquet(run / "curves" / "equity.parquet")
    assert set(equity["strategy"]) == {
        "agent",
        "equal weight",
        "buy and hold",
        "AAPL",
        "KO",
        "PG",
    }


def test_forecasts_are_observations_by_default_and_can_be_left_out(run):
    config = load_yaml(TrainConfig, run / "config.yaml")
    having = load_markets(config).train
    lacking = load_markets(replace(config, forecaster="none")).train
    added = set(having.feature_names) - set(lacking.feature_names)
    assert added == {
        *(f"scaled_forecast_return_{h}" for h in (1, 5, 21)),
        *(f"scaled_forecast_dispersion_{h}" for h in (1, 5, 21)),
        *(f"forecast_rise_{h}" for h in (1, 5, 21)),
    }
    forecasts = having.known.features[having.first :, :, -9:]
    assert (forecasts.std(0) > 0).all()


def test_weights_of_an_ensemble_can_be_fitted_on_the_validation_bars(run):
    config = load_yaml(TrainConfig, run / "config.yaml")
    twins = replace(
        config, forecaster="fastsim-prior,fastsim-prior", forecast=ForecastConfig(weights="fit")
    )
    told = Console(record=True, width=100)
    fitted = load_markets(twins, progress=ProgressBars(told)).train.known.features
    assert "Fitted weights: 0.500 fastsim-prior, 0.500 fastsim-prior" in told.export_text()
    torch.testing.assert_close(fitted, load_markets(config).train.known.features)


def test_training_ends_with_the_table_and_the_verdict(tmp_path, capsys):
    train(tmp_path, "--name", "told")
    told = capsys.readouterr().out
    for words in (
        "agent",
        "equal weight",
        "buy and hold",
        "single asset, mean",
        "Sharpe ratio of agent minus that of equal weight",
        "95% bootstrap interval",
        "report.html",
    ):
        assert words in told


def test_the_configuration_of_a_run_repeats_it(run, tmp_path):
    config = ["--config", str(run / "config.yaml")]
    main(["train", *config, "--runs-dir", str(tmp_path), "--name", "again"])
    again = tmp_path / "again"
    for name in ("equity", "weights", "costs"):
        path = Path("curves") / f"{name}.parquet"
        assert pl.read_parquet(run / path).equals(pl.read_parquet(again / path))


def test_options_override_the_configuration(run, tmp_path):
    config = ["--config", str(run / "config.yaml"), "--seed", "3"]
    main(["train", *config, "--runs-dir", str(tmp_path), "--name", "other"])
    first, other = (
        load_yaml(TrainConfig, folder / "config.yaml") for folder in (run, tmp_path / "other")
    )
    assert other.seed == 3
    assert other.ppo == first.ppo


def test_a_finished_run_can_be_evaluated_on_other_bars(run, capsys):
    main(["evaluate", str(run), "--part", "validation"])
    told = capsys.readouterr().out
    assert "2016-01-04 to 2016-06-30" in told
    assert "the agent or its selection has seen them" in told
    assert (run / "report-validation.html").exists()


def test_a_run_that_was_moved_with_its_forecasts_needs_no_new_ones(run, tmp_path, monkeypatch):
    shutil.copytree(run.parent, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    tables = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert tables
    main(["evaluate", "moved/first"])
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert after == tables


def test_data_can_be_listed_checked_and_kept(tmp_path, capsys):
    main(["data", "list"])
    told = capsys.readouterr().out
    assert "us20" in told
    assert "5,785 bars of 20 symbols" in told
    main(["data", "check", "tech4", "--out", str(tmp_path / "tech4.parquet")])
    main(["data", "check", str(tmp_path / "tech4.parquet")])
    assert capsys.readouterr().out.count("2,148 bars of 4 symbols") == 2


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["data", "check", "nowhere.csv"], "nowhere.csv"),
        (["data", "check", "us21"], "us21"),
        (["evaluate", "nowhere"], "nowhere/config.yaml"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--resume", "nowhere"], "nowhere/config.yaml"),
        (["train", "--resume", "nowhere", "--seed", "1"], "--resume"),
        (["train", "--test-start", "2050-01-01"], "2050-01-01"),
        (["train", "--test-start", "2001-01-01"], "2001-01-01"),
        (["train", "--validation-start", "soon"], "soon"),
        (["train", "--device", "cuda"], "cuda"),
        (["train", "--data.symbols", "TSLA"], "TSLA"),
        (["train", "--data.source", "us21"], "us21"),
        (["train", "--tape.fill", "next_open"], "next_open"),
        (["train", "--env.episode.horizon", "9999"], "9999"),
        (["train", "--data.start", "2013-12-01"], "longer span"),
        (["train", "--num-envs", "0"], "--collect.num-envs must be >= 1, got 0"),
        (["train", "--num-envs", "2.5"], "--collect.num-envs must be a whole number, got 2.5"),
        (["train", "--ppo.epochs", "many"], "--ppo.epochs must be a whole number, got 'many'"),
        (["train", "--env.episode.horizon", "2.5"], "--env.episode.horizon must be a whole number"),
        (["train", "--env.costs.fee-bps", "nan"], "--env.costs.fee-bps must be >= 0 and <= 1000"),
        (["train", "--total_timesteps=1"], "--total-steps must be >= 16384, got 1"),
        (["train", "--num-assets", "21"], "num_assets = 21 is more than the 20 symbols"),
        (["ablate", "--num-assets", "0"], "--data.num-assets must be >= 1, got 0"),
        (["ablate", "--seeds", "1.5"], "--seeds must be a whole number, got 1.5"),
        (["train", "--num-assets", "2", "--data.symbols", "KO"], "give one of them"),
        (["train", "--weights", "1", "--forecast.weights=1"], "one setting: give one of them"),
        (["train", "--worlds.model", "arima"], "there are gbm, heston, merton"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(
    arguments, culprit, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    told = refused(arguments, capsys)
    assert told.startswith("fastsim: ")
    assert told.count("\n") == 1
    assert culprit in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "culprit"),
    [
        ("--total-steps", "1", "--total-steps"),
        ("--seed", "-1", "seed"),
        ("--name", "a/b", "name"),
        ("--env.autoreset", "same_step", "next_step"),
        ("--collect.num-envs", "0", "--collect.num-envs"),
        ("--collect.rollout-steps", "0", "--collect.rollout-steps"),
        ("--ppo.learning-rate", "0", "--ppo.learning-rate"),
        ("--ppo.discount", "1.5", "discount"),
        ("--ppo.trace", "-1", "trace"),
        ("--ppo.clip", "0", "clip"),
        ("--ppo.minibatches", "100000", "minibatches"),
        ("--ppo.target-kl", "-1", "--ppo.target-kl"),
        ("--ppo.schedule", "rising", "rising"),
        ("--policy.hidden", "0", "hidden"),
        ("--policy.initial-std", "0", "--policy.initial-std"),
        ("--env.costs.fee-bps", "nan", "--env.costs.fee-bps"),
        ("--no-such-option", "1", "no-such-option"),
    ],
)
def test_a_wrong_option_is_named(option, value, culprit, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert culprit in refused(["train", option, value], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "mapping"),
        ("[1, 2]", "mapping"),
        ("seed: {", "YAML"),
        ("sed: 1", "sed"),
        ("seed: one", "seed"),
        ("ppo: {clip: wide}", "wide"),
        ("env: {costs: {fee_bps: -1}}", "env.costs.fee_bps must be"),
        ("data: {symbols: AAPL}", "symbols"),
    ],
)
def test_a_wrong_configuration_file_is_named_in_one_line(text, culprit, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    told = refused(["train", "--config", str(path)], capsys)
    assert "mine.yaml" in told
    assert culprit in told
    assert told.count("\n") == 1


def test_spellings_that_users_bring_are_understood(tmp_path, capsys):
    brought = ["--num-envs", "8", "--num_assets=3", "--total-timesteps", "256"]
    ours = ["--collect.num-envs", "8", "--data.num-assets", "3", "--total-steps", "256"]
    for command in ("train", "ablate"):
        assert parse([command, *brought]).run == parse([command, *ours]).run
    assert parse(["train", *brought]).run.data.num_assets == 3
    assert capsys.readouterr().err == ""
    main(["train", "--runs-dir", str(tmp_path), "--name", "mine", *SHORT, *brought])
    curves = pl.read_parquet(tmp_path / "mine" / "curves" / "equity.parquet")
    assert set(curves["strategy"]) == {
        "agent",
        "equal weight",
        "buy and hold",
        "AAPL",
        "AMD",
        "BAC",
    }


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_the_old_name_of_an_ensembles_weights_works_and_says_the_new_one(command, capsys):
    assert parse([command, "--weights", "0.4,0.6"]).run.forecast.weights == "0.4,0.6"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastsim: --weights is now --forecast.weights")
    assert parse([command, "--forecast.weights", "0.4,0.6"]).run.forecast.weights == "0.4,0.6"
    assert capsys.readouterr().err == ""


def test_weights_of_a_single_forecast_are_its_own_option(capsys):
    arguments = ["forecast", "show", "KO", "--weights", "0.4,0.6"]
    assert parse(arguments).action.weights == "0.4,0.6"
    assert capsys.readouterr().err == ""


def test_what_tyro_says_itself_it_still_says(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--help"])
    assert "--collect.num-envs" in capsys.readouterr().out
    assert "--nope" in refused(["train", "--nope"], capsys)


def test_a_run_goes_on_from_where_it_stopped(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "first")
    before = pl.read_parquet(run / "curves" / "equity.parquet")
    main(["train", "--resume", str(tmp_path / "first")])
    assert pl.read_parquet(tmp_path / "first" / "curves" / "equity.parquet").equals(before)


def test_the_program_ends_without_a_word_whatever_it_has_loaded(tmp_path):
    code = "import triton._C.libtriton, runpy; runpy.run_module('fastsim', run_name='__main__')"
    pytest.importorskip("triton")
    command = [sys.executable, "-c", code, "data", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "us20" in done.stdout and done.stderr == ""
