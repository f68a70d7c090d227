"""A strategy on signals as who decides for an agent: what it remembers travels in the state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.positions import recalled, remembered, told
from fastsim.agent.who import Moment, Said
from fastsim.data.bars import Bars
from fastsim.env.actions import actions_for
from fastsim.errors import ConfigError
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.memo import Remembering
from fastsim.market.tape import MarketTape, make_tape
from fastsim.progress import Progress
from fastsim.signals.config import SignalConfig
from fastsim.signals.plan import (
    column_names,
    make_plan,
    with_forecasts_of,
    with_latest_forecasts,
)
from fastsim.signals.prices import prices_of
from fastsim.signals.strategy import SignalStrategy


class Signalling:
    """A strategy that trades on forecasts, with what it trades."""

    asks_of_bars_between = True

    def __init__(self, signals: SignalConfig, symbols: tuple[str, ...]) -> None:
        self.decider, self.symbols = SignalStrategy(signals=signals), symbols
        self._remembering: Remembering | None = None

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
        if self._remembering is None or self._remembering.forecaster is not forecaster:
            most = 2 * wanted * len(self.symbols)  # those of a decision, and of the next
            self._remembering = Remembering(forecaster, most)
        tape = make_tape(window, replace(spec.tape, funding=None, tiers=None))  # nothing is traded
        return with_latest_forecasts(self._remembering, tape, signals, wanted)

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
            memory = recalled(before.positions, market.symbols, closes[row])
            for bar in range(row + 1, last):
                memory = self.decider.pass_by(plan, torch.tensor([bar]), memory)
        seen = moment.seen._replace(bar=torch.tensor([last]))
        said, memory = self.decider.decide(plan, seen, memory)
        if self.decider.answers != moment.rules.action:
            said = actions_for(said, moment.rules.action)
        factors = torch.from_numpy(moment.prices) / closes[last]
        return Said(
            action=said[0],
            observation=moment.shown(column_names(self.decider.signals)),
            positions=remembered(memory, market.symbols, closes[last]),
            signals=told(plan, memory, market.symbols, factors),
        )
