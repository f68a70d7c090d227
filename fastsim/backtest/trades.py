"""What one strategy of a history traded, position by position, and what came of it.

A position runs from the fill that opens it to the fill that closes it, at prices as the market
fills them, adjusted, and before costs. A strategy that says itself when it enters and leaves has
its own positions; of all others one lasts as long as a weight keeps its sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.backtest.charts import to_array
from fastsim.backtest.history import History
from fastsim.data.bars import CLOSE
from fastsim.market.tape import MarketTape

FloatArray = NDArray[np.float64]
HELD = 1e-6
"""Weight from which on an asset is held."""
BUCKETS = 5
"""Groups of equal size that trades are put into by confidence."""
UNKNOWN = "unknown"

STAMP = pl.Datetime("ns")
TRADES: Mapping[str, Any] = {
    "symbol": pl.String,
    "side": pl.String,  # long or short
    "decided": STAMP,  # the close it was decided at
    "entered": STAMP,  # the bar it was filled in
    "left": STAMP,  # likewise; the last bar where it was still held
    "bars": pl.Int64,  # from the decision to enter to that to leave
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "weight": pl.Float64,  # of wealth after the first fill, signed
    "simple_return": pl.Float64,  # of the position, by its side
    "reason": pl.String,  # why it was left; "open" where it was not
    "stop": pl.Float64,  # price; null where there is none, as in all that follow
    "target": pl.Float64,
    "distance": pl.Float64,  # to the stop, a fraction of the price
    "confidence": pl.Float64,
    "regime": pl.String,
}
"""Columns of a table of trades."""


class Spans(NamedTuple):
    """K positions of one strategy, by the steps of its history."""

    asset: NDArray[np.int64]  # [K]
    entered: NDArray[np.int64]  # [K]  step at whose decision
    left: NDArray[np.int64]  # [K]  step; the number of steps, where it is held to the end
    side: NDArray[np.int64]  # [K]  1 long, -1 short


class FillPrices(NamedTuple):
    """What orders of each step were filled at."""

    price: FloatArray  # [T, A]  adjusted; the last known where nothing traded
    last: FloatArray  # [A]  closes that everything is marked at in the end
    lag: int  # bars from a decision to its fill: 1 at the next open


class Group(NamedTuple):
    """Trades that have something in common."""

    name: str
    trades: int
    won: float  # share with a return above 0
    mean_return: float
    in_risk: float | None  # mean return in units of the distance to the stop
    contribution: float  # sum of weight times return: share of wealth, before costs


class Risk(NamedTuple):
    """What positions with a stop were to lose at most, and did, in shares of wealth."""

    trades: int  # that have ended
    planned_mean: float
    planned_most: float
    realised_mean: float  # of those that lost
    realised_most: float
    beyond: float  # share of trades that lost more than was planned


def fill_prices(tape: MarketTape) -> FillPrices:
    """Prices of the steps of a replay of this tape."""
    closes = _carried(to_array(tape.known.bars[..., CLOSE]))[tape.first : tape.last + 1]
    before = to_array(tape.next["r_before"])[tape.first : tape.last]
    lag = int(tape.fill == "next_open")
    return FillPrices(closes[:-1] * (1.0 + before), closes[-1], lag)


def spans_of(history: History, column: int) -> Spans:
    """Positions of one strategy by its weights alone: as long as each keeps its sign."""
    weights = to_array(history.held(column))[:, :-1]  # [T, A]
    sides = np.where(np.abs(weights) > HELD, np.sign(weights), 0.0).astype(np.int64)
    edge = np.zeros_like(sides[:1])
    turns = np.diff(np.concatenate([edge, sides, edge]), axis=0) != 0  # [T + 1, A]
    found = []
    for asset in range(sides.shape[1]):
        ends = np.flatnonzero(turns[:, asset])
        for start, end in pairwise(ends):
            if sides[start, asset]:
                found.append((asset, start, end, sides[start, asset]))
    rows = np.array(found, dtype=np.int64).reshape(-1, 4)
    return Spans(*rows[np.lexsort((rows[:, 0], rows[:, 2]))].T)


def trade_table(
    history: History,
    column: int,
    prices: FillPrices,
    spans: Spans | None = None,
    said: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
) -> pl.DataFrame:
    """Positions of one strategy, in the order in which they ended, with the columns of `TRADES`.

    Parameters
    ----------
    spans
        Those that the strategy says it took; by default `spans_of` its weights. Those that were
        never filled are left out.
    said
        What the strategy says of each of them: columns [K] from "reason" on. NaN is null.
    """
    spans = spans_of(history, column) if spans is None else spans
    steps = len(history.timestamps) - 1
    ends = spans.left >= steps
    last = np.minimum(spans.left, steps - 1)
    entry = prices.price[spans.entered, spans.asset]
    exits = np.where(ends, prices.last[spans.asset], prices.price[last, spans.asset])
    stamps = history.timestamps.astype("datetime64[ns]")
    made: dict[str, Any] = {
        "symbol": [history.symbols[asset] for asset in spans.asset],
        "side": np.where(spans.side > 0, "long", "short").tolist(),
        "decided": stamps[spans.entered],
        "entered": stamps[np.minimum(spans.entered + prices.lag, steps)],
        "left": stamps[np.where(ends, steps, np.minimum(last + prices.lag, steps))],
        "bars": np.minimum(spans.left, steps) - spans.entered,
        "entry_price": entry,
        "exit_price": exits,
        "weight": to_array(history.held(column))[spans.entered, spans.asset],
        "simple_return": spans.side * (exits / entry - 1.0),
        "reason": np.where(ends, "open", "weights").tolist(),
    }
    made |= said or {}
    empty = [None] * len(spans.asset)
    table = pl.DataFrame(
        [pl.Series(name, made.get(name, empty)).cast(kind) for name, kind in TRADES.items()]
    )
    filled = (pl.col("weight").abs() > HELD) & pl.col("entry_price").is_finite()
    return table.with_columns(pl.col(pl.Float64).fill_nan(None)).filter(filled)


def by_confidence(trades: pl.DataFrame, most: int = BUCKETS) -> tuple[Group, ...]:
    """Trades in groups of nearly equal size, from the least confident to the most."""
    known = trades.filter(pl.col("confidence").is_not_null()).sort("confidence")
    groups = []
    for rows in np.array_split(np.arange(len(known)), min(most, len(known)) or 1):
        if len(rows):
            part = known[rows.tolist()]
            low, high = part["confidence"][0], part["confidence"][-1]
            groups.append(_group(f"{low:.3f} to {high:.3f}", part))
    return tuple(groups)


def by_regime(trades: pl.DataFrame, regimes: Sequence[str]) -> tuple[Group, ...]:
    """Trades by the regime that they were entered in, in this order; last what knew of none."""
    if trades["regime"].is_null().all() and trades["confidence"].is_null().all():
        return ()
    named = trades.with_columns(pl.col("regime").fill_null(UNKNOWN))
    parts = ((name, named.filter(pl.col("regime") == name)) for name in (*regimes, UNKNOWN))
    return tuple(_group(name, part) for name, part in parts if len(part))


def all_trades(trades: pl.DataFrame) -> Group | None:
    """All of them as one group; None where there are none."""
    return _group("all", trades) if len(trades) else None


def risk_of(trades: pl.DataFrame) -> Risk | None:
    """Planned and realised risk of trades that have ended; None where none of them had a stop."""
    ended = trades.filter((pl.col("reason") != "open") & pl.col("distance").is_not_null())
    if not len(ended):
        return None
    weight = ended["weight"].abs().to_numpy()
    planned = weight * ended["distance"].to_numpy()
    loss = -weight * ended["simple_return"].to_numpy()
    lost = loss[loss > 0]
    return Risk(
        trades=len(ended),
        planned_mean=float(planned.mean()),
        planned_most=float(planned.max()),
        realised_mean=float(lost.mean()) if len(lost) else 0.0,
        realised_most=float(loss.max(initial=0.0)),
        beyond=float((loss > planned * (1.0 + 1e-9)).mean()),
    )


def _group(name: str, trades: pl.DataFrame) -> Group:
    gains = trades["simple_return"].to_numpy()
    risk = (trades["simple_return"] / trades["distance"]).drop_nulls().to_numpy()
    return Group(
        name=name,
        trades=len(trades),
        won=float((gains > 0).mean()),
        mean_return=float(gains.mean()),
        in_risk=float(risk.mean()) if len(risk) else None,
        contribution=float((trades["weight"].abs().to_numpy() * gains).sum()),
    )


def _carried(prices: FloatArray) -> FloatArray:
    """Prices [T, A] with the last known one where there is none."""
    rows = np.where(np.isfinite(prices), np.arange(len(prices))[:, None], 0)
    return np.take_along_axis(prices, np.maximum.accumulate(rows, axis=0), axis=0)
