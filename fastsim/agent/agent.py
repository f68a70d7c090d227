"""An agent that is out of training: new bars in, weights and orders out, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.agent.artifact import POLICY, AgentSpec, read_spec
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.window import checked_window
from fastsim.data.bars import Bars
from fastsim.env.accounting import Account, Portfolio
from fastsim.env.actions import ACTIONS
from fastsim.env.brackets import entered_now
from fastsim.env.episode import Episode
from fastsim.env.impact import Displacement
from fastsim.env.observe import Observation
from fastsim.env.portfolio_columns import Standing, look, portfolio_columns
from fastsim.errors import CheckpointError, ConfigError, DataError
from fastsim.forecast.features import latest_features
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import load_ensemble
from fastsim.market.tape import MarketTape, make_tape
from fastsim.policy.folder import load_policy
from fastsim.policy.network import Policy

BPS = 1e-4
_SETTLED = 1e-13
"""Of the wealth: what its cost is found to."""


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
        now = np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns") if now is None else now
        window = checked_window(
            bars, self.symbols, self.spec, self.bars_needed, now=now, closed=closed
        )
        if state is not None:
            self._check_state(state)
            state.check(window)
        held = self._holdings(account, window.close[-1])
        wealth = float(held["shares"].sum() + account.cash)
        if not wealth > 0:
            raise DataError(f"the account is worth {wealth:,.2f}: there is nothing to decide")
        after = AgentState.after(window, wealth, state)
        tape = self.market(window)
        seen = self._seen(tape, account.cash, held, after)
        action = self.policy.act(tape, seen)
        mode = ACTIONS.find(self.policy.spec.action)
        weights = mode.weights(action, self.policy.spec.max_gross, None)
        return self._decision(window, tape, seen, action, weights, wealth, held["shares"], after)

    def market(self, window: Bars) -> MarketTape:
        """The last bar of a window, with the features and forecasts that the policy sees."""
        whole = make_tape(window, self.spec.tape)
        tape = replace(whole.take(slice(len(whole) - 1, None)), first=0, last=0)
        if self.forecaster is None:
            return tape
        return tape.with_features(latest_features(whole, self.forecaster, self.spec.forecast))

    def _check_state(self, state: AgentState) -> None:
        if set(state.closes) != set(self.symbols):
            raise DataError("the state is of an agent that trades other symbols: give its own")

    def _holdings(self, account: BrokerAccount, prices: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Values [A] of shares and of open orders, at these prices [A]."""
        values = {}
        for name in ("shares", "open_orders"):
            given: Mapping[str, float] = getattr(account, name)
            for symbol in given:
                if symbol not in self.symbols and given[symbol]:
                    raise DataError(
                        f"the account has {name.replace('_', ' ')} of {symbol}, which the agent "
                        f"does not trade: keep them in another account"
                    )
            values[name] = np.array([given.get(each, 0.0) for each in self.symbols]) * prices
        return values

    def _seen(
        self, tape: MarketTape, cash: float, held: Mapping[str, NDArray[Any]], state: AgentState
    ) -> Observation:
        """What the policy sees of this account."""
        if (
            self._rules.initial_cash != state.initial_wealth
        ):  # to check settings takes a millisecond
            self._rules = replace(self._rules, initial_cash=state.initial_wealth)
        rules = self._rules
        numbers = torch.float64
        holdings = torch.from_numpy(held["shares"])[None]
        money = torch.tensor([cash], dtype=numbers)
        orders = torch.from_numpy(held["open_orders"])[None]
        here, nothing = torch.zeros(1, dtype=torch.int64), holdings[:, :0]
        account = Account(
            Portfolio(holdings, money),
            Displacement(nothing, nothing),
            orders if rules.orders.carries else nothing,
            torch.zeros(1, dtype=numbers),
            entered_now(holdings, rules.orders),
        )
        standing = Standing(
            account=account,
            wealth=account.portfolio.wealth,
            peak=torch.tensor([state.peak_wealth], dtype=numbers),
            episode=Episode(here, here, here, torch.zeros(1, dtype=torch.bool)),
            tape=tape,
            config=rules,
        )
        columns = look(portfolio_columns(rules), standing, here[:, None][:, :0])
        return Observation(here, columns.to(tape.dtype))

    def _decision(
        self,
        window: Bars,
        tape: MarketTape,
        seen: Observation,
        action: Tensor,
        weights: Tensor,
        wealth: float,
        holdings: NDArray[Any],
        after: AgentState,
    ) -> Decision:
        target = weights[0].double().numpy()
        trade = self._trade(target, wealth, holdings)
        shares = trade / window.close[-1]
        if self.spec.env.orders.whole_shares:
            shares = np.trunc(shares)
        names = [f"{symbol}.{name}" for symbol in tape.symbols for name in tape.feature_names]
        shown = torch.cat([tape.known.features[0].flatten(), seen.portfolio[0]]).tolist()
        observation = dict(zip((*names, *self.policy.spec.portfolio), shown, strict=True))
        forecast = {name: value for name, value in observation.items() if "forecast_" in name}
        return Decision(
            timestamp=window.timestamps[-1],
            weights=dict(zip(self.symbols, target.tolist(), strict=True)),
            orders=dict(zip(self.symbols, shares.tolist(), strict=True)),
            state=after,
            why=Reasons(observation, forecast, self._bounds(action[0])),
        )

    def _trade(self, weights: NDArray[Any], wealth: float, holdings: NDArray[Any]) -> NDArray[Any]:
        """Values to trade [A] so that weights are exact after fee and half spread.

        V+ = V - C(w V+ - h), by repetition: C changes by a small part of what V+ does.
        """
        costs = self.spec.env.costs
        fee, half_spread = BPS * costs.fee_bps, BPS * costs.half_spread_bps
        buying = (1.0 + half_spread) * (1.0 + fee) - 1.0
        selling = 1.0 - (1.0 - half_spread) * (1.0 - fee)
        left, before = wealth, float("inf")
        while abs(left - before) > _SETTLED * wealth:
            before = left
            trade = weights * left - holdings
            left = wealth - float(np.where(trade > 0, buying, -selling) @ trade)
        result: NDArray[Any] = weights * left - holdings
        return result

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
