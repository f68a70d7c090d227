"""Bars from a user's own code: vendors by name, and functions as sources."""

import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pandas as pd
import polars as pl
import pytest
from worlds import random_bars

from fastsim.cli import main, parse
from fastsim.data.checks import CheckConfig
from fastsim.data.read import read_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.vendors import VENDORS, BarRequest, Vendor, fetch
from fastsim.errors import ConfigError, DataError

HERE = __name__
BARS = random_bars(300, 3, seed=4, holes=True)
DAYS = pd.date_range("2020-01-01", periods=300, freq="D")
ASKED = []


def table(request):
    """A long polars frame: more days and symbols than were asked for."""
    ASKED.append(request)
    names = ["IBM", *request.symbols]
    return pl.concat(
        [
            pl.DataFrame(
                {"date": DAYS.to_numpy(), "ticker": name, "close": 10.0 * place + np.arange(300.0)}
            )
            for place, name in enumerate(names, start=1)
        ]
    )


VENDOR = Vendor(name="mine", fetch=table, extra="mine-client")
REQUEST = BarRequest(symbols=("B", "A"), start="2020-01-03", end="2020-01-06")


def bars():
    return BARS


def frame():
    return pd.DataFrame({"A": np.arange(1.0, 301.0), "B": 2.0}, index=DAYS)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(VENDORS, "_records", dict(VENDORS))
    VENDORS.add(VENDOR)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["mine", f"{HERE}:VENDOR"])
def test_a_vendor_of_ones_own_answers_what_was_asked(name):
    found = fetch(name, replace(REQUEST, interval="1h", exchange="kraken"))
    assert found.symbols == ("B", "A")
    np.testing.assert_array_equal(found.close[:, 0], 20.0 + np.arange(2.0, 6.0))
    assert str(found.timestamps[-1])[:10] == "2020-01-06"
    assert ASKED[-1].interval == "1h" and ASKED[-1].exchange == "kraken"


def test_the_command_line_writes_what_it_gives(tmp_path, capsys):
    path = tmp_path / "bars.parquet"
    days = ["--start", "2020-01-03", "--end", "2020-03-31"]
    main(["data", "fetch", f"{HERE}:VENDOR", "A", "B", *days, "--out", str(path)])
    assert "89 bars of 2 symbols, 2020-01-03 to 2020-03-31; close only" in capsys.readouterr().out
    assert read_bars(path).symbols == ("A", "B")


def test_fastsims_own_are_asked_for_alike(monkeypatch):
    asked = {}

    def download(*positional, **named):
        asked[len(positional)] = (positional, named)
        return BARS

    for name in ("fetch_yfinance", "fetch_ccxt"):
        monkeypatch.setattr(f"fastsim.data.vendors.{name}", download)
    assert fetch("yfinance", REQUEST) is BARS
    assert fetch("ccxt", replace(REQUEST, interval="1h")) is BARS
    span = {"start": "2020-01-03", "end": "2020-01-06", "checks": CheckConfig()}
    assert asked[1] == ((("B", "A"),), {**span, "interval": "1d"})
    assert asked[2] == (("binance", ("B", "A")), {**span, "timeframe": "1h"})


def failing(request):
    raise OSError("no\nnetwork")


def without_package(request):
    import not_there_at_all  # noqa: F401, PLC0415


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (failing, DataError, "failed for B, A: OSError: no network"),
        (without_package, ConfigError, "needs not_there_at_all, .*: pip install 'mine-client'"),
        (lambda request: None, DataError, ": cannot read bars from NoneType"),
        (
            lambda request: table(request).filter(pl.col("ticker") != "A"),
            DataError,
            "no symbol 'A'",
        ),
        (lambda request: table(request).drop("close"), DataError, "no close column among"),
        (
            lambda request: table(request).with_columns(close=-pl.col("close")),
            DataError,
            "close",
        ),
        (lambda request: replace(BARS, close=BARS.close[1:]), DataError, r"close of bars must be"),
    ],
)
def test_what_a_vendor_does_wrong_is_named_in_one_line(function, error, message, monkeypatch):
    monkeypatch.setattr(sys.modules[HERE], "WRONG", replace(VENDOR, fetch=function))
    with pytest.raises(error, match=message) as caught:
        fetch(f"{HERE}:WRONG", REQUEST)
    assert f"data vendor '{HERE}:WRONG'" in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yahoo", "no data vendor is called 'yahoo'; there are yfinance, ccxt, and your own as"),
        (f"{HERE}:bars", "is not a data vendor: it must be a Vendor, got function"),
        ("not_there:vendor", "not_there cannot be imported"),
    ],
)
def test_a_vendor_that_is_not_there_is_named(name, message, capsys, tmp_path):
    days = ["--start", "2020-01-03", "--end", "2020-03-31", "--out", str(tmp_path / "a.parquet")]
    with pytest.raises(SystemExit) as caught:
        main(["data", "fetch", name, "A", *days])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_requests_and_records_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="start 2020-01-03 is after end 2019-01-01"):
        replace(REQUEST, end="2019-01-01")
    with pytest.raises(DataError, match="no symbols to fetch"):
        replace(REQUEST, symbols=())
    with pytest.raises(ConfigError, match=r"Vendor\.fetch of mine must be a function"):
        Vendor(name="mine", fetch=BARS)


def test_a_function_is_a_source_wherever_one_is_named():
    config = DataConfig(source=f"{HERE}:bars", symbols=("S2", "S0"), end="2020-12-31")
    found = load_bars(config)
    assert found.symbols == ("S2", "S0") and len(found) == 262
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(BARS, name)[:262, [2, 0]])
    assert load_bars(DataConfig(source=f"{HERE}:BARS")).symbols == BARS.symbols
    assert load_bars(DataConfig(source=f"{HERE}:frame")).symbols == ("A", "B")
    command = parse(["train", "--data.source", f"{HERE}:bars"])
    assert command.run.data.source == f"{HERE}:bars"


def test_a_function_is_a_market_of_gymnasium():
    rules = {"episode": {"horizon": 20}, "start": "2020-09-01"}
    named = gymnasium.make("fastsim/Portfolio-v0", market=f"{HERE}:bars", **rules)
    given = gymnasium.make("fastsim/Portfolio-v0", market=BARS, **rules)
    (one, _), (other, _) = named.reset(seed=1), given.reset(seed=1)
    np.testing.assert_array_equal(one, other)
    assert np.abs(one).sum() > 0


def crossed():
    high = BARS.high.copy()
    high[5, 0] = BARS.low[5, 0] / 2
    return replace(BARS, high=high)


def torn():
    raise RuntimeError("torn\ncable")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", ConfigError, "has no 'nothing'"),
        ("torn", DataError, "fails: RuntimeError: torn cable"),
        ("REQUEST", DataError, ": cannot read bars from BarRequest"),
        ("crossed", DataError, ": .*high"),
    ],
)
def test_what_a_source_does_wrong_is_named_in_one_line(name, error, message):
    with pytest.raises(error, match=message) as caught:
        load_bars(DataConfig(source=f"{HERE}:{name}"))
    assert f"data source '{HERE}:{name}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_problems_of_a_source_are_mended_on_request():
    mended = load_bars(DataConfig(source=f"{HERE}:crossed", repair=True))
    repairs = [repair for repair in mended.repairs if repair.problem == "prices"]
    assert [(repair.symbol, repair.cells) for repair in repairs] == [("S0", 1)]
