"""Alpaca's trading interface on this machine, with books in decimals that are the truth.

It does what Alpaca says of itself: an id is taken once and for all, orders are filled a moment
after they were taken or, for what is given while the exchange is closed, when it opens, and what
sells lets buy once it is filled.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from loopback import Answer, Asked, Loopback

KEY = "PKTEST7RG1JYSZ93QWXA"
SECRET = "k9PBhVcQmXJ2dLrTzW0sNfYgEaUo5iD8xHq3Cvb1"
STAMP = "2026-11-27T14:30:00.123456789Z"
ZERO = Decimal(0)
OVER = ("filled", "canceled", "expired", "rejected")


class RefusalError(Exception):
    def __init__(self, status: int, code: int, message: str, **more: str) -> None:
        self.answer = Answer(status, {"code": code, "message": message, **more})


@dataclass
class Standing:
    """An order as Alpaca keeps it."""

    client_id: str
    symbol: str
    side: str
    amount: Decimal | None
    status: str = "pending_new"
    fills: list[tuple[Decimal, Decimal]] = field(default_factory=list)
    looks: int = 0
    number: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def sign(self) -> int:
        return 1 if self.side == "buy" else -1

    @property
    def filled(self) -> Decimal:
        return sum((amount for _, amount in self.fills), ZERO)

    @property
    def paid(self) -> Decimal:
        return sum((price * amount for price, amount in self.fills), ZERO)


class AlpacaServer(Loopback):
    """A broker with one account, which lets buy for `leverage` times its cash."""

    def __init__(self, cash: str = "100000") -> None:
        super().__init__()
        self.cash = Decimal(cash)
        self.shares: dict[str, Decimal] = {}
        self.orders: list[Standing] = []
        self.prices = {"KO": "60.10", "AAPL": "230.25", "BRK.B": "480.00", "FNGU": "25.00"}
        self.whole_only = {"FNGU"}
        self.untradable: set[str] = set()
        self.depth: dict[str, list[tuple[str, str]]] = {}
        self.is_open = True
        self.looks_until_filled = 1
        self.blocked = False
        self.leverage = 1

    def buying_power(self) -> Decimal:
        """What the cash can buy, less what open orders to buy will take."""
        pending = sum(
            (each.amount - each.filled) * Decimal(self.prices[each.symbol])
            for each in self.orders
            if each.amount is not None and each.side == "buy" and each.status not in OVER
        )
        return self.leverage * self.cash - pending

    def answer(self, asked: Asked) -> Answer:
        given = (asked.headers.get("apca-api-key-id"), asked.headers.get("apca-api-secret-key"))
        if given != (KEY, SECRET):
            return Answer(403, {"message": "forbidden."})
        try:
            body = self.route(asked)
            return Answer(204, "") if body is None else Answer(200, body)
        except RefusalError as refusal:
            return refusal.answer

    def route(self, asked: Asked) -> Any:
        name = f"{asked.method} {asked.path}"
        for begin, serve in ROUTES.items():
            if name == begin or (begin.endswith("/") and name.startswith(begin)):
                return serve(self, asked)
        raise RefusalError(404, 40410000, "endpoint not found.")

    def clock(self, _: Asked) -> Any:
        clock = {"timestamp": STAMP, "next_open": STAMP, "next_close": STAMP}
        return clock | {"is_open": self.is_open}

    def positions(self, _: Asked) -> Any:
        return [self.position(symbol) for symbol in self.shares]

    def last_trades(self, asked: Asked) -> Any:
        symbols = [each for each in asked.form["symbols"].split(",") if each in self.prices]
        trades = {each: {"t": STAMP, "p": float(self.prices[each]), "s": 1} for each in symbols}
        return {"trades": trades}

    def list_open(self, asked: Asked) -> Any:
        wanted = asked.form["symbols"].split(",")
        found = [each for each in self.orders if each.status not in OVER and each.symbol in wanted]
        return [order_of(each) for each in found[: int(asked.form.get("limit", 50))]]

    def look_up(self, asked: Asked) -> Any:
        order = self.find(lambda each: each.client_id == asked.form["client_order_id"])
        order.looks += 1
        if order.status not in OVER and self.is_open and order.looks > self.looks_until_filled:
            self.fill(order)
        return order_of(order)

    def withdraw(self, asked: Asked) -> Any:
        number = asked.path.rpartition("/")[2]
        order = self.find(lambda each: each.number == number)
        if order.status in OVER:
            raise RefusalError(422, 42210000, f'order is already in "{order.status}" state')
        order.status = "canceled"
        return None

    def find(self, fits) -> Standing:
        for order in self.orders:
            if fits(order):
                return order
        raise RefusalError(404, 40410000, "order not found")

    def account(self, _: Asked) -> dict[str, Any]:
        return {
            "id": str(uuid.UUID(int=1)),
            "account_number": "PA3TEST",
            "status": "ACTIVE",
            "currency": "USD",
            "cash": str(self.cash),
            "buying_power": str(self.buying_power()),
            "equity": str(self.cash),
            "pattern_day_trader": False,
            "trading_blocked": self.blocked,
            "transfers_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": False,
            "created_at": STAMP,
            "shorting_enabled": True,
            "multiplier": "1",
        }

    def position(self, symbol: str) -> dict[str, Any]:
        held = self.shares[symbol]
        return {
            "asset_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, symbol)),
            "symbol": symbol,
            "exchange": "NYSE",
            "asset_class": "us_equity",
            "avg_entry_price": self.prices[symbol],
            "qty": str(held),
            "qty_available": str(held),
            "side": "long" if held > 0 else "short",
            "cost_basis": str(held * Decimal(self.prices[symbol])),
        }

    def asset(self, asked: Asked) -> dict[str, Any]:
        symbol = asked.path.rpartition("/")[2]
        if symbol not in self.prices and symbol != "SPX":
            raise RefusalError(404, 40410000, f"asset not found for {symbol}")
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, symbol)),
            "class": "us_option" if symbol == "SPX" else "us_equity",
            "exchange": "NYSE",
            "symbol": symbol,
            "name": symbol,
            "status": "active",
            "tradable": symbol not in self.untradable,
            "marginable": True,
            "shortable": True,
            "easy_to_borrow": True,
            "fractionable": symbol not in self.whole_only,
        }

    def place(self, request: Asked) -> Any:
        asked = request.body
        symbol, amount = asked["symbol"], Decimal(asked["qty"])
        held, price = self.shares.get(symbol, ZERO), Decimal(self.prices[symbol])
        if any(each.client_id == asked["client_order_id"] for each in self.orders):
            raise RefusalError(422, 40010001, "client_order_id must be unique")
        if asked["type"] != "market" or (amount % 1 and asked["time_in_force"] != "day"):
            raise RefusalError(422, 42210000, "fractional orders must be DAY orders")
        if amount % 1 and symbol in self.whole_only:
            raise RefusalError(403, 40310000, f'asset "{symbol}" is not fractionable')
        if asked["side"] == "buy" and held >= 0 and amount * price > self.buying_power():
            power = str(self.buying_power())
            raise RefusalError(403, 40310000, "insufficient buying power", buying_power=power)
        if asked["side"] == "sell" and held > 0 and amount > held:
            words = f"insufficient qty available for order (requested: {amount}, available: {held})"
            raise RefusalError(403, 40310000, words, existing_qty=str(held))
        if asked["side"] == "sell" and held <= 0 and amount % 1:
            raise RefusalError(403, 40310000, "fractional orders cannot be sold short")
        status = "pending_new" if self.is_open else "accepted"
        order = Standing(asked["client_order_id"], symbol, asked["side"], amount, status)
        self.orders.append(order)
        return order_of(order)

    def fill(self, order: Standing) -> None:
        """Fill what the depth of its stock allows, all of it where none is given."""
        order.status = "filled"
        left = order.amount - order.filled
        for price, depth in self.depth.get(order.symbol, [(self.prices[order.symbol], str(left))]):
            amount = min(left, Decimal(depth))
            order.fills.append((Decimal(price), amount))
            left -= amount
            held = self.shares.get(order.symbol, ZERO) + order.sign * amount
            self.shares[order.symbol] = held
            if not held:
                del self.shares[order.symbol]
            self.cash -= order.sign * Decimal(price) * amount
        if left:
            order.status = "partially_filled"

    def open(self) -> None:
        """The exchange opens, and what was given before is filled."""
        self.is_open = True
        for order in self.orders:
            if order.status not in OVER:
                self.fill(order)

    def close(self) -> None:
        """The exchange closes, and what is left of the day's orders expires."""
        self.is_open = False
        for order in self.orders:
            if order.status not in OVER:
                order.status = "expired"


def order_of(order: Standing) -> dict[str, Any]:
    mean = order.paid / order.filled if order.filled else None
    return {
        "id": order.number,
        "client_order_id": order.client_id,
        "created_at": STAMP,
        "updated_at": STAMP,
        "submitted_at": STAMP,
        "asset_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, order.symbol)),
        "symbol": order.symbol,
        "asset_class": "us_equity",
        "notional": "500" if order.amount is None else None,
        "qty": None if order.amount is None else str(order.amount),
        "filled_qty": str(order.filled),
        "filled_avg_price": None if mean is None else str(mean),
        "order_class": "",
        "order_type": "market",
        "type": "market",
        "side": order.side,
        "time_in_force": "day",
        "limit_price": None,
        "stop_price": None,
        "status": order.status,
        "extended_hours": False,
        "legs": None,
    }


ROUTES = {
    "GET /v2/account": AlpacaServer.account,
    "GET /v2/clock": AlpacaServer.clock,
    "GET /v2/positions": AlpacaServer.positions,
    "GET /v2/assets/": AlpacaServer.asset,
    "GET /v2/stocks/trades/latest": AlpacaServer.last_trades,
    "POST /v2/orders": AlpacaServer.place,
    "GET /v2/orders": AlpacaServer.list_open,
    "GET /v2/orders:by_client_order_id": AlpacaServer.look_up,
    "DELETE /v2/orders/": AlpacaServer.withdraw,
}
