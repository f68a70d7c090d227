"""What is traded, in NautilusTrader's terms: instruments, their venue, and the length of a bar."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from math import ceil, log10
from typing import Literal

import numpy as np
from nautilus_trader.model.data import BarSpecification, BarType
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import CurrencyPair, Equity, Instrument
from nautilus_trader.model.objects import FIXED_PRECISION, Currency, Price, Quantity

from fastsim.config import configuration, require_choice
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, DataError, one_line

Fill = Literal["agent", "next_open", "close"]
UNITS: Mapping[str, int] = {
    "WEEK": 604_800,
    "DAY": 86_400,
    "HOUR": 3_600,
    "MINUTE": 60,
    "SECOND": 1,
}
"""Seconds of the lengths in which bars are counted."""
CENTS = 2
"""Decimals of prices in whole shares, as they are traded."""
DIGITS = 11
"""What fractions have of them: of the lowest price, and of a share after its point at most."""


@configuration
class VenueRules:
    """How a venue of NautilusTrader fills the orders of an agent."""

    fill: Fill = "agent"
    """At the open after the decision, or at its close; as the agent learned, if not said."""
    sized_at: Literal["fill", "decision"] = "fill"
    """By which prices orders are sized. An open is known when it is too late to be filled at it:
    by those of the decision is what one can do, and weights are then missed by the gap between."""
    whole_shares: bool | None = None
    """Stocks in whole shares at prices in cents, or fractions at prices as they are; as the agent
    trades, if not said. Where prices are adjusted for splits, cents and shares are parts of those
    that were traded."""
    account: Literal["margin", "cash"] = "margin"
    """Margin at leverage 1; or cash, for whole shares alone, which can neither be borrowed nor sold
    short."""
    venue: str = "FASTSIM"
    currency: str = "USD"

    def __post_init__(self) -> None:
        require_choice(self, "fill")
        require_choice(self, "sized_at")
        require_choice(self, "account")
        if self.account == "cash" and not self.whole_shares:
            raise ConfigError(
                'VenueRules.account = "cash" needs whole_shares: a fraction is one currency for '
                'another there, each with a balance of its own; use "margin"'
            )
        if not self.venue.isalnum():
            raise ConfigError(
                f"VenueRules.venue must be letters and digits such as NASDAQ, got {self.venue!r}"
            )
        if Currency.from_internal_map(self.currency) is None:
            raise ConfigError(
                f"VenueRules.currency must be one that NautilusTrader knows, such as USD or USDT, "
                f"got {self.currency!r}"
            )


def instrument_ids(symbols: tuple[str, ...], venue: str) -> tuple[InstrumentId, ...]:
    """What symbols are called at a venue: AAPL.FASTSIM.

    Raises
    ------
    ConfigError
        A symbol cannot be part of such a name.
    """
    found = []
    for symbol in symbols:
        try:
            found.append(InstrumentId.from_str(f"{symbol}.{venue}"))
        except ValueError as error:
            raise ConfigError(
                f"{symbol!r} cannot be a symbol of NautilusTrader: {one_line(error)}"
            ) from None
    return tuple(found)


def bar_types(ids: tuple[InstrumentId, ...], seconds: float) -> tuple[BarType, ...]:
    """Bars of so many seconds, of each instrument, made by somebody else.

    Raises
    ------
    ConfigError
        NautilusTrader has no bars of this length.
    """
    unit = next((name for name, length in UNITS.items() if seconds % length == 0), "SECOND")
    text = f"{round(seconds / UNITS[unit])}-{unit}-LAST"
    try:
        if seconds % UNITS[unit]:
            raise ValueError("it counts them in seconds")
        specification = BarSpecification.from_str(text)
        assert specification.timedelta.total_seconds() == seconds
        return tuple(BarType(each, specification) for each in ids)
    except ValueError as error:
        raise ConfigError(
            f"NautilusTrader has no bars of {seconds:,.10g} seconds ({one_line(error)}): use bars "
            f"of a week, a day, or a length that divides a day, an hour or a minute"
        ) from None


def make_instruments(bars: Bars, rules: VenueRules) -> tuple[Instrument, ...]:
    """An instrument for every symbol: `Equity` in whole shares, or else `CurrencyPair`.

    Raises
    ------
    ConfigError
        A symbol cannot be one.
    DataError
        A price is too low for its decimals.
    """
    ids = instrument_ids(bars.symbols, rules.venue)
    close = bars.adjusted("close")
    assert close is not None
    lowest = np.nanmin(close, axis=0).tolist()
    if not rules.whole_shares:
        return tuple(map(_fraction, ids, lowest, repeat(rules.currency)))
    decimals = CENTS + np.ceil(np.log10(np.nanmax(bars.close / close, axis=0))).clip(0)
    return tuple(map(_equity, ids, lowest, decimals.astype(int).tolist(), repeat(rules.currency)))


def _equity(name: InstrumentId, lowest: float, decimals: int, currency: str) -> Instrument:
    decimals = min(FIXED_PRECISION, decimals)
    if lowest < 10.0**-decimals:
        raise DataError(
            f"{name.symbol} was at {lowest:g}, and whole shares are traded in cents: use fractions"
        )
    return Equity(
        instrument_id=name,
        raw_symbol=Symbol(name.symbol.value),
        currency=Currency.from_str(currency),
        price_precision=decimals,
        price_increment=Price(10.0**-decimals, decimals),
        lot_size=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
    )


def _fraction(name: InstrumentId, lowest: float, currency: str) -> Instrument:
    precision = min(FIXED_PRECISION, max(CENTS, DIGITS - ceil(log10(lowest))))
    size_precision = min(FIXED_PRECISION, DIGITS)
    return CurrencyPair(
        instrument_id=name,
        raw_symbol=Symbol(name.symbol.value),
        base_currency=Currency.from_str(f"{name.symbol.value} unit"),  # USD is also a fund
        quote_currency=Currency.from_str(currency),
        price_precision=precision,
        size_precision=size_precision,
        price_increment=Price(10.0**-precision, precision),
        size_increment=Quantity(10.0**-size_precision, size_precision),
        ts_event=0,
        ts_init=0,
    )
