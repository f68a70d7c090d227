"""Stable-Baselines3: thousands of portfolios as one of its vector environments."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from fastsim.adapters.build import Market, build_env
from fastsim.adapters.gym_env import action_space, observation_space
from fastsim.env.environment import PortfolioEnv
from fastsim.errors import ConfigError


class SB3VecEnv(VecEnv):
    """N portfolios for Stable-Baselines3. Takes the arguments of `build_env`.

    Finished episodes carry `terminal_observation`, `TimeLimit.truncated` and `episode` (return,
    length, seconds) in their info, as its algorithms and logger expect; other infos are empty and
    the list is the same at every step.

    Its PPO runs the critic once per truncated environment: first episodes are cut at random by
    default, so that truncations do not all fall on one step.
    """

    def __init__(self, num_envs: int = 1, market: Market = "us20", **arguments: Any) -> None:
        if "config" not in arguments:
            arguments.setdefault("autoreset", "same_step")
            episode = arguments.setdefault("episode", {})
            if isinstance(episode, Mapping):
                arguments["episode"] = {"staggered": True, **episode}
        self.env: PortfolioEnv = build_env(num_envs, market, **arguments)
        if self.env.config.autoreset != "same_step" or self.env.config.observation == "index":
            raise ConfigError(
                'Stable-Baselines3 needs autoreset="same_step" and observation="flat" or "window"'
            )
        self.observation_names = self.env.observation_names
        self._infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._finished: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._started = time.perf_counter()
        super().__init__(num_envs, observation_space(self.env), action_space(self.env))

    def reset(self) -> NDArray[np.float32]:
        """Begin everywhere; after `seed`, from the first episode of that seed."""
        observation = self.env.reset(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self._numpy(self.env.columns(observation))

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Keep the actions [N, width] for `step_wait`."""
        self._actions = torch.as_tensor(actions, device=self.env.tape.device)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step and return observations, rewards, dones and infos."""
        transition = self.env.step(self._actions)
        reward = self._numpy(transition.reward)
        truncated = transition.truncated.numpy(force=True)
        done = transition.terminated.numpy(force=True) | truncated
        self._returns += reward
        self._lengths += 1
        for row in self._finished:
            self._infos[row] = {}
        self._finished = np.flatnonzero(done)
        if len(self._finished):
            assert transition.final_observation is not None
            final = self._numpy(self.env.columns(transition.final_observation)[done])
            elapsed = round(time.perf_counter() - self._started, 6)
            for row, last in zip(self._finished, final, strict=True):
                self._infos[row] = {
                    "terminal_observation": last,
                    "TimeLimit.truncated": bool(truncated[row]),
                    "episode": {
                        "r": float(self._returns[row]),
                        "l": int(self._lengths[row]),
                        "t": elapsed,
                    },
                }
            self._returns[self._finished] = 0.0
            self._lengths[self._finished] = 0
        return self._numpy(self.env.columns(transition.observation)), reward, done, self._infos

    def close(self) -> None:
        """Nothing to release."""

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seed of the next reset; environments differ by their number."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**32))
        self._seeds = [seed] * self.num_envs
        return self._seeds

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Attribute of the batch, once per environment asked for."""
        if attr_name == "render_mode":
            return [None for _ in self._get_indices(indices)]
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: one batch has no attributes of single environments."""
        raise ConfigError(f"cannot set {attr_name!r}: build the environment with it instead")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refuse: one batch has no methods of single environments."""
        raise ConfigError(f"cannot call {method_name!r} on single environments of a batch")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """No environment is wrapped, though episodes are recorded as a monitor would."""
        return [False for _ in self._get_indices(indices)]

    @staticmethod
    def _numpy(values: torch.Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = values.float().numpy(force=True)
        return array
