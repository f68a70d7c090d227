"""Results of a backtest on disk: read back as written, to their schema, and refused otherwise."""

import json
from dataclasses import fields
from importlib.resources import files

import jsonschema
import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.results import (
    BARS,
    FANS,
    OTHERS,
    SIGNALS,
    About,
    make_results,
    read_results,
    save_results,
)
from fastsim.backtest.schema import SCHEMA, ResultsFile, TradeGroup
from fastsim.backtest.trades import fill_prices, trade_table
from fastsim.errors import ConfigError, DataError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.stats.bootstrap import Interval

KNOWN = json.loads((files("fastsim.backtest") / "results.schema.json").read_text())
STAMP = np.datetime64("2020-01-02", "ns")
ROW = {
    **{"date": np.array([STAMP]), "symbol": ["S0"], "open": [1.0], "high": [2.0], "low": [0.5]},
    **{"close": [1.5], "direction": [1], "confidence": [0.6], "regime": [None], "stop": [1.2]},
    **{"target": [None], "position": [0.3], "ahead": [1], "level": [0.5], "price": [1.4]},
}


def table(schema):
    return pl.DataFrame([pl.Series(name, ROW[name]).cast(kind) for name, kind in schema.items()])


def made(*, alone=True, signals=True, assets=3):
    tape = make_tape(random_bars(60, assets), TapeConfig(features=SHORT_FEATURES))
    history = replay_benchmarks(tape, alone=alone)
    about = About(
        title="Equal weight",
        subtitle="random bars",
        strategy="equal-weight",
        source="nowhere.csv",
        focus="equal weight",
        benchmark="buy and hold",
        settings={"commission": "1 bp"},
        notes=("Nothing is real.", 'So "they" say.'),
    )
    tables = {"trades": trade_table(history, 0, fill_prices(tape)), "bars": table(BARS)}
    if signals:
        tables |= {"signals": table(SIGNALS), "fans": table(FANS)}
    return make_results(history, about, tables, Interval(0.1, float("nan"), 0.3, 0.95))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("assets", [1, 3])
def test_what_is_read_is_what_was_written(tmp_path, alone, assets):
    results = made(alone=alone, assets=assets)
    path = save_results(results, tmp_path / "new" / "folder")
    for given in (path, path.parent):
        back = read_results(given)
        one, two = results.history, back.history
        assert (one.names, one.symbols) == (two.names, two.symbols)
        assert np.array_equal(one.timestamps, two.timestamps)
        assert torch.equal(one.wealth, two.wealth) and torch.equal(one.turnover, two.turnover)
        for place in range(len(one.names)):
            assert torch.equal(one.held(place), two.held(place))
        assert list(one.costs) == list(two.costs)
        assert all(torch.equal(paid, two.costs[name]) for name, paid in one.costs.items())
        assert list(back.tables) == list(results.tables)
        for name, expected in results.tables.items():
            assert_frame_equal(back.tables[name], expected)
        assert {each.name for each in back.file.tables} == {"equity", "weights", "costs", *OTHERS}
        for entry in fields(ResultsFile):
            if entry.name != "tables":
                assert getattr(back.file, entry.name) == getattr(results.file, entry.name)


def test_the_file_is_as_its_json_schema_says(tmp_path):
    for number, results in enumerate((made(), made(alone=False, signals=False))):
        written = json.loads(save_results(results, tmp_path / str(number)).read_bytes())
        jsonschema.Draft202012Validator(KNOWN).validate(written)
        assert written["sharpe_difference"]["low"] is None  # NaN is no JSON
        for wrong in ({"schema": 2}, {"steps": 0}, {"figures": []}, {"more": 1}, {"first": None}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(written | wrong, KNOWN)


def test_the_json_schema_and_the_reader_know_the_same_fields():
    jsonschema.Draft202012Validator.check_schema(KNOWN)
    assert KNOWN["properties"]["schema"] == {"const": SCHEMA}
    for cls, said in ((ResultsFile, KNOWN), (TradeGroup, KNOWN["$defs"]["TradeGroup"])):
        names = [entry.name for entry in fields(cls)]
        assert [name for name in said["properties"] if name != "schema"] == names
        assert set(said["required"]) == set(said["properties"])


def test_figures_are_those_of_the_tables(tmp_path):
    path = save_results(made(), tmp_path)
    file = json.loads(path.read_bytes())
    equity = pl.read_parquet(tmp_path / "equity.parquet")
    for figures in file["figures"]:
        wealth = equity.filter(pl.col("strategy") == figures["strategy"])["wealth"]
        assert figures["final_wealth"] == wealth[-1]
        assert figures["total_return"] == pytest.approx(wealth[-1] / wealth[0] - 1, rel=1e-12)
        assert figures["cost"] == pytest.approx(sum(figures["costs"].values()), rel=1e-6)


def changed(path, **entries):
    mapping = json.loads(path.read_bytes())
    mapping |= entries
    path.write_text(json.dumps({name: each for name, each in mapping.items() if each is not ...}))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"schema": 2}, "results of schema 1 are read here, and these are of 2"),
        ({"schema": True}, "these are of True"),
        ({"schema": ...}, "these are of None"),
        ({"steps": "many"}, "steps"),
        ({"steps": ...}, "it lacks steps"),
        ({"colour": "blue"}, "no field 'colour'"),
        ({"focus": "nobody"}, "'nobody'"),
        ({"figures": 7}, "figures"),
        ({"symbols": ["S0", "S1", "S9"]}, "strategies and symbols are not those of its tables"),
        ({"tables": []}, "no table 'equity'"),
        ({"tables": [{"name": "equity", "file": "../x", "rows": 1, "sha256": ""}]}, "plain file"),
    ],
)
def test_another_version_or_a_field_that_is_wrong_is_named(tmp_path, entries, said):
    path = save_results(made(), tmp_path)
    changed(path, **entries)
    with pytest.raises(DataError, match=said) as caught:
        read_results(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_are_missing_damaged_or_of_another_backtest_are_refused(tmp_path):
    path = save_results(made(), tmp_path)
    trades = tmp_path / "trades.parquet"
    whole = trades.read_bytes()
    pl.read_parquet(whole).tail(1).write_parquet(trades)
    with pytest.raises(DataError, match=r"trades\.parquet: not the table that results\.json"):
        read_results(path)
    trades.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"trades\.parquet: damaged"):
        read_results(path)
    trades.unlink()
    with pytest.raises(DataError, match="the table of trades is missing"):
        read_results(path)
    with pytest.raises(DataError, match="no such file; `fastsim backtest run`"):
        read_results(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("[1, 2")
    with pytest.raises(DataError, match="no results of a backtest"):
        read_results(tmp_path / "text.json")


def test_a_folder_whose_writing_was_stopped_holds_no_results(tmp_path, monkeypatch):
    save_results(made(), tmp_path)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_results(made(), tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_results(tmp_path)


def test_tables_of_an_earlier_backtest_do_not_stay_beside_another(tmp_path):
    save_results(made(), tmp_path)
    save_results(made(signals=False), tmp_path)
    assert not (tmp_path / "signals.parquet").exists()
    assert set(read_results(tmp_path).tables) == {"trades", "bars"}


def test_what_does_not_fit_together_is_no_results(tmp_path):
    results = made()
    about = About("t", "s", "x", "y", "equal weight", "buy and hold")
    with pytest.raises(ConfigError, match="trades must be there"):
        make_results(results.history, about, {"bars": table(BARS)})
    with pytest.raises(DataError, match="'close' is missing where Float64 is wanted"):
        wrong = {**results.tables, "bars": table(BARS).drop("close")}
        make_results(results.history, about, wrong)
    with pytest.raises(ConfigError, match="focus must be one of"):
        make_results(results.history, about._replace(focus="me"), results.tables)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        save_results(results, tmp_path / "file")
