"""Alpaca's interface on this machine: the books are the broker's, whatever goes wrong."""

import logging
import time
import traceback
import warnings
from decimal import Decimal
from importlib import import_module

import pytest
from alpaca_server import KEY, SECRET, AlpacaServer, Standing
from loopback import Answer

from fastsim.errors import BrokerError, ConfigError
from fastsim.live.alpaca_broker import AlpacaBroker, connect
from fastsim.live.alpaca_rest import DATA, LIVE, PAPER, VARIABLES, AlpacaRest
from fastsim.live.answers import Patience
from fastsim.live.broker import Order, OrderState, UnansweredError
from fastsim.live.keys import Keys

SYMBOLS = ("KO", "AAPL", "BRK-B", "FNGU")
THEIRS = dict(zip(SYMBOLS, ("KO", "AAPL", "BRK.B", "FNGU"), strict=True))
QUICK = Patience(attempts=3, longest=2.0, fills=0.5, every=0.01, answer=2.0)


@pytest.fixture
def server():
    with AlpacaServer() as server:
        yield server


def rest_of(server, patience=QUICK, keys=(KEY, SECRET), live=False):
    return AlpacaRest(Keys(keys), live=live, patience=patience, trading=server.url, data=server.url)


def broker_of(server, symbols=SYMBOLS, **options):
    return AlpacaBroker(rest_of(server, **options), symbols)


def order_of(shares, symbol="KO", client_id="one", price=60.0):
    return Order(client_id=client_id, symbol=symbol, shares=shares, price=price, weight=0.0)


def require_equal_books(broker, server):
    """Account and orders as fastsim sees them are the broker's to the last decimal."""
    account = broker.account(SYMBOLS)
    assert Decimal(str(account.cash)) == server.cash
    held = {THEIRS.get(name, name): Decimal(str(each)) for name, each in account.shares.items()}
    assert {name: each for name, each in held.items() if each} == server.shares
    ours = {theirs: symbol for symbol, theirs in THEIRS.items()}
    for order in server.orders:
        report = broker.find(order.client_id, ours[order.symbol])
        assert Decimal(str(report.shares)) == order.sign * order.amount
        assert Decimal(str(report.filled)) == order.sign * order.filled
        assert report.received == report.filled
        assert report.fees == {}
        if order.filled:
            assert report.price == pytest.approx(float(order.paid / order.filled), rel=1e-15)


def test_an_order_is_waited_for_until_it_is_filled_and_the_books_are_the_brokers(server):
    broker = broker_of(server)
    (report,) = broker.submit([order_of(12.345678901)])
    assert (report.state, report.filled, report.price) == (OrderState.FILLED, 12.345678901, 60.10)
    assert server.orders[0].amount == Decimal("12.345678901")
    account = broker.account(SYMBOLS)
    assert Decimal(str(account.cash)) == 100_000 - Decimal("12.345678901") * Decimal("60.10")
    assert account.shares == {"KO": 12.345678901, "AAPL": 0.0, "BRK-B": 0.0, "FNGU": 0.0}
    require_equal_books(broker, server)


def test_what_sells_is_filled_before_anything_buys(server):
    server.shares["AAPL"], server.cash = Decimal(100), Decimal(0)
    broker = broker_of(server)
    orders = [order_of(300.0, "KO", "buy"), order_of(-100.0, "AAPL", "sell", 230.0)]
    assert [each.state for each in broker.submit(orders)] == [OrderState.FILLED] * 2
    assert [each.client_id for each in server.orders] == ["sell", "buy"]
    require_equal_books(broker, server)


def test_a_short_position_is_negative_and_can_be_covered(server):
    broker = broker_of(server)
    broker.submit([order_of(-5.0)])
    assert broker.account(SYMBOLS).shares["KO"] == -5.0
    require_equal_books(broker, server)
    (report,) = broker.submit([order_of(5.0, client_id="two")])
    assert report.state is OrderState.FILLED
    assert broker.account(SYMBOLS).shares["KO"] == 0.0


def test_while_the_exchange_is_closed_orders_wait_for_it_to_open(server):
    server.is_open = False
    broker = broker_of(server)
    begin = time.monotonic()
    (report,) = broker.submit([order_of(10.0)])
    assert time.monotonic() - begin < QUICK.fills
    assert (report.state, report.filled) == (OrderState.OPEN, 0.0)
    account = broker.account(SYMBOLS)
    assert (account.cash, account.open_orders) == (100_000.0, {"KO": 10.0})
    assert [each.client_id for each in broker.open_orders(SYMBOLS)] == ["one"]
    server.open()
    assert broker.find("one", "KO").state is OrderState.FILLED
    assert broker.account(SYMBOLS).open_orders == {}
    require_equal_books(broker, server)


def test_an_order_filled_in_part_is_open_until_the_day_is_over(server):
    server.depth["KO"] = [("60.10", "3"), ("60.35", "1.5")]
    server.is_open = False
    broker = broker_of(server)
    broker.submit([order_of(10.0)])
    server.fill(server.orders[0])
    account = broker.account(SYMBOLS)
    assert account.shares["KO"] == 4.5
    assert account.open_orders == {"KO": 5.5}
    require_equal_books(broker, server)
    server.close()
    report = broker.find("one", "KO")
    assert (report.state, report.filled, report.reason) == (OrderState.CANCELLED, 4.5, "expired")
    require_equal_books(broker, server)


def test_the_same_id_is_placed_once_and_reported_the_second_time(server):
    broker = broker_of(server)
    (first,) = broker.submit([order_of(10.0)])
    assert broker.submit([order_of(10.0)]) == (first,)
    assert broker_of(server).submit([order_of(10.0)]) == (first,)
    assert len(server.orders) == 1


def test_an_accepted_order_whose_answer_is_lost_is_found_and_not_placed_again(server):
    broker = broker_of(server)
    server.fail("POST", "/v2/orders", "lose")
    with pytest.raises(UnansweredError, match=r"^alpaca: POST /v2/orders: no answer that can"):
        broker.submit([order_of(10.0)])
    assert broker.find("one", "KO").shares == 10.0
    (report,) = broker.submit([order_of(10.0)])
    assert report.state is OrderState.FILLED
    assert len(server.orders) == 1
    require_equal_books(broker, server)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("after", Answer(504, "<html>gateway timeout</html>", {"Content-Type": "text/html"})),
        ("after", Answer(500, {"code": 50010000, "message": "internal server error occurred"})),
        ("after", Answer(200, '{"id": "half an ans')),
        ("after", Answer(200, {})),
        ("after", Answer(200, [])),
        ("slow", None),
    ],
)
def test_whatever_is_no_answer_leaves_an_order_to_be_looked_up(server, kind, answer):
    broker = broker_of(server, patience=Patience(fills=0.5, every=0.01, answer=0.3))
    server.fail("POST", "/v2/orders", kind, answer, seconds=0.6)
    with pytest.raises(UnansweredError):
        broker.submit([order_of(10.0)])
    assert broker.find("one", "KO").shares == 10.0
    assert server.count("POST", "/v2/orders") == 1
    require_equal_books(broker, server)


def test_a_restart_in_the_middle_of_a_batch_places_what_is_missing_and_nothing_twice(server):
    orders = [order_of(10.0), order_of(2.0, "AAPL", "two", 230.0)]
    server.fail("POST", "/v2/orders", "lose")
    with pytest.raises(UnansweredError):
        broker_of(server).submit(orders)
    restarted = broker_of(server)
    assert [each.state for each in restarted.submit(orders)] == [OrderState.FILLED] * 2
    assert [each.client_id for each in server.orders] == ["one", "two"]
    require_equal_books(restarted, server)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (order_of(2_000.0), "403 insufficient buying power"),
        (order_of(-20.0), "403 insufficient qty available"),
        (order_of(-0.5, "AAPL"), "403 fractional orders cannot be sold short"),
        (order_of(1.5, "FNGU"), 'asset "FNGU" is not fractionable'),
    ],
)
def test_what_alpaca_rejects_is_reported_in_its_words_and_the_rest_goes_on(server, order, words):
    server.shares["KO"] = Decimal(10)
    broker = broker_of(server)
    rejected, taken = broker.submit([order, order_of(1.0, "BRK-B", "two", 480.0)])
    assert rejected.state is OrderState.REJECTED
    assert words in rejected.reason
    assert (rejected.filled, rejected.received) == (0.0, 0.0)
    assert (taken.state, taken.symbol) == (OrderState.FILLED, "BRK-B")
    assert [each.client_id for each in server.orders] == ["two"]
    require_equal_books(broker, server)


@pytest.mark.parametrize(
    ("symbol", "shares", "price", "taken"),
    [
        ("KO", 10.1234567899, 60.0, 10.123456789),
        ("KO", 0.3 - 0.1, 60.0, 0.2),
        ("KO", 0.016, 60.0, 0.0),  # 96 cents
        ("KO", 0.017, 60.0, 0.017),
        ("KO", 0.0, 60.0, 0.0),
        ("FNGU", 10.9, 25.0, 10.0),
        ("FNGU", 0.9, 25.0, 0.0),
        ("FNGU", 3.0 - 1e-15, 25.0, 3.0),
        ("FNGU", 1.0, 0.5, 1.0),
    ],
)
def test_parts_of_shares_are_traded_where_alpaca_has_them(server, symbol, shares, price, taken):
    broker = broker_of(server)
    assert broker.tradable(symbol, shares, price) == taken
    assert broker.tradable(symbol, -shares, price) == -taken
    with pytest.raises(BrokerError, match="no order can be of"):
        broker.tradable(symbol, float("nan"), price)


def test_orders_of_others_and_cancelling(server):
    server.is_open = False
    broker = broker_of(server)
    server.orders.append(Standing("by-hand", "KO", "sell", Decimal(3), "new"))
    assert broker.account(SYMBOLS).open_orders == {"KO": -3.0}
    broker.cancel("by-hand", "KO")
    broker.cancel("by-hand", "KO")
    broker.cancel("never", "KO")
    assert server.count("DELETE", f"/v2/orders/{server.orders[0].number}") == 1
    assert broker.find("by-hand", "KO").state is OrderState.CANCELLED
    assert broker.open_orders(SYMBOLS) == ()
    assert broker.find("never", "KO") is None


def test_an_order_in_dollars_is_refused_by_name(server):
    broker = broker_of(server)
    server.orders.append(Standing("by-hand", "KO", "buy", None, "new"))
    with pytest.raises(BrokerError, match=r"by-hand of KO is of 500 dollars .* cancel it"):
        broker.account(SYMBOLS)


def test_positions_in_what_it_does_not_trade_are_named(server):
    server.shares["AAPL"] = Decimal("1.5")
    broker = broker_of(server, ["KO"])
    assert broker.account(["KO"]).shares == {"KO": 0.0, "AAPL": 1.5}


def test_last_prices_are_told_by_our_symbols(server):
    assert broker_of(server).prices(["BRK-B", "KO"]) == {"BRK-B": 480.0, "KO": 60.1}


@pytest.mark.parametrize("headers", [{"Retry-After": "2"}, {"X-RateLimit-Reset": "1000000002"}])
def test_asked_too_often_it_waits_as_told_and_goes_on(server, monkeypatch, headers):
    waited = []
    broker = broker_of(server)
    monkeypatch.setattr("fastsim.live.answers.time.sleep", waited.append)
    monkeypatch.setattr("fastsim.live.alpaca_rest.time.time", lambda: 1e9)
    for path in ("/v2/account", "/v2/positions"):
        server.fail("GET", path, "status", Answer(429, {"message": "too many requests."}, headers))
    assert broker.account(SYMBOLS).cash == 100_000.0
    assert waited == [2.0, 2.0]


def test_an_order_that_was_asked_for_too_often_is_placed_once(server, monkeypatch):
    broker = broker_of(server)
    monkeypatch.setattr("fastsim.live.answers.time.sleep", lambda _: None)
    too_many = Answer(429, {"message": "too many requests."})
    for _ in range(2):
        server.fail("POST", "/v2/orders", "status", too_many)
    (report,) = broker.submit([order_of(10.0)])
    assert report.state is OrderState.FILLED
    assert len(server.orders) == 1
    for _ in range(3):
        server.fail("POST", "/v2/orders", "status", too_many)
    with pytest.raises(BrokerError, match=r"429 too many requests.: asked too often"):
        broker.submit([order_of(10.0, client_id="two")])
    assert len(server.orders) == 1


@pytest.mark.parametrize("body", ["", "null", "{}", "[]", '{"cash": "1"', '"text"'])
@pytest.mark.parametrize("path", ["/v2/account", "/v2/positions", "/v2/orders", "/v2/clock"])
def test_an_answer_that_cannot_be_read_is_no_account(server, path, body):
    broker = broker_of(server)
    server.fail("GET", path, "status", Answer(200, body))
    if body in {"[]", "{}"} and path in {"/v2/positions", "/v2/orders"}:
        assert broker.account(SYMBOLS).shares["KO"] == 0.0
        return
    with pytest.raises(BrokerError, match="no answer that can be read"):
        broker.submit([order_of(1.0)]) if path == "/v2/clock" else broker.account(SYMBOLS)
    assert not server.orders


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        (["NOPE"], "has no stock 'NOPE'"),
        (["BTC/USD"], "'BTC/USD' is no US stock"),
        (["SPX"], "SPX is us_option"),
        (["BRK-B", "BRK.B"], "the same stock"),
        (["FNGU"], "does not trade FNGU at present"),
        ([], "no symbols"),
    ],
)
def test_what_alpaca_does_not_trade_is_refused_by_name(server, symbols, words):
    server.untradable.add("FNGU")
    with pytest.raises(ConfigError, match=words):
        broker_of(server, symbols)


def test_an_account_that_may_not_trade_is_refused(server):
    broker = broker_of(server)
    server.blocked = True
    with pytest.raises(BrokerError, match=r"may not trade .ACTIVE, trading_blocked."):
        broker.account(SYMBOLS)


def test_a_state_that_nobody_knows_stops_it(server):
    broker = broker_of(server)
    broker.submit([order_of(1.0)])
    server.is_open, server.orders[0].status = False, "mystery"
    with pytest.raises(BrokerError, match="'mystery', which fastsim does not know"):
        broker.find("one", "KO")


def test_symbols_it_was_not_opened_with_are_refused(server):
    with pytest.raises(BrokerError, match="'AAPL' is not among the symbols"):
        broker_of(server, ["KO"]).submit([order_of(1.0, "AAPL")])
    with pytest.raises(BrokerError, match="must be of some shares"):
        broker_of(server).submit([order_of(0.0)])
    assert not server.orders


@pytest.mark.parametrize("live", [False, True])
def test_wrong_keys_are_an_error_that_says_where_right_ones_are_made(server, live):
    with pytest.raises(
        BrokerError, match=r"keys are refused: make keys of the (live|paper) account"
    ):
        broker_of(server, keys=(KEY, "wrong"), live=live)


def test_paper_is_the_default_and_the_account_with_money_only_where_it_is_told(monkeypatch):
    keys = Keys((KEY, SECRET))
    assert (AlpacaRest(keys).trading, AlpacaRest(keys).live) == (PAPER, False)
    assert PAPER == "https://paper-api.alpaca.markets"
    real = AlpacaRest(keys, live=True)
    assert (real.trading, real.data, real.live) == (LIVE, DATA, True)
    assert LIVE == "https://api.alpaca.markets"
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no APCA_API_KEY_ID and no APCA_API_SECRET_KEY"):
        connect(SYMBOLS)


def test_keys_go_to_no_other_server(server):
    broker = broker_of(server)
    with AlpacaServer() as other:
        there = {"Location": f"{other.url}/v2/account"}
        server.fail("GET", "/v2/account", "status", Answer(302, "", there))
        with pytest.raises(BrokerError, match="it sends elsewhere"):
            broker.account(SYMBOLS)
        assert other.asked == []


@pytest.fixture
def official(server):
    """Alpaca's own client, at this server; it imports a part of websockets that is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trading = import_module("alpaca.trading")
    return trading, trading.TradingClient(KEY, SECRET, url_override=server.url)


def test_alpacas_own_client_reads_the_same_books(server, official):
    trading, client = official
    broker = broker_of(server)
    server.shares["AAPL"] = Decimal(7)
    (report,) = broker.submit([order_of(12.5)])
    theirs = client.get_order_by_client_id("one")
    assert (theirs.status, float(theirs.filled_avg_price)) == ("filled", report.price)
    assert (float(theirs.qty), float(theirs.filled_qty)) == (report.shares, report.filled)
    account = broker.account(SYMBOLS)
    assert float(client.get_account().cash) == account.cash
    held = {each.symbol: float(each.qty) for each in client.get_all_positions()}
    assert held == {"KO": account.shares["KO"], "AAPL": account.shares["AAPL"]}
    assert client.get_clock().is_open
    assert not client.get_asset("FNGU").fractionable
    assert client.get_orders(trading.GetOrdersRequest(status="open", symbols=["KO"])) == []


def test_orders_are_asked_for_as_alpacas_own_client_does(server, official):
    trading, client = official
    broker = broker_of(server)
    broker.submit([order_of(12.5)])
    client.submit_order(
        trading.MarketOrderRequest(
            symbol="KO", qty=12.5, side="buy", time_in_force="day", client_order_id="two"
        )
    )
    ours, theirs = (each.body for each in server.asked if each.method == "POST")
    assert ours | {"qty": 12.5, "client_order_id": "two"} == theirs
    assert broker.find("two", "KO").shares == 12.5
    require_equal_books(broker, server)


FAULTS = [
    ("GET", "/v2/account", "refuse", None),
    ("GET", "/v2/account", "slow", None),
    ("GET", "/v2/account", "status", Answer(401, {"code": 40110000, "message": f"{KEY} is bad"})),
    ("GET", "/v2/account", "status", Answer(422, {"code": 42210000, "message": f"{SECRET} odd"})),
    ("GET", "/v2/account", "status", Answer(200, f'{{"status": "{SECRET}", "cash": "1"}}')),
    ("POST", "/v2/orders", "status", Answer(422, {"code": 42210000, "message": f"{SECRET} odd"})),
    ("POST", "/v2/orders", "after", Answer(200, f"{{{SECRET}")),
    ("POST", "/v2/orders", "lose", None),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_key_stands_in_an_error_a_log_or_a_text(server, caplog, capsys, fault):
    caplog.set_level(logging.DEBUG)
    broker = broker_of(server, patience=Patience(attempts=2, fills=0.1, every=0.01, answer=0.3))
    server.fail(*fault, seconds=0.6)
    texts = [repr(broker), repr(vars(broker)), repr(vars(broker._rest))]
    try:
        texts += [report.reason for report in broker.submit([order_of(1.0)])]
        texts += [repr(broker.account(SYMBOLS))]
    except BrokerError as error:
        assert "\n" not in str(error)
        assert error.__cause__ is None
        assert error.__context__ is None
        texts += [repr(error), "".join(traceback.format_exception(error))]
    assert not server.faults
    shown = "\n".join([*texts, caplog.text, *capsys.readouterr()])
    for secret in (KEY, SECRET):
        assert secret not in shown
