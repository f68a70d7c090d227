"""A strategy on signals as who decides for an agent: what it remembers travels in the state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.state import Position
from fastsim.agent.who import Moment, Said, Signal
from fastsim.data.bars import Bars
from fastsim.env.actions import actions_for
from fastsim.env.observe import feature_columns
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Forecaster
from fastsim.market.tape import MarketTape, make_tape
from fastsim.progress import Progress
from fastsim.signals.plan import (
    Plan,
    column_names,
    make_plan,
    with_forecasts_of,
    with_latest_forecasts,
)
from fastsim.signals.prices import prices_of
from fastsim.signals.regimes import REGIMES
from fastsim.signals.strategy import Positions, SignalStrategy

SIDES = {1: "long", -1: "short", 0: "none"}


class Signalling:
    """A strategy that trades on forecasts, with what it trades."""

    asks_of_bars_between = True

    def __init__(self, strategy: SignalStrategy, symbols: tuple[str, ...]) -> None:
        self.decider, self.symbols = strategy, symbols

    @property
    def policy(self) -> NoReturn:
        """There is none: ConfigError."""
        raise ConfigError(
            "the agent trades on signals and has no policy: name a run that was trained"
        )

    def latest(
        self, window: Bars, spec: AgentSpec, forecaster: Forecaster | None, bars: int
    ) -> MarketTape:
        """A window with the forecasts that the signals of its last `bars` are made of."""
        assert forecaster is not None  # signals are made of forecasts
        signals = self.decider.signals
        wanted = signals.threshold.bars_needed + bars - 1
        return with_latest_forecasts(forecaster, make_tape(window, spec.tape), signals, wanted)

    def market(
        self,
        tape: MarketTape,
        spec: AgentSpec,
        forecaster: Forecaster | None,
        folder: Path,
        progress: Progress,
    ) -> MarketTape:
        """The tape with all forecasts that signals are made of."""
        assert forecaster is not None
        return with_forecasts_of(forecaster, tape, self.decider.signals, folder, progress=progress)

    def ask(self, moment: Moment) -> Said:
        """What the strategy says at the last bar, after those at which it was not asked."""
        market, before = moment.market, moment.before
        plan, last = make_plan(market, self.decider.signals), len(market) - 1
        closes = prices_of(market).close  # [T, A]
        memory = self.decider.begin(plan, 1)
        if before is not None:
            row = int(np.searchsorted(market.timestamps, before.last))
            memory = _recalled(before.positions, market.symbols, closes[row])
            for bar in range(row + 1, last):
                memory = self.decider.pass_by(plan, torch.tensor([bar]), memory)
        seen = moment.seen._replace(bar=torch.tensor([last]))
        said, memory = self.decider.decide(plan, seen, memory)
        if self.decider.answers != moment.rules.action:
            said = actions_for(said, moment.rules.action)
        factors = torch.from_numpy(moment.prices) / closes[last]
        return Said(
            action=said[0],
            observation=self._shown(moment),
            positions=_remembered(memory, market.symbols, closes[last]),
            signals=_told(plan, memory, market.symbols, factors),
        )

    def _shown(self, moment: Moment) -> Mapping[str, float]:
        """The forecasts at the last bar and the account, by name."""
        market = moment.market
        names = column_names(self.decider.signals)
        columns = [market.feature_names.index(name) for name in names]
        forecasts = market.known.features[-1][:, columns].flatten().tolist()
        shown = dict(zip(feature_columns(market.symbols, names), forecasts, strict=True))
        own = portfolio_names(market, moment.rules)
        return shown | dict(zip(own, moment.seen.portfolio[0].tolist(), strict=True))


def _recalled(
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


def _remembered(memory: Positions, symbols: tuple[str, ...], closes: Tensor) -> dict[str, Position]:
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


def _told(
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
