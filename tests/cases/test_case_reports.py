"""Files that a person may have, taken to their report: what it must say of them."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console
from worlds import SHORT_FEATURES

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.refused import PARTICIPATION, refusals_in_words
from fastsim.backtest.replay import replay_schedule
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import summarize
from fastsim.backtest.wording import metrics_table
from fastsim.cli import main
from fastsim.data.source import DataConfig, load_bars
from fastsim.env.config import EnvConfig
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.stats.metrics import periods_per_year

DATA = Path(__file__).parent / "data"
FEATURES = [
    *("--tape.features.return-windows", "1", "2", "--tape.features.momentum-window", "5"),
    *("--tape.features.momentum-skip", "2", "--tape.features.short-window", "2"),
    *("--tape.features.volatility-window", "4"),
]
TINY = [
    *("--validation-start", "2021-04-01", "--test-start", "2021-04-12", "--evaluations", "1"),
    *("--policy.hidden", "8", "--collect.rollout-steps", "8", "--collect.num-envs", "8"),
    *("--total-steps", "64", "--forecaster", "none", "--env.episode.horizon", "5", *FEATURES),
]


def bars_of(name):
    return load_bars(DataConfig(source=str(DATA / name)))


def market(name, **settings):
    return make_tape(bars_of(name), TapeConfig(features=SHORT_FEATURES, **settings))


def train(name, folder, *options):
    source = ("--data.source", str(DATA / name), "--runs-dir", str(folder), "--name", "run")
    main(["train", *source, *TINY, *options])
    return folder / "run"


def test_late_listings_are_owned_once_they_trade(tmp_path):
    dates = ("--validation-start", "2021-03-12", "--test-start", "2021-03-19")
    curves = train("late_listing.csv", tmp_path, *dates, "--env.episode.horizon", "2") / "curves"
    weights = pl.read_parquet(curves / "weights.parquet")

    def split(strategy, asset):
        rows = weights.filter(pl.col("strategy") == strategy, pl.col("asset") == asset)
        listed = pl.col("date") > pl.datetime(2021, 3, 30)
        return rows.filter(~listed)["weight"][:-1], rows.filter(listed)["weight"]

    before, after = split("RIVN", "RIVN")
    assert before.max() == 0.0 and after.min() > 0.99 and len(after) > 10
    before, after = split("buy and hold", "RIVN")
    assert before.max() == 0.0 and after.is_between(0.4, 0.6).all()
    before, after = split("equal weight", "cash")
    assert before.abs().max() < 1e-5 and after.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["symbol_cash.csv", "symbol_agent.csv"])
def test_symbols_that_are_words_of_ours_come_to_a_report(name, tmp_path, capsys):
    run = train(name, tmp_path)
    symbols = bars_of(name).symbols
    page = (run / "report.html").read_text()
    weights = pl.read_parquet(run / "curves" / "weights.parquet")
    equity = pl.read_parquet(run / "curves" / "equity.parquet")
    assert equity["strategy"].n_unique() == 3 + len(symbols)
    assert {"agent", "equal weight", "buy and hold"} <= set(equity["strategy"].unique())
    assert set(symbols) < set(weights["asset"].unique())
    sums = weights.group_by("date", "strategy").agg(pl.col("weight").sum())
    assert (sums["weight"] - 1.0).abs().max() < 1e-5
    assert f"The {len(symbols)} other strategies" in page
    assert "single asset, mean" in capsys.readouterr().out
    if name == "symbol_agent.csv":
        assert "agent alone" in page and "equal weight alone" in page


def test_a_symbol_in_brackets_is_shown_as_it_is(tmp_path):
    tape = market("symbol_bracket.csv")
    history = replay_benchmarks(tape, EnvConfig(initial_cash=1e12))
    assert "ES[/H5]" in history.names
    focus = history.names.index("ES[/H5]")
    console = Console(width=120)
    with console.capture() as captured:
        console.print(metrics_table(summarize(history), history.names))
    assert "ES[/H5]" in captured.get()
    wording = {"title": "ES[/H5]", "subtitle": "", "focus": "ES[/H5]"}
    write_report(history, tmp_path / "r.html", benchmark=history.names[focus - 1], **wording)
    page = (tmp_path / "r.html").read_text()
    assert "<h1>ES[/H5]</h1>" in page and '"name":"ES[/H5]"' in page


def test_cash_alone_on_seven_days_has_an_infinite_ratio():
    tape = market("seven_days.csv", risk_free_rate=0.04)
    steps = tape.last - tape.first
    schedule = torch.zeros(steps, 1, 1)
    history = replay_schedule(tape, schedule, ["all cash"], EnvConfig())
    years = periods_per_year(history.timestamps)
    assert years == 365.0
    summary = summarize(history, periods_per_year=years)
    assert summary.annual_return.item() == pytest.approx(0.0408, abs=1e-4)
    assert summary.sharpe_ratio.item() == float("inf")
    assert summary.sortino_ratio.item() == float("inf")
    assert summary.calmar_ratio.isnan().item()


def test_currencies_without_volume_are_bought_whole_and_the_report_says_what_is_off(tmp_path):
    table = pl.read_csv(DATA / "fx_without_volume.csv").drop("volume")
    table.write_csv(tmp_path / "fx.csv")
    dates = ("--validation-start", "2021-03-15", "--test-start", "2021-03-22")
    run = train(tmp_path / "fx.csv", tmp_path, *dates, "--env.episode.horizon", "2")
    page = (run / "report.html").read_text()
    assert "no volume: market impact and participation limits are off" in page
    weights = pl.read_parquet(run / "curves" / "weights.parquet")
    assert weights.filter(strategy="buy and hold", asset="EURUSD")["weight"].min() > 0.99


def test_an_account_too_large_for_its_market_is_told_in_table_and_report(tmp_path, capsys):
    large = ("--env.initial-cash", "1e11", "--test-start", "2021-04-12")
    run = train("late_listing.csv", tmp_path, *large)
    printed = " ".join(capsys.readouterr().out.split())
    for text in (printed, (run / "report.html").read_text()):
        assert "Participation limits cut orders of agent in " in text
        assert "--env.initial-cash" in text
    bars = bars_of("late_listing.csv")
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    history = replay_benchmarks(tape, EnvConfig(initial_cash=1e11))
    assert (history.refused[PARTICIPATION][:, 0] > 0.5).all()
    ticks = replace(bars, volume=1e-4 * bars.volume)
    few = replay_benchmarks(make_tape(ticks, TapeConfig(features=SHORT_FEATURES)))
    assert any(
        "volume that counts ticks, --data.ignore-volume" in sentence
        for sentence in refusals_in_words(few)
    )
