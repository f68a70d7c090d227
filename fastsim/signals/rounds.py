"""Positions that a strategy on signals enters, and why it leaves them: one row each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.market.tape import MarketTape
from fastsim.signals.config import SignalConfig
from fastsim.signals.plan import Plan, make_plan
from fastsim.signals.strategy import Positions, SignalStrategy

WHY = ("open", "stop", "target", "time", "turn")
"""Why a position was left, by number: "open" is one that is still held at the last bar, "turn" one
whose signal had turned. Where a bar touched both levels, it is the stop."""
OPEN, STOP, TARGET, TIME, TURN = range(len(WHY))


class Rounds(NamedTuple):
    """K positions, in the order in which they were left. Prices are adjusted ones."""

    asset: Tensor  # [K]  int64
    entered: Tensor  # [K]  int64, bar of the tape at whose close it was decided
    left: Tensor  # [K]  int64, likewise; the last bar where it is still held
    why: Tensor  # [K]  int64, place in `WHY`
    side: Tensor  # [K]  1 long, -1 short
    stop: Tensor  # [K]  price, NaN where there is none
    target: Tensor  # [K]
    distance: Tensor  # [K]  from the close of the decision to the stop, a fraction
    confidence: Tensor  # [K]  in [0.5, 1], at the decision
    regime: Tensor  # [K]  int64, place in `REGIMES`, or -1


def find_rounds(tape: MarketTape, signals: SignalConfig, plan: Plan | None = None) -> Rounds:
    """Positions that the strategy enters from the first bar of a tape to its last.

    Which those are, and when they are left, depends on the market alone; how large they are does
    not. One that is left and entered anew at the same close is two.
    """
    plan = make_plan(tape, signals) if plan is None else plan
    strategy = SignalStrategy(signals=signals)
    memory = strategy.begin(plan, 1)
    nothing = torch.zeros_like(plan.direction[:1])
    entered = torch.zeros_like(memory.bars[0])  # [A]
    rows: list[Tensor] = []
    for bar in range(tape.first, tape.last):
        before = memory
        seen = _Account(torch.tensor([bar], device=nothing.device), nothing)
        _, memory = strategy.decide(plan, seen, before)
        fresh = (memory.side != 0) & (memory.bars == 0)
        ended = (before.side != 0) & (fresh | (memory.side == 0))
        why = _why(before, plan.at(seen.bar), signals.bars_held)
        rows += _rows(ended, entered, bar, why)
        entered = torch.where(fresh[0], bar, entered)
    held = memory.side != 0
    rows += _rows(held, entered, tape.last, torch.full_like(memory.bars, OPEN))
    return _told(torch.cat(rows) if rows else entered.new_zeros(0, 4), plan)


class _Account(NamedTuple):
    """What is seen of an account that holds nothing."""

    bar: Tensor  # [1]
    portfolio: Tensor  # [1, A]


def _why(before: Positions, now: Plan, most: int) -> Tensor:
    """Why positions [1, A] would be left at this close, as `SignalStrategy` leaves them."""
    side = before.side
    worst = torch.where(side > 0, now.low, now.high)
    best = torch.where(side > 0, now.high, now.low)
    why = torch.full_like(before.bars, TURN)
    why = torch.where(before.bars + 1 >= most, TIME, why)
    why = torch.where(side * (best - before.target) >= 0, TARGET, why)
    return torch.where(side * (worst - before.stop) <= 0, STOP, why)


def _rows(ended: Tensor, entered: Tensor, bar: int, why: Tensor) -> list[Tensor]:
    """Asset, entry, end and reason [K, 4] of those that have `ended` [1, A]."""
    asset = ended[0].nonzero().flatten()
    if not len(asset):
        return []
    end = torch.full_like(asset, bar)
    return [torch.stack([asset, entered[asset], end, why[0, asset]], dim=1)]


def _told(rows: Tensor, plan: Plan) -> Rounds:
    """Rows [K, 4] with what the plan said at their entry."""
    asset, entered, left, why = rows.unbind(1)

    def then(table: Tensor) -> Tensor:
        return table[entered, asset]

    return Rounds(
        asset=asset,
        entered=entered,
        left=left,
        why=why,
        side=then(plan.direction),
        stop=then(plan.stop),
        target=then(plan.target),
        distance=then(plan.distance),
        confidence=then(plan.confidence),
        regime=then(plan.regime),
    )
