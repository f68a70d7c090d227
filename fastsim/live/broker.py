"""What a broker is to the loop: an account, and orders that are known by an id of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from fastsim.agent.state import BrokerAccount
from fastsim.errors import BrokerError


class UnansweredError(BrokerError):
    """An order was sent and no answer came: it may stand at the broker, or not."""


class OrderState(StrEnum):
    """What has become of an order."""

    OPEN = "open"
    """The broker has it; part of it may be filled."""
    FILLED = "filled"
    CANCELLED = "cancelled"
    """It ended before all of it was filled: withdrawn, or expired."""
    REJECTED = "rejected"
    """The broker never took it."""


class Order(NamedTuple):
    """One market order."""

    client_id: str
    """The same for the same run, bar and symbol, so that it cannot be placed twice."""
    symbol: str
    shares: float
    """To buy, or to sell if negative; sized at `price`."""
    price: float
    """The last close, account currency."""
    weight: float
    """What is wanted of the symbol, of the wealth after costs."""
    stop: float = 0.0
    """How far the stop of what it opens or adds to is to be, a part of the entry; 0 asks for none.
    Orders at brokers with a market of their own have none."""
    target: float = 0.0
    """Likewise its target."""


class OrderReport(NamedTuple):
    """What a broker says of an order."""

    client_id: str
    broker_id: str
    symbol: str
    state: OrderState
    shares: float
    """That were asked for, negative to sell."""
    filled: float
    """Of them, so far, of the same sign; before fees that are taken in the coin."""
    price: float
    """The mean that was paid, account currency; NaN while nothing is filled."""
    fees: Mapping[str, float]
    """So far, by the currency or coin they were taken in."""
    received: float
    """What of `filled` has come to the account or left it: less where a fee is taken in the coin
    that was bought. Positions are reckoned by it."""
    reason: str = ""
    """Why it was rejected or cancelled, in the broker's words."""


class Broker(Protocol):
    """Whom orders are given to.

    Every method may raise BrokerError. What it knows is the truth: the ledger is held to it.
    """

    @property
    def name(self) -> str:
        """As it is named in the ledger, such as "simulated" or "ccxt:binance"."""
        ...

    @property
    def live(self) -> bool:
        """Whether its money is real."""
        ...

    def account(self, symbols: Sequence[str]) -> BrokerAccount:
        """Cash, shares and open orders, as they are now.

        A broker that holds more than these symbols names what else is worth anything.
        """
        ...

    def prices(self, symbols: Sequence[str]) -> Mapping[str, float]:
        """What each was last traded at, account currency; those that it does not know are left out.

        Orders are held to them by a limit on how far prices may be from the last close.
        """
        ...

    def tradable(self, symbol: str, shares: float, price: float) -> float:
        """The shares of an order as the broker would take them: towards 0, 0 if it is too small."""
        ...

    def submit(self, orders: Sequence[Order]) -> tuple[OrderReport, ...]:
        """Place the orders of one bar, and say what became of each.

        One that is there already by its id is not placed again, but reported. A broker places those
        that sell first.

        Raises
        ------
        UnansweredError
            An answer did not come; `find` says later what stands.
        """
        ...

    def find(self, client_id: str, symbol: str) -> OrderReport | None:
        """The order of this id; None if the broker has never taken it."""
        ...

    def open_orders(self, symbols: Sequence[str]) -> tuple[OrderReport, ...]:
        """All orders that are open, whoever gave them."""
        ...

    def cancel(self, client_id: str, symbol: str) -> None:
        """Withdraw what is left of an order; nothing if it is over."""
        ...
