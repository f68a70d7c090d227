"""Limits of risk. Each can only refuse: an order, or all that was decided at a bar.

Those of risk that is taken, `gross` and `daily_loss`, let pass what makes a position smaller, so
that it can be closed; those that say that something is wrong, with an order or with prices, do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.live.broker import Order
from fastsim.live.records import Refusal, Snapshot


@configuration
class LimitConfig:
    """What is never sent. None sets no limit; a real account needs all of them."""

    largest_order: float | None = None
    """Most that an order may be worth at the last close, account currency."""
    gross: float | None = None
    """Most that all positions may be worth after the orders, of the equity: 1 is all of it."""
    daily_loss: float | None = None
    """Part of the equity at the last bar of an earlier day, by UTC, after whose loss no position
    grows for the rest of the day."""
    stale_seconds: float | None = None
    """Most that may have passed since the last bar closed."""
    price_distance: float | None = None
    """Part of the last close that what the broker last traded at may be away from it."""

    def __post_init__(self) -> None:
        for name, most in (
            *(("largest_order", float("inf")), ("gross", 10.0), ("daily_loss", 1.0)),
            *(("stale_seconds", float("inf")), ("price_distance", 1.0)),
        ):
            if getattr(self, name) is not None:
                require_between(self, name, 0, most, open_low=True)

    def require_all(self) -> None:
        """Raise ConfigError, naming those that are missing, unless every limit is set."""
        missing = [entry.name for entry in fields(self) if getattr(self, entry.name) is None]
        if missing:
            raise ConfigError(
                f"a real account needs every limit, and there is no "
                f"{', no '.join(f'LimitConfig.{name}' for name in missing)}: set them"
            )


class Situation(NamedTuple):
    """What orders are about to be sent into."""

    account: Snapshot
    equity_before: float  # at the last bar of an earlier day, or else at the first known
    closes: Mapping[str, float]
    prices: Mapping[str, float]  # last traded at, of those that the broker knows
    age_seconds: float  # of the last bar, since its close


def allowed(
    orders: Sequence[Order], limits: LimitConfig, now: Situation
) -> tuple[list[Order], list[Refusal]]:
    """The orders that may be sent, and what was refused."""
    refusals = [found for order in orders for found in _of_order(order, limits, now)]
    left = _without(orders, refusals)
    growing = [order for order in left if not _makes_smaller(order, now.account)]
    refusals += [
        Refusal(now.account.bar, limit, order.symbol, why)
        for limit, why in (_of_growth(left, limits, now) if growing else ())
        for order in growing
    ]
    left = _without(left, refusals)
    if left and limits.stale_seconds is not None and now.age_seconds > limits.stale_seconds:
        why = f"the bar closed {now.age_seconds:,.0f} s ago, above {limits.stale_seconds:,.0f}"
        return [], [*refusals, Refusal(now.account.bar, "stale_seconds", "", why)]
    return left, refusals


def _without(orders: Sequence[Order], refusals: Sequence[Refusal]) -> list[Order]:
    refused = {refusal.symbol for refusal in refusals}
    return [order for order in orders if order.symbol not in refused]


def _makes_smaller(order: Order, account: Snapshot) -> bool:
    """Whether a position is not larger after it, nor one of the other side."""
    before = account.shares.get(order.symbol, 0.0)
    after = before + order.shares
    return abs(after) <= abs(before) and after * before >= 0


def _of_order(order: Order, limits: LimitConfig, now: Situation) -> list[Refusal]:
    """What speaks against one order."""
    found, symbol = [], order.symbol
    value = abs(order.shares * order.price)
    if limits.largest_order is not None and value > limits.largest_order:
        why = f"an order of {value:,.2f}, above the largest of {limits.largest_order:,.2f}"
        found.append(Refusal(now.account.bar, "largest_order", symbol, why))
    price = now.prices.get(symbol)
    if limits.price_distance is not None:
        close = now.closes[symbol]
        if price is None:
            why = "the broker does not say what it was last traded at"
            found.append(Refusal(now.account.bar, "price_distance", symbol, why))
        elif not abs(price / close - 1.0) <= limits.price_distance:
            why = f"last traded at {price:,.6g}, {price / close - 1.0:+.2%} from {close:,.6g}"
            found.append(Refusal(now.account.bar, "price_distance", symbol, why))
    return found


def _of_growth(
    orders: Sequence[Order], limits: LimitConfig, now: Situation
) -> list[tuple[str, str]]:
    """What speaks against larger positions, if all of these orders were sent: limits, and why."""
    found, equity = [], now.account.equity
    held = {symbol: now.account.shares.get(symbol, 0.0) for symbol in now.closes}
    for order in orders:
        held[order.symbol] += order.shares
    gross = sum(abs(n) * now.closes[s] for s, n in held.items()) / equity
    before = sum(abs(now.account.shares.get(s, 0.0)) * now.closes[s] for s in held) / equity
    if limits.gross is not None and gross > limits.gross and gross > before:
        why = f"positions would come to {gross:.3f} of the equity, above {limits.gross:g}"
        found.append(("gross", why))
    loss = 1.0 - equity / now.equity_before
    if limits.daily_loss is not None and loss > limits.daily_loss:
        why = f"{loss:.2%} of the equity was lost in the day, more than {limits.daily_loss:.2%}"
        found.append(("daily_loss", why))
    return found
