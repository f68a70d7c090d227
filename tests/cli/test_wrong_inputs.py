"""Whatever is wrong on the command line is one line that names it, and nothing is left behind."""

import shlex
import shutil
from pathlib import Path

import pytest

from fastsim.cli import main
from fastsim.config import load_yaml
from fastsim.experiment.config import TrainConfig

DATA = ["--data.start", "2014-01-01", "--data.end", "2016-12-30", "--data.symbols", "AAPL", "KO"]
SPLIT = ["--validation-start", "2016-10-01", "--test-start", "2016-11-15"]
TINY = ["--policy.hidden", "8", "--num-envs", "8", "--collect.rollout-steps", "8"]
SHORT = [*DATA, *SPLIT, *TINY, "--total-steps", "64", "--evaluations", "1", "--forecaster", "none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one in it, whose name has blanks."""
    folder = tmp_path_factory.mktemp("runs")
    main(["train", "--runs-dir", str(folder), "--name", "a run", *SHORT])
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch, capsys) -> Path:
    """Where a person stands: runs, good and bad, and files of bars."""
    shutil.copytree(trained / "a run", tmp_path / "a run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "bars.csv").write_text("timestamp,symbol,close\n2020-01-01,KO,1\n2020-01-02,KO,2\n")
    (tmp_path / "text.csv").write_text("this is no table\n")
    (tmp_path / "bytes.parquet").write_bytes(b"PAR1 not")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, part in (
        ("no config", "config.yaml"),
        ("no policy", "agent/policy/spec.json"),
        ("no weights", "agent/policy/weights.safetensors"),
        ("no checkpoint", "checkpoints/latest.pt"),
    ):
        shutil.copytree(tmp_path / "a run", tmp_path / name)
        (tmp_path / name / part).unlink()
    for name, part, content in (
        ("bad config", "config.yaml", b"seed: {"),
        ("old config", "config.yaml", b"sed: 1"),
        ("binary config", "config.yaml", b"\x00\xff"),
        ("bad spec", "agent/policy/spec.json", b"{"),
        ("foreign spec", "agent/policy/spec.json", b'{"symbols": 3}'),
        ("bad weights", "agent/policy/weights.safetensors", b"weights"),
        ("bad checkpoint", "checkpoints/latest.pt", b"checkpoint"),
        ("empty checkpoint", "checkpoints/latest.pt", b""),
    ):
        shutil.copytree(tmp_path / "a run", tmp_path / name)
        (tmp_path / name / part).write_bytes(content)
    other = load_yaml(TrainConfig, tmp_path / "a run" / "config.yaml")
    shutil.copytree(tmp_path / "a run", tmp_path / "other assets")
    text = (tmp_path / "a run" / "config.yaml").read_text().replace("- KO", "- PG")
    (tmp_path / "other assets" / "config.yaml").write_text(text)
    assert other.data.symbols == ("AAPL", "KO")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRONG = [
    # train
    ("train --resume nowhere", "nowhere/config.yaml: no such"),
    ("train --resume", "--resume needs a path"),
    ("train --resume --seed 1", "--resume needs a path, got '--seed'"),
    ("train --config", "--config needs a path"),
    ("train --config nowhere.yaml", "nowhere.yaml: no such"),
    ("train --config empty", "empty: not readable"),
    ("train --config list.yaml", "list.yaml: expected a mapping"),
    ("train --config bytes.yaml", "bytes.yaml: not readable"),
    ("train --config file/x.yaml", "file/x.yaml: not readable"),
    ("train --resume file", "file/config.yaml: not readable"),
    ("train --resume empty", "empty/config.yaml: no such"),
    ("train --resume 'no config'", "no config/config.yaml: no such"),
    ("train --resume 'bad config'", "bad config/config.yaml: not readable as YAML"),
    ("train --resume 'binary config'", "binary config/config.yaml: not readable"),
    ("train --resume 'old config'", "old config/config.yaml: "),
    ("train --resume 'bad checkpoint'", "bad checkpoint/checkpoints/latest.pt: damaged"),
    ("train --resume 'empty checkpoint'", "empty checkpoint/checkpoints/latest.pt: damaged"),
    ("train --resume 'other assets'", "this market has AAPL, PG"),
    ("train --resume 'a run' --total-steps 63", "--total-steps must be >= 64, got 63"),
    ("train --resume 'a run' --seed 7", "drop seed"),
    ("train --resume 'a run' --name b", "drop name"),
    ("train --resume 'a run' --config list.yaml", "drop config"),
    ("train --resume 'a run' --total-steps 1.5", "--total-steps must be a whole number"),
    ("train --name 'a run' --runs-dir . {short}", "holds a run already"),
    ("train --name a/b {short}", "--name must be a plain folder name, got 'a/b'"),
    ("train --name .. {short}", "--name must be a plain folder name, got '..'"),
    ("train --name '' {short}", "--name must be a plain folder name, got ''"),
    ("train --runs-dir file {short}", "file"),
    ("train --runs-dir file/runs {short}", "file/runs"),
    ("train --name file --runs-dir . {short}", "file"),
    ("train --seed -1", "--seed must be >= 0"),
    ("train --seed 1e400", "--seed must be a whole number, got inf"),
    ("train --evaluations 0", "--evaluations must be >= 1"),
    ("train --total-steps 0", "--total-steps must be >= 16384"),
    ("train --algorithm dqn", "no algorithm is called 'dqn'"),
    ("train --algorithm nowhere:dqn", "nowhere cannot be imported"),
    ("train --custom learning_rate 0.1", "--custom is for an algorithm of your own"),
    ("train --forecaster arima {short} --forecaster arima", "arima"),
    ("train --worlds.model garch", "use --forecaster none or --worlds.model none"),
    ("train --env.action bets", "no action mode is called 'bets'"),
    ("train --env.reward.kind luck", "no reward is called 'luck'"),
    ("train --env.max-gross 2", "--env.max-gross 2.0 needs --env.action signed"),
    ("train --env.costs.fee-bps -1", "--env.costs.fee-bps must be >= 0"),
    ("train --env.episode.horizon 0", "--env.episode.horizon must be >= 1"),
    ("train --env.players 0", "--env.players must be >= 1"),
    ("train --env.initial-cash 0", "--env.initial-cash must be > 0"),
    ("train --ppo.discount 2", "--ppo.discount must be"),
    ("train --ppo.minibatches 99999999", "--ppo.minibatches 99999999 exceeds"),
    ("train --data.source nowhere.csv", "nowhere.csv"),
    ("train --data.source text.csv", "text.csv"),
    ("train --data.source bytes.parquet", "bytes.parquet"),
    ("train --data.source empty", "empty"),
    ("train --data.start 2020-13-01", "--data.start must be an ISO date"),
    ("train --data.start 2020-01-01 --data.end 2019-01-01", "2019-01-01"),
    ("train --data.num-assets 0", "--data.num-assets must be >= 1"),
    ("train --data.num-assets 2 --data.symbols KO", "--data.num-assets 2 keeps"),
    ("train --num-envs 8 --collect.num-envs 9", "one setting: give one of them"),
    ("train --test-start tomorrow", "tomorrow"),
    # evaluate
    ("evaluate nowhere", "nowhere/config.yaml: no such"),
    ("evaluate empty", "empty/config.yaml: no such"),
    ("evaluate file", "file/config.yaml: not readable"),
    ("evaluate bars.csv", "bars.csv/config.yaml: not readable"),
    ("evaluate 'no policy'", "no policy/agent/policy/spec.json: no policy here"),
    ("evaluate 'no weights'", "no weights/agent/policy/weights.safetensors"),
    ("evaluate 'bad spec'", "bad spec/agent/policy/spec.json"),
    ("evaluate 'foreign spec'", "foreign spec/agent/policy/spec.json"),
    ("evaluate 'bad weights'", "bad weights/agent/policy/weights.safetensors"),
    ("evaluate 'other assets'", "this market has AAPL, PG"),
    ("evaluate 'bad config'", "bad config/config.yaml: not readable as YAML"),
    # ablate
    ("ablate --seeds 0", "--seeds must be >= 2, got 0"),
    ("ablate --seeds 1", "--seeds must be >= 2, got 1"),
    ("ablate --seeds -3", "--seeds must be >= 2, got -3"),
    ("ablate --seeds two", "--seeds must be a whole number, got 'two'"),
    ("ablate --forecaster none", "name one as --forecaster"),
    ("ablate --forecaster ''", "forecaster must name"),
    ("ablate --name a/b", "--name must be a plain folder name"),
    ("ablate --seed -1", "--seed must be >= 0"),
    # data
    ("data check nowhere.csv", "nowhere.csv"),
    ("data check text.csv", "text.csv"),
    ("data check bytes.parquet", "bytes.parquet"),
    ("data check empty", "empty"),
    ("data check us20 --out empty", "empty"),
    ("data check us20 --out file/bars.parquet", "file"),
    ("data check us20 --out bars.txt", "bars.txt"),
    ("data check us20 --data.source tech4", "--data.source tech4 is another than 'us20'"),
    ("data check us20 --data.start 2050-01-01", "2050-01-01"),
    ("data check us20 --data.symbols NONE", "NONE"),
    ("data facts nowhere.csv", "nowhere.csv"),
    ("data facts us20 --model arima", "arima"),
    ("data facts us20 --worlds 0", "--worlds must be >= 1, got 0"),
    ("data facts us20 --seed -1", "--seed must be >= 0"),
    ("data facts bars.csv", "bars"),
    ("data fetch bloomberg KO --start 2020-01-01 --end 2021-01-01 --out x.parquet", "bloomberg"),
    ("data fetch yfinance KO --start soon --end 2021-01-01 --out x.parquet", "soon"),
    ("data fetch yfinance KO --start 2021-01-01 --end 2020-01-01 --out x.parquet", "2020-01-01"),
    ("data fetch yfinance KO --start 2020-01-01 --end 2021-01-01 --out x.csv", "x.csv"),
    ("data fetch yfinance KO --start 2020-01-01 --end 2021-01-01 --out empty", "empty"),
    # forecasts
    ("forecast show NONE", "no symbol 'NONE'"),
    ("forecast show KO --date soon", "soon"),
    ("forecast show KO --date 1999-01-01", "1999-01-01"),
    ("forecast show KO --horizon 0", "0"),
    ("forecast show KO --horizon -1", "-1"),
    ("forecast show KO --horizon 2.5", "--horizon must be a whole number"),
    ("forecast show KO --context 0", "--context must be >= 1, got 0"),
    ("forecast show KO --context -5", "--context must be >= 1, got -5"),
    ("forecast show KO --forecaster arima", "arima"),
    ("forecast show KO --weights x", "x"),
    ("forecast show KO --plot empty", "empty"),
    ("forecast show KO --plot file/fan.html", "file"),
    ("forecast show KO --source nowhere.csv", "nowhere.csv"),
    ("forecast evaluate --json empty", "empty"),
    ("forecast evaluate --source nowhere.csv", "nowhere.csv"),
    ("forecast evaluate --forecaster arima", "arima"),
    # export
    ("export arima", "arima"),
    ("export fastsim-prior --out prior.bin", "prior.bin"),
    ("export fastsim-prior --out file/prior.pt", "file"),
    ("export fastsim-prior --out empty", "empty"),
    ("export fastsim-prior --horizon 0", "1 to 64 bars ahead, not 0"),
    ("export fastsim-prior --context 0", "reads 32 to 512 bars, not 0"),
    ("export fastsim-prior --path nowhere.safetensors", "nowhere.safetensors"),
    ("export fastsim-prior --source nowhere.csv", "nowhere.csv"),
]


@pytest.mark.parametrize(("line", "culprit"), WRONG, ids=[line for line, _ in WRONG])
def test_it_is_one_line_that_names_the_culprit_and_leaves_nothing(line, culprit, here, capsys):
    before = contents(here)
    with pytest.raises(SystemExit) as end:
        main(split(line))
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("fastsim: ")
    assert told.count("\n") == 1
    assert culprit in told
    assert "Traceback" not in told
    assert contents(here) == before


def split(line: str) -> list[str]:
    return shlex.split(line.replace("{short}", " ".join(SHORT)))


USAGE = [
    ("", "fastsim"),
    ("trian", "trian"),
    ("train --no-such-option 1", "--no-such-option"),
    ("train stray", "stray"),
    ("train --seed", "--seed"),
    ("train --ppo.clip wide", "--ppo.clip"),
    ("train --ppo.schedule rising", "rising"),
    ("train --env.autoreset sometimes", "sometimes"),
    ("train --device cuda:9", "cuda:9"),
    ("evaluate", "Required options"),
    ("evaluate 'a run' --part all", "all"),
    ("evaluate 'a run' --checkpoint worst", "worst"),
    ("evaluate 'a run' 'a run'", "a run"),
    ("ablate --folds 3", "--folds"),
    ("data", "list"),
    ("data lists", "lists"),
    ("data list us20", "us20"),
    ("data check", "Required options"),
    ("data check us20 --mend", "--mend"),
    ("data facts", "Required options"),
    ("data fetch yfinance KO", "--start"),
    ("models toto", "toto"),
    ("forecast", "show"),
    ("forecast show", "Required options"),
    ("forecast evaluate --horizons one", "--horizons"),
    ("export", "Required options"),
    ("export fastsim-prior --precision float8", "float8"),
    ("export fastsim-prior --format gguf", "gguf"),
    ("doctor --fix", "--fix"),
    ("doctor now", "now"),
]


@pytest.mark.parametrize(("line", "culprit"), USAGE, ids=[line for line, _ in USAGE])
def test_wrong_usage_is_named_without_a_traceback(line, culprit, here, capsys):
    before = contents(here)
    with pytest.raises(SystemExit) as end:
        main(split(line))
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert culprit in " ".join(told.split())
    assert "Traceback" not in told
    assert "dummy" not in told
    assert contents(here) == before


def test_there_are_many():
    assert len({line for line, _ in WRONG + USAGE}) == len(WRONG + USAGE) >= 130


def test_a_folder_that_cannot_be_written_is_named(here, capsys, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for line, culprit in (
        (f"train --runs-dir closed {' '.join(SHORT)}", "closed"),
        ("data check us20 --out closed/bars.parquet", "closed"),
        ("export fastsim-prior --out closed/prior.pt", "closed"),
    ):
        with pytest.raises(SystemExit) as end:
            main(split(line))
        told = capsys.readouterr().err
        assert end.value.code == 2
        assert culprit in told
        assert "Permission denied" in told
        assert told.count("\n") == 1


def test_a_run_whose_name_has_blanks_is_as_good_as_any(here, capsys):
    main(["evaluate", "a run"])
    assert "a run/report.html" in capsys.readouterr().out
    main(["train", "--resume", "a run", "--total-steps", "128"])
    assert load_yaml(TrainConfig, here / "a run" / "config.yaml").total_steps == 128
