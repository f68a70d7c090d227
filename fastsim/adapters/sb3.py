"""Stable-Baselines3: thousands of portfolios as one of its vector environments."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor

from fastsim.adapters.arguments import as_batch_rules, seeds_of
from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.gym_env import action_space, numbers_of, observation_space, rendered
from fastsim.adapters.options import begin_with, together
from fastsim.adapters.render import Screen, check_render_mode
from fastsim.env.environment import PortfolioEnv
from fastsim.env.info import RowInfos, Source, on_host
from fastsim.env.kernels import columns as c
from fastsim.env.nested import take
from fastsim.errors import ActionError, ConfigError


class HostStep(NamedTuple):
    """What Stable-Baselines3 needs to know of a step."""

    columns: NDArray[np.float32]  # [N, width]
    reward: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    final: Callable[[NDArray[np.int64]], NDArray[np.float32]]  # last observations of these rows
    told: Source  # for infos


class SB3VecEnv(VecEnv):
    """N portfolios for Stable-Baselines3. Takes the arguments of `build_env`.

    Finished episodes carry `terminal_observation`, `TimeLimit.truncated` and `episode` (return,
    length, seconds) in their info, as its algorithms and logger expect. All else that infos tell is
    worked out for the rows that are looked at. A step leaves a GPU in one packed copy, and final
    observations follow for the finished rows alone; on a CPU nothing is copied.

    Its PPO runs the critic once per truncated environment, all on one step where all episodes are
    as long. `episode={"staggered": True}` cuts the first ones at random, which spreads that out;
    those are then counted as episodes too, so evaluate without it.
    """

    def __init__(
        self,
        num_envs: int = 1,
        market: MarketSource = "us20",
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        check_render_mode(render_mode, ("rgb_array",))
        self.env: PortfolioEnv = build_env(num_envs, market, **as_batch_rules(arguments))
        num_envs = self.env.num_envs
        if self.env.config.autoreset != "same_step" or self.env.config.observation == "index":
            raise ConfigError(
                'Stable-Baselines3 needs autoreset="same_step" and observation="flat" or "window"'
            )
        if self.env.config.players > 1:
            raise ConfigError(
                f"Stable-Baselines3 knows no players who wait for others: use players=1, "
                f"got {self.env.config.players}"
            )
        self.observation_names = self.env.observation_names
        self._render_mode = render_mode
        self._screen = Screen(self.env, render_mode) if render_mode else None
        self._begun = self._closed = False
        self._next_seed: int | list[int] | None = None
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._started = time.perf_counter()
        self._in_arrays = (
            self.env.tape.device.type == "cpu" and self.env.config.observation == "flat"
        )
        super().__init__(num_envs, observation_space(self.env), action_space(self.env))

    def reset(self) -> NDArray[np.float32]:
        """Begin everywhere; after `seed`, from the first episode of that seed.

        `set_options` may say at which bar or date to `start`, one for all or one of each row, and
        with `mask` which rows [N] to begin anew.
        """
        self._check_open()
        where = begin_with(together(self._options), rows=True, begun=self._begun)
        if self._next_seed is None and not self._begun:
            self.seed()
        observation = self.env.reset(self._next_seed, **where)
        self._begun, self._next_seed = True, None
        rows = slice(None) if where.get("mask") is None else np.asarray(where["mask"])
        if self._screen is not None:
            self._screen.begin(where.get("mask"))
        self._reset_seeds()
        self._reset_options()
        started = RowInfos(on_host(self.env.tell_start(observation)), self.num_envs)
        self.reset_infos = list(started)
        self._returns[rows] = 0.0
        self._lengths[rows] = 0
        return self._numpy(self.env.columns(observation))

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Keep the actions [N, width] for `step_wait`."""
        self._check_open()
        if not self._begun:
            raise ActionError("there is no episode under way: call reset() before step()")
        self._actions = numbers_of(actions)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step and return observations, rewards, dones and infos."""
        self.env.renew()
        stepped = self._step_arrays() if self._in_arrays else self._step_tensors()
        if self._screen is not None:
            self._screen.look()
        columns, reward, terminated, truncated, final, told = stepped
        done = terminated | truncated
        self._returns += reward
        self._lengths += 1
        infos = RowInfos(told, self.num_envs)
        finished = np.flatnonzero(done)
        if len(finished):
            self._finish(infos, finished, final(finished), truncated)
        return columns, reward, done, infos  # type: ignore[return-value]

    def _step_arrays(self) -> HostStep:
        stepped = self.env.step_arrays(self._actions)
        return HostStep(
            stepped.seen.astype(np.float32, copy=False),
            stepped.figures[:, stepped.names.index("reward")].astype(np.float32),
            stepped.flags[:, c.FLAG.terminated],
            stepped.flags[:, c.FLAG.truncated],
            lambda rows: stepped.final_seen[rows].astype(np.float32, copy=False),
            self.env.tell_arrays(stepped),
        )

    def _step_tensors(self) -> HostStep:
        device = self.env.tape.device
        transition = self.env.step(torch.as_tensor(self._actions, device=device))
        columns, final = self.env.columns(transition.observation), transition.final_observation
        assert final is not None
        reward, ends = transition.reward, (transition.terminated, transition.truncated)
        if columns.is_cuda:
            packed = _to_pinned(pack(columns, reward, *ends))
            host = unpack(packed.numpy(), self.num_envs)
        else:
            host = (self._numpy(columns), self._numpy(reward), ends[0].numpy(), ends[1].numpy())

        def last(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            chosen = take(final, torch.from_numpy(rows).to(device))
            return self._numpy(self.env.columns(chosen))

        return HostStep(*host, last, on_host(self.env.tell(transition)))

    def _finish(
        self,
        infos: RowInfos,
        finished: NDArray[np.int64],
        last: NDArray[np.float32],
        truncated: NDArray[np.bool_],
    ) -> None:
        """Fill the infos of the rows that finished, and begin to count anew."""
        elapsed = round(time.perf_counter() - self._started, 6)
        for row, observation in zip(finished.tolist(), last, strict=True):
            infos[row].update(
                {
                    "terminal_observation": observation,
                    "TimeLimit.truncated": bool(truncated[row]),
                    "episode": {
                        "r": float(self._returns[row]),
                        "l": int(self._lengths[row]),
                        "t": elapsed,
                    },
                }
            )
        self._returns[finished] = 0.0
        self._lengths[finished] = 0

    def close(self) -> None:
        """Nothing to release; what follows is an error."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ActionError("the environment is closed: make another")

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A picture [480, 640, 3] of every environment."""
        begun, closed = self._begun, self._closed
        frames = rendered(self._screen, self._render_mode, begun=begun, closed=closed)
        return frames or [None] * self.num_envs

    def seed(self, seed: int | Sequence[int] | None = None) -> Sequence[int | None]:
        """Set the seed of the next reset, under which environments differ by their number.

        A list is of seeds for each environment [N].
        """
        seeds = seeds_of(seed, self.num_envs, self.env.config.players)
        if seeds is None:
            seeds = int(np.random.default_rng().integers(2**32))
        self._next_seed = seeds
        self._seeds = list(seeds) if isinstance(seeds, list) else [seeds] * self.num_envs
        return self._seeds

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Attribute of the batch, once per environment asked for."""
        if attr_name == "render_mode":
            return [self._render_mode for _ in self._get_indices(indices)]
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
        """Whether environments do what this wrapper does: they record episodes as a monitor."""
        monitors = isinstance(wrapper_class, type) and issubclass(Monitor, wrapper_class)
        return [monitors for _ in self._get_indices(indices)]

    @staticmethod
    def _numpy(values: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = values.float().numpy(force=True)
        return array


def pack(columns: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """One block [N (width + 3)] of float32, in which the columns stand together."""
    return torch.cat([columns.flatten(), reward, terminated, truncated]).float()


def unpack(
    packed: NDArray[np.float32], num_envs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """What was packed: columns [N, width], reward, terminated and truncated [N]."""
    columns, rest = np.split(packed, [-3 * num_envs])
    reward, terminated, truncated = rest.reshape(3, num_envs)
    return columns.reshape(num_envs, -1), reward, terminated != 0, truncated != 0


def _to_pinned(packed: Tensor) -> Tensor:
    """A copy in memory to which a GPU writes directly; torch keeps such memory for reuse."""
    return torch.empty_like(packed, device="cpu", pin_memory=True).copy_(packed)
