"""An order as ccxt tells it, as ours: what has become of it, what was paid and in which coins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from fastsim.errors import BrokerError
from fastsim.live.broker import OrderReport, OrderState
from fastsim.live.coins import SpotMarket
from fastsim.live.orders import exact

STATES = {
    "open": OrderState.OPEN,
    "canceling": OrderState.OPEN,
    "closed": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "expired": OrderState.CANCELLED,
    "rejected": OrderState.REJECTED,
}
"""ccxt's words for what has become of an order."""


def report_of(ccxt: Any, answer: Mapping[str, Any], market: SpotMarket) -> OrderReport:
    """An order of ccxt's as ours; fees are those of its trades where it does not tell them."""
    status = answer["status"]
    if status not in STATES:
        raise BrokerError(
            f"ccxt:{ccxt.id}: order {answer['clientOrderId']} of {market.symbol} is {status!r}, "
            f"which fastsim does not know: see what has become of it by hand"
        )
    sign = 1 if answer["side"] == "buy" else -1
    amount, filled = answer["amount"], answer["filled"] or 0.0
    state = STATES[status]
    if state is OrderState.FILLED and filled < amount:
        state = OrderState.CANCELLED
    fees = answer.get("fees") or []
    if filled and not fees and ccxt.has.get("fetchOrderTrades"):
        trades = ccxt.fetch_order_trades(answer["id"], market.unified, None, 1000)
        fees = [trade["fee"] for trade in trades]
    taken = _added(fees)
    whole = state in (OrderState.FILLED, OrderState.OPEN)
    return OrderReport(
        client_id=answer["clientOrderId"] or "",
        broker_id=str(answer["id"]),
        symbol=market.symbol,
        state=state,
        shares=sign * amount,
        filled=sign * filled,
        price=_mean_price(answer, filled),
        fees={currency: float(cost) for currency, cost in taken.items()},
        received=float(sign * exact(filled) - taken.get(market.coin, Decimal(0))),
        reason="" if whole else str((answer.get("info") or {}).get("status", status)),
    )


def _mean_price(answer: Mapping[str, Any], filled: float) -> float:
    """What was paid of the quote currency for each coin."""
    if not filled:
        return float("nan")
    if answer.get("cost"):
        return float(exact(answer["cost"]) / exact(filled))
    return float(answer["average"])


def _added(fees: Sequence[Mapping[str, Any] | None]) -> dict[str, Decimal]:
    """Fees by the currency they were taken in."""
    added: dict[str, Decimal] = {}
    for fee in fees:
        if fee and fee.get("currency") and fee.get("cost"):
            before = added.get(fee["currency"], Decimal(0))
            added[fee["currency"]] = before + exact(fee["cost"])
    return added
