"""What every policy is: what it was made for, the moments of what it sees, and what it says.

A policy looks at the market bar by bar and at its own portfolio row by row. What it makes of a bar
is worked out once per bar of the tape (`encode_table`, `look_up`), whoever asks and how often, and
handed to `forward` beside the portfolio.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.env.slots import View
from fastsim.market.tape import MarketTape
from fastsim.policy.normalize import RunningMoments
from fastsim.policy.spec import PolicySpec


class PolicyOutput(NamedTuple):
    """A diagonal Gaussian over actions, and the value of the state."""

    mean: Tensor  # [N, W]
    log_std: Tensor  # [W]
    value: Tensor  # [N]

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density [N] of `action` [N, W]."""
        scaled = (action - self.mean) * torch.exp(-self.log_std)
        constant = 0.5 * math.log(2.0 * math.pi) * action.shape[-1]
        return -0.5 * scaled.square().sum(-1) - self.log_std.sum() - constant

    def entropy(self) -> Tensor:
        """Entropy [] of the Gaussian, the same in every state."""
        return (self.log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum()


class Table(Protocol):
    """What the market shows at the bars that episodes use, ready to be encoded."""

    @property
    def tape(self) -> MarketTape:
        """What it was made from."""
        ...

    @property
    def rows(self) -> Tensor:
        """Standardised features; no parameter changes them."""
        ...

    @property
    def bars(self) -> int:
        """B, how many bars it holds."""
        ...

    def place(self, bar: Tensor) -> Tensor:
        """Which of the B these bars [N] of the tape are."""
        ...


class Encoded(NamedTuple):
    """A market as a policy knows it by heart."""

    tape: MarketTape
    table: Table
    parts: Tensor  # [B, ...]  what the policy makes of each bar


class Policy(nn.Module, Decider):
    """Gaussian policy over actions of width W, with value function, for markets of its spec.

    The market's features are standardised by their moments over the bars of `fit_moments`, the
    portfolio's by running moments; both are buffers and travel with the weights.
    """

    spec: PolicySpec
    market_moments: RunningMoments
    portfolio_moments: RunningMoments
    log_std: Tensor  # [W]

    @abstractmethod
    def fit_moments(self, tape: MarketTape) -> None:
        """Take in what the market shows at the bars of `tape` that episodes use."""

    @property
    def answers(self) -> str:
        """Actions of the mode that it was made for."""
        return self.spec.action

    @property
    def history(self) -> int:
        """Bars that it looks back on, the last included."""
        return 1

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Any:
        """The tape; ConfigError if the policy was made for another market."""
        self.spec.check(tape, rules)
        return tape

    def decide(self, market: Any, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Most likely actions [n, W], without exploration."""
        return self.act(market, seen), memory

    @abstractmethod
    def standardize(self, tape: MarketTape) -> Any:
        """A `Table` of what the market shows at the bars of `tape` that episodes use."""

    @abstractmethod
    def restandardize(self, table: Any, worlds: Tensor) -> None:
        """Put right, in place, what a table shows of these worlds [K], which have changed."""

    @abstractmethod
    def encode_table(self, table: Any) -> Tensor:
        """What the policy makes of each bar of a table [B, ...]: the market's part of `forward`."""

    @abstractmethod
    def look_up(self, table: Any, bar: Tensor, view: View | None = None) -> Any:
        """The same for samples at `bar` [M], each bar encoded once where that is less."""

    def pick(self, parts: Tensor, place: Tensor) -> Any:
        """What `forward` takes of bars `place` [N] out of what was made of all of them."""
        return parts[place]

    @abstractmethod
    def forward(self, market: Any, portfolio: Tensor) -> PolicyOutput:
        """Decide from what was picked or looked up for N samples, and from portfolios [N, P]."""

    @abstractmethod
    def act(self, tape: MarketTape, observation: Observation) -> Tensor:
        """Most likely action [N, W] for observations of `tape`, without exploration."""

    @torch.no_grad()
    def by_heart(self, tape: MarketTape) -> Encoded:
        """Every bar of the tape that episodes use, encoded once."""
        table = self.standardize(tape)
        return Encoded(tape, table, self.encode_table(table))

    def recall(self, market: Encoded, seen: Observation) -> Tensor:
        """Most likely action [N, W] on a market that is known by heart."""
        if seen.view is not None:
            return self.act(market.tape, seen)
        picked = self.pick(market.parts, market.table.place(seen.bar))
        mean: Tensor = self(picked, seen.portfolio).mean
        return mean


def linear(inputs: int, outputs: int, *, gain: float = math.sqrt(2.0)) -> nn.Linear:
    """A layer that begins orthogonal, without a bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
