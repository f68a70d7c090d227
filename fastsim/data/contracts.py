"""Which contract is meant: BTC/USDT:USDT of ccxt, BTC/USDT and BTCUSDT are one perpetual future."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fastsim.errors import DataError, did_you_mean

Found = TypeVar("Found")


def spelled(symbol: str) -> str:
    """A symbol without what spellings differ in: BTCUSDT."""
    pair = symbol.partition(":")[0].upper()
    return "".join(letter for letter in pair if letter.isalnum()).removesuffix("PERP")


def find_symbol(given: Mapping[str, Found], symbol: str, label: str) -> Found:
    """What is given for a symbol, however it is spelled.

    Raises
    ------
    DataError
        Nothing is, or under two spellings; `label` says what was given.
    """
    if symbol in given:
        return given[symbol]
    same = [name for name in given if spelled(name) == spelled(symbol)]
    if len(same) == 1:
        return given[same[0]]
    if same:
        raise DataError(f"{label}: {symbol} may be {' or '.join(same)}: name it as one of them is")
    some = ", ".join(list(given)[:5]) or "none"
    raise DataError(
        f"{label}: there is nothing of {symbol}; there is of {some}{did_you_mean(symbol, given)}"
    )
