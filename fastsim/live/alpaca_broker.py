"""Alpaca as a broker of US stocks: by default its paper account."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from fastsim.agent.state import BrokerAccount
from fastsim.errors import BrokerError, ConfigError
from fastsim.live.alpaca_reports import SMALLEST, Asset, asset_of, cash_of, positions_of, report_of
from fastsim.live.alpaca_rest import VARIABLES, AlpacaRest, remedy
from fastsim.live.answers import MissingError, Patience, RefusedError
from fastsim.live.broker import Order, OrderReport, OrderState
from fastsim.live.keys import Keys
from fastsim.live.orders import (
    exact,
    lacking,
    refused,
    require_placeable,
    sells_first,
    whole_steps,
)

CLIENT_ID = re.compile(r"[A-Za-z0-9_.:/-]{1,48}")
LEAST_NOTIONAL = Decimal(1)
"""Dollars that an order of a part of a share has to be worth."""
MOST_ORDERS = 500
"""In one answer."""


class AlpacaBroker:
    """US stocks, in parts of shares where Alpaca has them in parts.

    Market orders are for a day: those given while the exchange is closed are filled when it opens,
    and are reported as open until then. A long position and a short one are two orders to Alpaca:
    one that goes from long to short at once is refused.

    Parameters
    ----------
    rest
        Alpaca's servers, with the keys of an account.
    symbols
        Of the agent: "KO", "BRK-B" or "BRK.B".

    Raises
    ------
    ConfigError
        There are no symbols; Alpaca has no such stock, or does not trade it; or two are the same.
    """

    def __init__(self, rest: AlpacaRest, symbols: Sequence[str]) -> None:
        if not symbols:
            raise ConfigError("alpaca: there are no symbols to trade")
        self._rest = rest
        self._assets = {symbol: _asset(rest, symbol) for symbol in symbols}
        self._ours = {asset.theirs: symbol for symbol, asset in self._assets.items()}
        if len(self._ours) < len(self._assets):
            raise ConfigError(f"alpaca: two of {', '.join(symbols)} are the same stock: give one")

    @property
    def name(self) -> str:
        """As it is named in the ledger."""
        return "alpaca"

    @property
    def live(self) -> bool:
        """Whether its money is real."""
        return self._rest.live

    def account(self, symbols: Sequence[str]) -> BrokerAccount:
        """Cash and shares, other positions among them, and what open orders lack."""
        cash = self._rest.get("/v2/account", cash_of)
        held = self._rest.get("/v2/positions", positions_of)
        return BrokerAccount(
            cash=cash,
            shares=dict.fromkeys(symbols, 0.0)
            | {self._ours.get(theirs, theirs): shares for theirs, shares in held.items()},
            open_orders=lacking(self.open_orders(symbols)),
        )

    def prices(self, symbols: Sequence[str]) -> Mapping[str, float]:
        """What each was last traded at, in dollars."""
        theirs = {self._asset(symbol).theirs: symbol for symbol in symbols}
        return self._rest.last_trades(
            ",".join(theirs),
            lambda told: {
                theirs[name]: float(trade["p"])
                for name, trade in told["trades"].items()
                if name in theirs
            },
        )

    def tradable(self, symbol: str, shares: float, price: float) -> float:
        """Whole shares towards 0, or billionths of one; 0 if a part is worth less than a dollar."""
        step = SMALLEST if self._asset(symbol).fractionable else Decimal(1)
        amount = whole_steps(symbol, shares, price, step)
        if amount % 1 and amount * exact(price) < LEAST_NOTIONAL:
            return 0.0
        return float(amount) if shares > 0 else -float(amount)

    def submit(self, orders: Sequence[Order]) -> tuple[OrderReport, ...]:
        """Place market orders for the day, those that sell first; what stands already is reported.

        While the exchange is open it is waited until what sells is filled, as Alpaca lets buy for
        it only then, and until the rest is.
        """
        require_placeable(orders, self.name, CLIENT_ID)
        is_open = self._rest.get("/v2/clock", lambda told: bool(told["is_open"]))
        reports: dict[str, OrderReport] = {}
        ordered = sells_first(orders)
        for sells in (True, False):
            group = [order for order in ordered if (order.shares < 0) == sells]
            placed = [self._place(order) for order in group]
            reports |= {report.client_id: report for report in placed}
            if is_open:
                reports |= self._await([each for each in placed if each.state is OrderState.OPEN])
        return tuple(reports[order.client_id] for order in orders)

    def find(self, client_id: str, symbol: str) -> OrderReport | None:
        """The order of this id; an id is taken by Alpaca once and for all."""
        self._asset(symbol)
        try:
            return self._rest.get(
                "/v2/orders:by_client_order_id", self._report, client_order_id=client_id
            )
        except MissingError:
            return None

    def open_orders(self, symbols: Sequence[str]) -> tuple[OrderReport, ...]:
        """All orders of these symbols that are open."""
        theirs = ",".join(self._asset(symbol).theirs for symbol in symbols)
        found = self._rest.get(
            "/v2/orders",
            lambda told: tuple(self._report(each) for each in told),
            status="open",
            limit=str(MOST_ORDERS),
            symbols=theirs,
        )
        if len(found) >= MOST_ORDERS:
            raise BrokerError(
                f"alpaca: {len(found)} orders or more are open, which it does not list at once: "
                f"cancel them at app.alpaca.markets"
            )
        return found

    def cancel(self, client_id: str, symbol: str) -> None:
        """Withdraw what is left of an order; nothing if it is over."""
        standing = self.find(client_id, symbol)
        if standing is None or standing.state is not OrderState.OPEN:
            return
        try:
            self._rest.withdraw(standing.broker_id)
        except RefusedError:
            later = self.find(client_id, symbol)
            if later is not None and later.state is OrderState.OPEN:
                raise

    def _place(self, order: Order) -> OrderReport:
        asset = self._asset(order.symbol)
        wanted = {
            "symbol": asset.theirs,
            "qty": f"{exact(abs(order.shares)):f}",
            "side": "buy" if order.shares > 0 else "sell",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": order.client_id,
        }
        try:
            return self._rest.place(wanted, self._report)
        except RefusedError as error:  # one of the same id among them
            return self.find(order.client_id, order.symbol) or refused(order, error)

    def _await(self, reports: Sequence[OrderReport]) -> dict[str, OrderReport]:
        """What has become of open orders once they are over, or have been waited for."""
        seen = {report.client_id: report for report in reports}

        def look() -> bool:
            for report in seen.values():
                if report.state is OrderState.OPEN:
                    seen[report.client_id] = self.find(report.client_id, report.symbol) or report
            return all(report.state is not OrderState.OPEN for report in seen.values())

        self._rest.patience.until(look, self._rest.patience.fills)
        return seen

    def _report(self, told: Mapping[str, Any]) -> OrderReport:
        return report_of(told, self._ours)

    def _asset(self, symbol: str) -> Asset:
        if symbol not in self._assets:
            raise BrokerError(f"alpaca: {symbol!r} is not among the symbols it was opened with")
        return self._assets[symbol]


def connect(
    symbols: Sequence[str], *, live: bool = False, patience: Patience | None = None
) -> AlpacaBroker:
    """A paper account at Alpaca, or the one with real money if it is told to be `live`.

    Its keys are APCA_API_KEY_ID and APCA_API_SECRET_KEY of the environment.

    Raises
    ------
    ConfigError
        The environment has no keys; or as `AlpacaBroker`.
    BrokerError
        It cannot be reached, or refuses the keys.
    """
    keys = Keys.from_environment(VARIABLES, "alpaca", remedy(live))
    return AlpacaBroker(AlpacaRest(keys, live=live, patience=patience), symbols)


def _asset(rest: AlpacaRest, symbol: str) -> Asset:
    theirs = symbol.upper().replace("-", ".")
    if not re.fullmatch(r"[A-Z0-9.]+", theirs):
        raise ConfigError(f"alpaca: {symbol!r} is no US stock: use such as KO or BRK.B")
    try:
        return rest.get(f"/v2/assets/{theirs}", lambda told: asset_of(told, symbol))
    except MissingError:
        raise ConfigError(
            f"alpaca has no stock {symbol!r}: leave it out, or use its ticker"
        ) from None
