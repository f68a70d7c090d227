"""ccxt's own client against Binance's endpoints on this machine: the books are the exchange's."""

import logging
import pickle
import time
import traceback
from decimal import Decimal

import ccxt
import pytest
from binance_server import KEY, SECRET, BinanceServer
from loopback import Answer

from fastsim.errors import BrokerError, ConfigError
from fastsim.live import ccxt_broker
from fastsim.live.answers import Patience
from fastsim.live.broker import Order, OrderState, UnansweredError
from fastsim.live.ccxt_broker import CcxtBroker
from fastsim.live.ccxt_client import CcxtClient, connect

SYMBOLS = ("BTCUSDT", "ETH/USDT")
WINDOW = 1_000
"""Milliseconds in which an order is taken."""
QUICK = Patience(attempts=3, longest=2.0, fills=0.3, every=0.05, answer=2.0)


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", KEY)
    monkeypatch.setenv("FASTSIM_BINANCE_SECRET", SECRET)
    monkeypatch.setattr(ccxt_broker, "SLACK", 0.3)


@pytest.fixture
def server():
    with BinanceServer() as server:
        yield server


def client_of(server, patience=QUICK, live=False):
    """What `connect` makes, with the loopback's address for Binance's."""
    client = connect("binance", live=live, patience=patience)
    ours = {"public": "/api/v3", "private": "/api/v3", "v1": "/api/v1", "sapi": "/sapi/v1"}
    client.client.urls["api"] = {name: server.url + path for name, path in ours.items()}
    client.client.enableRateLimit = False
    client.client.options["recvWindow"] = WINDOW
    return client


def broker_of(server, symbols=SYMBOLS, patience=QUICK, live=False):
    return CcxtBroker(client_of(server, patience, live), symbols)


def order_of(shares, symbol="BTCUSDT", client_id="one", price=20_000.0):
    return Order(client_id=client_id, symbol=symbol, shares=shares, price=price, weight=0.0)


def require_equal_books(broker, server, symbols=SYMBOLS):
    """Account and orders as fastsim sees them are the exchange's to the last decimal."""
    account = broker.account(symbols)
    assert Decimal(str(account.cash)) == server.held("USDT")
    for symbol, coin in zip(symbols, ("BTC", "ETH"), strict=True):
        assert Decimal(str(account.shares[symbol])) == server.held(coin), symbol
    named = {"BTCUSDT": "BTCUSDT", "ETHUSDT": "ETH/USDT"}
    for order in server.orders:
        require_equal_order(broker.find(order.client_id, named[order.pair]), order)


def require_equal_order(report, order):
    sign = 1 if order.side == "BUY" else -1
    assert Decimal(str(report.shares)) == sign * order.amount
    assert Decimal(str(report.filled)) == sign * order.filled
    assert {coin: Decimal(str(fee)) for coin, fee in report.fees.items()} == order.fees
    bought = order.fees.get(order.pair.removesuffix("USDT"), Decimal(0))
    assert Decimal(str(report.received)) == sign * order.filled - bought
    if order.filled:
        assert report.price == pytest.approx(float(order.paid / order.filled), rel=1e-15)
    else:
        assert report.price != report.price


def test_a_buy_takes_its_fee_in_the_coin_and_the_books_are_the_exchanges(server):
    broker = broker_of(server)
    (report,) = broker.submit([order_of(0.123)])
    assert report.state is OrderState.FILLED
    assert (report.filled, report.price, report.fees) == (0.123, 20_000.0, {"BTC": 0.000123})
    assert report.received == 0.122877
    account = broker.account(SYMBOLS)
    assert account.shares == {"BTCUSDT": 0.122877, "ETH/USDT": 0.0}
    assert account.cash == 10_000.0 - 0.123 * 20_000.0
    require_equal_books(broker, server)


def test_all_that_is_left_after_the_fee_can_be_sold_in_steps(server):
    broker = broker_of(server)
    broker.submit([order_of(0.123)])
    held = broker.account(SYMBOLS).shares["BTCUSDT"]
    sold = broker.tradable("BTCUSDT", -held, 20_000.0)
    assert sold == -0.12287
    (report,) = broker.submit([order_of(sold, client_id="two")])
    assert report.state is OrderState.FILLED
    assert report.fees == {"USDT": 2.4574}
    assert broker.account(SYMBOLS).shares["BTCUSDT"] == 0.000007
    require_equal_books(broker, server)


def test_fills_at_several_prices_and_a_fee_in_a_third_coin_add_up(server):
    server.free["BNB"] = Decimal(1)
    server.fee_coin = "BNB"
    server.depth["BTCUSDT"] = [("20000.10", "0.01"), ("20001.37", "0.00333"), ("20100.00", "5")]
    broker = broker_of(server)
    (report,) = broker.submit([order_of(0.1)])
    paid = (
        Decimal("20000.10") * Decimal("0.01")
        + Decimal("20001.37") * Decimal("0.00333")
        + Decimal(20100) * Decimal("0.08667")
    )
    assert report.price == pytest.approx(float(paid * 10), rel=1e-15)
    assert set(report.fees) == {"BNB"}
    assert report.received == 0.1
    require_equal_order(report, server.orders[0])
    require_equal_books(broker, server)


def test_an_order_that_the_book_fills_in_part_is_over_and_says_how_much(server):
    server.depth["BTCUSDT"] = [("20000.00", "0.02"), ("20010.00", "0.01")]
    broker = broker_of(server)
    (report,) = broker.submit([order_of(0.1)])
    assert (report.state, report.shares, report.filled) == (OrderState.CANCELLED, 0.1, 0.03)
    assert report.reason == "EXPIRED"
    require_equal_books(broker, server)


def test_what_sells_goes_first_and_reports_keep_the_order_that_was_asked_for(server):
    server.free["ETH"] = Decimal(10)
    server.free["USDT"] = Decimal(0)
    broker = broker_of(server)
    reports = broker.submit(
        [order_of(0.4, client_id="buy"), order_of(-9.0, "ETH/USDT", "sell", 1_000.0)]
    )
    assert [each.client_id for each in reports] == ["buy", "sell"]
    assert [each.state for each in reports] == [OrderState.FILLED, OrderState.FILLED]
    assert [each.client_id for each in server.orders] == ["sell", "buy"]
    require_equal_books(broker, server)


def test_the_same_id_is_never_placed_twice_though_the_exchange_would(server):
    broker = broker_of(server)
    (first,) = broker.submit([order_of(0.1)])
    assert broker.submit([order_of(0.1)]) == (first,)
    assert broker_of(server).submit([order_of(0.1)]) == (first,)
    assert server.count("POST", "/api/v3/order") == 1
    raw = client_of(server).client
    raw.create_order("BTC/USDT", "market", "buy", 0.1, None, {"clientOrderId": "one"})
    assert len(server.orders) == 2  # which is why it is looked up before


def test_an_accepted_order_whose_answer_is_lost_is_found_and_not_placed_again(server):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "lose")
    with pytest.raises(UnansweredError, match=r"^ccxt:binance: order one of BTCUSDT: no answer"):
        broker.submit([order_of(0.1)])
    found = broker.find("one", "BTCUSDT")
    assert (found.state, found.filled, found.fees) == (OrderState.FILLED, 0.1, {"BTC": 0.0001})
    (again,) = broker.submit([order_of(0.1)])
    assert again == found
    assert len(server.orders) == 1
    require_equal_books(broker, server)


def test_an_order_still_on_its_way_is_waited_for_before_it_is_said_that_there_is_none(server):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "late", seconds=0.6)
    with pytest.raises(UnansweredError):
        broker.submit([order_of(0.1)])
    assert not server.orders
    found = broker.find("one", "BTCUSDT")
    assert found.state is OrderState.FILLED
    assert len(server.orders) == 1
    require_equal_books(broker, server)


def test_an_order_of_a_process_that_was_stopped_is_waited_for_too(server):
    server.fail("POST", "/api/v3/order", "late", seconds=0.6)
    with pytest.raises(UnansweredError):
        broker_of(server).submit([order_of(0.1)])
    restarted = broker_of(server)
    assert not server.orders
    assert restarted.find("one", "BTCUSDT").state is OrderState.FILLED
    require_equal_books(restarted, server)


def test_an_order_that_arrives_too_late_is_refused_by_the_exchange(server):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "late", seconds=WINDOW / 1000 + 0.2)
    with pytest.raises(UnansweredError):
        broker.submit([order_of(0.1)])
    assert broker.find("one", "BTCUSDT") is None
    assert not server.orders


def test_an_order_that_never_arrived_is_said_not_to_be_there_and_can_be_placed(server):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "refuse")
    begin = time.monotonic()
    with pytest.raises(UnansweredError):
        broker.submit([order_of(0.1)])
    assert broker.find("one", "BTCUSDT") is None
    assert time.monotonic() - begin >= WINDOW / 1000 + ccxt_broker.SLACK
    (report,) = broker.submit([order_of(0.1)])
    assert report.state is OrderState.FILLED
    require_equal_books(broker, server)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("after", Answer(502, "<html>bad gateway</html>", {"Content-Type": "text/html"})),
        ("after", Answer(500, {"code": -1007, "msg": "Timeout waiting for response."})),
        ("after", Answer(503, {"code": -4711, "msg": "Unknown error, please check."})),
        ("slow", None),
    ],
)
def test_whatever_is_no_answer_leaves_an_order_to_be_looked_up(server, kind, answer):
    broker = broker_of(server, patience=Patience(fills=0.2, every=0.05, answer=0.4))
    server.fail("POST", "/api/v3/order", kind, answer, seconds=0.8)
    with pytest.raises(BrokerError) as caught:
        broker.submit([order_of(0.1)])
    assert isinstance(caught.value, UnansweredError), caught.value
    assert broker.find("one", "BTCUSDT").filled == 0.1
    require_equal_books(broker, server)


@pytest.mark.parametrize("body", ["{'half of an ans", {}, {"orderId": 1, "clientOrderId": "one"}])
def test_an_answer_that_says_nothing_of_an_order_is_completed_by_looking_it_up(server, body):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "after", Answer(200, body))
    (report,) = broker.submit([order_of(0.1)])
    require_equal_order(report, server.orders[0])
    require_equal_books(broker, server)


def test_an_order_that_is_taken_and_then_unknown_stops_everything(server):
    broker = broker_of(server)
    server.fail("POST", "/api/v3/order", "status", Answer(200, {}))
    with pytest.raises(BrokerError, match="does not know it by this id: look it up by hand"):
        broker.submit([order_of(0.1)])


def test_a_restart_in_the_middle_of_a_batch_places_what_is_missing_and_nothing_twice(server):
    orders = [order_of(0.1), order_of(2.0, "ETH/USDT", "two", 1_000.0)]
    server.fail("POST", "/api/v3/order", "lose")
    with pytest.raises(UnansweredError):
        broker_of(server).submit(orders)
    assert [order.client_id for order in server.orders] == ["one"]
    restarted = broker_of(server)
    assert [report.state for report in restarted.submit(orders)] == [OrderState.FILLED] * 2
    assert [order.client_id for order in server.orders] == ["one", "two"]
    require_equal_books(restarted, server)


@pytest.mark.parametrize("spot_codes", [False, True])
@pytest.mark.parametrize(
    ("order", "words"),
    [
        (order_of(0.6), "insufficient balance"),
        (order_of(-0.1), "insufficient balance"),
        (order_of(0.0002), "NOTIONAL"),
        (order_of(0.000001), "minimum amount precision"),
    ],
)
def test_what_an_exchange_rejects_is_reported_in_its_words(
    server, monkeypatch, order, words, spot_codes
):
    broker = broker_of(server)
    if spot_codes:  # ccxt looks errors up by Binance's address, which the loopback's is not
        client, there = broker._client.client, "https://testnet.binance.vision/api/v3"
        by_url = type(client).get_exceptions_by_url
        monkeypatch.setattr(
            client, "get_exceptions_by_url", lambda _, kind: by_url(client, there, kind)
        )
        assert client.get_exceptions_by_url("", "exact")
    (report,) = broker.submit([order])
    assert report.state is OrderState.REJECTED
    assert words in report.reason
    assert (report.filled, report.fees, report.received) == (0.0, {}, 0.0)
    assert not server.orders
    require_equal_books(broker, server)


def test_one_rejection_leaves_the_other_orders_alone(server):
    broker = broker_of(server)
    reports = broker.submit([order_of(5.0), order_of(1.0, "ETH/USDT", "two", 1_000.0)])
    assert [report.state for report in reports] == [OrderState.REJECTED, OrderState.FILLED]
    require_equal_books(broker, server)


@pytest.mark.parametrize(
    ("symbol", "shares", "price", "taken"),
    [
        ("BTCUSDT", 0.123456789, 20_000.0, 0.12345),
        ("BTCUSDT", -0.123456789, 20_000.0, -0.12345),
        ("BTCUSDT", 0.3 - 0.1, 20_000.0, 0.2),  # 0.19999999999999998
        ("BTCUSDT", 0.00024, 20_000.0, 0.0),  # 4.80 of at least 5
        ("BTCUSDT", 0.00025, 20_000.0, 0.00025),
        ("BTCUSDT", 0.000009, 20_000_000.0, 0.0),
        ("BTCUSDT", 1e6, 20_000.0, 100.0),  # the most of a market order
        ("BTCUSDT", 0.0, 20_000.0, 0.0),
        ("ETH/USDT", 1.99999, 1_000.0, 1.9999),
    ],
)
def test_amounts_are_whole_steps_towards_nothing(server, symbol, shares, price, taken):
    broker = broker_of(server)
    assert broker.tradable(symbol, shares, price) == taken
    assert broker.tradable(symbol, -shares, price) == -taken


@pytest.mark.parametrize("wrong", [(float("nan"), 1.0), (1.0, 0.0), (1.0, float("inf"))])
def test_amounts_and_prices_that_are_none_are_refused(server, wrong):
    with pytest.raises(BrokerError, match=r"^BTCUSDT: no order can be of"):
        broker_of(server).tradable("BTCUSDT", *wrong)


def test_last_prices_are_told_by_our_symbols(server):
    broker = broker_of(server)
    assert broker.prices(SYMBOLS) == {"BTCUSDT": 20_000.0, "ETH/USDT": 1_000.0}
    assert server.asked[-1].form == {"symbols": '["BTCUSDT","ETHUSDT"]'}
    broker._client.client.has["fetchTickers"] = False
    assert broker.prices(SYMBOLS) == {"BTCUSDT": 20_000.0, "ETH/USDT": 1_000.0}
    assert server.asked[-1].form == {"symbol": "ETHUSDT"}


def test_what_tradable_gives_is_taken_as_it_is(server):
    broker = broker_of(server)
    for number, shares in enumerate((0.1 + 0.2, 0.00025, 0.07, 1 / 30)):
        amount = broker.tradable("BTCUSDT", shares, 20_000.0)
        (report,) = broker.submit([order_of(amount, client_id=f"n{number}")])
        assert report.shares == amount
    require_equal_books(broker, server)


@pytest.mark.parametrize("most", [0, 12])
def test_orders_of_others_are_told_and_lock_what_is_still_ours(server, monkeypatch, most):
    monkeypatch.setattr(ccxt_broker, "MOST_MARKETS", most)
    server.free["BNB"] = Decimal(3)
    server.rest("elsewhere", "BNBUSDT", "SELL", "2", "900")
    server.rest("by-hand", "BTCUSDT", "BUY", "0.1", "15000")
    broker = broker_of(server)
    account = broker.account(SYMBOLS)
    assert account.cash == 10_000.0
    assert account.open_orders == {"BTCUSDT": 0.1}
    (report,) = broker.open_orders(SYMBOLS)
    assert (report.client_id, report.state, report.filled) == ("by-hand", OrderState.OPEN, 0.0)
    broker.cancel("by-hand", "BTCUSDT")
    assert broker.account(SYMBOLS).open_orders == {}
    assert broker.find("by-hand", "BTCUSDT").state is OrderState.CANCELLED
    assert server.free["USDT"] == 10_000


def test_cancelling_what_is_over_or_was_never_there_does_nothing(server):
    broker = broker_of(server)
    broker.submit([order_of(0.1)])
    broker.cancel("one", "BTCUSDT")
    broker.cancel("never", "BTCUSDT")
    assert broker.find("one", "BTCUSDT").state is OrderState.FILLED
    assert broker.find("never", "BTCUSDT") is None


@pytest.mark.parametrize("path", ["/api/v3/order", "/api/v3/account"])
def test_asked_too_often_it_waits_as_told_and_goes_on(server, path, monkeypatch):
    waited = []
    broker = broker_of(server)
    monkeypatch.setattr("fastsim.live.answers.time.sleep", waited.append)
    method = "POST" if path.endswith("order") else "GET"
    too_many = Answer(429, {"code": -1003, "msg": "Too many requests."}, {"Retry-After": "2"})
    for _ in range(2):
        server.fail(method, path, "status", too_many)
    (report,) = broker.submit([order_of(0.1)])
    require_equal_books(broker, server)
    assert report.state is OrderState.FILLED
    assert waited == [2.0, 2.0]
    assert len(server.orders) == 1


@pytest.mark.parametrize(
    ("status", "told", "times"), [(429, "1", 3), (418, "3600", 1), (429, "not a number", 3)]
)
def test_asked_too_often_for_too_long_it_gives_up(server, monkeypatch, status, told, times):
    waited = []
    broker = broker_of(server)
    monkeypatch.setattr("fastsim.live.answers.time.sleep", waited.append)
    for _ in range(times):
        server.fail("POST", "/api/v3/order", "status", Answer(status, {}, {"Retry-After": told}))
    with pytest.raises(BrokerError, match="asked too often, and told to wait"):
        broker.submit([order_of(0.1)])
    assert server.count("POST", "/api/v3/order") == times
    assert len(waited) == times - 1
    assert not server.orders


def test_a_clock_that_is_off_is_set_by_the_exchange_and_said_to_be(server, caplog):
    broker = broker_of(server)
    server.clock_ahead = -30.0
    (report,) = broker.submit([order_of(0.1)])
    assert report.state is OrderState.FILLED
    assert "the clock of this machine is not that of the exchange" in caplog.text
    server.clock_ahead = 60.0
    require_equal_books(broker, server)


def test_a_clock_that_cannot_be_set_is_an_error_with_the_remedy(server, monkeypatch):
    broker = broker_of(server)
    server.clock_ahead = -30.0
    monkeypatch.setattr(broker._client.client, "load_time_difference", lambda: 0)
    with pytest.raises(BrokerError, match="set it by a time server"):
        broker.account(SYMBOLS)


@pytest.mark.parametrize("live", [False, True])
def test_an_exchange_that_cannot_be_reached_says_so(server, live):
    broker = broker_of(server, live=live)
    server.fail("GET", "/api/v3/account", "refuse")
    with pytest.raises(BrokerError, match=r"the account: it cannot be reached .*try again"):
        broker.account(SYMBOLS)


@pytest.mark.parametrize("body", ["[1, 2", "", {}, [], "null"])
@pytest.mark.parametrize("path", ["/api/v3/account", "/api/v3/openOrders", "/api/v3/order"])
def test_an_answer_that_is_cut_off_is_no_account_and_no_order(server, path, body):
    broker = broker_of(server)
    server.fail("GET", path, "status", Answer(200, body))
    if path.endswith("openOrders") and body in ([], {}):
        assert broker.open_orders(SYMBOLS) == ()
        return
    with pytest.raises(BrokerError, match=r"cannot be read|does not know"):
        (broker.find("one", "BTCUSDT") if path.endswith("order") else broker.account(SYMBOLS))


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        (("DOGEUSDT",), "no spot market 'DOGEUSDT'"),
        (("BTC/USTD",), "did you mean 'BTC/USDT'"),
        (("BTCUSDT", "BTC/USDT"), "BTCUSDT and BTC/USDT are one market"),
        (("BTCUSDT", "ETH/BTC"), "several .BTCUSDT in USDT, ETH/BTC in BTC."),
        ((), "no symbols"),
    ],
)
def test_symbols_that_no_account_can_hold_are_refused_by_name(server, symbols, words):
    with pytest.raises(ConfigError, match=words):
        broker_of(server, symbols)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC/USDT", "BTC-USDT", "btc_usdt"])
def test_people_write_a_pair_as_they_like(server, symbol):
    broker = broker_of(server, [symbol])
    (report,) = broker.submit([order_of(0.1, symbol)])
    assert report.symbol == symbol
    assert broker.account([symbol]).shares == {symbol: 0.0999}
    assert broker.currency == "USDT"


def test_a_market_that_is_closed_or_not_among_its_symbols_is_refused(server):
    server.closed.add("BTCUSDT")
    with pytest.raises(ConfigError, match="does not trade BTC/USDT at present"):
        broker_of(server)
    with pytest.raises(BrokerError, match="'BTCUSDT' is not among the symbols"):
        broker_of(server, ["ETHUSDT"]).submit([order_of(0.1)])
    assert not server.orders


def test_other_coins_are_named_where_money_is_real(server):
    server.free["DOGE"], server.free["BNB"] = Decimal(1000), Decimal("0.5")
    assert broker_of(server).account(SYMBOLS).shares == {"BTCUSDT": 0.0, "ETH/USDT": 0.0}
    real = broker_of(server, live=True)
    assert real.live
    others = {"DOGE": 1000.0, "BNB": 0.5}
    assert real.account(SYMBOLS).shares == {"BTCUSDT": 0.0, "ETH/USDT": 0.0} | others


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        ([order_of(0.1, client_id="a" * 37)], "its id must be of the form"),
        ([order_of(0.1, client_id="a b")], "its id must be of the form"),
        ([order_of(0.1, client_id="")], "its id must be of the form"),
        ([order_of(0.1), order_of(0.2)], "another has the same id"),
        ([order_of(0.0)], "must be of some shares"),
        ([order_of(0.1), order_of(float("nan"), client_id="b")], "must be of some shares"),
    ],
)
def test_orders_that_cannot_be_placed_are_refused_before_any_is(server, orders, words):
    with pytest.raises(BrokerError, match=words):
        broker_of(server).submit(orders)
    assert not server.orders


def test_the_test_network_is_the_default_and_the_exchange_only_where_it_is_told():
    assert not connect("binance").live
    assert set(connect("binance").client.urls["api"].values()) <= set(
        ccxt.binance().urls["test"].values()
    )
    assert connect("binance", live=True).client.urls["api"]["private"] == (
        "https://api.binance.com/api/v3"
    )


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        ("kraken", "ccxt:kraken has no test network: use the simulated broker"),
        ("hyperliquid", "is opened with privateKey, walletAddress"),
        ("zaif", "lacks fetchOrder in ccxt"),
        ("bybit", "no FASTSIM_BYBIT_KEY and no FASTSIM_BYBIT_SECRET"),
        ("okx", "no FASTSIM_OKX_KEY and no FASTSIM_OKX_SECRET and no FASTSIM_OKX_PASSWORD"),
    ],
)
def test_what_an_exchange_lacks_is_said_before_anything_is_asked(exchange, words):
    with pytest.raises(ConfigError, match=words):
        connect(exchange)


@pytest.mark.parametrize(
    ("exchange", "words"),
    [("binanc", "did you mean 'binance'"), ("", "no exchange ''"), ("binance ", "did you mean")],
)
def test_an_exchange_that_ccxt_does_not_know_is_named(exchange, words):
    with pytest.raises(ConfigError, match=words):
        connect(exchange)


def test_without_ccxt_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ccxt", None)
    with pytest.raises(ConfigError, match=r"pip install 'fastsim-rl\[ccxt\]'"):
        connect("binance")


def test_without_keys_the_variables_are_named(monkeypatch):
    monkeypatch.delenv("FASTSIM_BINANCE_SECRET")
    with pytest.raises(
        ConfigError, match=r"no FASTSIM_BINANCE_SECRET: .*made at testnet.binance.vision"
    ):
        connect("binance")


@pytest.mark.parametrize("key", ["two words", "schlüssel", "line\nbreak"])
def test_a_key_that_can_be_none_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", key)
    with pytest.raises(ConfigError, match="FASTSIM_BINANCE_KEY of the environment") as caught:
        connect("binance")
    assert key not in str(caught.value)


def test_an_exchange_that_cannot_look_up_orders_by_our_id_is_refused(server, monkeypatch):
    client = client_of(server)

    def without_ids(order_id, symbol, params):
        raise ccxt.BadRequest(f"binance {order_id} is no number")

    monkeypatch.setattr(client.client, "fetch_order", without_ids)
    with pytest.raises(ConfigError, match="cannot look up an order by an id of ours"):
        CcxtBroker(client, SYMBOLS)


def test_a_state_that_nobody_knows_stops_it(server):
    broker = broker_of(server)
    broker.submit([order_of(0.1)])
    server.orders[0].status = "PENDING_MYSTERY"
    with pytest.raises(BrokerError, match="'PENDING_MYSTERY', which fastsim does not know"):
        broker.find("one", "BTCUSDT")


FAULTS = [
    ("GET", "/api/v3/account", "refuse", None),
    ("GET", "/api/v3/account", "slow", None),
    ("GET", "/api/v3/account", "status", Answer(401, {"code": -2015, "msg": f"Bad key {KEY}"})),
    ("GET", "/api/v3/account", "status", Answer(400, {"code": -1022, "msg": "Bad signature."})),
    ("GET", "/api/v3/account", "status", Answer(404, "nothing", {"Content-Type": "text/plain"})),
    ("GET", "/api/v3/account", "status", Answer(200, f"{{ {SECRET}")),
    ("GET", "/api/v3/account", "status", Answer(302, "", {"Location": f"http://0.0.0.0/{KEY}"})),
    ("POST", "/api/v3/order", "refuse", None),
    ("POST", "/api/v3/order", "status", Answer(418, {}, {"Retry-After": "9999"})),
    ("POST", "/api/v3/order", "status", Answer(400, {"code": -1100, "msg": f"Illegal {KEY}"})),
    ("POST", "/api/v3/order", "after", Answer(200, {"status": "FILLED", "side": KEY})),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_key_and_no_signature_stands_in_an_error_a_log_or_a_text(server, caplog, capsys, fault):
    caplog.set_level(logging.DEBUG)
    broker = broker_of(server, patience=Patience(attempts=2, fills=0.1, every=0.05, answer=0.4))
    server.fail(*fault, seconds=0.8)
    texts = [repr(broker), repr(broker._client), repr(vars(broker)), str(broker._client._keys)]
    try:
        texts += [report.reason for report in broker.submit([order_of(0.1)])]
        texts += [repr(broker.account(SYMBOLS))]
    except BrokerError as error:
        assert "\n" not in str(error)
        assert error.__cause__ is None
        assert error.__context__ is None
        texts += [repr(error), "".join(traceback.format_exception(error))]
    assert not server.faults
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("urllib3")]
    for text in [*texts, *ours]:
        assert "signature=" not in text.replace("signature=***", "")
    shown = "\n".join([*texts, caplog.text, *capsys.readouterr()])
    for secret in (KEY, SECRET):
        assert secret not in shown


def test_keys_cannot_be_written(server):
    with pytest.raises(TypeError, match="keys are not written anywhere"):
        pickle.dumps(client_of(server)._keys)


def test_wrong_keys_are_an_error_that_says_where_right_ones_are_made(server, monkeypatch):
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", "a" * 64)
    with pytest.raises(BrokerError, match=r"keys are refused .*made at testnet.binance.vision"):
        broker_of(server)
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", KEY)
    monkeypatch.setenv("FASTSIM_BINANCE_SECRET", "a" * 64)
    with pytest.raises(BrokerError, match=r"keys are refused .*that may trade"):
        broker_of(server, live=True)


def test_the_client_is_of_ccxt_and_nothing_is_asked_of_other_markets(server):
    client = client_of(server)
    assert isinstance(client, CcxtClient)
    assert type(client.client) is ccxt.binance
    CcxtBroker(client, SYMBOLS)
    assert [each.path for each in server.asked] == ["/api/v3/exchangeInfo", "/api/v3/order"]
