"""Candles of a paper account: bars of a symbol, positions, what was wanted and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.backtest.candles import CandleTables, candle_view, candles_html
from fastsim.backtest.results import BARS, FANS, SIGNALS
from fastsim.backtest.trades import STAMP
from fastsim.data.bars import PRICES
from fastsim.data.compare import ALIKE
from fastsim.data.dates import iso_stamp
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.store import Store
from fastsim.errors import FastsimError
from fastsim.forecast.fan import FAN_LEVELS
from fastsim.live.positions import position_table
from fastsim.live.records import Decided
from fastsim.live.status import Status

SIDES = {"long": 1, "short": -1, "none": 0}


class Candles(NamedTuple):
    """What is drawn, and what has to be known of it."""

    tables: CandleTables
    note: str


def candles_of(status: Status) -> Candles | None:
    """Bars that were decided on; None with fewer than two.

    A replay's and a store's are read again, if they still have the closes of the ledger. Of other
    feeds nothing is fetched: there are the closes that the ledger has.
    """
    decisions = status.decisions
    if len(decisions) < 2:
        return None
    feed = str(status.run.settings.get("feed", ""))
    bars, note = _from_feed(feed, decisions), f"Bars of {feed}."
    if bars is None:
        bars, note = _from_ledger(decisions), f"Closes of the ledger: {feed} was not asked again."
    weights, signals, trades = _weights(decisions), _signals(decisions), position_table(status)
    fans = _fans(decisions, trades)
    if not fans.is_empty():
        note += " Fans are what was forecast where positions were decided on, and at the end."
    return Candles(CandleTables(bars, trades, weights, signals, fans), note)


def candles_section(candles: Candles) -> str:
    """An element of a page."""
    view = candle_view(candles.tables)
    axis = {**view.layout["yaxis"], "title": {"text": "Price, as traded"}}
    shown = view._replace(layout={**view.layout, "yaxis": axis})
    more = f" {view.left_out} symbols that were traded less are left out." * (view.left_out > 0)
    return f"<p>{candles.note}{more}</p>\n{candles_html('candles', shown)}"


def _from_feed(feed: str, decisions: Sequence[Decided]) -> pl.DataFrame | None:
    """Bars of a feed that lies on this machine; None where it has others, or there is none."""
    kind, _, rest = feed.partition(":")
    symbols, stamps = list(decisions[-1].closes), _stamps(decisions)
    try:
        if kind == "replay":
            bars = load_bars(DataConfig(source=rest))
        elif kind == "store":
            bars = Store.open(rest).bars()
        else:
            return None
    except FastsimError:
        return None
    rows = np.flatnonzero(np.isin(bars.timestamps, stamps))
    if len(rows) != len(stamps) or not set(symbols) <= set(bars.symbols):
        return None
    columns = [bars.symbols.index(symbol) for symbol in symbols]
    prices = {name: getattr(bars, name)[rows][:, columns] for name in PRICES}
    closes = np.array([[each.closes[symbol] for symbol in symbols] for each in decisions])
    if not (np.abs(prices["close"] / closes - 1.0) <= ALIKE).all():
        return None
    dates = {"date": np.repeat(stamps, len(symbols)), "symbol": symbols * len(stamps)}
    return pl.DataFrame(dates | {name: each.reshape(-1) for name, each in prices.items()})


def _from_ledger(decisions: Sequence[Decided]) -> pl.DataFrame:
    rows = [
        {"date": stamp, "symbol": symbol, "close": close}
        for stamp, each in zip(_stamps(decisions), decisions, strict=True)
        for symbol, close in each.closes.items()
    ]
    return pl.DataFrame(rows, schema=dict(BARS))


def _weights(decisions: Sequence[Decided]) -> pl.DataFrame:
    """What was wanted from each close on."""
    rows = [
        {"date": stamp, "symbol": symbol, "weight": weight}
        for stamp, each in zip(_stamps(decisions), decisions, strict=True)
        for symbol, weight in each.weights.items()
    ]
    return pl.DataFrame(rows, schema={"date": STAMP, "symbol": pl.String, "weight": pl.Float64})


def _signals(decisions: Sequence[Decided]) -> pl.DataFrame | None:
    """What a strategy on signals was told; None of any other agent."""
    rows = [
        {
            "date": stamp,
            "symbol": symbol,
            "direction": SIDES[signal["direction"]],
            "confidence": signal["confidence"],
        }
        for stamp, each in zip(_stamps(decisions), decisions, strict=True)
        for symbol, signal in each.why["signals"].items()
    ]
    columns = {name: SIGNALS[name] for name in ("date", "symbol", "direction", "confidence")}
    return pl.DataFrame(rows, schema=columns) if rows else None


def _fans(decisions: Sequence[Decided], trades: pl.DataFrame) -> pl.DataFrame:
    """What was forecast at the last decision, and at those that positions were entered by."""
    begun = trades["decided"].cast(pl.Datetime("ns")).to_physical().to_list()
    entered = set(zip(begun, trades["symbol"].to_list(), strict=True))
    rows = [
        {"date": stamp, "symbol": symbol, "ahead": ahead, "level": level, "price": price}
        for stamp, each in zip(_stamps(decisions), decisions, strict=True)
        for symbol, fan in each.why.get("fan", {}).items()
        if each is decisions[-1] or (stamp.item(), symbol) in entered
        for ahead, prices in enumerate(fan)
        for level, price in zip(FAN_LEVELS, prices, strict=True)
    ]
    return pl.DataFrame(rows, schema=dict(FANS))


def _stamps(decisions: Sequence[Decided]) -> NDArray[np.datetime64]:
    return np.array([iso_stamp(each.bar, "bar") for each in decisions], dtype="datetime64[ns]")
