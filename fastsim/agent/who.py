"""Who decides for an agent: one protocol for what has learned and for what follows settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.state import AgentState, Position
from fastsim.data.bars import Bars, FloatArray
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation, feature_columns
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.forecast.interface import Forecaster
from fastsim.market.tape import MarketTape
from fastsim.policy.policy import Policy
from fastsim.progress import Progress


class Signal(NamedTuple):
    """What a strategy reads of one asset, and what it holds of it from the next fill on."""

    direction: str  # long, short or none
    confidence: float | None  # max(P(rise), 1 - P(rise)); None where nothing was forecast
    regime: str | None  # of `fastsim.signals.regimes.REGIMES`; None where it is not known
    held: str  # long, short or none
    stop: float | None  # of what is held, in prices as the last close is
    target: float | None


class Moment(NamedTuple):
    """The close at which an agent is asked."""

    market: MarketTape  # as `Who.latest` made it, up to this bar
    seen: Observation  # of the account there
    rules: EnvConfig
    prices: FloatArray  # [A]  closes as traded
    before: AgentState | None  # what was remembered at the last decision

    def shown(self, features: Sequence[str]) -> dict[str, float]:
        """These features of the market at this bar, and the account, by name."""
        market = self.market
        columns = [market.feature_names.index(name) for name in features]
        names = feature_columns(market.symbols, features), portfolio_names(market, self.rules)
        numbers = market.known.features[-1][:, columns].flatten(), self.seen.portfolio[0]
        return dict(zip(sum(names, ()), torch.cat(numbers).tolist(), strict=True))


class Said(NamedTuple):
    """What was answered there, and why."""

    action: Tensor  # [W]  in the mode of the rules; NaN where nothing is to be traded
    observation: Mapping[str, float]  # by column
    positions: Mapping[str, Position] = {}  # to be remembered
    signals: Mapping[str, Signal] = {}  # by symbol


class Who(Protocol):
    """Whoever decides for an agent, with the weights or settings that it decides by."""

    @property
    def decider(self) -> Decider:
        """The same as a replay takes it."""
        ...

    @property
    def policy(self) -> Policy:
        """The decider, if it is a policy; ConfigError if it is not."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is traded, in the order of its numbers."""
        ...

    @property
    def asks_of_bars_between(self) -> bool:
        """Whether bars between two decisions matter to it, and what came before them."""
        ...

    def latest(
        self, window: Bars, spec: AgentSpec, forecaster: Forecaster | None, bars: int
    ) -> MarketTape:
        """A market of which the last `bars` rows are as they would be of all bars."""
        ...

    def market(
        self,
        tape: MarketTape,
        spec: AgentSpec,
        forecaster: Forecaster | None,
        folder: Path,
        progress: Progress,
    ) -> MarketTape:
        """The tape with the forecasts that it looks at, of all bars, tabulated in a folder."""
        ...

    def ask(self, moment: Moment) -> Said:
        """What to hold from this close on."""
        ...
