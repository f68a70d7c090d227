"""An agent that is out of training: new bars in, weights and orders out, with reasons."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.books import Held, seen_of, stood
from fastsim.agent.decision import Decision, decision_of
from fastsim.agent.folder import load_parts
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.who import Moment, Who
from fastsim.agent.window import checked_window, laid_out
from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.forecast.interface import Forecaster
from fastsim.market.tape import MarketTape, make_tape
from fastsim.policy.policy import Policy
from fastsim.progress import ON_STDERR, Progress


class Agent:
    """A policy, or a strategy, with all that it needs to decide on bars it never saw.

    Parameters
    ----------
    spec
        What it was made for.
    who
        Who decides.
    forecaster
        Whose forecasts it sees; None if it sees none.

    Raises
    ------
    CheckpointError
        The forecaster is not the one that the agent learned by.
    """

    def __init__(self, spec: AgentSpec, who: Who, forecaster: Forecaster | None) -> None:
        spec.check_forecaster("" if forecaster is None else forecaster.key)
        self.spec, self.who, self.forecaster = spec, who, forecaster
        self._rules = spec.env
        self._margin = spec.margin_of(who.symbols)

    @classmethod
    def load(cls, folder: Path | str) -> Agent:
        """The agent in a folder, `runs/NAME/agent`, or in the folder of a run.

        Raises
        ------
        ConfigError
            There is no such folder.
        CheckpointError
            A file is missing or damaged, or the forecaster has changed.
        ForecastError
            The forecaster's weights cannot be had.
        """
        return cls(*load_parts(Path(folder)))

    @property
    def decider(self) -> Decider:
        """Who decides, as `replay` takes it: the policy, or the strategy."""
        return self.who.decider

    @property
    def policy(self) -> Policy:
        """The policy that decides; ConfigError if it is a strategy that does."""
        return self.who.policy

    @property
    def rules(self) -> EnvConfig:
        """The rules that it was made for: actions, costs, orders."""
        return self.spec.env

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it trades."""
        return self.who.symbols

    @property
    def bars_needed(self) -> int:
        """Bars that it looks back on, the last included."""
        return self.spec.bars_needed

    @torch.inference_mode()
    def decide(
        self,
        bars: Bars,
        account: BrokerAccount,
        state: AgentState | None = None,
        *,
        now: np.datetime64 | None = None,
        closed: Collection[date] = (),
    ) -> Decision:
        """What to hold, by the last `bars_needed` bars.

        Parameters
        ----------
        bars
            Of all symbols, up to the last one that has closed.
        account
            What is held at its close.
        state
            That of the decision before; None at the first.
        now
            The time, UTC, if it is not now.
        closed
            Days without a bar that its calendar does not know of.

        Raises
        ------
        DataError
            Bars that are not what they have to be (`checked_window`), or no longer what they were
            (`AgentState.check`); an account in other symbols, or with nothing left.
        """
        between = self._between(bars, state)
        window = checked_window(
            bars, self.symbols, self.spec, self.bars_needed + between, now=now, closed=closed
        )
        if state is not None:
            state.check(window)
        held = Held.of(account, self.symbols, window.close[-1])
        tape = self.who.latest(window, self.spec, self.forecaster, 1 + between)
        at_open = tape.fill == "next_open"
        after, since = stood(held, window, state, self.rules, self._margin, at_open=at_open)
        rules = self._rules_from(after.initial_wealth)
        seen = seen_of(held, since, after, tape, rules)
        said = self.who.ask(Moment(tape, seen, rules, window.close[-1], state))
        return decision_of(said, held, window, since, after, self.rules, self._margin)

    def market_of(self, bars: Bars, folder: Path, *, progress: Progress = ON_STDERR) -> MarketTape:
        """The market of these bars as the agent looks at it, to be replayed by `decider`.

        Parameters
        ----------
        bars
            Of all its symbols; others are left out.
        folder
            Where tables of forecasts are kept.

        Raises
        ------
        DataError
            A symbol or field is missing, or bars are too few.
        """
        tape = make_tape(laid_out(bars, self.symbols, self.spec), self.spec.tape)
        return self.who.market(tape, self.spec, self.forecaster, folder, progress)

    def with_funding(self, path: str) -> Agent:
        """The same, for markets whose funding of perpetual futures lies in this file.

        Raises
        ------
        ConfigError
            It trades spot.
        """
        return Agent(self.spec.with_funding(path), self.who, self.forecaster)

    def _rules_from(self, wealth: float) -> EnvConfig:
        """The rules, for an account that began with this wealth."""
        if self._rules.initial_cash != wealth:  # checking settings takes a millisecond
            self._rules = replace(self._rules, initial_cash=wealth)
        return self._rules

    def _between(self, bars: Bars, state: AgentState | None) -> int:
        """Bars between two decisions that matter to this one."""
        if state is None or not self.who.asks_of_bars_between:
            return 0
        return max(0, int((bars.timestamps > state.last).sum()) - 1)
