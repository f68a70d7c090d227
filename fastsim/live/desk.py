"""From a decision to orders that are written down, held to limits, and sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from fastsim.agent.agent import Agent
from fastsim.agent.decision import Decision
from fastsim.agent.state import Asked, BrokerAccount
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_stamp, show
from fastsim.errors import DataError
from fastsim.live.broker import Broker, Order
from fastsim.live.feed import Feed
from fastsim.live.ledger import Ledger
from fastsim.live.limits import LimitConfig, Situation, allowed
from fastsim.live.orders import refused
from fastsim.live.reasons import decided
from fastsim.live.records import Refusal, Snapshot, client_id_of
from fastsim.live.simulated import SimulatedBroker

TOO_LATE = "never sent: it was stopped before, and now it is too late"


class Desk:
    """Who writes orders, and holds them to limits."""

    def __init__(
        self, ledger: Ledger, feed: Feed, broker: Broker, agent: Agent, limits: LimitConfig
    ) -> None:
        self._ledger, self._feed, self._broker = ledger, feed, broker
        self._agent, self._symbols, self._calendar = agent, agent.symbols, agent.spec.calendar
        self._limits = limits
        self._sizes_itself = isinstance(broker, SimulatedBroker)

    def write(
        self, bars: Bars, account: BrokerAccount, decision: Decision
    ) -> tuple[Sequence[Order], str]:
        """Write down a decision with its orders; those that may be sent, and all of it in a line.

        Raises
        ------
        DataError
            What is wanted is no number.
        """
        bar = show(decision.timestamp)
        closes = {s: float(bars.close[-1, bars.symbols.index(s)]) for s in self._symbols}
        equity = account.cash + sum(n * closes[s] for s, n in account.shares.items())
        snapshot = Snapshot(bar, equity, account.cash, account.shares, account.open_orders)
        wanted = [] if decision.holds else self._wanted(bar, account, decision, closes)
        orders, refusals = self._allowed(wanted, snapshot, closes)
        kept = decided(self._agent, bars, decision, closes)
        self._ledger.record(kept, snapshot, orders, refusals)
        return orders, _line(snapshot, orders, refusals)

    def send_again(self, lost: Sequence[tuple[str, Order]]) -> list[Order]:
        """Those of the orders of the last bar that may be sent still."""
        last, account = self._ledger.last_decision(), self._ledger.last_snapshot()
        if not lost or last is None or account is None:
            return []
        again = [order for bar, order in lost if bar == last.bar]
        orders, refusals = self._allowed(again, account, last.closes)
        self._ledger.refuse(refusals)
        return orders

    def give_up(self, orders: Sequence[Order]) -> None:
        """Write down that these were never sent, and will not be."""
        self._ledger.report([refused(order, TOO_LATE) for order in orders])

    def _wanted(
        self, bar: str, account: BrokerAccount, decision: Decision, closes: Mapping[str, float]
    ) -> list[Order]:
        """What to trade; a simulated account sizes orders itself, by all that is wanted."""
        run = self._ledger.run
        assert run is not None  # it has begun
        found = []
        for symbol in self._symbols:
            shares, weight = decision.orders[symbol], decision.weights[symbol]
            if not (isfinite(shares) and isfinite(weight)):
                raise DataError(f"the agent wants {weight} of {symbol} on {bar}: nothing is sent")
            wanted = bool(weight or account.shares.get(symbol))
            if not self._sizes_itself:
                shares = self._broker.tradable(symbol, shares, closes[symbol])
                wanted = shares != 0
            if wanted:
                key = client_id_of(run.run_id, bar, symbol)
                asked = decision.state.asked.get(symbol, Asked())
                away = asked.stop, asked.target
                found.append(Order(key, symbol, shares, closes[symbol], weight, *away))
        return found

    def _allowed(
        self, orders: Sequence[Order], account: Snapshot, closes: Mapping[str, float]
    ) -> tuple[list[Order], list[Refusal]]:
        stamp = iso_stamp(account.bar, "bar")
        situation = Situation(
            account=account,
            equity_before=self._ledger.equity_before(account),
            closes=closes,
            prices=self._broker.prices(self._symbols) if orders else {},
            age_seconds=float((self._feed.now(stamp) - self._calendar.closes(stamp)).astype(int))
            * 1e-9,
        )
        return allowed(orders, self._limits, situation)


def _line(account: Snapshot, orders: Sequence[Order], refusals: Sequence[Refusal]) -> str:
    told = [f"{account.bar}: equity {account.equity:,.2f}, {len(orders)} orders"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        reasons.setdefault((refusal.limit, refusal.why), []).append(refusal.symbol)
    for (limit, why), symbols in reasons.items():
        told.append(f"refused by {limit}: {', '.join([*filter(None, symbols), why])}")
    return "; ".join(told)
