"""What an action is worth: critics of the weights that it asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastsim.env.actions import ACTIONS, target_weights
from fastsim.env.config import EnvConfig
from fastsim.env.observe import Observation
from fastsim.env.slots import masked
from fastsim.errors import ConfigError
from fastsim.policy.flat import FlatPolicy, MarketTable
from fastsim.policy.policy import Policy


class Critic(nn.Module):
    """Value of asking for weights in a state. The market's part is a function of the bar alone."""

    def __init__(self, features: int, own: int, hidden: int) -> None:
        super().__init__()
        self.market_encoder = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.market_hidden = nn.Linear(hidden, hidden)
        self.own_hidden = nn.Linear(own, hidden, bias=False)
        self.value = nn.Sequential(nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, 1)

    def encode(self, rows: Tensor) -> Tensor:
        """Market part [B, hidden] of standardised features [B, A F]."""
        hidden: Tensor = self.market_hidden(self.market_encoder(rows))
        return hidden

    def forward(self, market: Tensor, own: Tensor) -> Tensor:
        """Values [M] from market parts [M, hidden], and portfolios beside weights [M, P + A]."""
        value: Tensor = self.head(self.value(market + self.own_hidden(own))).squeeze(-1)
        return value


class Critics(nn.Module):
    """Two critics, of which the more cautious one is believed (Fujimoto et al. 2018)."""

    def __init__(self, features: int, own: int, hidden: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.one, self.other = (Critic(features, own, hidden) for _ in range(2))

    def forward(
        self, policy: FlatPolicy, table: MarketTable, seen: Observation, weights: Tensor
    ) -> Tensor:
        """Values [2, M] of asking for `weights` [M, A], by each; the policy standardises."""
        own = torch.cat([policy.portfolio_moments(seen.portfolio), weights], dim=-1)
        values = [
            critic(policy.look_up(table, seen.bar, seen.view, encode=critic.encode), own)
            for critic in (self.one, self.other)
        ]
        return torch.stack(values)


def require_flat(policy: Policy) -> FlatPolicy:
    """The policy; ConfigError unless it sees what critics see, one row per bar."""
    if not isinstance(policy, FlatPolicy):
        raise ConfigError(
            f'the critics of "sac" know no PolicyConfig.encoder = "{policy.spec.network.encoder}": '
            f'use "mlp", or TrainConfig.algorithm = "ppo"'
        )
    return policy


def asked(action: Tensor, seen: Observation, rules: EnvConfig) -> Tensor:
    """Weights [M, A], by slot, that actions [M, W] ask for: all that the books see of them.

    Logits that differ by a constant ask for the same, and so do weights beyond what is admissible;
    critics need not learn that.
    """
    hidden = None if seen.view is None else masked(seen.view.slots)
    weights, _ = target_weights(action, ACTIONS.find(rules.action), rules.max_gross, hidden)
    return weights
