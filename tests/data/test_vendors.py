"""Vendors on answers written in their formats: their own parsing runs, the network does not."""

import sys
from urllib.parse import parse_qs, urlparse

import ccxt
import numpy as np
import pandas as pd
import pytest
import yfinance

from fastsim.data.checks import CheckConfig
from fastsim.data.vendors import fetch_ccxt, fetch_yfinance
from fastsim.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # yfinance 1.7, pandas 3.1

YAHOO = {  # open, high, low, close, adjusted close, volume
    "AAPL": {
        "2020-01-02": (74.06, 75.15, 73.80, 75.0875, 72.4684, 135480400),
        "2020-01-03": (74.2875, 75.145, 74.125, 74.3575, 71.7638, 146322800),
        "2020-01-06": (73.4475, 74.99, 73.1875, 74.95, 72.3357, 118387200),
    },
    "BTC-USD": {
        "2020-01-02": (7202.55, 7212.16, 6935.27, 6985.47, 6985.47, 20802083465),
        "2020-01-03": (6984.43, 7413.72, 6915.00, 7344.88, 7344.88, 28111481032),
        "2020-01-04": (7345.38, 7427.39, 7309.51, 7410.66, 7410.66, 18444271275),
        "2020-01-05": (7410.45, 7544.50, 7400.54, 7411.32, 7411.32, 19725074095),
        "2020-01-06": (7410.45, 7781.87, 7409.29, 7769.22, 7769.22, 23276261598),
    },
}
COLUMNS = ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
ZONES = {"AAPL": "America/New_York", "BTC-USD": "UTC"}


def yahoo_history(ticker, *, start, end, auto_adjust, actions, **_):
    """Stand in for `yfinance.Ticker.history`, one symbol's frame as yfinance 1.7 makes it."""
    assert (auto_adjust, actions) == (False, False)
    symbol = ticker.ticker
    days = [day for day in YAHOO.get(symbol, ()) if start <= day < end]
    if not days:
        return yfinance.utils.empty_df()
    index = pd.DatetimeIndex(days, name="Date").as_unit("s").tz_localize(ZONES[symbol])
    return pd.DataFrame([YAHOO[symbol][day] for day in days], index=index, columns=COLUMNS)


@pytest.fixture
def yahoo(monkeypatch):
    monkeypatch.setattr(yfinance.Ticker, "history", yahoo_history)


@pytest.mark.usefixtures("yahoo")
def test_yahoo_bars_keep_prices_as_traded_and_the_adjusted_close_apart():
    bars = fetch_yfinance(["AAPL"], start="2020-01-02", end="2020-01-06")
    wanted = np.array(list(YAHOO["AAPL"].values()))
    for place, name in enumerate(("open", "high", "low", "close", "adj_close", "volume")):
        np.testing.assert_array_equal(getattr(bars, name)[:, 0], wanted[:, place])
    assert [str(stamp)[:16] for stamp in bars.timestamps] == [
        f"{day}T00:00" for day in YAHOO["AAPL"]
    ]


@pytest.mark.usefixtures("yahoo")
def test_yahoo_symbols_keep_the_order_and_the_case_asked_for():
    halt = CheckConfig(gaps="halt")
    bars = fetch_yfinance(["btc-usd", "AAPL"], start="2020-01-01", end="2020-01-06", checks=halt)
    assert bars.symbols == ("btc-usd", "AAPL")
    assert np.isnan(bars.close[:, 1]).tolist() == [False, False, True, True, False]
    assert [(repair.symbol, repair.cells) for repair in bars.repairs] == [("AAPL", 2)]


@pytest.mark.usefixtures("yahoo")
def test_yahoo_calendars_that_differ_are_refused_unless_asked_for():
    with pytest.raises(DataError, match=r"^yfinance: AAPL on 2020-01-04: no price.*gaps='halt'"):
        fetch_yfinance(["AAPL", "BTC-USD"], start="2020-01-01", end="2020-01-06")


@pytest.mark.usefixtures("yahoo")
@pytest.mark.parametrize("symbols", [["NOPE"], ["AAPL", "NOPE"]])
def test_a_symbol_unknown_to_yahoo_is_named(symbols):
    with pytest.raises(DataError, match="no bars of NOPE"):
        fetch_yfinance(symbols, start="2020-01-01", end="2020-01-06")


def test_a_network_failure_inside_yfinance_names_the_symbol(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Could not resolve host\nquery1.finance.yahoo.com")

    monkeypatch.setattr(yfinance.Ticker, "history", offline)
    with pytest.raises(DataError, match="no bars of AAPL") as caught:
        fetch_yfinance(["AAPL"], start="2020-01-01", end="2020-01-06")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(yfinance, "download", offline)
    with pytest.raises(DataError, match="failed for AAPL: Could not resolve host") as caught:
        fetch_yfinance(["AAPL"], start="2020-01-01", end="2020-01-06")
    assert "\n" not in str(caught.value)


DAY = 86_400_000
KLINES = [  # open time, open, high, low, close, volume, close time, the rest
    [1577836800000 + day * DAY, *prices, 1577923199999 + day * DAY, "1", 1, "1", "1", "0"]
    for day, prices in enumerate(
        [
            ("7195.24000000", "7255.00000000", "7175.15000000", "7200.85000000", "16792.388165"),
            ("7200.77000000", "7212.50000000", "6924.74000000", "6965.71000000", "31951.483932"),
            ("6965.49000000", "7405.00000000", "6871.04000000", "7344.96000000", "68428.500451"),
            ("7345.00000000", "7404.00000000", "7272.21000000", "7354.11000000", "29987.974977"),
            ("7354.19000000", "7495.00000000", "7318.00000000", "7358.75000000", "38331.085604"),
        ]
    )
]
MARKET = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "baseAssetPrecision": 8,
    "quoteAsset": "USDT",
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"],
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": True,
    "filters": [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": "0.01",
            "maxPrice": "1000000",
            "tickSize": "0.01",
        }
    ],
    "permissions": [],
    "permissionSets": [["SPOT"]],
}


@pytest.fixture
def binance(monkeypatch):
    """Answers shaped as Binance gives them, two candles a page; gives the start times asked for."""
    asked = []

    def fetch(_, url, *__, **___):
        if "/api/v3/exchangeInfo" in url:
            return {"timezone": "UTC", "symbols": [MARKET]}
        if "/api/v3/klines" in url:
            since = int(parse_qs(urlparse(url).query)["startTime"][0])
            asked.append(since)
            return [kline for kline in KLINES if kline[0] >= since][:2]
        return {"symbols": []}

    monkeypatch.setattr(ccxt.binance, "fetch", fetch)
    return asked


def fetch_bitcoin(**changes):
    settings = {"start": "2020-01-01", "end": "2020-01-04", **changes}
    return fetch_ccxt("binance", settings.pop("symbols", ["BTC/USDT"]), **settings)


def test_candles_are_paged_and_equal_what_the_exchange_sent(binance):
    bars = fetch_bitcoin()
    wanted = np.array([kline[1:6] for kline in KLINES[:4]], dtype=float)
    for place, name in enumerate(("open", "high", "low", "close", "volume")):
        np.testing.assert_array_equal(getattr(bars, name)[:, 0], wanted[:, place])
    assert [str(stamp)[:10] for stamp in bars.timestamps][::3] == ["2020-01-01", "2020-01-04"]
    assert binance[:2] == [KLINES[0][0], KLINES[1][0] + 1]
    assert len(binance) == 3


@pytest.mark.usefixtures("binance")
def test_the_candle_still_being_traded_is_left_out(monkeypatch):
    monkeypatch.setattr(ccxt.binance, "milliseconds", lambda _: KLINES[3][6])
    assert len(fetch_bitcoin(end="2020-01-05")) == 3
    monkeypatch.setattr(ccxt.binance, "milliseconds", lambda _: KLINES[3][6] + 1)
    assert len(fetch_bitcoin(end="2020-01-05")) == 4


@pytest.mark.usefixtures("binance")
def test_a_late_beginning_is_said_in_the_log(caplog):
    assert len(fetch_bitcoin(start="2019-12-20")) == 4
    assert "BTC/USDT begins on 2020-01-01, not on 2019-12-20" in caplog.text


@pytest.mark.usefixtures("binance")
@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"symbols": ["NO/PE"]}, DataError, "binance failed for NO/PE: BadSymbol"),
        ({"start": "2021-01-01", "end": "2021-01-05"}, DataError, "no 1d candles of BTC/USDT"),
        ({"symbols": []}, DataError, "no symbols"),
        ({"timeframe": "7d"}, ConfigError, "timeframe '7d'"),
        ({"start": "2020-02-30"}, DataError, "2020-02-30"),
        ({"start": "2020-02-01"}, DataError, "start 2020-02-01 is after end 2020-01-04"),
    ],
)
def test_what_binance_cannot_answer_is_named(changes, kind, part):
    with pytest.raises(kind) as caught:
        fetch_bitcoin(**changes)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_failure_of_an_exchange_names_the_symbol(monkeypatch):
    def offline(*_, **__):
        raise ccxt.RequestTimeout("binance GET https://api.binance.com\ntimed out")

    monkeypatch.setattr(ccxt.binance, "fetch", offline)
    with pytest.raises(DataError, match="binance failed for BTC/USDT: RequestTimeout") as caught:
        fetch_bitcoin()
    assert "\n" not in str(caught.value)


def test_an_unknown_exchange_is_refused():
    with pytest.raises(ConfigError, match=r"'binanse'.*binance"):
        fetch_ccxt("binanse", ["BTC/USDT"], start="2020-01-01", end="2020-01-04")


@pytest.mark.parametrize("package", ["yfinance", "ccxt"])
def test_a_missing_package_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'fastsim-rl\[{package}\]'"):
        if package == "yfinance":
            fetch_yfinance(["AAPL"], start="2020-01-01", end="2020-01-06")
        else:
            fetch_bitcoin()
