"""Accounts, assets and orders as Alpaca tells them, as ours. It writes numbers as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from fastsim.errors import BrokerError, ConfigError
from fastsim.live.broker import OrderReport, OrderState

SMALLEST = Decimal("1e-9")
"""Of a share, where parts of it are traded."""
_STATES = {
    OrderState.OPEN: (
        *("new", "accepted", "pending_new", "accepted_for_bidding", "partially_filled", "held"),
        *("pending_cancel", "pending_replace", "pending_review", "calculated", "done_for_day"),
        *("stopped", "suspended"),
    ),
    OrderState.FILLED: ("filled",),
    OrderState.CANCELLED: ("canceled", "expired", "replaced"),
    OrderState.REJECTED: ("rejected",),
}
STATES = {status: state for state, statuses in _STATES.items() for status in statuses}
"""Alpaca's words for what has become of an order."""


class Asset(NamedTuple):
    """A stock as Alpaca trades it."""

    symbol: str
    """As the agent names it."""
    theirs: str
    """As Alpaca does: "BRK.B" for "BRK-B"."""
    fractionable: bool


def asset_of(told: Mapping[str, Any], symbol: str) -> Asset:
    """A stock that is traded; ConfigError if it is none, or is not traded."""
    if told["class"] != "us_equity":
        raise ConfigError(f"alpaca: {symbol} is {told['class']}, and fastsim trades stocks there")
    if not told["tradable"] or told["status"] != "active":
        raise ConfigError(f"alpaca does not trade {symbol} at present: leave it out")
    return Asset(symbol, told["symbol"], bool(told["fractionable"]))


def cash_of(told: Mapping[str, Any]) -> float:
    """Dollars of an account; BrokerError if it may not trade."""
    flags = ("trading_blocked", "account_blocked", "trade_suspended_by_user")
    blocked = [name for name in flags if told.get(name)]
    if told["status"] != "ACTIVE" or blocked:
        raise BrokerError(
            f"alpaca: the account may not trade ({', '.join([told['status'], *blocked])}): see at "
            f"app.alpaca.markets what it lacks"
        )
    return float(Decimal(told["cash"]))


def positions_of(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares by Alpaca's symbols, negative if short."""
    return {
        each["symbol"]: float(abs(Decimal(each["qty"]))) * (-1 if each["side"] == "short" else 1)
        for each in told
    }


def report_of(told: Mapping[str, Any], ours: Mapping[str, str]) -> OrderReport:
    """An order; `ours` are the agent's symbols by Alpaca's."""
    status, named = told["status"], f"alpaca: order {told['client_order_id']} of {told['symbol']}"
    if status not in STATES:
        raise BrokerError(
            f"{named} is {status!r}, which fastsim does not know: see what has become of it at "
            f"app.alpaca.markets"
        )
    if told.get("qty") is None:
        raise BrokerError(
            f"{named} is of {told.get('notional')} dollars and not of shares, so that nobody "
            f"knows how many it will be: cancel it at app.alpaca.markets"
        )
    sign = 1 if told["side"] == "buy" else -1
    filled = sign * Decimal(told["filled_qty"])
    state = STATES[status]
    over = state in (OrderState.CANCELLED, OrderState.REJECTED)
    return OrderReport(
        client_id=told["client_order_id"],
        broker_id=told["id"],
        symbol=ours.get(told["symbol"], told["symbol"]),
        state=state,
        shares=float(sign * Decimal(told["qty"])),
        filled=float(filled),
        price=float(told["filled_avg_price"]) if filled else float("nan"),
        fees={},
        received=float(filled),
        reason=status if over else "",
    )
