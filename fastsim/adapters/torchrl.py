"""TorchRL: N portfolios as one batched environment on their device. Needs `fastsim-rl[torchrl]`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsim.adapters.arguments import as_batch_rules, check_seed
from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.gym_env import action_space, rows_of
from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import select
from fastsim.env.observe import Observation, observe
from fastsim.env.state import restart
from fastsim.errors import ActionError, ConfigError
from fastsim.market.features import FEATURE_LIMIT

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
    from torchrl.envs import EnvBase
except ImportError:
    raise ConfigError("torchrl is not installed: pip install 'fastsim-rl[torchrl]'") from None


class TorchRLEnv(EnvBase):  # type: ignore[misc]
    """N portfolios with a batch size of [N]. Takes the arguments of `build_env`.

    `observation` is [N, width], or for `observation="index"` `bar` [N] and `portfolio` [N, P];
    `wealth` [N, 1] is that at the close. What follows a step that ended an episode is the episode's
    last observation, and `reset` with a mask `_reset` begins the next, as TorchRL's rollouts and
    collectors do. A row of actions that is not finite holds its positions.
    """

    batch_locked = True

    def __init__(
        self,
        num_envs: int = 1,
        market: MarketSource = "us20",
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        check_seed(seed)
        env: PortfolioEnv = build_env(num_envs, market, **as_batch_rules(arguments))
        if env.config.autoreset != "same_step" or env.config.players > 1:
            raise ConfigError('TorchRL needs autoreset="same_step" and players=1')
        super().__init__(device=env.tape.device, batch_size=[env.num_envs])
        self.env = env
        self.observation_names = env.observation_names
        self._next_seed = seed
        self._begun = False
        self._fresh = torch.zeros(env.num_envs, dtype=torch.bool, device=env.tape.device)
        self._make_specs()

    def _make_specs(self) -> None:
        count, place = self.env.num_envs, {"device": self.env.tape.device}
        width, space = len(self.observation_names), action_space(self.env)
        low, high = float(space.low[0]), float(space.high[0])
        columns = Bounded(-FEATURE_LIMIT, FEATURE_LIMIT, (count, width), **place)
        seen = {"observation": columns}
        if self.env.config.observation == "index":
            bar = Categorical(len(self.env.tape), (count,), dtype=torch.int64, **place)
            seen = {"bar": bar, "portfolio": columns}
        wealth = Unbounded((count, 1), **place)
        self.observation_spec = Composite(**seen, wealth=wealth, shape=(count,), **place)
        self.action_spec = Bounded(low, high, (count, space.shape[0]), **place)
        self.reward_spec = Unbounded((count, 1), **place)
        ends = {
            name: Binary(1, (count, 1), dtype=torch.bool, **place)
            for name in ("done", "terminated", "truncated")
        }
        self.full_done_spec = Composite(**ends, shape=(count,), **place)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or not self._begun or self._next_seed is not None:
            if self._next_seed is None and not self._begun:
                self._next_seed = int(np.random.default_rng().integers(2**32))
            self._now = self.env.reset(self._next_seed)
            self._next_seed, self._begun = None, True
        else:
            self._begin_where(mask.view(-1) & ~self._fresh)
        self._fresh = torch.zeros_like(self._fresh)
        return self._told(self._now, self.env.state.wealth, self._fresh, self._fresh)

    def _begin_where(self, early: Tensor) -> None:
        """Begin anew in rows [N] whose episode is not over; the others have begun already."""
        if not early.any():
            return
        self.env.renew()
        state = self.env.state
        self.env.state = select(early, restart(self.env.params, state), state)
        self._now = observe(self.env.params, self.env.state)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if not self._begun:
            raise ActionError("there is no episode under way: call reset() before step()")
        rows = rows_of(tensordict["action"], self.env.tape.device)
        self.env.renew()
        transition = self.env.step(rows)
        assert transition.final_observation is not None
        self._now = transition.observation
        self._fresh = transition.terminated | transition.truncated
        ends = transition.terminated, transition.truncated
        told = self._told(transition.final_observation, transition.outcome.wealth, *ends)
        return told.set("reward", transition.reward.float()[:, None])

    def _told(
        self, seen: Observation, wealth: Tensor, terminated: Tensor, truncated: Tensor
    ) -> TensorDictBase:
        columns = self.env.columns(seen).float()
        named = {"observation": columns}
        if self.env.config.observation == "index":
            named = {"bar": seen.bar, "portfolio": columns}
        ends = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated}
        named |= {name: each[:, None] for name, each in ends.items()}
        named |= {"wealth": wealth.float()[:, None]}
        return TensorDict(named, batch_size=self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        check_seed(seed)
        self._next_seed = seed
