"""A broker that is somebody else's: answers that are lost, parts of orders, refusals, a shadow."""

from contextlib import contextmanager
from math import nan

import numpy as np
import pytest
from papered import RUN, small_run

from fastsim.agent.agent import Agent
from fastsim.agent.state import BrokerAccount
from fastsim.live.accounts import opening_of, simulated
from fastsim.live.broker import OrderReport, OrderState, UnansweredError
from fastsim.live.feed import ReplayFeed
from fastsim.live.ledger import Ledger
from fastsim.live.limits import LimitConfig
from fastsim.live.loop import Loop
from fastsim.live.records import Run
from fastsim.live.simulated import SHADOW
from fastsim.live.status import mean_slippage, read_status

CASH = 1e6
FEE = 0.001


class Elsewhere:
    """An account that fills at its price at once, fees in the coin; it may fail in a given way."""

    name, live = "elsewhere", False

    def __init__(self, shares=None):
        self.cash, self.shares, self.orders, self.sent = CASH, dict(shares or {}), {}, []
        self.price, self.fails, self.fill = {}, "", 1.0

    def account(self, symbols):
        return BrokerAccount(cash=self.cash, shares=dict(self.shares) | {"XYZ": 5.0})

    def prices(self, symbols):
        return self.price

    def tradable(self, symbol, shares, price):
        return float(np.trunc(shares))

    def submit(self, orders):
        reports = []
        for order in orders:
            self.sent.append(order.client_id)
            if self.fails == "before":
                raise UnansweredError("the order was sent, and no answer came")
            if order.client_id not in self.orders:
                self.orders[order.client_id] = self.take(order)
            if self.fails == "after":
                raise UnansweredError("the order was sent, and no answer came")
            reports.append(self.orders[order.client_id])
        return tuple(reports)

    def take(self, order):
        if self.fails == "rejected":
            return self.report(order, OrderState.REJECTED, 0.0)
        filled = float(np.trunc(order.shares * self.fill))
        state = OrderState.FILLED if filled == order.shares else OrderState.OPEN
        return self.report(order, state, filled)

    def report(self, order, state, filled):
        price = self.price.get(order.symbol, order.price)
        fee = FEE * max(filled, 0.0)
        self.cash -= filled * price
        self.shares[order.symbol] = self.shares.get(order.symbol, 0.0) + filled - fee
        return OrderReport(
            order.client_id,
            str(len(self.orders)),
            order.symbol,
            state,
            order.shares,
            filled,
            price if filled else nan,
            {order.symbol: fee},
            filled - fee,
        )

    def find(self, client_id, symbol):
        return self.orders.get(client_id)

    def open_orders(self, symbols):
        return tuple(each for each in self.orders.values() if each.state == OrderState.OPEN)

    def cancel(self, client_id, symbol):
        self.orders[client_id] = self.orders[client_id]._replace(state=OrderState.CANCELLED)


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return Agent.load(small_run(folder, "run", data={"source": "tech4"}, forecaster="none"))


@contextmanager
def trading(agent, folder, broker, limits=None, *, hours=0):
    """A loop at this broker; `hours` have passed since its last bar closed."""
    feed = ReplayFeed("tech4", agent.spec.calendar, start="2011-09-01")
    now = feed.now
    feed.now = lambda bar: now(bar) + np.timedelta64(hours, "h")
    ledger = Ledger.open(folder)
    if ledger.run is None:
        run = Run(RUN, "runs/run/agent", "digest", broker.name, False, {})
        ledger.begin(run, "0", opening_of(broker, agent))
    shadow = simulated(folder / SHADOW, agent, BrokerAccount(cash=CASH))
    yield Loop(agent, feed, broker, ledger, limits or LimitConfig(), shadow=shadow)
    shadow.close()
    ledger.close()


def states(folder):
    ledger = Ledger.read(folder)
    found = [str(report.state) for report in ledger.reports.values()]
    ledger.close()
    return found


def assert_books_agree(folder, broker):
    ledger = Ledger.read(folder)
    held = {symbol: shares for symbol, shares in ledger.positions.items() if shares}
    assert held == pytest.approx({s: n for s, n in broker.shares.items() if n})
    assert len(ledger.orders()) == len(broker.orders) == len(set(broker.orders))
    ledger.close()


def test_orders_are_whole_and_books_agree_with_fees_in_the_coin(agent, tmp_path):
    broker = Elsewhere({"MSFT": 100.0})
    with trading(agent, tmp_path, broker) as loop:
        for _ in range(3):
            loop.once()
    ledger = Ledger.read(tmp_path)
    assert all(order.shares == np.trunc(order.shares) != 0 for _, order in ledger.orders())
    opening = [change for change in ledger.rows("changes") if change[3] == "MSFT"]
    assert opening == [(1, "opening MSFT", "", "MSFT", 100.0, 0.0, "held at the start")]
    positions = {s: n for s, n in ledger.positions.items() if n}
    assert positions == pytest.approx(broker.shares) and "XYZ" not in positions


@pytest.mark.parametrize("fails", ["before", "after"])
def test_an_order_without_an_answer_is_looked_for_and_placed_once(agent, tmp_path, fails):
    broker = Elsewhere()
    with trading(agent, tmp_path, broker) as loop:
        broker.fails = fails
        with pytest.raises(UnansweredError):
            loop.once()
    written = len(Ledger.read(tmp_path).orders())
    assert written == 4 and len(broker.orders) == (fails == "after")
    broker.fails = ""
    with trading(agent, tmp_path, broker) as loop:
        loop.once()
    assert_books_agree(tmp_path, broker)
    first = [order.client_id for _, order in Ledger.read(tmp_path).orders()[:4]]
    assert all(key in broker.orders for key in first)
    again = [key for key in broker.sent if key == first[0]]
    assert len(again) == (2 if fails == "before" else 1)


def test_an_order_that_never_arrived_is_not_sent_after_a_later_bar(agent, tmp_path):
    broker = Elsewhere()
    with trading(agent, tmp_path, broker) as loop:
        broker.fails = "before"
        with pytest.raises(UnansweredError):
            loop.once()
    broker.fails = ""
    with trading(agent, tmp_path, broker, hours=24 * 7) as loop:
        loop._settle()
    assert broker.orders == {} and states(tmp_path) == ["rejected"] * 4
    reasons = {report.reason for report in Ledger.read(tmp_path).reports.values()}
    assert reasons == {"never sent: it was stopped before, and now it is too late"}


def test_limits_hold_for_what_is_sent_again(agent, tmp_path):
    broker, limits = Elsewhere(), LimitConfig(stale_seconds=3600.0)
    with trading(agent, tmp_path, broker, limits) as loop:
        broker.fails = "before"
        with pytest.raises(UnansweredError):
            loop.once()
    broker.fails = ""
    with trading(agent, tmp_path, broker, limits, hours=3) as loop:
        loop._settle()
    ledger = Ledger.read(tmp_path)
    assert broker.orders == {} and [each.limit for each in ledger.refusals()] == ["stale_seconds"]
    assert states(tmp_path) == ["rejected"] * 4


def test_what_is_open_is_withdrawn_before_the_next_decision(agent, tmp_path):
    broker = Elsewhere()
    broker.fill = 0.5
    with trading(agent, tmp_path, broker) as loop:
        loop.once()
        assert states(tmp_path) == ["open"] * 4
        broker.fill = 1.0
        loop.once()
    assert states(tmp_path)[:4] == ["cancelled"] * 4
    assert_books_agree(tmp_path, broker)


def test_rejections_are_written_down_and_trading_goes_on(agent, tmp_path):
    broker = Elsewhere()
    broker.fails = "rejected"
    with trading(agent, tmp_path, broker) as loop:
        loop.once()
        broker.fails = ""
        loop.once()
    assert states(tmp_path)[:4] == ["rejected"] * 4
    assert_books_agree(tmp_path, broker)


def test_slippage_and_drift_are_told_against_the_same_orders_in_the_simulator(agent, tmp_path):
    broker = Elsewhere()
    with trading(agent, tmp_path, broker) as loop:
        for _ in range(6):
            loop.once()
    status = read_status(tmp_path)
    close, simulator = (
        mean_slippage(status.placed, f"against_{each}") for each in ("close", "simulator")
    )
    assert close == pytest.approx(0.0, abs=1e-9)  # it fills at the last close
    assert simulator is not None and abs(simulator) > 1.0  # and the simulator at the next open
    assert len(status.simulator) == 6 and list(status.equity) == list(status.simulator)
    assert status.simulator["2011-09-01"] == CASH
    placed = next(each for each in status.placed if each.against_simulator is not None)
    bars = ReplayFeed("tech4", agent.spec.calendar)._bars
    row = int(np.searchsorted(bars.timestamps, np.datetime64("2011-09-02")))
    opened = bars.open[row, bars.symbols.index(placed.order.symbol)]
    paid = opened * (1 + 2e-4 * np.sign(placed.report.filled))  # half a spread, hardly any impact
    wanted = np.sign(placed.report.filled) * (placed.report.price / paid - 1) * 1e4
    assert placed.against_simulator == pytest.approx(wanted, abs=2.0)
