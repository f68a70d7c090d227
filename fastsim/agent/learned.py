"""A learned policy as who decides for an agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.who import Moment, Said
from fastsim.data.bars import Bars
from fastsim.forecast.features import latest_features, tabulated_features
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.memo import Remembering
from fastsim.market.tape import MarketTape, observed_tape
from fastsim.policy.policy import Policy
from fastsim.progress import Progress


class Learned:
    """A policy, which sees the last bars alone and remembers nothing."""

    asks_of_bars_between = False

    def __init__(self, policy: Policy) -> None:
        self.decider = self.policy = policy
        self._remembering: Remembering | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it was made for."""
        return self.decider.spec.symbols

    def latest(
        self, window: Bars, spec: AgentSpec, forecaster: Forecaster | None, bars: int
    ) -> MarketTape:
        """The last bars of a window, with the features and forecasts that the policy sees."""
        seen = self.policy.history
        whole = observed_tape(window, spec.tape, seen)
        tape = whole.take(slice(len(whole) - seen, None))
        tape = replace(tape, first=seen - 1, last=seen - 1)
        if forecaster is None:
            return tape
        if seen > 1:
            forecaster = self._remembered(forecaster)
        return tape.with_features(latest_features(whole, forecaster, spec.forecast, bars=seen))

    def market(
        self,
        tape: MarketTape,
        spec: AgentSpec,
        forecaster: Forecaster | None,
        folder: Path,
        progress: Progress,
    ) -> MarketTape:
        """The tape with its forecasts as features."""
        if forecaster is None:
            return tape
        return tape.with_features(
            tabulated_features(tape, forecaster, spec.forecast, folder, progress=progress)
        )

    def _remembered(self, forecaster: Forecaster) -> Forecaster:
        """The same, which need not be asked again for what it said at the bars before."""
        if self._remembering is None or self._remembering.forecaster is not forecaster:
            most = 2 * self.policy.history * len(self.symbols)  # of a decision, and of the next
            self._remembering = Remembering(forecaster, most)
        return self._remembering

    def ask(self, moment: Moment) -> Said:
        """Its most likely action."""
        market = moment.market
        action = self.decider.act(market, moment.seen)[0]
        return Said(action, moment.shown(market.feature_names))
