"""rsl_rl: thousands of portfolios for its runners. Needs `fastsim-rl[rsl_rl]`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsim.adapters.arguments import as_batch_rules, check_seed
from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.gym_env import rows_of
from fastsim.config import to_mapping
from fastsim.env.environment import PortfolioEnv
from fastsim.env.observe import Observation
from fastsim.errors import ConfigError

try:
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError:
    raise ConfigError("rsl_rl is not installed: pip install 'fastsim-rl[rsl_rl]'") from None

GROUP = "policy"
"""Name of the observations, for `obs_groups` of a runner's configuration."""


class RslRlVecEnv(VecEnv):  # type: ignore[misc]
    """N portfolios in rsl_rl's contract. Takes the arguments of `build_env`.

    Observations are one group, "policy" [N, width], so that a runner's `obs_groups` are
    `{"actor": ["policy"], "critic": ["policy"]}`. Rows restart in the step that ends them, and
    `time_outs` [N] of the extras are those that were truncated: rsl_rl bootstraps these, with the
    value of the observation before the last step. `log` has means of wealth, turnover and cost. A
    row of actions that is not finite holds its positions.

    Setting `episode_length_buf`, as `learn(init_at_random_ep_len=True)` does, ends the episodes
    under way as if they had lived for so long.
    """

    def __init__(
        self,
        num_envs: int = 1,
        market: MarketSource = "us20",
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        self.env: PortfolioEnv = build_env(num_envs, market, **as_batch_rules(arguments))
        config = self.env.config
        if config.autoreset != "same_step" or config.observation == "index" or config.players > 1:
            raise ConfigError(
                'rsl_rl needs autoreset="same_step", observation="flat" or "window", and players=1'
            )
        self.num_envs = self.env.num_envs
        self.num_actions = self.env.action_width
        self.max_episode_length = config.episode.horizon or self.env.tape.last - self.env.tape.first
        self.device = self.env.tape.device
        self.cfg = to_mapping(config)
        self.observation_names = self.env.observation_names
        self._lengths = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._begun = False
        self.reset(seed)

    @property
    def episode_length_buf(self) -> Tensor:
        """Steps [N] since the episodes began, int64."""
        return self._lengths

    @episode_length_buf.setter
    def episode_length_buf(self, lengths: Tensor) -> None:
        if lengths.shape != (self.num_envs,):
            raise ConfigError(
                f"episode_length_buf must have shape {(self.num_envs,)}, got {tuple(lengths.shape)}"
            )
        state = self.env.state
        earlier = state.episode.end - (lengths.to(self.device) - self._lengths)
        end = torch.maximum(earlier, state.episode.bar + 1)
        self.env.state = state._replace(episode=state.episode._replace(end=end))
        self._lengths = lengths.to(self.device, torch.int64).clone()

    def reset(self, seed: int | None = None) -> tuple[TensorDict, dict[str, Any]]:
        """Begin an episode everywhere; with a seed, the first of that seed."""
        check_seed(seed)
        if seed is None and not self._begun:
            seed = int(np.random.default_rng().integers(2**32))
        self._observations = self._grouped(self.env.reset(None if seed is None else int(seed)))
        self._lengths = torch.zeros_like(self._lengths)
        self._begun = True
        return self._observations, {}

    def get_observations(self) -> TensorDict:
        """Observations of the next decision."""
        return self._observations

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Trade every portfolio to its row of `actions` [N, width]; dones [N] are int64."""
        rows = rows_of(actions, self.device)
        self.env.renew()
        transition = self.env.step(rows)
        done = transition.terminated | transition.truncated
        self._lengths = (self._lengths + 1) * ~done
        self._observations = self._grouped(transition.observation)
        outcome = transition.outcome
        told = {"wealth": outcome.wealth, "turnover": outcome.turnover, "cost": outcome.total_cost}
        log = {f"/fastsim/{name}": values for name, values in told.items()}
        extras = {"time_outs": transition.truncated, "log": log}
        return self._observations, transition.reward.float(), done.long(), extras

    def _grouped(self, observation: Observation) -> TensorDict:
        columns = self.env.columns(observation).float()
        return TensorDict({GROUP: columns}, batch_size=[self.num_envs], device=self.device)
