"""A crypto exchange as a broker, by ccxt: spot, market orders, by default on its test network."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastsim.agent.state import BrokerAccount
from fastsim.errors import BrokerError, ConfigError
from fastsim.live.answers import MissingError, RefusedError
from fastsim.live.broker import Order, OrderReport, OrderState, UnansweredError
from fastsim.live.ccxt_client import CcxtClient
from fastsim.live.ccxt_reports import report_of
from fastsim.live.coins import SpotMarket, spot_markets
from fastsim.live.orders import lacking, refused, require_placeable, sells_first

CLIENT_ID = re.compile(r"[A-Za-z0-9_.:/-]{1,36}")
"""What Binance takes for a client order id."""
NOBODY = "fastsim-nobody"
"""An id that no order has."""
MOST_MARKETS = 12
"""That are asked one by one for open orders: with Binance all of them cost as much as 13."""
SLACK = 2.0
"""Seconds that an order may be on its way beyond what the exchange allows."""


class CcxtBroker:
    """Spot of one exchange, in pairs of one quote currency, which is the account's.

    What an exchange holds is what its balance says: a fee that is taken in the coin is no longer
    there. On a test network coins of other markets are left out, as it hands out hundreds of them.

    Parameters
    ----------
    client
        Of `fastsim.live.ccxt_client.connect`.
    symbols
        Of the agent: "BTC/USDT" or "BTCUSDT".

    Raises
    ------
    ConfigError
        As `spot_markets`, or the exchange cannot look up an order by an id of ours.
    """

    def __init__(self, client: CcxtClient, symbols: Sequence[str]) -> None:
        if not symbols:
            raise ConfigError(f"{client.name}: there are no symbols to trade")
        known = client.ask("its markets", lambda ccxt: ccxt.load_markets())
        self._client, self._opened = client, time.monotonic()
        self._markets = spot_markets(symbols, known, client.name, client.client.precisionMode)
        self._sent: dict[str, float] = {}  # by id, when orders were sent that were not answered
        self._require_lookup(symbols[0])

    @property
    def name(self) -> str:
        """Such as "ccxt:binance"."""
        return self._client.name

    @property
    def live(self) -> bool:
        """Whether its money is real."""
        return self._client.live

    @property
    def currency(self) -> str:
        """What everything is paid in."""
        return next(iter(self._markets.values())).quote

    def account(self, symbols: Sequence[str]) -> BrokerAccount:
        """Balances, what is locked in orders among them, and what open orders lack."""
        totals = self._client.ask("the account", _totals)
        return BrokerAccount(
            cash=totals.get(self.currency, 0.0),
            shares={each: totals.get(self._market(each).coin, 0.0) for each in symbols}
            | self._others(totals),
            open_orders=lacking(self.open_orders(symbols)),
        )

    def prices(self, symbols: Sequence[str]) -> Mapping[str, float]:
        """What each was last traded at, in the quote currency."""
        unified = {self._market(symbol).unified: symbol for symbol in symbols}

        def ask(ccxt: Any) -> dict[str, float]:
            if ccxt.has.get("fetchTickers"):
                tickers = ccxt.fetch_tickers(list(unified))
            else:
                tickers = {name: ccxt.fetch_ticker(name) for name in unified}
            last = {symbol: tickers.get(name, {}).get("last") for name, symbol in unified.items()}
            return {symbol: float(price) for symbol, price in last.items() if price}

        return self._client.ask("last prices", ask)

    def tradable(self, symbol: str, shares: float, price: float) -> float:
        """The shares in steps of the market, towards 0; 0 if too few or worth too little."""
        return self._market(symbol).tradable(shares, price)

    def submit(self, orders: Sequence[Order]) -> tuple[OrderReport, ...]:
        """Place market orders, those that sell first; what stands already is reported.

        An exchange takes an id again once its order is filled, so that each is looked up before.
        """
        require_placeable(orders, self.name, CLIENT_ID)
        reports = {order.client_id: self._place(order) for order in sells_first(orders)}
        return tuple(reports[order.client_id] for order in orders)

    def find(self, client_id: str, symbol: str) -> OrderReport | None:
        """The order of this id.

        One that was sent without an answer, or by a process that was stopped, may still be on its
        way: that there is none is said only after the time in which the exchange would take it.
        """
        found = self._look_up(client_id, symbol)
        sent = self._sent.get(client_id, self._opened)
        late = self._client.window + SLACK - (time.monotonic() - sent)
        if found is None and late > 0:
            looks: list[OrderReport] = []

            def look() -> bool:
                seen = self._look_up(client_id, symbol)
                looks.extend([] if seen is None else [seen])
                return bool(looks)

            self._client.patience.until(look, late)
            found = looks[0] if looks else None
        self._sent.pop(client_id, None)
        return found

    def open_orders(self, symbols: Sequence[str]) -> tuple[OrderReport, ...]:
        """All orders that are open in these markets.

        Each market is asked for by itself, or all of the exchange at once where that costs less.
        """
        markets = {market.unified: market for market in map(self._market, symbols)}
        asked = list(markets) if len(markets) <= MOST_MARKETS else [None]
        found: list[OrderReport] = []
        for unified in asked:

            def ask(ccxt: Any, unified: str | None = unified) -> list[OrderReport]:
                return [
                    report_of(ccxt, each, markets[each["symbol"]])
                    for each in ccxt.fetch_open_orders(unified)
                    if each["symbol"] in markets
                ]

            found += self._client.ask(f"open orders of {unified or 'all markets'}", ask)
        return tuple(found)

    def cancel(self, client_id: str, symbol: str) -> None:
        """Withdraw what is left of an order; nothing if it is over."""
        unified = self._market(symbol).unified
        try:
            self._client.ask(
                f"to cancel order {client_id} of {symbol}",
                lambda ccxt: ccxt.cancel_order(client_id, unified, {"clientOrderId": client_id}),
            )
        except RefusedError:
            standing = self._look_up(client_id, symbol)
            if standing is not None and standing.state is OrderState.OPEN:
                raise

    def _place(self, order: Order) -> OrderReport:
        sent = order.client_id in self._sent
        look = self.find if sent else self._look_up
        standing = look(order.client_id, order.symbol)
        if standing is not None:
            return standing
        market = self._market(order.symbol)

        def create(ccxt: Any) -> OrderReport | None:
            side = "buy" if order.shares > 0 else "sell"
            needs_price = ccxt.options.get("createMarketBuyOrderRequiresPrice") and side == "buy"
            answer = ccxt.create_order(
                market.unified,
                "market",
                side,
                abs(order.shares),
                order.price if needs_price else None,
                {"clientOrderId": order.client_id},
            )
            return report_of(ccxt, answer, market) if answer.get("status") else None

        what = f"order {order.client_id} of {order.symbol}"
        try:
            report = self._client.ask(what, create, sends_order=True)
        except RefusedError as error:
            return self._look_up(order.client_id, order.symbol) or refused(order, error)
        except UnansweredError:
            self._sent[order.client_id] = time.monotonic()
            raise
        over = report is not None and report.state is not OrderState.OPEN
        return report if over and report is not None else self._await(order)

    def _await(self, order: Order) -> OrderReport:
        """What has become of an order that was taken, once it is over or has been waited for."""
        seen: list[OrderReport] = []

        def look() -> bool:
            found = self._look_up(order.client_id, order.symbol)
            seen[:] = seen if found is None else [found]
            return bool(seen) and seen[0].state is not OrderState.OPEN

        self._client.patience.until(look, self._client.patience.fills)
        if not seen:
            raise BrokerError(
                f"{self.name}: it took order {order.client_id} of {order.symbol} and does not know "
                f"it by this id: look it up by hand before anything else is sent"
            )
        return seen[0]

    def _look_up(self, client_id: str, symbol: str) -> OrderReport | None:
        market = self._market(symbol)

        def ask(ccxt: Any) -> OrderReport:
            answer = ccxt.fetch_order(client_id, market.unified, {"clientOrderId": client_id})
            return report_of(ccxt, answer, market)

        try:
            return self._client.ask(f"order {client_id} of {symbol}", ask)
        except MissingError:
            return None

    def _others(self, totals: Mapping[str, float]) -> dict[str, float]:
        """What is held of coins that are not traded; on a test network nobody has chosen them."""
        if not self.live:
            return {}
        own = {market.coin for market in self._markets.values()} | {self.currency}
        return {coin: held for coin, held in totals.items() if coin not in own and held}

    def _market(self, symbol: str) -> SpotMarket:
        if symbol not in self._markets:
            raise BrokerError(
                f"{self.name}: {symbol!r} is not among the symbols it was opened with"
            )
        return self._markets[symbol]

    def _require_lookup(self, symbol: str) -> None:
        """Raise ConfigError unless an order can be looked up by an id of ours."""
        try:
            found = self._look_up(NOBODY, symbol)
        except RefusedError as error:
            raise ConfigError(
                f"{self.name} cannot look up an order by an id of ours, without which one could be "
                f"placed twice; use another exchange ({error})"
            ) from None
        if found is not None:
            raise ConfigError(
                f"{self.name} gives order {found.broker_id} for an id that none has, so that "
                f"orders cannot be told apart: use another exchange"
            )


def _totals(ccxt: Any) -> dict[str, float]:
    """What is held of each coin, free and locked.

    ccxt takes an answer that is cut off for an account without a coin.
    """
    balance = ccxt.fetch_balance()
    if not (balance.get("info") and isinstance(balance["info"], dict | list)):
        raise ValueError("no balances stand in it")
    return {coin: float(held or 0.0) for coin, held in balance["total"].items()}
