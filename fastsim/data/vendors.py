"""Bars over the network: from Yahoo through yfinance, from crypto exchanges through ccxt.

Each vendor is a record; how to add one's own: `docs/howto/data_vendor.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl

from fastsim.config import configuration
from fastsim.data.bars import PRICES, Bars
from fastsim.data.checks import CheckConfig
from fastsim.data.columns import role_of
from fastsim.data.dates import DAY, check_range, iso_date, show
from fastsim.data.read import as_table, bars_from_table
from fastsim.data.tables import Source, Table, load_table
from fastsim.errors import ConfigError, DataError, FastsimError, one_line
from fastsim.extensions import Registry

logger = logging.getLogger(__name__)

EMPTY_PAGE = 200
"""Candles to skip after an empty page: some exchanges answer so for a time before the listing."""

CANDLE = ("timestamp", *PRICES, "volume")


@dataclass(frozen=True, kw_only=True, slots=True)
class BarRequest:
    """What is asked of a vendor."""

    symbols: tuple[str, ...]
    start: str
    """ISO date of the first bar."""
    end: str
    """ISO date of the last bar, inclusive."""
    interval: str = "1d"
    """Length of a bar, as the vendor writes it."""
    exchange: str = ""
    """Which of a vendor's exchanges; empty for its usual one."""
    checks: CheckConfig = field(default_factory=CheckConfig)
    """What to do with problems in what the vendor gives."""

    def __post_init__(self) -> None:
        _names(self.symbols)
        check_range(self.start, self.end)


@configuration
class Vendor:
    """Who sells or gives bars. `fetch(request)` returns `Bars`, or what `read_bars` reads."""

    name: str
    fetch: Callable[[BarRequest], Bars | Source]
    extra: str = ""
    """What pip has to install for it, such as "fastsim-rl[ccxt]"."""

    def __post_init__(self) -> None:
        if not callable(self.fetch):
            raise ConfigError(
                f"Vendor.fetch of {self.name} must be a function of a BarRequest, "
                f"got {self.fetch!r}"
            )


def fetch(name: str, request: BarRequest) -> Bars:
    """Download bars from the vendor of this name, or a user's own, "package.module:object".

    Raises
    ------
    ConfigError
        There is no such vendor, or its package is not installed.
    DataError
        It failed, or what it gave lacks a symbol or is no table of bars; or as `read_bars`.
    """
    vendor = VENDORS.find(name)
    try:
        given = vendor.fetch(request)
    except FastsimError:
        raise
    except ImportError as error:
        remedy = f": pip install '{vendor.extra}'" if vendor.extra else ""
        raise ConfigError(
            f"data vendor {name!r} needs {error.name}, which is not installed{remedy}"
        ) from error
    except Exception as error:  # whatever a user's code does
        reason = one_line(f"{type(error).__name__}: {error}")
        raise DataError(
            f"data vendor {name!r} failed for {', '.join(request.symbols)}: {reason}"
        ) from error
    if vendor in OWN and isinstance(given, Bars):
        return given
    return bars_from_table(
        as_table(given, f"data vendor {name!r}"),
        checks=request.checks,
        symbols=request.symbols,
        start=request.start,
        end=request.end,
    )


def fetch_yfinance(
    symbols: Sequence[str],
    *,
    start: str,
    end: str,
    interval: str = "1d",
    checks: CheckConfig | None = None,
) -> Bars:
    """Download bars from Yahoo Finance; needs `pip install 'fastsim-rl[yfinance]'`.

    Prices are adjusted for splits only, as Yahoo gives them; `adj_close` for dividends as well.
    Daily bars are stamped with midnight of their date, intraday bars with their start in UTC.

    Parameters
    ----------
    symbols
        Yahoo's names, such as "AAPL" or "BTC-USD".
    start, end
        ISO dates, both inclusive (yfinance itself leaves `end` out).
    interval
        "1d", "1wk", "1h"...: those of yfinance.
    checks
        What to do with problems, such as calendars that differ between markets.

    Raises
    ------
    ConfigError
        yfinance is not installed.
    DataError
        A symbol is unknown, has no bars in the range, or the network failed; or as `read_bars`.
    """
    yfinance = _import("yfinance", "yfinance")
    wanted = _names(symbols)
    check_range(start, end)
    try:
        frame = yfinance.download(
            list(wanted),
            start=start,
            end=show(iso_date(end, "end") + DAY),
            interval=interval,
            auto_adjust=False,
            actions=False,
            progress=False,
            group_by="column",
            multi_level_index=True,
        )
    except Exception as error:
        raise DataError(f"yfinance failed for {', '.join(wanted)}: {_first_line(error)}") from error
    table = Table(_without_empty_rows(frame, wanted), "yfinance")
    return bars_from_table(table, checks=checks, symbols=wanted, start=start, end=end)


def _without_empty_rows(frame: Any, wanted: tuple[str, ...]) -> pl.DataFrame:
    """Yahoo's answer in long form, without the rows that only other symbols have.

    yfinance logs what went wrong with a symbol and answers with a column of NaN, or with none.
    """
    long = load_table(frame).frame if frame is not None and len(frame) else pl.DataFrame()
    if "symbol" in long.columns:
        prices = [
            name for name in long.columns if role_of(name) not in (None, "symbol", "timestamp")
        ]
        long = long.filter(pl.any_horizontal(pl.col(prices).is_not_nan().fill_null(value=False)))
        upper = {name.upper(): name for name in wanted}
        long = long.with_columns(pl.col("symbol").replace(upper))
    answered = set(long["symbol"]) if "symbol" in long.columns else set()
    for symbol in wanted:
        if symbol not in answered:
            raise DataError(
                f"yfinance has no bars of {symbol}: an unknown symbol, no trading in the range "
                "or interval, or no network (the log of yfinance says which)"
            )
    return long


def fetch_ccxt(
    exchange: str,
    symbols: Sequence[str],
    *,
    start: str,
    end: str,
    timeframe: str = "1d",
    checks: CheckConfig | None = None,
) -> Bars:
    """Download candles from a crypto exchange; needs `pip install 'fastsim-rl[ccxt]'`.

    Bars are stamped with their start in UTC. The candle that is still being traded is left out.
    An exchange that keeps a short history (Kraken: 720 candles) gives what it has, with a warning
    in the log.

    Parameters
    ----------
    exchange
        An id of ccxt, such as "binance" or "kraken".
    symbols
        Markets of that exchange, such as "BTC/USDT".
    start, end
        ISO dates, both inclusive.
    timeframe
        "1m", "1h", "1d"...: those of the exchange.
    checks
        What to do with problems.

    Raises
    ------
    ConfigError
        ccxt is not installed, or the exchange or the timeframe is unknown.
    DataError
        A symbol is unknown, has no candles in the range, or the network failed; or as `read_bars`.
    """
    ccxt = _import("ccxt", "ccxt")
    wanted = _names(symbols)
    check_range(start, end)
    client = exchange_client(exchange)
    if timeframe not in (client.timeframes or {}):
        known = ", ".join(client.timeframes or ())
        raise ConfigError(f"timeframe {timeframe!r} is unknown to {exchange}: use one of {known}")
    since, until = (
        _milliseconds(iso_date(start, "start")),
        _milliseconds(iso_date(end, "end") + DAY),
    )
    parts = []
    for symbol in wanted:
        try:
            candles = _candles(client, symbol, timeframe, since, until)
        except ccxt.BaseError as error:
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise DataError(f"{exchange} failed for {symbol}: {reason}") from error
        if not candles:
            raise DataError(f"{exchange} has no {timeframe} candles of {symbol}, {start} to {end}")
        if candles[0][0] - since >= 2 * _step(client, timeframe):
            begin = show(np.datetime64(int(candles[0][0]), "ms"))
            logger.warning("%s %s begins on %s, not on %s", exchange, symbol, begin, start)
        rows = pl.DataFrame(candles, schema=dict.fromkeys(CANDLE, pl.Float64), orient="row")
        parts.append(rows.with_columns(pl.lit(symbol).alias("symbol")))
    table = Table(pl.concat(parts), exchange)
    return bars_from_table(table, checks=checks, symbols=wanted, start=start, end=end)


def exchange_client(exchange: str) -> Any:
    """The client of an exchange in ccxt, which asks no faster than it may; ConfigError as above."""
    ccxt = _import("ccxt", "ccxt")
    if exchange not in ccxt.exchanges:
        raise ConfigError(f"exchange {exchange!r} is not one of ccxt's (binance, kraken...)")
    return getattr(ccxt, exchange)({"enableRateLimit": True})


def _candles(client: Any, symbol: str, timeframe: str, since: int, until: int) -> list[list[Any]]:
    """Page through all finished candles that start in [since, until), in milliseconds."""
    step, now = _step(client, timeframe), client.milliseconds()
    until = min(until, now + 1)
    candles: list[list[Any]] = []
    while since < until:
        page = client.fetch_ohlcv(symbol, timeframe, since=since)
        fresh = [candle for candle in page if since <= candle[0] < until]
        candles += fresh
        since = int(fresh[-1][0]) + 1 if fresh else since + EMPTY_PAGE * step
        if page and page[-1][0] + step > now:
            break
    return [candle for candle in candles if _end(client, timeframe, int(candle[0])) <= now]


def _step(client: Any, timeframe: str) -> int:
    """Length of a candle in milliseconds, of a month 30 days."""
    return int(client.parse_timeframe(timeframe)) * 1000


def _end(client: Any, timeframe: str, start: int) -> int:
    """When a candle is finished, in milliseconds: months and years are those of the calendar."""
    count, unit = int(timeframe[:-1]), timeframe[-1]
    if unit not in "My":
        return start + _step(client, timeframe)
    begin = np.datetime64(start, "ms")
    month = begin.astype("datetime64[M]")
    later = month + np.timedelta64(count * (12 if unit == "y" else 1), "M")
    within = begin - month  # of an exchange whose months begin by a clock of its own
    return _milliseconds(later.astype("datetime64[ms]") + within)


def _milliseconds(stamp: np.datetime64) -> int:
    return int(stamp.astype("datetime64[ms]").astype(np.int64))


def _names(symbols: Sequence[str]) -> tuple[str, ...]:
    names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
    if not names:
        raise DataError("no symbols to fetch: give at least one")
    return names


def _import(package: str, extra: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise ConfigError(
            f"{package} is not installed: pip install 'fastsim-rl[{extra}]'"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _from_yfinance(request: BarRequest) -> Bars:
    return fetch_yfinance(
        request.symbols,
        start=request.start,
        end=request.end,
        interval=request.interval,
        checks=request.checks,
    )


def _from_ccxt(request: BarRequest) -> Bars:
    return fetch_ccxt(
        request.exchange or "binance",
        request.symbols,
        start=request.start,
        end=request.end,
        timeframe=request.interval,
        checks=request.checks,
    )


OWN = (
    Vendor(name="yfinance", fetch=_from_yfinance, extra="fastsim-rl[yfinance]"),
    Vendor(name="ccxt", fetch=_from_ccxt, extra="fastsim-rl[ccxt]"),
)
VENDORS: Registry[Vendor] = Registry("data vendor", Vendor, OWN)
