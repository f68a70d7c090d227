"""The ledger held against the broker: whatever differs stops trading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastsim.errors import BrokerError
from fastsim.live.broker import Broker, OrderState
from fastsim.live.ledger import Ledger, now
from fastsim.live.records import Change

LOOKS = 3
"""How often a broker is asked before what differs counts: orders may fill between two questions."""
ABSOLUTE, RELATIVE = 1e-8, 1e-9
"""Shares, and part of a position, by which it may differ: as exchanges and sums are rounded."""


class Difference(NamedTuple):
    """What the ledger and the broker say otherwise."""

    what: str  # a position, or an order
    symbol: str
    ledger: str
    broker: str


class DifferenceError(BrokerError):
    """The broker holds, or has open, something else than the ledger says."""

    def __init__(self, name: str, differences: Sequence[Difference]) -> None:
        self.differences = tuple(differences)
        first = differences[0]
        super().__init__(
            f"{name} and the ledger differ in {len(differences)} places, such as the {first.what} "
            f"of {first.symbol}: {first.ledger} in the ledger, {first.broker} there; nothing is "
            f"traded before they agree, or --accept takes the broker's positions for the truth"
        )


class Reconciliation:
    """Positions and open orders of a ledger against those of its broker.

    Parameters
    ----------
    accept
        Write down what differs in positions as changes, once, instead of stopping.
    """

    def __init__(
        self, ledger: Ledger, broker: Broker, symbols: Sequence[str], *, accept: bool = False
    ) -> None:
        self._ledger, self._broker, self._symbols = ledger, broker, symbols
        self._accept = accept

    def check(self) -> None:
        """Raise DifferenceError unless both say the same."""
        for _ in range(LOOKS):
            differences = [*self._positions(), *self._orders()]
            if not differences:
                return
            self._hear()
        if self._accept and all(each.what == "position" for each in differences):
            self._take()
            return
        raise DifferenceError(self._broker.name, differences)

    def _positions(self) -> list[Difference]:
        held, there = self._ledger.positions, self._broker.account(self._symbols).shares
        found = []
        for symbol in self._symbols:
            one, other = held.get(symbol, 0.0), there.get(symbol, 0.0)
            if abs(one - other) > ABSOLUTE + RELATIVE * max(abs(one), abs(other)):
                found.append(Difference("position", symbol, f"{one:.10g}", f"{other:.10g}"))
        return found

    def _orders(self) -> list[Difference]:
        """Orders that are open there, and not ours, or over in the ledger."""
        reports = self._ledger.reports
        found = []
        for there in self._broker.open_orders(self._symbols):
            ours = reports.get(there.client_id)
            if ours is None or ours.state != OrderState.OPEN:
                known = "none of ours" if ours is None else str(ours.state)
                found.append(Difference("order", there.symbol, known, f"{there.shares:.10g} open"))
        return found

    def _hear(self) -> None:
        """Ask again what has become of orders."""
        found = (
            self._broker.find(each.order.client_id, each.order.symbol)
            for each in self._ledger.unsettled()
        )
        self._ledger.report([report for report in found if report is not None])

    def _take(self) -> None:
        """Write down the broker's positions as they are."""
        at, there = now(), self._broker.account(self._symbols).shares
        last = self._ledger.last_decision()
        changes = []
        for symbol in self._symbols:
            moved = there.get(symbol, 0.0) - self._ledger.positions.get(symbol, 0.0)
            if moved:
                bar = "" if last is None else last.bar
                key = f"accepted {at} {symbol}"
                changes.append(Change(key, bar, symbol, moved, 0.0, "accepted as it is there"))
        self._ledger.report((), changes)
