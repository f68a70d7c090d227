"""A strategy's positions as they stand in a state, and as they are told."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastsim.agent.state import Position
from fastsim.agent.who import Signal
from fastsim.signals.plan import Plan
from fastsim.signals.regimes import REGIMES
from fastsim.signals.strategy import Positions

SIDES = {1: "long", -1: "short", 0: "none"}


def recalled(
    positions: Mapping[str, Position], symbols: tuple[str, ...], closes: Tensor
) -> Positions:
    """Positions [1, A], their prices as the close [A] of the bar that they were told at is now."""
    memory = Positions.none(1, len(symbols), closes.device)
    for column, symbol in enumerate(symbols):
        position = positions.get(symbol)
        if position is None:
            continue
        close = float(closes[column])
        factor = 1.0 if close == position.close else close / position.close
        for table, value in (
            (memory.side, position.side),
            (memory.stop, None if position.stop is None else factor * position.stop),
            (memory.target, None if position.target is None else factor * position.target),
            (memory.distance, position.distance),
            (memory.bars, position.bars),
        ):
            table[0, column] = torch.nan if value is None else value
    return memory


def remembered(memory: Positions, symbols: tuple[str, ...], closes: Tensor) -> dict[str, Position]:
    """The positions of row 0 by symbol, at closes [A]."""
    return {
        symbol: Position(
            side=int(memory.side[0, column]),
            stop=_known(memory.stop[0, column]),
            target=_known(memory.target[0, column]),
            distance=float(memory.distance[0, column]),
            bars=int(memory.bars[0, column]),
            close=float(closes[column]),
        )
        for column, symbol in enumerate(symbols)
        if memory.side[0, column] != 0
    }


def told(
    plan: Plan, memory: Positions, symbols: tuple[str, ...], factors: Tensor
) -> dict[str, Signal]:
    """Signals at the last bar and positions of row 0 by symbol; prices times factors [A]."""
    told = {}
    for column, symbol in enumerate(symbols):
        regime = int(plan.regime[-1, column])
        told[symbol] = Signal(
            direction=SIDES[int(plan.direction[-1, column])],
            confidence=_known(plan.confidence[-1, column]),
            regime=REGIMES[regime] if regime >= 0 else None,
            held=SIDES[int(memory.side[0, column])],
            stop=_known(factors[column] * memory.stop[0, column]),
            target=_known(factors[column] * memory.target[0, column]),
        )
    return told


def _known(number: Tensor) -> float | None:
    return float(number) if bool(number.isfinite()) else None
