"""`fastsim forecast evaluate`: what it tells of parts and bands, its files, and refits."""

import json
import re

import numpy as np
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.data.sample import sample_bars

SMALL = ["--context", "100", "--step", "21", "--horizons", "1", "5"]
FITS = ["--fit.steps", "2", "--fit.evaluate-every", "2", "--fit.batch-size", "8", "--fit.context"]
FITS += ["100", "--fit.validation-windows", "40", "--fit.horizons", "1", "5"]


def evaluate(*arguments):
    main(["forecast", "evaluate", *arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What is written and told of two forecasters and HAR on two assets."""
    folder = tmp_path_factory.mktemp("scores")
    write_bars(sample_bars("tech4").take(slice(0, 1200), [0, 2]), folder / "bars.parquet")
    paths = {kind: folder / f"scores.{kind}" for kind in ("json", "parquet", "html")}
    flags = [part for kind, path in paths.items() for part in (f"--{kind}", str(path))]
    given = ["--source", str(folder / "bars.parquet"), "--baselines", "har", *SMALL, *flags]
    return folder, paths, given


@pytest.fixture(scope="module")
def record(files):
    _, paths, given = files
    evaluate(*given)
    return json.loads(paths["json"].read_text())


def test_bands_assets_and_periods_are_in_the_record(record):
    assert record["schema"] == 2
    names = [entry["name"] for entry in record["forecasters"]]
    assert names == ["random-walk-60", "har", "fastsim-prior"]
    for entry in record["forecasters"]:
        for part in entry["by_horizon"]:
            assert set(part["bands"]) == {"coverage_50", "coverage", "coverage_95"}
            test = part["bands"]["coverage"]
            assert test["outside"] == pytest.approx(1 - part["coverage"][0], abs=1e-6)
            for name in ("kupiec", "independence", "christoffersen"):
                assert 0 <= test[name]["p_value"] <= 1
            assert test["christoffersen"]["degrees"] == 2
            assert test["outcomes"] == 2 * test["origins"] == record["windows"]
        assert [part["name"] for part in entry["by_asset"]] == ["AAPL", "IBM"]
        assert sum(part["windows"] for part in entry["by_period"]) == record["windows"]
        ratios = [part["relative"]["random-walk-60"][0] for part in entry["by_asset"]]
        worst = entry["worst"]["asset"]["random-walk-60"]
        assert worst["relative"] == pytest.approx(max(ratios), abs=1e-6)
        assert worst["name"] == ["AAPL", "IBM"][int(np.argmax(ratios))]
        assert entry["worst"]["asset_in_a_period"]["random-walk-60"]["relative"] >= (
            worst["relative"] - 1e-9
        )


def test_the_table_of_outcomes_has_every_forecaster(files, record):
    table = pl.read_parquet(files[1]["parquet"])
    assert len(table) == 3 * 2 * record["windows"]
    means = table.group_by("forecaster", maintain_order=True).agg(pl.col("crps").mean())
    for entry, (name, crps) in zip(record["forecasters"], means.rows(), strict=True):
        assert name == entry["name"] and crps == pytest.approx(entry["crps"][0], abs=2e-6)


def test_the_page_needs_nothing_else(files, record):
    page = files[1]["html"].read_text()
    loads = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    assert loads == [] and page.count("Plotly.newPlot(") == 5
    for told in ("Loss by horizon", "What bands hold", "Where outcomes fall", "har", "windows"):
        assert told in page


def test_parts_and_tests_are_told_within_120_columns(files, capsys):
    evaluate(*files[2][:-6], "--by", "asset", "period")
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 120
    for title in ("Kupiec", "Worst asset in a period", "By asset", "By period", "2008"):
        assert title in told


def test_all_are_scored_with_the_season_and_without_by_one_command(tmp_path, capsys):
    hours = np.datetime64("2021-01-04", "ns") + np.arange(700) * np.timedelta64(1, "h")
    loud = 0.001 + 0.004 * (np.arange(700) % 24 > 12)
    returns = loud[:, None] * np.random.default_rng(0).standard_normal((700, 1))
    bars = Bars(symbols=("A",), timestamps=hours, close=100 * np.exp(returns.cumsum(0)))
    write_bars(bars, tmp_path / "hours.parquet")
    out = tmp_path / "scores.json"
    given = ["--source", str(tmp_path / "hours.parquet"), "--baselines", "har", *SMALL]
    evaluate(*given, "--step", "7", "--json", str(out))
    names = ["random-walk-60", "har", "fastsim-prior"]
    scored = {entry["name"]: entry for entry in json.loads(out.read_text())["forecasters"]}
    assert list(scored) == names + [f"{name}, season" for name in names]
    for name in names:
        plain, seasonal = scored[name], scored[f"{name}, season"]
        assert seasonal["quantile_loss"][0] < plain["quantile_loss"][0]


def test_what_is_fitted_anew_is_scored_from_there(files, tmp_path, capsys):
    out, source = tmp_path / "scores.json", str(files[0] / "bars.parquet")
    refits = ["--refit-every", "200", "--refit-from", "2008-01-02", "--fit.mode", "head", *FITS]
    evaluate("--source", source, *SMALL, *refits, "--json", str(out))
    record = json.loads(out.read_text())
    assert record["first_origin"] == "2007-12-31"
    names = [entry["name"] for entry in record["forecasters"]]
    assert names[-2:] == ["fastsim-prior, refitted", "fastsim-prior"]
    assert record["refits"]["refit_every"] == 200 and record["fit"]["mode"] == "head"


def test_a_fitted_nhits_is_shown_stack_by_stack(files, tmp_path, capsys):
    source, page = str(files[0] / "bars.parquet"), tmp_path / "page.html"
    made = ["--mode", "scratch", "--data.source", source, "--out", str(tmp_path / "made")]
    few = [part.replace("--fit.", "--") for part in FITS]
    main(["forecast", "fit", "nhits", *made, *few])
    forecaster = ["--forecaster", f"fit:{tmp_path / 'made'}"]
    evaluate("--source", source, *forecaster, *SMALL, "--html", str(page))
    text = page.read_text()
    assert "What each stack of made adds" in text and text.count("Plotly.newPlot(") == 6
    refits = ["--refit-every", "300", "--html", str(page)]
    evaluate("--source", source, *forecaster, *SMALL, *refits)
    assert "What each stack of made, refitted adds" in page.read_text()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--parquet", "scores.csv"], "--parquet must end in .parquet"),
        (["--html", "."], "--html must be a file to write"),
        (["--refit-every", "0"], "--refit-every must be >= 1, got 0"),
        (["--refit-from", "2010-01-01"], "--refit-every must be given with refit_from"),
        (["--refit-every", "9", "--refit-from", "2030-01-01"], "--refit-from must lie after"),
        (
            ["--refit-every", "9", "--fit.split.validation-start", "2010-01-01"],
            "--fit.split.validation-start must be left out",
        ),
        (
            ["--refit-every", "9", "--fit.mode", "lora"],
            "--refit must be scratch for --fit.mode lora",
        ),
        (["--refit-every", "9", "--forecaster", "garch-t"], "'garch-t' cannot be fitted anew"),
        (["--refit-every", "9", "--horizons", "1", "40"], "--fit.horizons of fastsim-prior end"),
        (
            ["--refit-every", "9", "--implementation", "official"],
            "implementation must be fastsim where forecasters are fitted",
        ),
        (
            ["--refit-every", "9", "--fit.mode", "volatility", "--fit.season", "none"],
            "--fit.season must be a time zone",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(flags, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        evaluate("--source", "tech4", "--step", "500", *flags)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert told in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_correction_of_volatility_is_fitted_anew_with_one_season_around_it(tmp_path):
    hours = np.datetime64("2021-01-04", "ns") + np.arange(1500) * np.timedelta64(1, "h")
    loud = 0.001 + 0.004 * (np.arange(1500) % 24 > 12)
    returns = loud[:, None] * np.random.default_rng(0).standard_normal((1500, 1))
    bars = Bars(symbols=("A",), timestamps=hours, close=100 * np.exp(returns.cumsum(0)))
    write_bars(bars, tmp_path / "hours.parquet")
    out = tmp_path / "scores.json"
    mode = ["--fit.mode", "volatility", "--fit.horizons", "1", "5", "--fit.context", "100"]
    given = ["--source", str(tmp_path / "hours.parquet"), *SMALL, *mode, "--json", str(out)]
    evaluate(*given, "--forecaster", "random-walk-ewma-0.94", "--refit-every", "400")
    names = [entry["name"] for entry in json.loads(out.read_text())["forecasters"]]
    fitted = "random-walk-ewma-0.94, refitted"
    assert fitted in names and f"{fitted}, season" not in names
    assert "random-walk-ewma-0.94, season" in names


def test_bands_are_set_right_anew_of_any_forecaster(files, tmp_path):
    out, source = tmp_path / "scores.json", str(files[0] / "bars.parquet")
    mode = ["--fit.mode", "bands", "--fit.horizons", "1", "5", "--fit.context", "100"]
    given = ["--source", source, *SMALL, *mode, "--json", str(out), "--refit-every", "300"]
    evaluate(*given, "--forecaster", "random-walk-ewma-0.94", "--baselines", "none")
    names = [entry["name"] for entry in json.loads(out.read_text())["forecasters"]]
    assert names[1:] == ["random-walk-ewma-0.94, refitted", "random-walk-ewma-0.94"]
