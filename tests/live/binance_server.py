"""Binance's spot endpoints on this machine, with books in decimals that are the truth.

It does what Binance says of itself: requests are signed, an id is taken again once its order is
over, a market order ends where the other side of the book does, and a buyer's fee is in the coin.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from loopback import Answer, Asked, Loopback

KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ZERO = Decimal(0)
OVER = ("FILLED", "CANCELED", "EXPIRED", "REJECTED")


class Pair(NamedTuple):
    base: str
    quote: str
    step: str
    least: str
    least_notional: str
    most: str = "9000.00000000"


PAIRS = {
    "BTCUSDT": Pair("BTC", "USDT", "0.00001000", "0.00001000", "5.00000000"),
    "ETHUSDT": Pair("ETH", "USDT", "0.00010000", "0.00010000", "5.00000000"),
    "BNBUSDT": Pair("BNB", "USDT", "0.00100000", "0.00100000", "5.00000000"),
    "ETHBTC": Pair("ETH", "BTC", "0.00010000", "0.00010000", "0.00010000"),
}


class Trade(NamedTuple):
    number: int
    price: Decimal
    amount: Decimal
    fee: Decimal
    fee_coin: str


@dataclass
class Standing:
    """An order as the exchange keeps it."""

    number: int
    client_id: str
    pair: str
    side: str
    amount: Decimal
    kind: str = "MARKET"
    status: str = "NEW"
    trades: list[Trade] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum((trade.amount for trade in self.trades), ZERO)

    @property
    def paid(self) -> Decimal:
        return sum((trade.amount * trade.price for trade in self.trades), ZERO)

    @property
    def fees(self) -> dict[str, Decimal]:
        fees: dict[str, Decimal] = defaultdict(Decimal)
        for trade in self.trades:
            fees[trade.fee_coin] += trade.fee
        return dict(fees)


class RefusalError(Exception):
    def __init__(self, code: int, message: str, status: int = 400) -> None:
        self.answer = Answer(status, {"code": code, "msg": message})


class BinanceServer(Loopback):
    """An exchange with one account."""

    def __init__(self, balances: dict[str, str] | None = None, fee: str = "0.001") -> None:
        super().__init__()
        given = balances or {"USDT": "10000.00000000"}
        self.free = defaultdict(Decimal, {coin: Decimal(held) for coin, held in given.items()})
        self.locked_coins: dict[str, Decimal] = defaultdict(Decimal)
        self.fee, self.fee_coin = Decimal(fee), ""
        self.orders: list[Standing] = []
        self.depth = {  # price and amount of each level, the same on both sides
            "BTCUSDT": [("20000.00", "1000")],
            "ETHUSDT": [("1000.00", "10000")],
            "BNBUSDT": [("250.00", "10000")],
            "ETHBTC": [("0.05", "10000")],
        }
        self.candles: dict[str, list[list[Any]]] = {}
        self.clock_ahead = 0.0
        self.closed: set[str] = set()

    def held(self, coin: str) -> Decimal:
        return self.free[coin] + self.locked_coins[coin]

    def rest(self, client_id: str, pair: str, side: str, amount: str, price: str) -> Standing:
        """A limit order that somebody else's hand has placed, with what it locks."""
        order = Standing(len(self.orders) + 1, client_id, pair, side, Decimal(amount), "LIMIT")
        coin, locked = (
            (PAIRS[pair].base, order.amount)
            if side == "SELL"
            else (PAIRS[pair].quote, order.amount * Decimal(price))
        )
        self.free[coin] -= locked
        self.locked_coins[coin] += locked
        self.orders.append(order)
        return order

    def answer(self, asked: Asked) -> Answer:
        try:
            name = f"{asked.method} {asked.path}"
            public = PUBLIC.get(name)
            if public is not None:
                return Answer(200, public(self, asked.form))
            self.check(asked)
            return Answer(200, PRIVATE[name](self, asked.form))
        except RefusalError as refusal:
            return refusal.answer
        except KeyError:
            return Answer(404, "<html>not found</html>", {"Content-Type": "text/html"})

    def check(self, asked: Asked) -> None:
        if asked.headers.get("x-mbx-apikey") != KEY:
            raise RefusalError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        signed, _, signature = asked.query.rpartition("&signature=")
        wanted = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, wanted):
            raise RefusalError(-1022, "Signature for this request is not valid.")
        stamp, now = int(asked.form["timestamp"]), self.milliseconds()
        if stamp > now + 1000:
            raise RefusalError(
                -1021, "Timestamp for this request was 1000ms ahead of the server's time."
            )
        if now - stamp > int(asked.form.get("recvWindow", 5000)):
            raise RefusalError(-1021, "Timestamp for this request is outside of the recvWindow.")

    def milliseconds(self) -> int:
        return int(1000 * (time.time() + self.clock_ahead))

    def time(self, _: dict[str, str]) -> Any:
        return {"serverTime": self.milliseconds()}

    def info(self, _: dict[str, str]) -> Any:
        return {
            "timezone": "UTC",
            "serverTime": self.milliseconds(),
            "rateLimits": [],
            "exchangeFilters": [],
            "symbols": [symbol_of(name, name not in self.closed) for name in PAIRS],
        }

    def klines(self, form: dict[str, str]) -> Any:
        """Candles that have begun; the last of them is still being traded."""
        first = int(form.get("startTime", 0))
        last = min(int(form.get("endTime", self.milliseconds())), self.milliseconds())
        rows = [row for row in self.candles[form["symbol"]] if first <= row[0] <= last]
        return rows[: int(form.get("limit", 500))]

    def tickers(self, form: dict[str, str]) -> Any:
        """Of several symbols, or of one, which is no list."""
        if "symbol" in form:
            return self.ticker(form["symbol"])
        return [self.ticker(name) for name in json.loads(form["symbols"])]

    def ticker(self, name: str) -> Any:
        return {
            "symbol": name,
            "lastPrice": self.depth[name][0][0],
            "closeTime": self.milliseconds(),
        }

    def account(self, _: dict[str, str]) -> Any:
        coins = sorted(set(self.free) | set(self.locked_coins))
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "canTrade": True,
            "updateTime": self.milliseconds(),
            "accountType": "SPOT",
            "balances": [
                {
                    "asset": coin,
                    "free": f"{self.free[coin]:.8f}",
                    "locked": f"{self.locked_coins[coin]:.8f}",
                }
                for coin in coins
            ],
            "permissions": ["SPOT"],
        }

    def place(self, form: dict[str, str]) -> Any:
        pair, side, amount = PAIRS[form["symbol"]], form["side"], Decimal(form["quantity"])
        client_id = form["newClientOrderId"]
        if any(each.client_id == client_id and each.status not in OVER for each in self.orders):
            raise RefusalError(-2010, "Duplicate order sent.")
        if form["symbol"] in self.closed:
            raise RefusalError(-1013, "Market is closed.")
        if amount < Decimal(pair.least) or amount % Decimal(pair.step):
            raise RefusalError(-1013, "Filter failure: LOT_SIZE")
        best = Decimal(self.depth[form["symbol"]][0][0])
        if amount * best < Decimal(pair.least_notional):
            raise RefusalError(-1013, "Filter failure: NOTIONAL")
        order = Standing(len(self.orders) + 1, client_id, form["symbol"], side, amount)
        self.match(order, pair)
        self.orders.append(order)
        return order_of(order) | {"transactTime": self.milliseconds(), "fills": fills_of(order)}

    def match(self, order: Standing, pair: Pair) -> None:
        """Walk the levels of the book; what is left where they end expires."""
        fills, left = [], order.amount
        for price, depth in self.depth[order.pair]:
            amount = min(left, Decimal(depth))
            if amount:
                fills.append((Decimal(price), amount))
            left -= amount
        paid = sum((price * amount for price, amount in fills), ZERO)
        given, needed = (
            (pair.quote, paid) if order.side == "BUY" else (pair.base, order.amount - left)
        )
        if self.free[given] < needed:
            raise RefusalError(-2010, "Account has insufficient balance for requested action.")
        for price, amount in fills:
            self.settle(order, pair, price, amount)
        order.status = "EXPIRED" if left else "FILLED"

    def settle(self, order: Standing, pair: Pair, price: Decimal, amount: Decimal) -> None:
        buys = order.side == "BUY"
        given, taken = (pair.quote, pair.base) if buys else (pair.base, pair.quote)
        out, into = (price * amount, amount) if buys else (amount, price * amount)
        fee_coin = self.fee_coin or taken
        fee = into * self.fee
        if fee_coin != taken:
            fee = price * amount * self.fee / Decimal(self.depth[f"{fee_coin}{pair.quote}"][0][0])
        fee = round(fee, 8)
        self.free[given] -= out
        self.free[taken] += into
        self.free[fee_coin] -= fee
        number = 1 + sum(len(each.trades) for each in self.orders) + len(order.trades)
        order.trades.append(Trade(number, price, amount, fee, fee_coin))

    def find(self, form: dict[str, str]) -> Standing:
        for order in reversed(self.orders):
            named = form.get("origClientOrderId") == order.client_id
            if order.pair == form["symbol"] and (named or form.get("orderId") == str(order.number)):
                return order
        raise RefusalError(-2013, "Order does not exist.")

    def look_up(self, form: dict[str, str]) -> Any:
        return order_of(self.find(form)) | {"time": self.milliseconds(), "isWorking": True}

    def withdraw(self, form: dict[str, str]) -> Any:
        try:
            order = self.find(form)
        except RefusalError:
            raise RefusalError(-2011, "Unknown order sent.") from None
        if order.status in OVER:
            raise RefusalError(-2011, "Unknown order sent.")
        order.status = "CANCELED"
        for coin in (PAIRS[order.pair].base, PAIRS[order.pair].quote):
            self.free[coin] += self.locked_coins.pop(coin, ZERO)
        return order_of(order)

    def open(self, form: dict[str, str]) -> Any:
        return [
            order_of(order)
            for order in self.orders
            if order.status not in OVER and order.pair == form.get("symbol", order.pair)
        ]

    def trades(self, form: dict[str, str]) -> Any:
        return [
            {
                "symbol": order.pair,
                "id": trade.number,
                "orderId": order.number,
                "price": str(trade.price),
                "qty": str(trade.amount),
                "quoteQty": str(trade.price * trade.amount),
                "commission": str(trade.fee),
                "commissionAsset": trade.fee_coin,
                "time": self.milliseconds(),
                "isBuyer": order.side == "BUY",
                "isMaker": False,
            }
            for order in self.orders
            for trade in order.trades
            if order.pair == form["symbol"] and form.get("orderId") in (None, str(order.number))
        ]


def symbol_of(name: str, active: bool) -> dict[str, Any]:
    pair = PAIRS[name]
    return {
        "symbol": name,
        "status": "TRADING" if active else "BREAK",
        "baseAsset": pair.base,
        "baseAssetPrecision": 8,
        "quoteAsset": pair.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": ["SPOT"],
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "0.01000000",
                "maxPrice": "1000000.00000000",
                "tickSize": "0.01000000",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": pair.least,
                "maxQty": pair.most,
                "stepSize": pair.step,
            },
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": "100.00000000",
                "stepSize": "0.00000000",
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": pair.least_notional,
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
    }


def order_of(order: Standing) -> dict[str, Any]:
    return {
        "symbol": order.pair,
        "orderId": order.number,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": "0.00000000",
        "origQty": f"{order.amount:.8f}",
        "executedQty": f"{order.filled:.8f}",
        "cummulativeQuoteQty": f"{order.paid:.8f}",
        "status": order.status,
        "timeInForce": "GTC",
        "type": order.kind,
        "side": order.side,
    }


def fills_of(order: Standing) -> list[dict[str, Any]]:
    return [
        {
            "price": str(trade.price),
            "qty": str(trade.amount),
            "commission": f"{trade.fee:.8f}",
            "commissionAsset": trade.fee_coin,
            "tradeId": trade.number,
        }
        for trade in order.trades
    ]


PUBLIC = {
    "GET /api/v3/time": BinanceServer.time,
    "GET /api/v3/exchangeInfo": BinanceServer.info,
    "GET /api/v3/klines": BinanceServer.klines,
    "GET /api/v3/ticker/24hr": BinanceServer.tickers,
    "GET /sapi/v1/margin/allPairs": lambda *_: [],
    "GET /sapi/v1/margin/isolated/allPairs": lambda *_: [],
}
PRIVATE = {
    "GET /api/v3/account": BinanceServer.account,
    "POST /api/v3/order": BinanceServer.place,
    "GET /api/v3/order": BinanceServer.look_up,
    "DELETE /api/v3/order": BinanceServer.withdraw,
    "GET /api/v3/openOrders": BinanceServer.open,
    "GET /api/v3/myTrades": BinanceServer.trades,
}
