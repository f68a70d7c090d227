"""Symbols as people write them, found among those of a source, and what a source has.

`BTCUSDT`, `btc-usd` and `BTC/USDT` are one, as long as only one such market is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsim.data.columns import listed
from fastsim.data.dates import show
from fastsim.data.read import symbols_of_table
from fastsim.data.source import DataConfig, read_source, source_table
from fastsim.data.vendors import VENDORS, exchange_client
from fastsim.errors import ConfigError, DataError, one_line

EXCHANGE = "ccxt:"
"""What the name of an exchange as a source begins with."""
DOLLARS = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD")
"""Quotes that people mean by one another, the longest of an ending first."""
SAME = {"XBT": "BTC"}
"""Coins that have two names."""
NEAR = 5
"""So many symbols are named where one is not found."""


class Listed(NamedTuple):
    """A symbol of a source."""

    symbol: str
    bars: int | None = None  # with a close; None of an exchange, which is not asked for them
    first: str = ""  # day
    last: str = ""
    kind: str = ""  # of an exchange: spot, swap...; "closed" where it no longer trades


def list_symbols(source: str) -> list[Listed]:
    """Every symbol of a built-in set, a file, a function of one's own, or "ccxt:EXCHANGE".

    Raises
    ------
    ConfigError
        ccxt is not installed, or there is no such exchange.
    DataError
        The source cannot be read, or the exchange not be reached.
    """
    if source.startswith(EXCHANGE):
        return _markets(source.removeprefix(EXCHANGE))
    bars = read_source(DataConfig(source=source, repair=True))
    found = []
    for column, symbol in enumerate(bars.symbols):
        known = np.flatnonzero(np.isfinite(bars.close[:, column]))
        first, last = (show(bars.timestamps[row]) for row in known[[0, -1]])
        found.append(Listed(symbol, len(known), first, last))
    return found


def symbols_meant(wanted: Sequence[str], source: str) -> tuple[str, ...]:
    """The symbols of a source that bars are read from, as it writes them; see `find_symbols`.

    A file of one asset that does not say which takes the one name that it is given.

    Raises
    ------
    ConfigError
        The source is an exchange or a vendor, whose bars have to be fetched first.
    DataError
        It cannot be read, or a symbol is not there, ambiguous, or named twice.
    """
    vendor = source.partition(":")[0]
    if vendor in VENDORS and not Path(source).exists():
        raise ConfigError(
            f"bars of {source!r} have to be fetched first: fastsim data fetch {vendor} "
            f"{' '.join(wanted)} --start ... --end ... --out bars.parquet, then name that file"
        )
    known = symbols_of_table(source_table(source))
    if not known and len(wanted) == 1:
        return tuple(wanted)
    return find_symbols(wanted, known, source)


def find_symbols(wanted: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """The symbols of a source that are meant by what was written, in that order.

    One is looked for as it is written; then whatever the case and the signs between letters; then
    with any dollar for another, and without what a derivative settles in; then by the coin alone.

    Parameters
    ----------
    where
        The source, for messages.

    Raises
    ------
    DataError
        One is not there, or means several, or two mean the same.
    """
    found = [_find(text, known, where) for text in wanted]
    for place, symbol in enumerate(found):
        if symbol in found[:place]:
            first = wanted[found.index(symbol)]
            raise DataError(
                f"{first!r} and {wanted[place]!r} are both {symbol} of {where}: name it once"
            )
    return tuple(found)


def _find(text: str, known: Sequence[str], where: str) -> str:
    if text in known:
        return text
    for spelled in WAYS:
        wanted = spelled(text)
        meant = [symbol for symbol in known if wanted and spelled(symbol) == wanted]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise DataError(
                f"{text!r} may be {listed(meant)} of {where}: write which as it is there"
            )
    raise DataError(f"{where} has no symbol {text!r}; near it are {listed(_near(text, known))}")


def _near(text: str, known: Sequence[str]) -> list[str]:
    by_letters = {_letters(symbol): symbol for symbol in known}
    near = get_close_matches(_letters(text), by_letters, n=NEAR)
    return [by_letters[letters] for letters in near] or list(known)[:NEAR]


def _letters(text: str) -> str:
    """Letters and digits alone, in capitals."""
    return re.sub(r"[\W_]+", "", text).upper()


def _by_dollar(text: str) -> str:
    """The same with one name for every dollar and coin, and nothing of what it settles in."""
    letters = _letters(text.partition(":")[0])
    for short, usual in SAME.items():
        letters = re.sub(f"^{short}", usual, letters)
    for quote in DOLLARS:
        if letters.endswith(quote) and letters != quote:
            return f"{letters.removesuffix(quote)}USD"
    return letters


def _base(text: str) -> str:
    """The coin of a pair in dollars, and the word itself of anything else."""
    letters = _by_dollar(text)
    return letters.removesuffix("USD") or letters


WAYS: tuple[Callable[[str], str], ...] = (_letters, _by_dollar, _base)


def _markets(exchange: str) -> list[Listed]:
    client = exchange_client(exchange)
    try:
        markets: Iterable[dict[str, Any]] = client.load_markets().values()
    except Exception as error:  # the network, in as many ways as there are
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise DataError(f"{exchange} does not say what it lists: {reason}") from error
    found = [Listed(market["symbol"], kind=_kind(market)) for market in markets]
    if not found:
        raise ConfigError(f"{exchange} lists no markets: choose another exchange")
    return found


def _kind(market: dict[str, Any]) -> str:
    kind = str(market.get("type") or "")
    return kind if market.get("active") is not False else f"{kind}, closed".lstrip(", ")
