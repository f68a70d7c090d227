"""`fastsim backtest`: what it plays is what evaluation plays, and what it refuses."""

import json
import re
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import torch

from fastsim.backtest.page import plotly_script
from fastsim.backtest.results import read_results
from fastsim.cli import main
from fastsim.data.read import write_bars
from fastsim.data.sample import sample_bars
from fastsim.experiment.evaluate import evaluate

TRAINED = [
    *("--data.symbols", "AAPL", "KO", "PG", "--data.start", "2013-01-01"),
    *("--data.end", "2016-12-30", "--validation-start", "2016-01-01"),
    *("--test-start", "2016-07-01", "--evaluations", "2", "--policy.hidden", "8"),
    *("--collect.rollout-steps", "8", "--total-steps", "256", "--collect.num-envs", "8"),
]
SETTINGS = """
data: {source: tech4, symbols: [AAPL, IBM]}
env: {action: signed, costs: {fee_bps: 5.0}}
signals: {context_length: 64, sides: both, threshold: {best: 0.5, history: 40}}
"""
KNOWN = json.loads((files("fastsim.backtest") / "results.schema.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    main(["train", "--runs-dir", str(folder), *TRAINED, "--name", "first"])
    return folder / "first"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strategy.yaml").write_text(SETTINGS)
    return tmp_path


def played(*options):
    """The results of `fastsim backtest run`, which keep to their schema."""
    main(["backtest", "run", *options, "--out", "out"])
    jsonschema.validate(json.loads(Path("out/results.json").read_bytes()), KNOWN)
    return read_results(Path("out"))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["backtest", *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_run_on_its_test_bars_comes_to_what_evaluation_finds_to_the_bit(run, here):
    found = evaluate(run).history
    results = played("--strategy", str(run))
    assert results.file.focus == "agent" and results.history.names == found.names
    assert torch.equal(results.history.wealth, found.wealth)
    assert torch.equal(results.history.turnover, found.turnover)
    for place in range(len(found.names)):
        assert torch.equal(results.history.held(place), found.held(place))
    for name, paid in found.costs.items():
        assert torch.equal(results.history.costs[name], paid)
    for name in ("equity", "weights", "costs"):
        kept = pl.read_parquet(run / "curves" / f"{name}.parquet")
        assert kept.equals(pl.read_parquet(f"out/{name}.parquet"))


def test_its_agent_on_the_same_bars_by_their_names_comes_to_the_same(run, here):
    found = evaluate(run).history
    days = ("--start", "2016-07-01", "--end", "2016-12-30")
    symbols = ("--symbol", "aapl", "--symbol", "KO,pg")
    for strategy in (run, run / "agent"):
        results = played("--strategy", str(strategy), "--source", "us20", *symbols, *days)
        assert results.history.symbols == found.symbols
        torch.testing.assert_close(results.history.wealth, found.wealth, rtol=1e-7, atol=0.0)


def test_some_of_a_run_s_bars_and_other_costs_can_be_asked_for(run, here):
    usual = played("--strategy", str(run), "--start", "2016-09-01", "--end", "2016-10-31")
    assert (usual.file.first, usual.file.last) == ("2016-09-01", "2016-10-31")
    dear = played(
        *("--strategy", str(run), "--start", "2016-09-01", "--end", "2016-10-31"),
        *("--fee-bps", "50", "--initial-cash", "1000"),
    )
    assert dear.file.figures[0].initial_wealth == 1000.0
    assert dear.file.figures[0].total_return < usual.file.figures[0].total_return
    early = played("--strategy", str(run), "--start", "2016-05-02")
    assert any("not test bars" in note for note in early.file.notes)
    assert not any("not test bars" in note for note in usual.file.notes)


def test_a_strategy_s_settings_are_played_with_all_that_signals_said(here, capsys):
    results = played("--strategy", "strategy.yaml", "--start", "2012-06-01")
    file = results.file
    assert file.focus == "signals" and file.symbols == ("AAPL", "IBM")
    assert file.settings["commission"] == "5 bp"
    assert set(results.tables) == {"trades", "bars", "signals", "fans"}
    trades, signals = results.tables["trades"], results.tables["signals"]
    assert sum(group.trades for group in file.by_confidence) == len(trades) == file.trades.trades
    assert sum(group.trades for group in file.by_regime) == len(trades)
    decided = trades.join(signals, left_on=["symbol", "decided"], right_on=["symbol", "date"])
    assert len(decided) == len(trades) > 20
    assert decided["confidence"].equals(decided["confidence_right"], null_equal=True)
    assert ((decided["direction"] > 0) == (decided["side"] == "long")).all()
    fans = results.tables["fans"]
    assert fans["ahead"].max() == 5 and fans["date"].max() == signals["date"].max()
    ordered = fans.sort("symbol", "date", "ahead", "level")["price"].to_numpy().reshape(-1, 5)
    assert (ordered[:, 1:] >= ordered[:, :-1]).all()
    told = capsys.readouterr().out
    for words in ("signals", "buy and hold", "single asset, mean", "trades,", "report.html"):
        assert words in told
    main(["agent", "make", "strategy.yaml", "--out", "made"])
    made = played("--strategy", "made", "--source", "tech4", "--start", "2012-06-01")
    torch.testing.assert_close(made.history.wealth, results.history.wealth, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", ["buy-and-hold", "Equal Weight", "eg"])
def test_a_benchmark_is_played_by_its_name_on_any_bars(here, name):
    write_bars(sample_bars("tech4"), here / "bars.parquet")
    results = played(
        *("--strategy", name, "--source", "bars.parquet", "--symbol", "ibm"),
        *("--symbol", "Msft", "--start", "2012-01-03", "--end", "2012-12-31"),
    )
    assert results.file.focus.replace(" ", "").lower() == re.sub(r"[- ]", "", name).lower()
    assert results.file.symbols == ("IBM", "MSFT")
    assert results.file.benchmark != results.file.focus


def test_a_page_of_results_has_a_drop_down_of_symbols_and_loads_nothing(here, capsys):
    played("--strategy", "strategy.yaml", "--start", "2012-06-01")
    first = Path("out/report.html").read_bytes()
    main(["backtest", "report", "--results-file", "out/results.json", "--out", "again.html"])
    page = Path("again.html").read_bytes()
    assert page == first
    text = page.decode().replace(plotly_script(), "")
    assert '<option value="AAPL">AAPL</option><option value="IBM">IBM</option>' in text
    for title in ("Symbol by symbol", "Trades of signals", "by confidence", "by regime"):
        assert title in text
    assert not re.search(r"(src|href)=", text)
    assert len(text) < 1.5e6


def test_a_picture_of_results_needs_matplotlib_alone(here, capsys, monkeypatch):
    played("--strategy", "strategy.yaml", "--start", "2012-06-01")
    report = ("report", "--results-file", "out", "--out", "all.png")
    main(["backtest", *report, "--symbol", "IBM"])
    assert Path("all.png").read_bytes().startswith(b"\x89PNG")
    assert "no symbol 'IMB'" in refused(capsys, *report, "--symbol", "IMB")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'fastsim-rl[plot]'" in refused(capsys, *report)
    assert "--out must end in .html or .png" in refused(capsys, *report[:-1], "all.pdf")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--strategy", "buy-and-holt"), "did you mean 'buy and hold'"),
        (("--strategy", "none.yaml"), "none.yaml: no such configuration file"),
        (("--strategy", "empty"), "--source"),
        (("--strategy", "empty", "--source", "tech4"), "no agent here"),
        (("--strategy", "EG", "--source", "tech5"), "unknown data source 'tech5'"),
        (("--strategy", "EG", "--source", "tech4", "--symbol", "APPL"), "near it are 'AAPL'"),
        (("--strategy", "EG", "--source", "ccxt:binance", "--symbol", "BTCUSDT"), "data fetch"),
        (("--strategy", "EG", "--start", "2020-13-01"), "ISO date"),
        (("--strategy", "EG", "--start", "2021-01-01", "--end", "2020-01-01"), "after end"),
        (("--strategy", "EG", "--source", "tech4", "--start", "2050-01-01"), "leave no step"),
        (("--strategy", "EG", "--fee-bps", "-1"), "--fee-bps must be >= 0"),
        (("--strategy", "EG", "--out", "strategy.yaml"), "is a file"),
        (("--strategy", "EG", "--engine", "nautilus"), "nautilus"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line_and_nothing_is_written(
    here, capsys, options, said
):
    Path("empty").mkdir()
    before = set(here.rglob("*"))
    assert said in refused(capsys, "run", *options)
    assert set(here.rglob("*")) == before


def test_symbols_are_listed_and_looked_for(capsys):
    main(["backtest", "list-symbols", "tech4"])
    told = capsys.readouterr().out
    assert all(word in told for word in ("AAPL", "GOOG", "2,148", "2004-08-19", "2013-03-01"))
    main(["backtest", "list-symbols", "us20", "--like", "ko"])
    assert "AAPL" not in capsys.readouterr().out
    assert "no symbol with 'zzz'" in refused(capsys, "list-symbols", "us20", "--like", "zzz")


@pytest.mark.long
def test_the_quick_test_ends_with_a_table_and_a_page(here, capsys):
    main(["backtest", "quick-test"])
    told = capsys.readouterr().out
    assert "signals on tech4" in told and "equal weight" in told
    results = read_results(Path("backtests/quick-test"))
    assert results.file.trades.trades > 1000
    assert len(Path("backtests/quick-test/report.html").read_text()) - len(plotly_script()) < 1.5e6
