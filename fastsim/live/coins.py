"""Spot markets of a crypto exchange: which one a symbol means, and what amounts it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from fastsim.errors import ConfigError, did_you_mean
from fastsim.live.orders import exact, whole_steps

TICK_SIZE = 4
"""ccxt's number for steps that are told as such."""
DECIMAL_PLACES = 2
"""And for those told by how many decimals there are."""
_BETWEEN = str.maketrans("", "", "/-_ ")


class SpotMarket(NamedTuple):
    """One pair of coins. Amounts are in the coin, notional in the quote currency."""

    symbol: str
    """As the agent names it."""
    unified: str
    """As ccxt does: "BTC/USDT"."""
    coin: str
    quote: str
    step: Decimal
    least: Decimal
    most: Decimal | None
    least_notional: Decimal

    def tradable(self, shares: float, price: float) -> float:
        """The shares in whole steps, towards 0; 0 if they are fewer or worth less than allowed.

        Raises as `whole_steps`.
        """
        amount = whole_steps(self.symbol, shares, price, self.step)
        if self.most is not None and amount > self.most:
            amount = (self.most / self.step).to_integral_value(ROUND_FLOOR) * self.step
        if amount < self.least or amount * exact(price) < self.least_notional:
            return 0.0
        return float(amount) if shares > 0 else -float(amount)


def spot_markets(
    symbols: Sequence[str], markets: Mapping[str, Any], exchange: str, precision_mode: int
) -> dict[str, SpotMarket]:
    """The spot market of each symbol, of those [by ccxt's name] that an exchange has.

    "BTC/USDT", "BTCUSDT", "BTC-USDT" and the exchange's own name mean the same.

    Raises
    ------
    ConfigError
        An exchange has no such market, or does not trade it now; two symbols mean one market, or
        they are paid for in several currencies.
    """
    known = _by_any_name(markets)
    found: dict[str, SpotMarket] = {}
    for symbol in symbols:
        market = known.get(symbol) or known.get(_plain(symbol))
        if market is None:
            spot = [each["symbol"] for each in known.values()]
            raise ConfigError(
                f"{exchange} has no spot market {symbol!r}: name a coin and what it is paid in, "
                f"such as BTC/USDT or BTCUSDT{did_you_mean(symbol, spot)}"
            )
        if market.get("active") is False:
            raise ConfigError(
                f"{exchange} does not trade {market['symbol']} at present: leave it out"
            )
        same = [each.symbol for each in found.values() if each.unified == market["symbol"]]
        if same:
            raise ConfigError(f"{same[0]} and {symbol} are one market of {exchange}: give one")
        found[symbol] = _read(symbol, market, exchange, precision_mode)
    _require_one_quote(found, exchange)
    return found


def _by_any_name(markets: Mapping[str, Any]) -> dict[str, Any]:
    """Spot markets by ccxt's name, the exchange's, and either without what stands between coins."""
    spot = [market for market in markets.values() if market.get("spot")]
    names: dict[str, Any] = {}
    for market in spot:
        names.setdefault(_plain(market["symbol"]), market)
    return names | {name: each for each in spot for name in (each["id"], each["symbol"])}


def _plain(symbol: str) -> str:
    return symbol.upper().translate(_BETWEEN)


def _read(symbol: str, market: Mapping[str, Any], exchange: str, mode: int) -> SpotMarket:
    step = market["precision"].get("amount")
    if step is None or mode not in (TICK_SIZE, DECIMAL_PLACES):
        raise ConfigError(
            f"{exchange} does not say in which steps {market['symbol']} is traded: use another "
            f"exchange"
        )
    limits = market["limits"]
    amount, by_market = limits.get("amount") or {}, limits.get("market") or {}
    most = [each for each in (amount.get("max"), by_market.get("max")) if each]
    return SpotMarket(
        symbol=symbol,
        unified=market["symbol"],
        coin=market["base"],
        quote=market["quote"],
        step=exact(step) if mode == TICK_SIZE else Decimal(10) ** -int(step),
        least=max(exact(amount.get("min") or 0), exact(by_market.get("min") or 0)),
        most=min(map(exact, most)) if most else None,
        least_notional=exact((limits.get("cost") or {}).get("min") or 0),
    )


def _require_one_quote(markets: Mapping[str, SpotMarket], exchange: str) -> None:
    quotes = {market.quote: symbol for symbol, market in markets.items()}
    if len(quotes) > 1:
        named = ", ".join(f"{symbol} in {quote}" for quote, symbol in quotes.items())
        raise ConfigError(
            f"an account of {exchange} is in one currency, and these are paid for in several "
            f"({named}): trade pairs of one currency"
        )
