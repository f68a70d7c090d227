"""What became of positions with a stop and a target, by pessimistic rules, and what they lost.

A bar says its open, high, low and close, and not in what order the high and the low came:

- where the open lies beyond a level, the order is filled at the open: worse than the stop, better
  than the target;
- else a level that lies between low and high is filled at its price;
- where both do, the stop is taken to have come first.

So a stop loses more than was planned where prices jump over it. Both are reported.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import require_count
from fastsim.errors import ConfigError
from fastsim.market.tape import FillPrice
from fastsim.signals.levels import Levels
from fastsim.signals.prices import Prices
from fastsim.signals.trailing import carried_forward

REASONS = ("open", "stop", "target", "time")
"""Why a position ended, by number; "open" is one that had not ended with the last bar."""
OPEN, STOP, TARGET, TIME = range(len(REASONS))


class Exits(NamedTuple):
    """Of positions that were decided on at each close."""

    entry: Tensor  # [T, A]  price; NaN where there is no position, or it was never filled
    price: Tensor  # [T, A]  NaN where it has not ended
    reason: Tensor  # [T, A]  int64, place in `REASONS`
    bars: Tensor  # [T, A]  int64, from the decision to the end; 0 where it has not ended
    both: Tensor  # [T, A]  bool: its last bar held both levels, so that the rule chose

    def simple_returns(self, direction: Tensor) -> Tensor:
        """Gain per unit of notional [T, A], by direction [T, A]; NaN where it has not ended."""
        return direction * (self.price / self.entry - 1.0)


class RiskReport(NamedTuple):
    """Of positions that have ended, in shares of equity."""

    positions: int
    planned_mean: float
    planned_most: float
    realised_mean: float
    """Mean loss of those that lost."""
    realised_most: float
    """Largest loss."""
    beyond: float
    """Share of positions that lost more than was planned."""
    result: float
    """Mean gain in units of the planned risk."""
    both: float
    """Share of positions whose last bar held both levels."""


def play_levels(
    prices: Prices,
    direction: Tensor,
    levels: Levels,
    hold: int,
    *,
    fill: FillPrice = "next_open",
    first: Literal["stop", "target"] = "stop",
) -> Exits:
    """Let a position of every bar and asset run until a level, or for `hold` bars.

    Parameters
    ----------
    prices
        Of T bars and A assets.
    direction
        1 long, -1 short, 0 none [T, A], decided at each close.
    levels
        Prices [T, A], known at the decision; NaN for none.
    hold
        Bars after the decision at whose last close a position ends.
    fill
        It is entered at the open of the next bar, or at the close of the decision.
    first
        Which level is taken to have come first where a bar holds both: "target" is the optimistic
        rule, to see how much hangs on it.

    Raises
    ------
    ConfigError
        A rule that there is none of, or a `hold` that is no whole number from 1 up.
    """
    require_count("hold", hold)
    if fill not in ("next_open", "close") or first not in ("stop", "target"):
        raise ConfigError(
            f'fill must be "next_open" or "close" and first "stop" or "target", '
            f"got {fill!r} and {first!r}"
        )
    entry = _later(prices.open, 1) if fill == "next_open" else prices.close
    entry = torch.where((direction != 0) & prices.close.isfinite(), entry, torch.nan)
    run = _Run(entry, direction, levels, stop_first=first == "stop")
    marks = carried_forward(prices.close)
    for bars in range(1, hold + 1):
        run.go_through(bars, Prices(*(_later(each, bars) for each in prices)))
    run.end(hold, _later(marks, hold))
    return run.exits


class _Run:
    """Positions while they run. Prices of a short are turned around, so that losses lie below."""

    def __init__(
        self, entry: Tensor, direction: Tensor, levels: Levels, *, stop_first: bool
    ) -> None:
        self._side, self._stop_first = direction.to(entry), stop_first
        self._stop, self._target = (self._side * each for each in levels)
        self._runs = entry.isfinite()
        whole = torch.zeros_like(entry, dtype=torch.int64)
        self.exits = Exits(
            entry, torch.full_like(entry, torch.nan), whole, whole.clone(), self._runs & False
        )

    def go_through(self, bars: int, bar: Prices) -> None:
        """End those that this bar, `bars` after the decision, ends."""
        opened = self._side * bar.open
        worst, best = self._side * bar.low, self._side * bar.high
        worst, best = torch.minimum(worst, best), torch.maximum(worst, best)
        stopped, reached = worst <= self._stop, best >= self._target
        jumped = (opened <= self._stop) | (opened >= self._target)
        both = stopped & reached & ~jumped
        loses = torch.where(jumped, opened <= self._stop, stopped)
        if not self._stop_first:
            loses = loses & ~both
        at = torch.where(loses, self._stop, self._target)
        price = self._side * torch.where(jumped, opened, at)
        reason = torch.where(loses, STOP, TARGET)
        self._close(self._runs & (stopped | reached | jumped), bars, price, reason, both)

    def end(self, bars: int, marks: Tensor) -> None:
        """End what still runs, at these prices."""
        time = torch.full_like(self.exits.reason, TIME)
        self._close(self._runs & marks.isfinite(), bars, marks, time, self._runs & False)

    def _close(self, ended: Tensor, bars: int, price: Tensor, reason: Tensor, both: Tensor) -> None:
        old = self.exits
        self.exits = Exits(
            entry=old.entry,
            price=torch.where(ended, price, old.price),
            reason=torch.where(ended, reason, old.reason),
            bars=old.bars.masked_fill(ended, bars),
            both=old.both | (ended & both),
        )
        self._runs = self._runs & ~ended


def risk_report(weights: Tensor, direction: Tensor, planned: Tensor, exits: Exits) -> RiskReport:
    """Planned risk beside what was lost, of positions that have ended; NaN where there are none.

    Parameters
    ----------
    weights
        Shares of equity [T, A] that positions were entered with.
    direction
        As `play_levels` was given [T, A].
    planned
        Share of equity [T, A] that each loses if it is filled at its stop.
    """
    gain = weights.abs() * exits.simple_returns(direction)
    ended = gain.isfinite() & (planned > 0)
    if not bool(ended.any()):
        return RiskReport(0, *(float("nan"),) * (len(RiskReport._fields) - 1))
    gain, risk = gain[ended], planned[ended]
    loss = -gain
    lost = loss[loss > 0]
    return RiskReport(
        positions=int(ended.sum()),
        planned_mean=float(risk.mean()),
        planned_most=float(risk.max()),
        realised_mean=float(lost.mean()) if len(lost) else 0.0,
        realised_most=float(loss.max().clamp_min(0.0)),
        beyond=float((loss > risk * (1.0 + 1e-9)).double().mean()),
        result=float((gain / risk).mean()),
        both=float(exits.both[ended].double().mean()),
    )


def _later(values: Tensor, bars: int) -> Tensor:
    """What stands `bars` bars later [T, A]; NaN after the last."""
    later = torch.full_like(values, torch.nan)
    later[: max(len(values) - bars, 0)] = values[bars:]
    return later
