"""The actor and critic: an encoder of the shared market, and two heads that see the portfolio.

The market encoder is a function of a bar alone. It runs on a table of bars, `encode`, whose rows
are then gathered: during a rollout once per bar of the tape rather than once per sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.config import require_between
from fastsim.env.observe import Observation, portfolio_names
from fastsim.errors import ConfigError
from fastsim.learn.normalize import RunningMoments
from fastsim.market.tape import MarketTape


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """Size and exploration of the policy."""

    hidden: int = 64
    """Width of both hidden layers."""
    initial_std: float = 0.3
    """Standard deviation of the Gaussian on each action at the start. On logits, 1 would turn the
    whole portfolio over at every step."""

    def __post_init__(self) -> None:
        require_between(self, "hidden", 1)
        require_between(self, "initial_std", 0, 10, open_low=True)


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


class Policy(nn.Module):
    """Gaussian policy over actions of width W, with value function.

    The market's features are standardised by their moments over the bars given at construction,
    the portfolio's by running moments; both are buffers and travel with the weights.
    """

    def __init__(self, tape: MarketTape, action_width: int, config: PolicyConfig) -> None:
        super().__init__()
        features = tape.num_assets * len(tape.feature_names)
        portfolio = len(portfolio_names(tape))
        width = config.hidden
        self.market_moments = RunningMoments(features)
        self.portfolio_moments = RunningMoments(portfolio)
        self.market_encoder = nn.Sequential(_linear(features, width), nn.Tanh())
        self.actor = nn.Sequential(
            _linear(width + portfolio, width), nn.Tanh(), _linear(width, action_width, gain=0.01)
        )
        self.critic = nn.Sequential(
            _linear(width + portfolio, width), nn.Tanh(), _linear(width, 1, gain=1.0)
        )
        self.log_std = nn.Parameter(torch.full((action_width,), math.log(config.initial_std)))
        self.to(tape.device)
        rows = tape.known.features[tape.first : tape.last + 1].flatten(1)
        self.market_moments.update(rows)

    def encode(self, features: Tensor) -> Tensor:
        """Encode features of bars [M, A, F] as [M, E]."""
        encoded: Tensor = self.market_encoder(self.market_moments(features.flatten(1)))
        return encoded

    def forward(self, market: Tensor, portfolio: Tensor) -> PolicyOutput:
        """Decide from encoded bars [N, E] and portfolios [N, P]."""
        joint = torch.cat([market, self.portfolio_moments(portfolio)], dim=-1)
        return PolicyOutput(self.actor(joint), self.log_std, self.critic(joint).squeeze(-1))

    @torch.no_grad()
    def act(self, tape: MarketTape, observation: Observation) -> Tensor:
        """Most likely action [N, W] for observations of `tape`, without exploration."""
        output: PolicyOutput = self(
            self.encode(tape.known.features[observation.bar]), observation.portfolio
        )
        return output.mean


def check_tape(tape: MarketTape, symbols: tuple[str, ...], feature_names: tuple[str, ...]) -> None:
    """Raise ConfigError unless `tape` has the assets and features that a policy was made for."""
    for kind, wanted, given in (
        ("assets", symbols, tape.symbols),
        ("features", feature_names, tape.feature_names),
    ):
        if tuple(wanted) != tuple(given):
            raise ConfigError(
                f"the policy was trained on the {kind} {', '.join(wanted)}; "
                f"this market has {', '.join(given)}"
            )


def _linear(inputs: int, outputs: int, *, gain: float = math.sqrt(2.0)) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
