"""What every broker does with orders, whoever keeps its books."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from math import isfinite

from fastsim.errors import BrokerError
from fastsim.live.broker import Order, OrderReport, OrderState

_ALIKE = Decimal("1e-12")
"""What an amount may lack of a whole step, relatively: it was made by floating point."""


def exact(number: float) -> Decimal:
    """A number as it is written."""
    return Decimal(str(float(number)))


def whole_steps(symbol: str, shares: float, price: float, step: Decimal) -> Decimal:
    """The size of an order in whole steps, without its sign, not above what was asked for.

    Raises
    ------
    BrokerError
        Shares or price is no number, or the price is not above 0.
    """
    if not (isfinite(shares) and isfinite(price) and price > 0):
        raise BrokerError(f"{symbol}: no order can be of {shares} shares at {price}")
    steps = exact(abs(shares)) / step
    whole = steps.to_integral_value()
    if abs(steps - whole) > _ALIKE * steps:
        whole = steps.to_integral_value(ROUND_FLOOR)
    return whole * step


def lacking(reports: Sequence[OrderReport]) -> dict[str, float]:
    """Shares by symbol that open orders still lack, negative to sell."""
    left: dict[str, Decimal] = {}
    for report in reports:
        more = exact(report.shares) - exact(report.filled)
        left[report.symbol] = left.get(report.symbol, Decimal(0)) + more
    return {symbol: float(shares) for symbol, shares in left.items()}


def sells_first(orders: Sequence[Order]) -> list[Order]:
    """Those that sell, so that what they bring is there for the others; else in their order."""
    return sorted(orders, key=lambda order: order.shares > 0)


def require_placeable(orders: Sequence[Order], broker: str, client_id: re.Pattern[str]) -> None:
    """Raise BrokerError, before any is sent, unless ids are fit and single, and shares numbers."""
    seen: set[str] = set()
    for order in orders:
        named = f"{broker}: order {order.client_id!r} of {order.symbol}"
        if not client_id.fullmatch(order.client_id):
            raise BrokerError(f"{named}: its id must be of the form {client_id.pattern}")
        if order.client_id in seen:
            raise BrokerError(f"{named}: another has the same id; give each its own")
        if not (isfinite(order.shares) and order.shares):
            raise BrokerError(f"{named}: it must be of some shares, got {order.shares}")
        seen.add(order.client_id)


def refused(order: Order, reason: object) -> OrderReport:
    """The report of an order that a broker did not take."""
    return OrderReport(
        client_id=order.client_id,
        broker_id="",
        symbol=order.symbol,
        state=OrderState.REJECTED,
        shares=order.shares,
        filled=0.0,
        price=float("nan"),
        fees={},
        received=0.0,
        reason=str(reason),
    )
