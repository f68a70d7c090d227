"""Positions of a paper account, from the fill that opens one to the fill that closes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import copysign
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fastsim.backtest.trades import TRADES
from fastsim.data.dates import iso_stamp
from fastsim.live.records import Decided
from fastsim.live.status import Status

_DUST = 1e-9
"""Of a position: what of it counts as nothing."""
ORDER, OPEN = "weights", "open"
"""Why a position ended: by an order, or it did not."""
ADJUSTED = "a dividend or a split"
"""Why shares change whose value does not."""


@dataclass
class _Held:
    """A position while it lasts; its price is the mean that was paid."""

    decided: str
    shares: float
    price: float
    weight: float

    def add(self, shares: float, price: float) -> None:
        """More of the same side."""
        after = self.shares + shares
        self.price = (self.shares * self.price + shares * price) / after
        self.shares = after


class _Event(NamedTuple):
    """Shares that came or went."""

    bar: str
    symbol: str
    shares: float
    price: float
    why: str


def position_table(status: Status) -> pl.DataFrame:
    """Positions in the order in which they ended, with the columns of `TRADES` of a backtest.

    One that was filled after a bar was entered or left at the next that was decided on.
    """
    decided = {each.bar: each for each in status.decisions}
    books = _Books(decided, status.equity)
    for event in _events(status, decided):
        books.meet(event)
    books.end()
    columns: dict[str, Any] = {name: [row[name] for row in books.rows] for name in TRADES}
    for name in ("decided", "entered", "left"):
        columns[name] = np.array(columns[name], dtype="datetime64[ns]")
    return pl.DataFrame(columns, schema=dict(TRADES), strict=False)


class _Books:
    """Positions that are held, and rows of those that are over."""

    def __init__(self, decided: Mapping[str, Decided], equity: Mapping[str, float]) -> None:
        self._decided, self._equity, self._bars = decided, equity, list(decided)
        self._held: dict[str, _Held] = {}
        self.rows: list[dict[str, Any]] = []

    def meet(self, event: _Event) -> None:
        """Let shares come or go."""
        now = self._held.get(event.symbol)
        if now is None:
            self._enter(event, event.shares)
        elif event.why == ADJUSTED:
            now.price *= now.shares / (now.shares + event.shares)
            now.shares += event.shares
        elif now.shares * event.shares > 0:
            now.add(event.shares, event.price)
        else:
            after = now.shares + event.shares
            if after * now.shares > _DUST * now.shares**2:
                now.shares = after
                return
            self._leave(now, event)
            if abs(after) > _DUST * abs(event.shares):
                self._enter(event, after)

    def end(self) -> None:
        """What is held still is marked at the last closes."""
        for symbol, now in list(self._held.items()):
            last = self._decided[self._bars[-1]]
            self._leave(now, _Event(last.bar, symbol, -now.shares, last.closes[symbol], OPEN))

    def _enter(self, event: _Event, shares: float) -> None:
        weight = shares * event.price / self._equity[event.bar]
        self._held[event.symbol] = _Held(event.bar, shares, event.price, weight)

    def _leave(self, held: _Held, end: _Event) -> None:
        self.rows.append(_row(held, end, self._decided, self._bars))
        del self._held[end.symbol]


def _events(status: Status, decided: Mapping[str, Decided]) -> Iterator[_Event]:
    """Fills and other changes of shares, bar by bar: those within it, then its orders."""
    first = next(iter(decided), "")
    found = [
        (bar, 0, _Event(bar, change.symbol, change.shares, price, change.why))
        for change in status.changes
        if (bar := change.bar or first) in decided  # without one before the first decision
        and (price := decided[bar].closes.get(change.symbol)) is not None
    ]
    for placed in status.placed:
        report = placed.report
        if report is not None and report.received and placed.against_close is not None:
            event = _Event(placed.bar, report.symbol, report.received, report.price, ORDER)
            found.append((placed.bar, 1, event))
    yield from (event for *_, event in sorted(found, key=lambda each: each[:2]))


def _row(
    held: _Held, end: _Event, decided: Mapping[str, Decided], bars: Sequence[str]
) -> dict[str, Any]:
    side = copysign(1.0, held.shares)
    start = bars.index(held.decided)
    stop = bars.index(end.bar)
    at_once = end.why not in (OPEN, ORDER)  # within its bar, and not after it
    left = stop if at_once or end.why == OPEN else min(stop + 1, len(bars) - 1)
    why = decided[held.decided].why
    signal = why.get("signals", {}).get(end.symbol, {})
    levels = {**why.get("brackets", {}).get(end.symbol, {}), **signal}
    close, level = decided[held.decided].closes[end.symbol], levels.get("stop")
    return {
        "symbol": end.symbol,
        "side": "long" if side > 0 else "short",
        "decided": iso_stamp(held.decided, "bar"),
        "entered": iso_stamp(bars[min(start + 1, len(bars) - 1)], "bar"),
        "left": iso_stamp(bars[left], "bar"),
        "bars": stop - start,
        "entry_price": held.price,
        "exit_price": end.price,
        "weight": held.weight,
        "simple_return": side * (end.price / held.price - 1.0),
        "reason": end.why,
        "stop": level,
        "target": levels.get("target"),
        "distance": None if level is None else abs(level / close - 1.0),
        "confidence": signal.get("confidence"),
        "regime": signal.get("regime"),
    }
