"""Who trades on signals: positions that are entered, kept and left, row by row of a batch.

It follows `fastsim.env.decide.Decider` without knowing it, as signals know no environment.
"""

from __future__ import annotations

import logging
from dataclasses import field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape
from fastsim.signals.config import SignalConfig
from fastsim.signals.outcome import RiskReport, play_levels, risk_report
from fastsim.signals.plan import Plan, make_plan
from fastsim.signals.prices import prices_of
from fastsim.signals.sizing import coordinate, planned_risk

log = logging.getLogger(__name__)


class Seen(Protocol):
    """What is seen of n rows: `fastsim.env.observe.Observation`."""

    @property
    def bar(self) -> Tensor:
        """Rows [n] of the tape."""
        ...

    @property
    def portfolio(self) -> Tensor:
        """Columns [n, P] of the portfolio, the weights of A assets first."""
        ...


class Positions(NamedTuple):
    """What is remembered of n rows: the positions that were entered; 0 or NaN where is none."""

    side: Tensor  # [n, A]  1 long, -1 short, 0 none
    stop: Tensor  # [n, A]  price
    target: Tensor  # [n, A]  price
    distance: Tensor  # [n, A]  from entry to stop, as a fraction
    bars: Tensor  # [n, A]  int64, closes since the decision

    @classmethod
    def none(cls, rows: int, assets: int, device: torch.device) -> Positions:
        """Nothing is held."""
        zeros = torch.zeros(rows, assets, dtype=torch.float64, device=device)
        unknown = torch.full_like(zeros, torch.nan)
        return cls(zeros, unknown, unknown.clone(), zeros.clone(), zeros.long())


@configuration(slots=False)
class SignalStrategy:
    """Enters what a plan says, of the size it says, and keeps it until a level, its time or a turn.

    At the close of a bar a position is left if the bar touched its stop or its target, if it has
    been kept for its time, or if the signal has turned; what was left at a level is not entered
    again in the same direction at that close. Who is in is not traded: it is asked for what it has
    become, but for what is too much of all together. An order that is not filled is not given
    again.
    """

    signals: SignalConfig = field(default_factory=SignalConfig)

    @property
    def answers(self) -> str:
        """Target weights; where shorts are traded, actions of the signed mode."""
        return "weights" if self.signals.sides == "long" else "signed"

    def study(self, tape: MarketTape, rules: Any, /) -> Plan:
        """The plan of a market.

        Raises
        ------
        ConfigError
            The market lacks forecasts, rules draw assets or volatilities, or they allow less
            leverage than the sizes ask for.
        DataError
            The tape holds several worlds.
        """
        self.check(rules)
        plan = make_plan(tape, self.signals)
        _tell_how_often(plan, tape)
        return plan

    def check(self, rules: Any) -> None:
        """Raise ConfigError unless it can be played by these rules, an `EnvConfig`."""
        if rules.randomize.shows:
            raise ConfigError(
                "signals look at one history as it is: leave randomize.assets and "
                "randomize.volatility out"
            )
        if self.signals.sizing.gross > rules.max_gross:
            raise ConfigError(
                f"SizingConfig.gross = {self.signals.sizing.gross!r} is more than "
                f"EnvConfig.max_gross = {rules.max_gross!r} allows: lower one or raise the other"
            )

    def begin(self, market: Plan, rows: int, /) -> Positions:
        """Nothing is held."""
        return Positions.none(rows, market.direction.shape[1], market.direction.device)

    def decide(self, market: Plan, seen: Seen, memory: Positions, /) -> tuple[Tensor, Positions]:
        """Target weights [n, A], and the positions behind them."""
        now = market.at(seen.bar)
        kept, barred = self._kept(memory, now)
        enters = (kept.side == 0) & (now.direction != barred) & (now.direction != 0)
        held = _entered(kept, now, enters)
        present = seen.portfolio[:, : held.side.shape[1]]
        entered = (now.direction * now.position).to(present)
        asked = torch.where(enters, entered, torch.where(held.side != 0, present, 0.0))
        weights = coordinate(asked, held.distance.to(asked), self.signals.sizing)
        still = (weights == present).all(-1, keepdim=True)  # else costs would be traded for
        return weights.masked_fill(still, torch.nan), held

    def pass_by(self, market: Plan, bars: Tensor, memory: Positions) -> Positions:
        """What is remembered of rows [n] after their bars [n], at which it was not asked.

        What a level, its time or a turn would have ended there is over: `decide` sells it.
        """
        return self._kept(memory, market.at(bars))[0]

    def ahead(self, market: Plan, bars: Tensor, memory: Positions, /) -> None:
        """It is asked bar by bar, as what it holds depends on what became of it."""
        return

    def _kept(self, memory: Positions, now: Plan) -> tuple[Positions, Tensor]:
        """Positions that are kept at this close, and sides [n, A] that are barred, 0 for none."""
        side, bars = memory.side, memory.bars + (memory.side != 0)
        worst = torch.where(side > 0, now.low, now.high)
        best = torch.where(side > 0, now.high, now.low)
        touched = (side * (worst - memory.stop) <= 0) | (side * (best - memory.target) >= 0)
        touched &= side != 0
        left = touched | (bars >= self.signals.bars_held) | (now.direction * side < 0)
        none = Positions.none(len(side), side.shape[1], side.device)
        kept = Positions(
            *(
                torch.where(left, new, old)
                for new, old in zip(none, memory._replace(bars=bars), strict=True)
            )
        )
        return kept, torch.where(touched, side, 0.0)


class Entries(NamedTuple):
    """What a strategy enters of a plan, bar by bar."""

    direction: Tensor  # [T, A]  1 long, -1 short, 0 where nothing is entered
    weights: Tensor  # [T, A]  signed share of equity that it is entered with; 0 for nothing


def find_entries(tape: MarketTape, signals: SignalConfig, plan: Plan | None = None) -> Entries:
    """Positions that are entered from the first bar of a tape to its last, if prices stood still.

    Which are entered, and when, depends on the market alone. How much of them the caps leave
    depends on what others have become, which is taken to be what was asked for.
    """
    plan = make_plan(tape, signals) if plan is None else plan
    strategy = SignalStrategy(signals=signals)
    direction, weights = torch.zeros_like(plan.direction), torch.zeros_like(plan.direction)
    memory, held = strategy.begin(plan, 1), weights[:1]
    for bar in range(tape.first, tape.last):
        row = torch.tensor([bar], device=held.device)
        said, memory = strategy.decide(plan, _Alone(row, held), memory)
        held = torch.where(said.isnan(), held, said)
        fresh = (memory.bars == 0) & (memory.side != 0)
        direction[bar] = torch.where(fresh, memory.side, 0.0)
        weights[bar] = torch.where(fresh, held, 0.0)
    return Entries(direction, weights)


def report_risk(tape: MarketTape, signals: SignalConfig, plan: Plan | None = None) -> RiskReport:
    """Planned and realised risk of the positions that are entered, by their levels and their time.

    At the weights that they are entered with and the fill of the tape, without costs.
    """
    plan = make_plan(tape, signals) if plan is None else plan
    direction, weights = find_entries(tape, signals, plan)
    hold = signals.bars_held
    exits = play_levels(prices_of(tape), direction, plan.levels, hold, fill=tape.fill)
    return risk_report(weights, direction, planned_risk(weights, plan.distance), exits)


class _Alone(NamedTuple):
    """What one account sees."""

    bar: Tensor  # [1]
    portfolio: Tensor  # [1, A]


def _entered(kept: Positions, now: Plan, enters: Tensor) -> Positions:
    bars = torch.zeros_like(kept.bars)
    fresh = Positions(now.direction, now.stop, now.target, now.distance, bars)
    return Positions(*(torch.where(enters, new, old) for new, old in zip(fresh, kept, strict=True)))


def _tell_how_often(plan: Plan, tape: MarketTape) -> None:
    """Say in a log line how often there was a signal, and warn where there was none."""
    bars = slice(tape.first, tape.last)
    direction, confidence = plan.direction[bars], plan.confidence[bars]
    known = confidence[confidence.isfinite()]
    traded, forecasts = int((direction != 0).sum()), known.numel()
    if traded:
        log.info("signals trade on %d of %d forecasts", traded, forecasts)
        return
    highest = f"{float(known.max()):.3f}" if forecasts else "unknown"
    log.warning(
        "signals never trade on these bars: of %d forecasts the highest confidence is %s; "
        "lower threshold.least, or use threshold.best",
        forecasts,
        highest,
    )
