"""Tables of a backtest: bars, and of a strategy on signals what it was told, did and foresaw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.history import History
from fastsim.backtest.results import BARS, FANS, SIGNALS
from fastsim.backtest.trades import Spans, fill_prices, trade_table
from fastsim.data.bars import PRICES
from fastsim.experiment.stage import Stage
from fastsim.forecast.fan import FAN_LEVELS, MAX_AHEAD, fans_of
from fastsim.forecast.interface import Context, Forecaster
from fastsim.forecast.windows import context_at
from fastsim.market.tape import MarketTape
from fastsim.signals.plan import Plan, make_plan
from fastsim.signals.regimes import REGIMES
from fastsim.signals.rounds import WHY, Rounds, find_rounds

MAX_FANS = 240
"""Forecasts that are drawn: of every symbol those of its last positions, and that of the end."""


class Taken(NamedTuple):
    """Positions that a strategy says it took, as `fastsim.backtest.trades.trade_table` has them."""

    spans: Spans
    said: Mapping[str, Any]


def tables_of(stage: Stage, history: History) -> dict[str, pl.DataFrame]:
    """Trades and bars, and of a strategy on signals what it was told and foresaw."""
    tape, column = stage.tape, history.column(stage.name)
    prices, bars = fill_prices(tape), bars_table(tape)
    signals = getattr(stage.who, "signals", None)
    if stage.agent is None or signals is None:
        return {"trades": trade_table(history, column, prices), "bars": bars}
    plan = make_plan(tape, signals)
    rounds = find_rounds(tape, signals, plan)
    took = taken(rounds, tape)
    forecaster = stage.agent.forecaster
    assert forecaster is not None  # signals are made of forecasts
    return {
        "trades": trade_table(history, column, prices, took.spans, took.said),
        "bars": bars,
        "signals": signals_table(tape, plan),
        "fans": fans_table(
            tape, forecaster, rounds, signals.horizon, stage.agent.spec.forecast.context_length
        ),
    }


def bars_table(tape: MarketTape) -> pl.DataFrame:
    """Adjusted prices of all bars that a replay goes through."""
    rows = slice(tape.first, tape.last + 1)
    prices = tape.known.bars[rows, :, : len(PRICES)]
    columns: dict[str, Any] = {name: prices[..., place] for place, name in enumerate(PRICES)}
    return _by_bar(tape, columns, BARS).filter(pl.col("close").is_not_null())


def signals_table(tape: MarketTape, plan: Plan) -> pl.DataFrame:
    """What a plan says of these bars and every symbol."""
    rows = slice(tape.first, tape.last + 1)
    names = ("direction", "confidence", "stop", "target", "position")
    columns: dict[str, Any] = {name: getattr(plan, name)[rows] for name in names}
    return _by_bar(tape, columns | {"regime": _regimes(plan.regime[rows].flatten())}, SIGNALS)


def taken(rounds: Rounds, tape: MarketTape) -> Taken:
    """The rounds of a strategy by the steps of a replay of this tape."""
    spans = Spans(
        asset=rounds.asset.cpu().numpy(),
        entered=rounds.entered.cpu().numpy() - tape.first,
        left=_steps(rounds.left, tape),
        side=rounds.side.long().cpu().numpy(),
    )
    levels = ("stop", "target", "distance", "confidence")
    said = {name: getattr(rounds, name).double().cpu().numpy() for name in levels}
    reasons = [WHY[number] for number in rounds.why.tolist()]
    return Taken(spans, {**said, "reason": reasons, "regime": _regimes(rounds.regime)})


def fans_table(
    tape: MarketTape, forecaster: Forecaster, rounds: Rounds, horizon: int, context_length: int
) -> pl.DataFrame:
    """Quantiles of what was forecast where positions were entered, and at the last bar."""
    each = max(1, MAX_FANS // tape.num_assets)
    columns: dict[str, list[Any]] = {name: [] for name in FANS}
    horizon = min(horizon, MAX_AHEAD)
    for asset, symbol in enumerate(tape.symbols):
        entered = torch.unique(rounds.entered[rounds.asset == asset])[-each:].tolist()
        bars = [*entered, *([tape.last] if tape.last not in entered else [])]
        paths, known = _paths(tape, forecaster, asset, bars, (horizon, context_length))
        stamps = tape.timestamps[np.array(bars)][known].astype("datetime64[ns]")
        count = (horizon + 1) * len(FAN_LEVELS)
        columns["date"] += np.repeat(stamps, count).tolist()
        columns["symbol"] += [symbol] * (len(stamps) * count)
        ahead = np.repeat(np.arange(horizon + 1), len(FAN_LEVELS))
        columns["ahead"] += np.tile(ahead, len(stamps)).tolist()
        columns["level"] += list(FAN_LEVELS) * (len(stamps) * (horizon + 1))
        columns["price"] += paths.flatten().tolist()
    return pl.DataFrame([pl.Series(n, columns[n], strict=False).cast(k) for n, k in FANS.items()])


def _paths(
    tape: MarketTape,
    forecaster: Forecaster,
    asset: int,
    bars: list[int],
    reach: tuple[int, int],
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Quantiles [bars, horizon + 1, levels] from each close on, and of which bars there are any."""
    horizon, length = reach
    windows = []
    for bar in bars:
        context = context_at(tape, slice(bar, bar + 1), length)
        windows.append(
            Context(context.bars[asset : asset + 1], context.timestamps[asset : asset + 1])
        )
    context = Context(*(torch.cat(parts) for parts in zip(*windows, strict=True)))
    paths = fans_of(forecaster, context, horizon)
    known = paths.isfinite().flatten(1).all(-1)
    return paths[known], known.cpu().numpy()


def _steps(left: Tensor, tape: MarketTape) -> NDArray[np.int64]:
    found: NDArray[np.int64] = left.cpu().numpy() - tape.first
    return found


def _regimes(numbers: Tensor) -> list[str | None]:
    return [REGIMES[number] if number >= 0 else None for number in numbers.tolist()]


def _by_bar(
    tape: MarketTape, columns: Mapping[str, Any], schema: Mapping[str, Any]
) -> pl.DataFrame:
    """Columns [bars, A] from the tape's first bar to its last, bar by bar; NaN is null."""
    stamps = tape.timestamps[tape.first : tape.last + 1].astype("datetime64[ns]")
    values: dict[str, Any] = {
        "date": np.repeat(stamps, tape.num_assets),
        "symbol": list(tape.symbols) * len(stamps),
    } | {
        name: column.double().cpu().numpy().reshape(-1) if isinstance(column, Tensor) else column
        for name, column in columns.items()
    }
    table = pl.DataFrame([pl.Series(name, values[name]).cast(schema[name]) for name in schema])
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
