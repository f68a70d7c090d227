"""Funding series and leverage tiers: what is read, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from fastsim.data.bars import Bars
from fastsim.data.contracts import find_symbol, spelled
from fastsim.data.funding import read_funding
from fastsim.data.tiers import read_tiers
from fastsim.errors import DataError
from fastsim.market.funding import funding_table

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
SYMBOL = "BTC/USDT:USDT"
TIERS = [
    {"tier": 1.0, "symbol": SYMBOL, "currency": "USDT", "minNotional": 0.0, "maxNotional": 50_000.0,
     "maintenanceMarginRate": 0.004, "maxLeverage": 125.0, "info": {"bracket": "1", "cum": "0.0"}},
    {"tier": 2.0, "symbol": SYMBOL, "currency": "USDT", "minNotional": 50_000.0,
     "maxNotional": 600_000.0, "maintenanceMarginRate": 0.005, "maxLeverage": 100.0,
     "info": {"bracket": "2", "cum": "50.0"}},
    {"tier": 3.0, "symbol": SYMBOL, "currency": "USDT", "minNotional": 600_000.0,
     "maxNotional": 3_000_000.0, "maintenanceMarginRate": 0.01, "maxLeverage": 75.0,
     "info": {"bracket": "3", "cum": "3050.0"}},
]  # fmt: skip


def records(hours, symbol=SYMBOL, rate=1e-4):
    """As ccxt gives them, some milliseconds late."""
    return [
        {"symbol": symbol, "timestamp": START + at * HOUR + at % 13, "fundingRate": rate,
         "datetime": None, "info": {}}
        for at in hours
    ]  # fmt: skip


def hourly(count, step=8):
    return range(0, count * step, step)


def bars(days=4, symbols=("BTC/USDT",)):
    close = 100.0 + np.arange(days * len(symbols), dtype=float).reshape(days, -1)
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    return Bars(symbols=symbols, timestamps=stamps, close=close, open=close - 0.5)


def test_records_of_ccxt_lists_by_symbol_and_files_are_read_alike(tmp_path):
    given = records(hourly(6), rate=1e-4) + records(hourly(6), "ETH/USDT:USDT", rate=-2e-4)
    wanted = read_funding(given)
    assert list(wanted) == [SYMBOL, "ETH/USDT:USDT"]
    assert wanted[SYMBOL].stamps[1] == np.datetime64("2024-01-01T08:00", "ns")
    assert (wanted["ETH/USDT:USDT"].rates == -2e-4).all()
    by_symbol = {symbol: [r for r in given if r["symbol"] == symbol] for symbol in wanted}
    frame = pl.DataFrame(
        {
            name: [record[name] for record in given]
            for name in ("symbol", "timestamp", "fundingRate")
        }
    )
    frame.write_csv(tmp_path / "funding.csv")
    frame.write_parquet(tmp_path / "funding.parquet")
    (tmp_path / "funding.json").write_text(json.dumps(given))
    (tmp_path / "lists.json").write_text(json.dumps(by_symbol))
    sources = (by_symbol, frame, frame.to_pandas(), *sorted(tmp_path.iterdir()))
    for source in sources:
        found = read_funding(source)
        for symbol, series in wanted.items():
            for one, other in zip(found[symbol], series, strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_ccxt_itself_parses_is_read():
    ccxt = pytest.importorskip("ccxt")
    exchange = ccxt.binanceusdm()
    raw = [
        {"symbol": "BTCUSDT", "fundingTime": START + at * HOUR, "fundingRate": "0.00010000",
         "markPrice": "42000.5"} for at in hourly(3)
    ]  # fmt: skip
    history = [exchange.parse_funding_rate_history(each, {"symbol": SYMBOL}) for each in raw]
    series = find_symbol(read_funding(history), SYMBOL, "funding")
    assert (series.rates == 1e-4).all() and (series.marks == 42000.5).all()
    bracket = {"bracket": "1", "initialLeverage": "125", "notionalCap": "50000",
               "notionalFloor": "0", "maintMarginRatio": "0.004", "cum": "0.0"}  # fmt: skip
    second = {"bracket": "2", "initialLeverage": "100", "notionalCap": "600000",
              "notionalFloor": "50000", "maintMarginRatio": "0.005", "cum": "50.0"}  # fmt: skip
    parsed = exchange.parse_market_leverage_tiers(
        {"symbol": "BTCUSDT", "brackets": [bracket, second]}
    )
    (found,) = read_tiers(parsed, ["BTC/USDT"])
    assert [tuple(tier) for tier in found] == [(0.004, 0, 5e4, 125), (0.005, 50, 6e5, 100)]


@pytest.mark.parametrize(
    "name", ["BTC/USDT:USDT", "BTC/USDT", "BTCUSDT", "btc-usdt", "BTCUSDT-PERP"]
)
def test_a_contract_is_known_by_each_of_its_names(name):
    assert spelled(name) == "BTCUSDT"
    table = funding_table(bars(), records(hourly(13), name), first=0, fill="close")
    assert table.shape == (4, 1) and (table[:3] > 0).all()


def test_a_page_that_overlaps_the_one_before_is_no_payment_twice():
    given = records(hourly(6))
    series = read_funding(given[3:] + given[:4])[SYMBOL]
    assert len(series.stamps) == 6 and (np.diff(series.stamps) > np.timedelta64(0)).all()


@pytest.mark.parametrize(
    "hours",
    [
        hourly(30),
        hourly(30, 1),
        [*hourly(10), *range(76, 120, 4)],  # from 8 hours to 4
        [*hourly(12, 4), *range(52, 120, 8)],
    ],
)
def test_an_exchange_may_change_its_interval(hours):
    assert len(read_funding(records(hours))[SYMBOL].stamps) == len(list(hours))


@pytest.mark.parametrize(
    ("hours", "hole"),
    [
        ([0, 8, 16, 32, 40, 48], "2024-01-01T16:00:00 to 2024-01-02T08:00:00, .* every 8 hours"),
        ([0, 8, 24], "08:00:00 to 2024-01-02, where it is paid every 8 hours"),
        ([*hourly(10), *range(76, 100, 4), *range(104, 140, 4)], "every 4 hours"),
        ([0, 4, 12, 16, 24, 28, 36, 40], "every 4 hours"),
    ],
)
def test_a_hole_is_refused_by_its_series_own_interval(hours, hole):
    with pytest.raises(DataError, match=rf"funding of {SYMBOL} has a hole from .*{hole}"):
        read_funding(records(hours))


def test_payments_fall_into_the_bar_that_they_lie_in_and_add_up():
    given = records(hourly(13), rate=0.0)
    for at, rate in ((24, 0.5e-2), (32, 1e-2), (40, 2e-2), (48, 4e-2)):
        given[at // 8]["fundingRate"] = rate
    # At the open of the second day the first of them is over; the last is at that day's end.
    table = funding_table(bars(), given, first=0, fill="next_open")
    close, first = bars().close[1, 0], bars().open[1, 0]
    assert table[0, 0] == pytest.approx(3e-2 + 4e-2 * close / first, rel=1e-12)
    assert not table[1:].any()
    before = bars().close[0, 0]
    table = funding_table(bars(), given, first=0, fill="close")
    assert table[0, 0] == pytest.approx((3e-2 * first + 4e-2 * close) / before, rel=1e-12)


def test_a_series_that_is_too_short_for_the_bars_is_refused_at_either_end():
    with pytest.raises(
        DataError, match=r"begins on 2024-01-02T16:00:00, .* traded from 2024-01-02 on"
    ):
        funding_table(bars(), records(range(40, 104, 8)), first=0, fill="close")
    funding_table(bars(), records(range(40, 104, 8)), first=1, fill="close")  # nobody trades before
    with pytest.raises(
        DataError, match=r"of BTC/USDT ends on 2024-01-04T16:00:00, and its bars on"
    ):
        funding_table(bars(), records(hourly(12)), first=0, fill="close")
    with pytest.raises(DataError, match=r"there is nothing of ETH/USDT; there is of BTC/USDT:USDT"):
        funding_table(
            bars(symbols=("BTC/USDT", "ETH/USDT")), records(hourly(13)), first=0, fill="close"
        )


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ([], r"a list of at least one record"),
        (["x"], r"a list of at least one record, got 'x'"),
        ({"BTC/USDT": 3}, r"a list of at least one record, got 3"),
        ([{"symbol": "A", "timestamp": START}], r"rate of A on 2024-01-01 is nan"),
        ([{"symbol": "A", "timestamp": START, "fundingRate": "x"}], r"none may be missing"),
        ([{"symbol": "A", "timestamp": START, "fundingRate": 1.0}], r"at most 0.1"),
        ([{"symbol": "A", "timestamp": START, "fundingRate": float("inf")}], r"is inf"),
        ([{"symbol": None, "timestamp": START, "fundingRate": 0}], r"is not a symbol"),
        ([{"symbol": "A", "timestamp": None, "fundingRate": 0.0}], r"is not a date"),
        (
            [{"symbol": "A", "timestamp": START, "fundingRate": rate} for rate in (0.01, 0.02)],
            r"A has two rates on 2024-01-01, 0.01 and 0.02: keep one",
        ),
        (
            pl.DataFrame({"symbol": ["A"], "timestamp": [START]}),
            r"no column fundingRate; there are",
        ),
        (pl.DataFrame({"timestamp": [START], "rate": [0.0]}), r"no column symbol"),
        (pl.DataFrame({"symbol": [], "timestamp": [], "rate": []}), r"there is no payment in it"),
        (3, r"cannot read .* from int"),
        ("nowhere.csv", r"nowhere.csv: no such file"),
        ("nowhere.json", r"nowhere.json: no such file"),
    ],
)
def test_what_is_no_series_is_named(source, part):
    with pytest.raises(DataError, match=part) as caught:
        read_funding(source)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_named(tmp_path):
    path = tmp_path / "bad.json"
    for text, part in (
        ("{", "not readable as JSON"),
        ("3", "a list of at least one record, got 3"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"bad.json: .*{part}"):
            read_funding(path)
    for text, part in (("{", "not readable as JSON"), ("3", "tiers are a list")):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"bad.json: {part}"):
            read_tiers(path, ["BTCUSDT"])


def test_tiers_are_those_of_ccxt_in_any_order_with_or_without_amounts(tmp_path):
    wanted = [(0.004, 0.0, 5e4, 125.0), (0.005, 50.0, 6e5, 100.0), (0.01, 3050.0, 3e6, 75.0)]
    bare = [{name: tier[name] for name in tier if name != "info"} for tier in TIERS]
    path = tmp_path / "tiers.json"
    path.write_text(json.dumps({SYMBOL: TIERS}))
    for source in (TIERS, TIERS[::-1], bare, {SYMBOL: TIERS}, path):
        (found,) = read_tiers(source, ["BTCUSDT"])
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("row", "change", "part"),
    [
        (
            1,
            {"info": {"cum": "80"}},
            r"of the tier from 50000 is 80, and its rate 0.005 makes it 50",
        ),
        (1, {"minNotional": 60_000}, r"a tier begins at 60000 and the one before ends at 50000"),
        (1, {"maintenanceMarginRate": 0.001}, r"the rate falls from 0.004 to 0.001"),
        (0, {"maintenanceMarginRate": 0.4 * 100}, r"maintenanceMarginRate is a fraction"),
        (0, {"maintenanceMarginRate": None}, r"maintenanceMarginRate of a tier is None"),
        (2, {"maxLeverage": "x"}, r"maxLeverage of a tier is 'x'"),
        (2, {"maxNotional": 1}, r"a tier from 600000 ends before it begins"),
    ],
)
def test_tiers_that_cannot_be_are_named(row, change, part):
    tiers = [{**tier, **(change if at == row else {})} for at, tier in enumerate(TIERS)]
    with pytest.raises(DataError, match=rf"tiers: BTCUSDT: .*{part}"):
        read_tiers({SYMBOL: tiers}, ["BTCUSDT"])


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({SYMBOL: []}, r"tiers: BTCUSDT: tiers are a list of at least one, got \[\]"),
        ({SYMBOL: ["x"]}, r"a tier is a mapping, got 'x'"),
        ({"ETH/USDT:USDT": TIERS}, r"nothing of BTCUSDT; there is of ETH/USDT:USDT"),
        ([{**tier, "symbol": "ETH/USDT:USDT"} for tier in TIERS], r"nothing of BTCUSDT"),
        ({"BTC/USDT": TIERS, SYMBOL: TIERS}, r"BTCUSDT may be BTC/USDT or BTC/USDT:USDT"),
        ("nowhere.json", r"nowhere.json: no such file"),
    ],
)
def test_what_are_no_tiers_is_named(source, part):
    with pytest.raises(DataError, match=part):
        read_tiers(source, ["BTCUSDT"])
