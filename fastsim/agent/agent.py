"""An agent that is out of training: new bars in, weights and orders out, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.agent.artifact import POLICY, AgentSpec, read_spec
from fastsim.agent.books import Held, seen_of, trade_to
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.window import checked_window
from fastsim.data.bars import Bars
from fastsim.data.dates import utc_now
from fastsim.env.actions import ACTIONS
from fastsim.env.observe import Observation, feature_columns
from fastsim.errors import CheckpointError, ConfigError, DataError
from fastsim.forecast.features import latest_features
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import load_ensemble
from fastsim.market.tape import MarketTape, observed_tape
from fastsim.policy.folder import load_policy
from fastsim.policy.network import Policy


class Reasons(NamedTuple):
    """What a decision came of."""

    observation: Mapping[str, float]  # by column, `observation_names` of the environment
    forecast: Mapping[str, float]  # those of them that a forecaster said
    bounds: tuple[str, ...]  # of what was asked for and not given, in sentences


class Decision(NamedTuple):
    """What to hold from the next fill on."""

    timestamp: np.datetime64  # of the last bar
    weights: Mapping[str, float]  # by symbol, of the wealth after costs; the rest is cash
    orders: Mapping[str, float]  # shares to buy (positive) and sell, at the last close's price
    state: AgentState  # to be given to the next decision
    why: Reasons


class Agent:
    """A policy with all that it needs to decide on bars it never saw.

    Parameters
    ----------
    spec
        What it was made for.
    policy
        Who decides.
    forecaster
        Whose forecasts it sees; None if it sees none.

    Raises
    ------
    CheckpointError
        The forecaster is not the one that the agent learned by.
    """

    def __init__(self, spec: AgentSpec, policy: Policy, forecaster: Forecaster | None) -> None:
        key = "" if forecaster is None else forecaster.key
        if key != spec.forecaster_key:
            raise CheckpointError(
                f"the agent learned by forecasts of {spec.forecaster_key or 'nobody'}, and these "
                f"are of {key or 'nobody'}: install the version that it was trained with, or "
                f"train anew"
            )
        self.spec, self.policy, self.forecaster = spec, policy, forecaster
        self._rules = spec.env

    @classmethod
    def load(cls, folder: Path | str) -> Agent:
        """The agent in a folder, `runs/NAME/agent`, or in the folder of a run.

        Raises
        ------
        CheckpointError
            A file is missing or damaged, or the forecaster has changed.
        ForecastError
            The forecaster's weights cannot be had.
        """
        folder = agent_folder(Path(folder))
        spec = read_spec(folder)
        policy = load_policy(folder / POLICY)
        forecaster = None
        if spec.forecasters:
            forecaster = load_ensemble(
                spec.forecasters,
                spec.forecaster_weights or None,
                precision=spec.forecast.precision,
                implementation=spec.forecast.implementation,
            )
        return cls(spec, policy, forecaster)

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it trades."""
        return self.policy.spec.symbols

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
        now = utc_now() if now is None else now
        window = checked_window(
            bars, self.symbols, self.spec, self.bars_needed, now=now, closed=closed
        )
        if state is not None:
            self._check_state(state)
            state.check(window)
        held = Held.of(account, self.symbols, window.close[-1])
        after = AgentState.after(window, held.wealth, state)
        tape = self.market(window)
        if (
            self._rules.initial_cash != after.initial_wealth
        ):  # checking settings takes a millisecond
            self._rules = replace(self._rules, initial_cash=after.initial_wealth)
        seen = seen_of(held, after, tape, self._rules)
        action = self.policy.act(tape, seen)
        mode = ACTIONS.find(self.policy.spec.action)
        weights = mode.weights(action, self.policy.spec.max_gross, None)[0].double().numpy()
        shares = trade_to(weights, held, self.spec.env.costs) / window.close[-1]
        if self.spec.env.orders.whole_shares:
            shares = np.trunc(shares)
        return Decision(
            timestamp=window.timestamps[-1],
            weights=dict(zip(self.symbols, weights.tolist(), strict=True)),
            orders=dict(zip(self.symbols, shares.tolist(), strict=True)),
            state=after,
            why=self._reasons(tape, seen, action[0]),
        )

    def market(self, window: Bars) -> MarketTape:
        """The last bar of a window, with the features and forecasts that the policy sees."""
        whole = observed_tape(window, self.spec.tape)
        tape = replace(whole.take(slice(len(whole) - 1, None)), first=0, last=0)
        if self.forecaster is None:
            return tape
        return tape.with_features(latest_features(whole, self.forecaster, self.spec.forecast))

    def _check_state(self, state: AgentState) -> None:
        if set(state.closes) != set(self.symbols):
            raise DataError("the state is of an agent that trades other symbols: give its own")

    def _reasons(self, tape: MarketTape, seen: Observation, action: Tensor) -> Reasons:
        names = (*feature_columns(tape.symbols, tape.feature_names), *self.policy.spec.portfolio)
        shown = torch.cat([tape.known.features[0].flatten(), seen.portfolio[0]]).tolist()
        observation = dict(zip(names, shown, strict=True))
        forecast = {name: value for name, value in observation.items() if "forecast_" in name}
        return Reasons(observation, forecast, self._bounds(action))

    def _bounds(self, action: Tensor) -> tuple[str, ...]:
        """What of an action [W] could not be given."""
        spec = self.policy.spec
        total, gross = float(action.clamp_min(0.0).sum()), float(action.abs().sum())
        told = []
        if spec.action == "weights":
            if total > 1.0:
                told.append(f"weights added up to {total:.3f}: scaled to 1")
            below = int((action < 0).sum())
            if below:
                told.append(f"{below} weights were below 0: none is sold short")
        elif spec.action == "signed":
            if gross > spec.max_gross:
                told.append(f"weights came to {gross:.3f} in gross: scaled to {spec.max_gross:g}")
            if float(action.sum()) > 1.0:
                told.append(f"weights added up to {float(action.sum()):.3f}: scaled to 1")
        return tuple(told)


def agent_folder(folder: Path) -> Path:
    """The agent's own folder, given that or the run's.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name a run's, or its agent's")
    inner = folder / "agent"
    return inner if inner.is_dir() else folder
