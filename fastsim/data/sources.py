"""One symbol's bars from whoever has them: a vendor, an exchange, a file, a function, a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastsim.data.bars import Bars
from fastsim.data.checks import CheckConfig
from fastsim.data.dates import show
from fastsim.data.intervals import interval_length, is_in_months, shortest
from fastsim.data.source import DataConfig, read_source
from fastsim.data.tables import is_file_name
from fastsim.data.vendors import VENDORS, BarRequest, Vendor, fetch
from fastsim.errors import DataError
from fastsim.extensions import import_object, is_reference

MANY = 8
"""Bars from which on it can be said that they are too far apart."""


def settled(source: str) -> str:
    """What this source is to be called from now on, wherever it is asked for: files by full path.

    Raises
    ------
    ConfigError
        It is "package.module:object", and cannot be imported.
    """
    if _vendor(source) is not None:
        return source
    path = Path(source).expanduser()
    return str(path.resolve()) if is_file_name(source) or path.is_file() else source


def ask(source: str, request: BarRequest, *, with_volume: bool = True) -> Bars:
    """Bars of the one symbol of a request, from this source.

    Parameters
    ----------
    source
        A vendor's name, "yfinance"; a vendor and an exchange, "ccxt:kraken"; whatever
        `DataConfig.source` may be; or a `Vendor` of one's own, "package.module:object".
    with_volume
        Without, the volume is not asked about.

    Raises
    ------
    ConfigError, DataError
        As `fetch` and `read_source`.
    """
    checks = request.checks
    if not with_volume:
        checks = replace(checks, zero_volume="drop")
    vendor = _vendor(source)
    if vendor is not None:
        name, exchange = vendor
        return fetch(name, replace(request, exchange=exchange, checks=checks))
    config = DataConfig(
        source=source,
        symbols=request.symbols,
        start=request.start,
        end=request.end,
        repair=checks.gaps != CheckConfig().gaps,
        ignore_volume=not with_volume,
    )
    return read_source(config)


def _vendor(source: str) -> tuple[str, str] | None:
    """Name of the vendor that is meant, and of its exchange; None where none is."""
    name, _, exchange = source.partition(":")
    if name in VENDORS:
        return name, exchange
    if is_file_name(source) or Path(source).exists() or not is_reference(source):
        return None
    return (source, "") if isinstance(import_object(source, "data source"), Vendor) else None


def check_interval(stamps: NDArray[np.datetime64], interval: str) -> None:
    """Raise DataError unless bars at `stamps` [T] are about as far apart as the interval says."""
    if len(stamps) < 2:
        return
    gaps, least = np.diff(stamps), shortest(interval)
    if is_in_months(interval_length(interval)):
        least = least - np.timedelta64(1, "D")  # clocks are put forward
    place = int(gaps.argmin())
    where = f"at {show(stamps[place])} and {show(stamps[place + 1])}"
    if gaps[place] < least:
        raise DataError(
            f"bars {where} are closer than {interval}: ask for the interval that they have"
        )
    if len(gaps) >= MANY and gaps[place] >= 2 * least:
        raise DataError(
            f"no bars are closer than those {where}, which is more than {interval}: ask for the "
            f"interval that they have"
        )
