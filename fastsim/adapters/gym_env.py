"""Gymnasium: one environment in NumPy for `make`, many in torch for `make_vec`."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.options import begin_with
from fastsim.env.actions import action_bounds
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.info import Info, on_host
from fastsim.env.kernels import columns as c
from fastsim.env.observe import Observation
from fastsim.errors import ActionError, ConfigError
from fastsim.market.features import FEATURE_LIMIT

SHARED_IMPACT = {"transient": 1.0, "permanent": 0.1}
"""How trades move prices in shared markets, unless `impact` says otherwise."""

AUTORESET_MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}


def action_space(env: PortfolioEnv) -> spaces.Box:
    """Space of one environment's action."""
    low, high = action_bounds(env.config.action)
    return spaces.Box(low, high, (env.action_width,), np.float32)


def observation_space(env: PortfolioEnv) -> spaces.Space[Any]:
    """Space of one environment's observation: a box, or bar index and portfolio.

    Raises
    ------
    ConfigError
        The bar alone would not tell which assets an episode is about.
    """
    width = len(env.observation_names)
    columns = spaces.Box(-FEATURE_LIMIT, FEATURE_LIMIT, (width,), np.float32)
    if env.config.observation == "index":
        if env.config.randomize.assets:
            raise ConfigError(
                "RandomizeConfig.assets shows other assets in every episode, which "
                'observation="index" does not tell; use "flat" or "window"'
            )
        return spaces.Dict({"bar": spaces.Discrete(len(env.tape)), "portfolio": columns})
    return columns


class PortfolioGymEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """One portfolio, NumPy in and out. Takes the arguments of `build_env` but `num_envs`.

    An action with a NaN or an infinity, or of the wrong shape, raises ActionError, and so does a
    step after the episode's end. Where open orders are carried, NaN alone gives no new weights. Its
    caller resets it, whatever `autoreset` says: rules made for `make_vec` serve here, and the
    observation at an end is the episode's last.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(
        self, market: MarketSource = "us20", *, render_mode: str | None = None, **arguments: Any
    ) -> None:
        self.env = build_env(1, market, **_without_autoreset(arguments))
        self.render_mode = render_mode
        self.action_space: spaces.Space[Any] = action_space(self.env)
        self.observation_space = observation_space(self.env)
        self.observation_names = self.env.observation_names
        self.timestamps = self.env.timestamps
        self._begun = self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with a seed, the first of that seed.

        The option `start` is a bar or a date to begin at.
        """
        where = begin_with(options, rows=False)
        super().reset(seed=seed)
        observation = _begin(self, self.env, seed, begun=self._begun, **where)
        self._begun, self._over = True, False
        columns, bar = self.env.columns(observation), observation.bar.numpy(force=True)
        info = Info(on_host(self.env.tell_start(observation)), 0)
        return self._observation(columns.numpy(force=True), bar), info

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Trade to `action` and move to the next close."""
        if self._over or not self._begun:
            raise ActionError("there is no episode under way: call reset() before step()")
        values = np.asarray(action, dtype=np.float32)
        if not says_something(values, self.env.config):
            raise ActionError(f"action must be finite, got {values.tolist()}")
        stepped = self.env.step_arrays(values[None])
        ends = stepped.flags[0].tolist()
        terminated, truncated = ends[c.FLAG.terminated], ends[c.FLAG.truncated]
        self._over = terminated or truncated
        info = Info(self.env.tell_arrays(stepped), 0)
        reward = float(stepped.figures[0, stepped.names.index("reward")])
        seen = self._observation(stepped.seen, stepped.bar)
        return seen, reward, terminated, truncated, info

    def _observation(self, columns: NDArray[Any], bar: NDArray[np.int64]) -> Any:
        row = columns[0].astype(np.float32, copy=False)
        if self.env.config.observation == "index":
            return {"bar": bar[0], "portfolio": row}
        return row


class PortfolioVectorEnv(VectorEnv[Any, Any, Tensor]):
    """N portfolios, torch in and out, on one device. Takes the arguments of `build_env`.

    Restarts follow `autoreset`: "next_step" (Gymnasium's default) or "same_step", which puts a
    dense `final_obs` [N, width] and its mask `_final_obs` into the info. A row of actions that is
    not finite holds its positions and is counted in the info's `invalid_actions`. The info's
    `wealth` is that at the close, before any restart in the same step.
    """

    def __init__(self, num_envs: int = 1, market: MarketSource = "us20", **arguments: Any) -> None:
        self.env = build_env(num_envs, market, **arguments)
        self.num_envs = num_envs
        mode = AUTORESET_MODES[self.env.config.autoreset]
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.single_action_space = action_space(self.env)
        self.single_observation_space = observation_space(self.env)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.observation_names = self.env.observation_names
        self.timestamps = self.env.timestamps
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere; with a seed, the first of that seed.

        Options: `start`, bars or dates to begin at, and `mask` (or `reset_mask`), the rows [N] to
        begin anew, as in `PortfolioEnv.reset`.
        """
        where = begin_with(options, rows=True, begun=self._begun)
        super().reset(seed=seed)
        observation = _begin(self, self.env, seed, begun=self._begun, **where)
        self._begun = True
        return self._observation(observation), Info(self.env.tell_start(observation))

    def step(self, actions: Any) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Trade every portfolio to its row of `actions` [N, width] and move to the next close."""
        rows = torch.as_tensor(actions, device=self.env.tape.device)
        self.env.renew()
        transition = self.env.step(rows)
        info = Info(self.env.tell(transition))
        if transition.final_observation is not None:
            info["final_obs"] = self._observation(transition.final_observation)
            info["_final_obs"] = transition.terminated | transition.truncated
        return (
            self._observation(transition.observation),
            transition.reward,
            transition.terminated,
            transition.truncated,
            info,
        )

    def _observation(self, observation: Observation) -> Any:
        columns = self.env.columns(observation)
        if self.env.config.observation == "index":
            return {"bar": observation.bar, "portfolio": columns}
        return columns


def shared_market(market: MarketSource = "us20", **arguments: Any) -> PortfolioGymEnv:
    """One player alone in a market whose prices its trades move; arguments of `build_env`."""
    return PortfolioGymEnv(market, **_shared(1, arguments))


def shared_markets(
    num_envs: int = 1, market: MarketSource = "us20", **arguments: Any
) -> PortfolioVectorEnv:
    """Markets of `players` each, by default one of all `num_envs`; arguments of `build_env`.

    Rows are players, those of a market side by side. They restart together: one who is ruined is
    terminated at once, and its row then waits, with reward 0, until its market begins again.
    """
    return PortfolioVectorEnv(num_envs, market, **_shared(num_envs, arguments))


def _without_autoreset(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments for an environment that begins no episode in the step that ends one."""
    config = arguments.get("config")
    if config is not None:
        return arguments | {"config": replace(config, autoreset="next_step")}
    same_step = arguments.get("autoreset") == "same_step"
    return arguments | {"autoreset": "next_step"} if same_step else arguments


def _shared(players: int, arguments: dict[str, Any]) -> dict[str, Any]:
    defaults = {"players": players, "impact": SHARED_IMPACT}
    return arguments if "config" in arguments else defaults | arguments


def says_something(values: NDArray[np.float32], config: EnvConfig) -> bool:
    """Whether an action is of finite numbers, or of NaN alone where that leaves orders open.

    The sum of squares tells in a quarter of the time, but for huge numbers whose squares overflow.
    """
    if isfinite(np.vdot(values, values)) or np.isfinite(values).all():
        return True
    return config.orders.carries and bool(np.isnan(values).all())


def _begin(
    owner: PortfolioGymEnv | PortfolioVectorEnv,
    env: PortfolioEnv,
    seed: int | None,
    *,
    begun: bool,
    **where: Any,
) -> Observation:
    """Reset with this seed; without one, go on, or begin from a random seed the first time."""
    if seed is None and not begun:
        seed = int(owner.np_random.integers(2**32))
    return env.reset(seed, **where)
