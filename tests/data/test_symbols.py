"""Symbols as people write them, and what sources and exchanges list."""

import ccxt
import polars as pl
import pytest

from fastsim.data.symbols import find_symbols, list_symbols, symbols_meant
from fastsim.errors import ConfigError, DataError

CRYPTO = ("BTC/USDT", "ETH/USDT", "SOL/USDC")


@pytest.mark.parametrize(
    "text",
    ["BTCUSDT", "btc-usd", "BTC/USDT", "btc_usdt", "BTC", "XBT/USD", "BTC/USDT:USDT", "btcusdc"],
)
def test_one_market_is_found_however_it_is_written(text):
    assert find_symbols([text], CRYPTO, "here") == ("BTC/USDT",)


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [
        ("btc-usd", ("BTC/USDT", "BTC/USD"), "BTC/USD"),
        ("BTCUSDT", ("BTC/USDT:USDT", "BTC/USDT"), "BTC/USDT"),
        ("BTCUSDT", ("BTC/USDT:USDT", "ETH/USDT:USDT"), "BTC/USDT:USDT"),
        ("btcusd", ("XXBT", "XBT/USD"), "XBT/USD"),
        ("brk-b", ("BRK.A", "BRK.B"), "BRK.B"),
        ("aapl", ("AAPL", "AAP"), "AAPL"),
        ("usdt", ("USDT", "BTC/USDT"), "USDT"),
        ("a", ("a", "A"), "a"),
    ],
)
def test_the_nearest_way_of_writing_is_taken(text, known, found):
    assert find_symbols([text], known, "here") == (found,)


@pytest.mark.parametrize(
    ("wanted", "known", "said"),
    [
        (["btc-usd"], ("BTC/USDT", "BTC/USDC"), r"'btc-usd' may be 'BTC/USDT', 'BTC/USDC' of here"),
        (["BTC"], ("BTC/USDT", "BTC/USDC"), "may be"),
        (["Aa"], ("aa", "AA"), "may be 'aa', 'AA'"),
        (["APPL"], ("AAPL", "IBM"), "here has no symbol 'APPL'; near it are 'AAPL'"),
        (["-"], ("AAPL",), "no symbol '-'"),
        ([""], ("AAPL",), "no symbol ''"),
        (["BTCUSDT", "btc-usd"], CRYPTO, "'BTCUSDT' and 'btc-usd' are both BTC/USDT of here"),
    ],
)
def test_what_is_ambiguous_unknown_or_named_twice_is_refused_with_what_is_near(wanted, known, said):
    with pytest.raises(DataError, match=said):
        find_symbols(wanted, known, "here")


def test_symbols_of_built_in_sets_and_files(tmp_path):
    assert symbols_meant(("msft", "Aapl"), "tech4") == ("MSFT", "AAPL")
    prices = pl.DataFrame({"date": ["2020-01-01", "2020-01-02"], "close": [1.0, 2.0]})
    prices.write_csv(tmp_path / "one.csv")
    assert symbols_meant(("anything",), str(tmp_path / "one.csv")) == ("anything",)
    with pytest.raises(
        ConfigError, match=r"fetched first: fastsim data fetch ccxt BTCUSDT .*--out"
    ):
        symbols_meant(("BTCUSDT",), "ccxt:binance")


def test_a_source_lists_its_symbols_with_their_bars(tmp_path):
    rows = {
        "date": ["2020-01-01", "2020-01-02", "2020-01-03"] * 2,
        "symbol": ["A"] * 3 + ["B"] * 3,
        "close": [1.0, 2.0, 3.0, None, 2.0, 3.0],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "two.csv")
    one, two = list_symbols(str(tmp_path / "two.csv"))
    assert one == ("A", 3, "2020-01-01", "2020-01-03", "")
    assert two == ("B", 2, "2020-01-02", "2020-01-03", "")
    assert [each.symbol for each in list_symbols("tech4")] == ["AAPL", "GOOG", "IBM", "MSFT"]


MARKETS = {
    "BTC/USDT": {"symbol": "BTC/USDT", "type": "spot", "active": True},
    "LUNA/USDT": {"symbol": "LUNA/USDT", "type": "spot", "active": False},
    "BTC/USDT:USDT": {"symbol": "BTC/USDT:USDT", "type": "swap", "active": None},
}


class Exchange:
    """Answers as a client of ccxt does."""

    def __init__(self, settings):
        assert settings == {"enableRateLimit": True}

    def load_markets(self):
        return MARKETS


def test_an_exchange_lists_its_markets_and_says_which_are_closed(monkeypatch):
    monkeypatch.setattr(ccxt, "binance", Exchange)
    found = {each.symbol: each.kind for each in list_symbols("ccxt:binance")}
    assert found == {
        **{"BTC/USDT": "spot", "LUNA/USDT": "spot, closed", "BTC/USDT:USDT": "swap"},
    }


def test_an_exchange_that_is_unknown_or_cannot_be_reached_is_one_line(monkeypatch):
    with pytest.raises(ConfigError, match="'nowhere' is not one of ccxt's"):
        list_symbols("ccxt:nowhere")

    def offline(_):
        raise ccxt.NetworkError("binance GET https://api.binance.com\nno route")

    monkeypatch.setattr(Exchange, "load_markets", offline)
    monkeypatch.setattr(ccxt, "binance", Exchange)
    with pytest.raises(
        DataError, match="binance does not say what it lists: NetworkError"
    ) as caught:
        list_symbols("ccxt:binance")
    assert "\n" not in str(caught.value)
