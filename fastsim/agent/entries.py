"""Entries of positions as the books of an environment with stops and targets keep them.

A decision is told what is held, not when and at what price it was bought: that follows from what
was held at the decision before. What has changed since was traded at the first fill after it, as an
order that was given there is; what was closed within a bar is not held at its close. Holdings are
compared by prices that are adjusted for dividends, so one that is paid out is a small sale, which
leaves an entry as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from fastsim.agent.state import AgentState, Asked, Entry
from fastsim.data.bars import Bars, FloatArray
from fastsim.env.brackets import Since, closed, entered_now, traded
from fastsim.env.orders import OrderConfig, Wish
from fastsim.env.perpetual import beyond_open
from fastsim.market.margin import Margin

_DUST = 1e-12
"""Of a position: what rounding makes of one that was not traded."""


def since_entries(
    holdings: FloatArray,
    window: Bars,
    before: AgentState | None,
    orders: OrderConfig,
    *,
    at_open: bool,
    asks: bool = False,
    margin: Margin | None = None,
) -> Since:
    """How the last close of a window stands to the entries [1, A] of holdings [A] there.

    Parameters
    ----------
    before
        Of the last decision, whose bar the window holds; without one all is entered now.
    at_open
        Whether orders are filled at the open of the next bar, or else at the same close.
    asks
        Whether actions ask for distances of stops and targets.
    margin
        That of perpetual futures; None of spot.
    """
    now = torch.from_numpy(holdings)[None]  # [1, A]
    on_margin = margin is not None
    if before is None or not (orders.brackets or on_margin):
        return entered_now(now, orders, on_margin=on_margin, asked=asks)
    row = int((window.timestamps <= before.last).sum()) - 1
    closes = _prices(window, "close")[row:]  # [K, A]
    fill = _prices(window, "open")[row + 1] if at_open else closes[0]
    then, since = _recalled(before.entries, window.symbols, orders, asks)
    moved, since = then * fill / closes[0], _grown(since, fill / closes[0])
    if margin is not None:  # what a gap has gone beyond is lost before its owner trades
        moved = torch.where(beyond_open(moved, since.entry, margin), 0.0, moved)
    trade = now * fill / closes[-1] - moved
    trade = torch.where(trade.abs() <= _DUST * moved.abs(), 0.0, trade)
    wish = wish_of(before.asked, window.symbols, now) if asks else None
    since = traded(since, moved, trade, orders, wish)
    last = fill
    for close in closes[1:]:
        since = closed(_grown(since, close / last), now)
        last = close
    return since


def remembered_entries(
    since: Since, holdings: FloatArray, symbols: tuple[str, ...]
) -> dict[str, Entry]:
    """What a state keeps of holdings [A] and their entries [1, A], by symbol."""
    return {
        symbol: Entry(
            value=float(holdings[column]),
            entry=float(since.entry[0, column]),
            best=_kept(since.best, column),
            stop=_kept(since.stop, column),
            target=_kept(since.target, column),
        )
        for column, symbol in enumerate(symbols)
        if since.entry.shape[-1] and holdings[column] != 0
    }


def wish_of(asked: Mapping[str, Asked], symbols: tuple[str, ...], weights: Tensor) -> Wish:
    """Weights [1, A] with the distances that are asked for beside them."""
    each = [asked.get(symbol, Asked()) for symbol in symbols]
    stop, target = (
        torch.tensor([[getattr(one, name) for one in each]], dtype=weights.dtype)
        for name in ("stop", "target")
    )
    return Wish(weights, torch.tensor([False]), stop, target)


def _kept(table: Tensor, column: int) -> float | None:
    return float(table[0, column]) if table.shape[-1] else None


def _recalled(
    entries: Mapping[str, Entry], symbols: tuple[str, ...], orders: OrderConfig, asks: bool
) -> tuple[Tensor, Since]:
    """Values [1, A] of what was held, and how prices stood to its entries."""

    def table(numbers: Mapping[str, float]) -> Tensor:
        row = [numbers.get(symbol, 0.0) for symbol in symbols]
        return torch.tensor([row], dtype=torch.float64)

    best = {symbol: entry.best or 0.0 for symbol, entry in entries.items()}
    values = table({symbol: entry.value for symbol, entry in entries.items()})
    entered = table({symbol: entry.entry for symbol, entry in entries.items()})
    none = entered[:, :0]
    away = [
        table({s: getattr(entry, name) or getattr(orders, name) for s, entry in entries.items()})
        if asks
        else none
        for name in ("stop", "target")
    ]
    return values, Since(entered, table(best) if orders.trailing else none, *away)


def _grown(since: Since, growth: Tensor) -> Since:
    best = since.best * growth if since.best.shape[-1] else since.best
    return since._replace(entry=since.entry * growth, best=best)


def _prices(bars: Bars, name: Literal["open", "close"]) -> Tensor:
    prices = bars.adjusted(name)
    assert prices is not None  # of agents that fill at opens, bars have them
    return torch.from_numpy(prices)
