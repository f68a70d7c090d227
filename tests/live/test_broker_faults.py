"""Weeks of orders with everything that can go wrong on the way: the books are the broker's."""

import random
from collections import Counter
from decimal import Decimal

import pytest
import test_alpaca_broker as alpaca
import test_ccxt_broker as crypto
from alpaca_server import AlpacaServer
from binance_server import KEY, SECRET, BinanceServer
from loopback import Answer

from fastsim.errors import BrokerError
from fastsim.live import ccxt_broker
from fastsim.live.answers import Patience
from fastsim.live.broker import Order, OrderState, UnansweredError

BARS = 25
PATIENCE = Patience(attempts=4, longest=1.0, fills=0.5, every=0.01, answer=0.3)
BUSY = Answer(429, {"code": -1003, "message": "too many"}, {"Retry-After": "0.01"})
BROKEN = Answer(502, "<html>", {"Content-Type": "text/html"})
KINDS = (
    *(("lose", None), ("late", None), ("refuse", None), ("slow", None)),
    *(("status", BUSY), ("status", BROKEN), ("after", BROKEN), ("after", Answer(200, "{"))),
)


class Clerk:
    """Who gives orders as the loop does: what was not answered is looked up, then given again."""

    def __init__(self, make):
        self.make, self.broker, self.reports = make, make(), {}
        self.unanswered = self.failed = 0

    def give(self, orders, restarts):
        for _ in range(20):
            left = [order for order in orders if self.lacks(order)]
            if not left:
                return
            try:
                if restarts():
                    self.broker = self.make()
                reports = self.broker.submit(left)
                self.reports |= {report.client_id: report for report in reports}
            except UnansweredError:
                self.unanswered += 1
            except BrokerError:
                self.failed += 1
        raise AssertionError("it does not come to an end")

    def lacks(self, order):
        """Whether the broker is not known to have taken an order."""
        if order.client_id in self.reports:
            return False
        try:
            found = self.broker.find(order.client_id, order.symbol)
        except BrokerError:
            self.failed += 1
            return True
        if found is not None:
            self.reports[order.client_id] = found
        return found is None


def drawn_orders(draw, bar, prices):
    return [
        Order(f"bar{bar}-{number}", symbol, draw.uniform(-1.0, 1.0) * 3_000.0 / price, price, 0.0)
        for number, (symbol, price) in enumerate(prices.items())
        if draw.random() < 0.8
    ]


def play(server, make, prices, paths, draw):
    clerk = Clerk(make)
    for bar in range(BARS):
        for method, path in paths:
            if draw.random() < 0.25:
                kind, answer = draw.choice(KINDS)
                server.fail(method, path, kind, answer, seconds=0.4)
        orders = [
            order._replace(shares=clerk.broker.tradable(order.symbol, order.shares, order.price))
            for order in drawn_orders(draw, bar, prices)
        ]
        clerk.give([order for order in orders if order.shares], lambda: draw.random() < 0.1)
    server.faults.clear()
    return clerk


def require_each_once(server, clerk):
    """No order twice and none lost; what was rejected is not there."""
    placed = Counter(order.client_id for order in server.orders)
    taken = {k for k, each in clerk.reports.items() if each.state is not OrderState.REJECTED}
    assert set(placed) == taken
    assert set(placed.values()) == {1}
    assert clerk.unanswered > 3
    assert clerk.failed + clerk.unanswered > 5
    assert len(placed) > BARS / 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_binances_books_after_everything_went_wrong(monkeypatch, seed):
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", KEY)
    monkeypatch.setenv("FASTSIM_BINANCE_SECRET", SECRET)
    monkeypatch.setattr(ccxt_broker, "SLACK", 0.2)
    monkeypatch.setattr(crypto, "WINDOW", 500)
    draw, received = random.Random(seed), Counter()
    with BinanceServer({"USDT": "10000", "BTC": "0.3", "ETH": "4"}) as server:
        server.depth["BTCUSDT"] = [("20000.00", "0.031"), ("20003.17", "0.07")]
        clerk = play(
            server,
            lambda: restarted(lambda: crypto.broker_of(server, patience=PATIENCE)),
            {"BTCUSDT": 20_000.0, "ETH/USDT": 1_000.0},
            [("POST", "/api/v3/order"), ("GET", "/api/v3/order"), ("GET", "/api/v3/account")],
            draw,
        )
        require_each_once(server, clerk)
        broker = crypto.broker_of(server)
        crypto.require_equal_books(broker, server)
        for order in server.orders:
            symbol = "ETH/USDT" if order.pair == "ETHUSDT" else order.pair
            report = broker.find(order.client_id, symbol)
            received[symbol] += Decimal(str(report.received))
        held = broker.account(crypto.SYMBOLS).shares
        assert Decimal(str(held["BTCUSDT"])) == Decimal("0.3") + received["BTCUSDT"]
        assert Decimal(str(held["ETH/USDT"])) == 4 + received["ETH/USDT"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_alpacas_books_after_everything_went_wrong(seed):
    draw = random.Random(seed)
    with AlpacaServer() as server:
        server.shares = {"KO": Decimal(100), "AAPL": Decimal("33.3")}
        clerk = play(
            server,
            lambda: restarted(lambda: alpaca.broker_of(server, patience=PATIENCE)),
            {"KO": 60.0, "AAPL": 230.0, "BRK-B": 480.0, "FNGU": 25.0},
            [("POST", "/v2/orders"), ("GET", "/v2/orders:by_client_order_id")],
            draw,
        )
        require_each_once(server, clerk)
        alpaca.require_equal_books(alpaca.broker_of(server), server)


def restarted(make):
    """A new process, which tries to connect until it can."""
    for _ in range(20):
        try:
            return make()
        except BrokerError:
            pass
    raise AssertionError("it cannot connect")
