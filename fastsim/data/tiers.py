"""Leverage tiers of perpetual futures, as ccxt's `fetch_leverage_tiers` gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf, isclose, isfinite, isnan, nan
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from fastsim.data.contracts import find_symbol
from fastsim.errors import DataError

TierSource = str | PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A path to JSON of them, or what `fetch_leverage_tiers` (symbol to list of tiers) or
`fetch_market_leverage_tiers` (a list of tiers) returned."""
_NEEDED = ("minNotional", "maintenanceMarginRate", "maxLeverage")
_AMOUNTS = ("cum", "maintenanceAmount", "maintAmount", "mmDeduction")
"""What the maintenance amount is called in `info`: by Binance first."""
_CLOSE = 1e-2
"""Part by which an amount may differ from what the rates make of it, and be rounded."""


class Tier(NamedTuple):
    """One range of sizes of a position, in account currency."""

    rate: float  # of maintenance margin
    amount: float  # maintenance amount
    largest: float  # value up to which it goes
    leverage: float  # highest that is offered


def read_tiers(source: TierSource, symbols: Sequence[str]) -> tuple[tuple[Tier, ...], ...]:
    """Tiers of these symbols, from the smallest positions to the largest.

    The maintenance amount is that of `info` where it is there, and follows from the rates else:
    amount of tier n = its floor (its rate - rate of tier n - 1) + amount of tier n - 1, as Binance
    publishes it ("How to Calculate Liquidation Price of USDⓈ-M Futures Contracts").

    Raises
    ------
    DataError
        The file cannot be read, a symbol is not there, or its tiers have gaps, numbers that are
        none, rates that fall, or amounts that do not belong to their rates.
    """
    given, label = _loaded(source)
    given, found = _by_symbol(given), []
    for symbol in symbols:
        rows = given if isinstance(given, Sequence) else find_symbol(given, symbol, label)
        try:
            found.append(_tiers(rows))
        except DataError as error:
            raise DataError(f"{label}: {symbol}: {error}") from None
    return tuple(found)


def _loaded(source: TierSource) -> tuple[Any, str]:
    """What there is, and what errors call it."""
    if not isinstance(source, str | PathLike):
        return source, "tiers"
    path = Path(source)
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(given, dict | list):
        raise DataError(f"{path}: tiers are a list, or lists by symbol, got {type(given).__name__}")
    return given, str(path)


def _by_symbol(given: Any) -> Any:
    """A list of tiers by the symbols that they tell; as it is where it is none, or tells none."""
    names = [row.get("symbol") if isinstance(row, Mapping) else None for row in given]
    if isinstance(given, Mapping) or not given or None in names:
        return given
    return {name: [row for row in given if row["symbol"] == name] for name in names}


def _tiers(rows: Any) -> tuple[Tier, ...]:
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise DataError(f"tiers are a list of at least one, got {rows!r}")
    rows = [_checked(row) for row in rows]
    rows.sort(key=lambda row: row["minNotional"])
    tiers: list[Tier] = []
    floor, before = 0.0, Tier(0.0, 0.0, 0.0, inf)
    for row in rows:
        if not isclose(row["minNotional"], floor, rel_tol=1e-9):
            raise DataError(
                f"a tier begins at {row['minNotional']:g} and the one before ends at {floor:g}"
            )
        floor = row["maxNotional"]
        before = _tier(row, before)
        tiers.append(before)
    return tuple(tiers)


def _tier(row: Mapping[str, float], before: Tier) -> Tier:
    """The tier that follows another, or the first of all."""
    rate, told = row["maintenanceMarginRate"], row["amount"]
    if rate < before.rate:
        raise DataError(f"the rate falls from {before.rate:g} to {rate:g} with the size")
    amount = row["minNotional"] * (rate - before.rate) + before.amount
    if isnan(told):
        told = amount
    if not isclose(told, amount, rel_tol=_CLOSE, abs_tol=0.01):
        raise DataError(
            f"the maintenance amount of the tier from {row['minNotional']:g} is {told:g}, and its "
            f"rate {rate:g} makes it {amount:g}"
        )
    return Tier(rate, told, row["maxNotional"], row["maxLeverage"])


def _checked(row: Any) -> dict[str, float]:
    """Numbers of one tier; the amount is NaN where it is not told."""
    if not isinstance(row, Mapping):
        raise DataError(f"a tier is a mapping, got {row!r}")
    numbers = {name: _number(row, name) for name in _NEEDED}
    numbers["maxNotional"] = inf if row.get("maxNotional") is None else _number(row, "maxNotional")
    if not numbers["minNotional"] < numbers["maxNotional"]:
        raise DataError(f"a tier from {numbers['minNotional']:g} ends before it begins")
    if not 0 < numbers["maintenanceMarginRate"] < 1:
        raise DataError(
            f"maintenanceMarginRate is a fraction above 0 and below 1, "
            f"got {numbers['maintenanceMarginRate']:g}"
        )
    info = row.get("info")
    info = info if isinstance(info, Mapping) else {}
    told = next((name for name in _AMOUNTS if info.get(name) is not None), None)
    return numbers | {"amount": nan if told is None else _number(info, told)}


def _number(row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        value = nan
    if not isfinite(value) or value < 0:
        raise DataError(f"{name} of a tier is {row.get(name)!r}, which is no number >= 0")
    return value
