"""The loop: what an agent does at each bar that closes, and after a stop at any moment.

    settle      ask the broker what has become of orders; send again what it never took
    reconcile   positions and open orders of the ledger against the broker's
    ask         the feed for a bar that has closed since the last decision
    decide      and record it with its orders, before any is sent
    submit      and record what the broker says

An order is written before it is sent, under an id that its run, bar and symbol make; so after a
stop anywhere the broker can be asked whether it has it, and no order is placed twice or lost. The
agent remembers what its last whole decision left, which stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np

from fastsim.agent.agent import Agent
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.window import checked_window
from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_stamp
from fastsim.errors import BrokerError, DataError
from fastsim.live.broker import Broker, Order
from fastsim.live.desk import Desk
from fastsim.live.feed import Feed
from fastsim.live.ledger import Ledger
from fastsim.live.limits import LimitConfig
from fastsim.live.reconcile import Reconciliation
from fastsim.live.simulated import SimulatedBroker


class Passed(StrEnum):
    """What came of one pass."""

    DECIDED = "decided"
    WAITING = "waiting"
    """No bar has closed since."""
    OVER = "over"
    """And none will."""


class Loop:
    """An agent, its account and its ledger.

    Parameters
    ----------
    shadow
        A simulated account that is given the same orders, for who trades elsewhere to be held to.
    accept
        Take the broker's positions for the truth where the ledger has others, and go on.
    tell
        Hears of what happens, line by line.
    """

    def __init__(
        self,
        agent: Agent,
        feed: Feed,
        broker: Broker,
        ledger: Ledger,
        limits: LimitConfig,
        *,
        shadow: SimulatedBroker | None = None,
        accept: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._agent, self._feed, self._broker = agent, feed, broker
        self._ledger, self._shadow, self._tell = ledger, shadow, tell
        self._desk = Desk(ledger, feed, broker, agent, limits)
        self._symbols, self._calendar = agent.symbols, agent.spec.calendar
        self._reconciliation = Reconciliation(ledger, broker, self._symbols, accept=accept)
        self._simulated = broker if isinstance(broker, SimulatedBroker) else None

    def once(self) -> Passed:
        """One pass.

        Raises
        ------
        DifferenceError
            The broker holds something else than the ledger says.
        DataError
            Bars that would mislead the agent: nothing is decided.
        BrokerError
            The broker cannot be reached, or an order was not answered.
        """
        last = self._ledger.last_decision()
        self._settle()
        self._reconciliation.check()
        after = None if last is None else iso_stamp(last.bar, "bar")
        bars = self._feed.bars(self._symbols, self._agent.bars_needed, after)
        if bars is None:
            return Passed.OVER if self._feed.ends else Passed.WAITING
        state = None if last is None else from_mapping(AgentState, last.state)
        self._check(bars, state)
        self._meet(bars)
        account = self._withdrawn()
        decision = self._agent.decide(
            bars, account, state, now=self._feed.now(bars.timestamps[-1]), closed=self._feed.closed
        )
        orders, line = self._desk.write(bars, account, decision)
        self._tell(line)
        self._submit(orders)
        return Passed.DECIDED

    def seconds_to_wait(self, most: float = 60.0) -> float:
        """Until the bar after the last decision may close; at least a second, `most` at most."""
        last = self._ledger.last_decision()
        if last is None:
            return most
        bar = iso_stamp(last.bar, "bar")
        length = np.timedelta64(round(1e9 * self._calendar.bar_seconds), "ns")
        left = (self._calendar.closes(bar) + length - self._feed.now(bar)) / np.timedelta64(1, "s")
        return float(min(most, max(1.0, left)))

    @property
    def ends(self) -> bool:
        """Whether the feed is a history."""
        return self._feed.ends

    def wait(self) -> None:
        """Until there may be a new bar."""
        self._feed.wait(self.seconds_to_wait())

    def _settle(self) -> None:
        """Hear what has become of orders; what the broker never took is sent again, or given up."""
        reports, lost = [], []
        for bar, order, before in self._ledger.unsettled():
            found = self._broker.find(order.client_id, order.symbol)
            if found is not None:
                reports.append(found)
            elif before is not None:
                raise BrokerError(
                    f"{self._broker.name} no longer knows its order {before.broker_id} of "
                    f"{order.symbol}, on {bar}: look it up there"
                )
            else:
                lost.append((bar, order))
        changes = () if self._simulated is None else self._simulated.changes(self._last_bar())
        self._ledger.report(reports, changes)
        fresh = self._desk.send_again([each for each in lost if self._is_last(each[0])])
        if fresh:
            self._tell(f"{len(fresh)} orders that never reached {self._broker.name} are sent now")
        self._desk.give_up([order for _, order in lost if order not in fresh])
        self._submit(fresh)

    def _last_bar(self) -> str:
        last = self._ledger.last_decision()
        return "" if last is None else last.bar

    def _is_last(self, bar: str) -> bool:
        """Whether no later bar is over by now."""
        stamp = iso_stamp(bar, "bar")
        try:
            self._calendar.check_end(stamp, self._feed.now(stamp), self._feed.closed)
        except DataError:
            return False
        return True

    def _check(self, bars: Bars, state: AgentState | None) -> None:
        """Raise DataError for bars that the agent would refuse, before an account meets them."""
        needed = self._agent.bars_needed
        now = self._feed.now(bars.timestamps[-1])
        window = checked_window(
            bars, self._symbols, self._agent.spec, needed, now=now, closed=self._feed.closed
        )
        if state is not None:
            state.check(window)

    def _meet(self, bars: Bars) -> None:
        """Let simulated accounts meet the bars; a shadow with the orders of the last decision."""
        if self._shadow is not None:
            last = self._last_bar()
            self._shadow.submit([order for bar, order in self._ledger.orders() if bar == last])
            self._shadow.meet(bars)
        if self._simulated is not None:
            self._simulated.meet(bars)
            self._settle()

    def _withdrawn(self) -> BrokerAccount:
        """The account, after what earlier orders still lack has been withdrawn."""
        account = self._own(self._broker.account(self._symbols))
        if self._simulated is not None:
            return account  # new orders replace those that are carried
        unsettled = self._ledger.unsettled()
        if not unsettled:
            return account
        for _, order, _ in unsettled:
            self._broker.cancel(order.client_id, order.symbol)
        self._settle()
        self._reconciliation.check()
        now = self._own(self._broker.account(self._symbols))
        return BrokerAccount(cash=now.cash, shares=now.shares, open_orders=account.open_orders)

    def _own(self, account: BrokerAccount) -> BrokerAccount:
        """What of an account is the agent's business."""
        return BrokerAccount(
            cash=account.cash,
            shares={s: n for s, n in account.shares.items() if s in self._symbols},
            open_orders={s: n for s, n in account.open_orders.items() if s in self._symbols},
        )

    def _submit(self, orders: Sequence[Order]) -> None:
        if orders:
            self._ledger.report(self._broker.submit(orders))
