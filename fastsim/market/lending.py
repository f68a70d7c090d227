"""What it takes to be short: fees of single assets, and assets that nobody lends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fastsim.config import BPS
from fastsim.data.bars import Bars, FloatArray
from fastsim.errors import DataError

BoolArray = NDArray[np.bool_]
HIGHEST = 100.0
"""Highest fee on shorts, a fraction per year."""


def borrow_table(
    bars: Bars, by_symbol: Mapping[str, float], rates: FloatArray | None
) -> FloatArray | None:
    """Fee on shorts per year [T, A], NaN where an account's own applies; None if it always does.

    Parameters
    ----------
    by_symbol
        Fees of single symbols in basis points.
    rates
        [T, A], fractions, known at each close for the bar that follows; NaN where not quoted.

    Raises
    ------
    DataError
        A symbol that is not in the data, or rates that are negative or misshapen.
    """
    _check_symbols("borrow_bps_per_year", by_symbol, bars)
    if rates is None and not by_symbol:
        return None
    table = np.full_like(bars.close, np.nan)
    for symbol, fee in by_symbol.items():
        table[:, bars.symbols.index(symbol)] = fee * BPS
    if rates is not None:
        rates = np.asarray(rates, dtype=np.float64)
        _check_shape("borrow_rates", rates.shape, bars)
        if ((rates < 0) | (rates > HIGHEST)).any():
            raise DataError(
                f"borrow_rates must be fractions per year from 0 to {HIGHEST:g}, or NaN; "
                f"a fee of 300 basis points is 0.03"
            )
        table = np.where(np.isnan(rates), table, rates)
    return table


def shortable_table(
    bars: Bars, hard_to_borrow: Iterable[str], shortable: BoolArray | None
) -> BoolArray | None:
    """Whether shorts may be opened and grow [T, A]; None if they always may.

    Parameters
    ----------
    hard_to_borrow
        Symbols of which they never may.
    shortable
        [T, A], known at each close for the bar that follows.

    Raises
    ------
    DataError
        A symbol that is not in the data, or a mask that is misshapen or not of truth values.
    """
    banned = tuple(hard_to_borrow)
    _check_symbols("hard_to_borrow", banned, bars)
    if shortable is None and not banned:
        return None
    table = np.ones(bars.close.shape, dtype=bool)
    if shortable is not None:
        _check_shape("shortable", np.shape(shortable), bars)
        if np.asarray(shortable).dtype != bool:
            raise DataError(f"shortable must hold truth values, got {np.asarray(shortable).dtype}")
        table &= shortable
    for symbol in banned:
        table[:, bars.symbols.index(symbol)] = False
    return table


def _check_symbols(name: str, symbols: Iterable[str], bars: Bars) -> None:
    for symbol in symbols:
        if symbol not in bars.symbols:
            raise DataError(
                f"TapeConfig.{name} names {symbol!r}, which this data does not have: "
                f"{', '.join(bars.symbols)}"
            )


def _check_shape(name: str, shape: tuple[int, ...], bars: Bars) -> None:
    if shape != bars.close.shape:
        raise DataError(f"{name} must have the shape of the bars {bars.close.shape}, got {shape}")
