"""Gymnasium: one environment in NumPy for `make`, many in torch for `make_vec`."""

from __future__ import annotations

from collections.abc import Sequence
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

from fastsim.adapters.arguments import alone, as_rules, check_seed, refuse_disabled, seeds_of
from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.options import begin_with
from fastsim.adapters.render import (
    RENDER_FPS,
    RENDER_MODES,
    Frame,
    Screen,
    check_render_mode,
    warn_of_no_mode,
)
from fastsim.adapters.spec import Specified
from fastsim.env.actions import action_bounds
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.info import Info, on_host
from fastsim.env.kernels import columns as c
from fastsim.env.observe import Observation
from fastsim.env.tally import Averages, EpisodeTally, SingleTally
from fastsim.errors import ActionError, ConfigError, one_line
from fastsim.market.features import FEATURE_LIMIT

SHARED_IMPACT = {"transient": 1.0, "permanent": 0.1}
"""How trades move prices in shared markets, unless `impact` says otherwise."""
SHARED_MARKET = "tech4"
"""A sample with volume: what an order moves is measured by it."""

FIGURES, REWARD = c.FIGURE._fields, int(c.FIGURE.reward)
FLOAT32 = np.dtype(np.float32)
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


class PortfolioGymEnv(Specified, gymnasium.Env[Any, NDArray[np.float32]]):
    """One portfolio, NumPy in and out. Takes the arguments of `build_env` but `num_envs`.

    An action with a NaN or an infinity, or of the wrong shape, raises ActionError, and so does a
    step after the episode's end. Where open orders are carried, NaN alone gives no new weights. Its
    caller resets it, whatever `autoreset` says: rules made for `make_vec` serve here, and the
    observation at an end is the episode's last. The info of that step holds `episode_statistics`,
    what the episode came to: `fastsim.env.tally.FIGURES`.

    `render_mode` "rgb_array" makes `render` draw wealth, weights and drawdown; "human" shows them
    in a window at every step.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
    }

    def __init__(
        self, market: MarketSource = "us20", *, render_mode: str | None = None, **arguments: Any
    ) -> None:
        if "frameskip" in arguments:
            # TorchRL offers it to every environment, and repeats actions itself where it is refused
            # in Python's own words.
            raise TypeError("PortfolioGymEnv got an unexpected keyword argument 'frameskip'")
        check_render_mode(render_mode)
        self.env = build_env(1, market, **alone(as_rules(arguments)))
        self.render_mode = render_mode
        self._screen = Screen(self.env, render_mode) if render_mode else None
        self.action_space: spaces.Space[Any] = action_space(self.env)
        self.observation_space = observation_space(self.env)
        self.observation_names = self.env.observation_names
        self.timestamps = self.env.timestamps
        self._tally = SingleTally(self.env.tape, self.env.cost_names)
        self._shows_bar = self.env.config.observation == "index"
        self._begun = self._over = False

    @property
    def statistics(self) -> Averages:
        """What the episodes that ended so far came to, on average."""
        return self._tally.averages

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with a seed, the first of that seed.

        The option `start` is a bar or a date to begin at.
        """
        where = begin_with(options, rows=False)
        check_seed(seed)
        super().reset(seed=None if seed is None else int(seed))
        row = self.env.begin_row() if seed is None and self._begun and not where else None
        if row is None:
            observation = _begin(self, self.env, seed, begun=self._begun, **where)
        self._begun, self._over = True, False
        if self._screen is not None:
            self._screen.begin()
        self._tally.begin()
        if row is not None:
            return self._observation(*row[:2]), Info(self.env.tell_row(row), 0)
        columns, bar = self.env.columns(observation), observation.bar.numpy(force=True)
        info = Info(on_host(self.env.tell_start(observation)), 0)
        return self._observation(columns.numpy(force=True), bar[0]), info

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Trade to `action` and move to the next close."""
        if self._over or not self._begun:
            raise ActionError("there is no episode under way: call reset() before step()")
        values = numbers_of(action)
        row = self.env.step_row(values)
        if row is None:
            return self._step_arrays(values)
        seen, bar, told, terminated, truncated = row
        info = Info(self.env.tell_row(row), 0)
        self._tally.add(told, FIGURES)
        if self._screen is not None or terminated or truncated:
            self._look(info, over=terminated or truncated)
        return self._observation(seen, bar), told.item(REWARD), terminated, truncated, info

    def _step_arrays(self, values: NDArray[np.float32]) -> tuple[Any, float, bool, bool, Info]:
        """The same where the environment is not stepped by rows, or the action is none."""
        if not says_something(values, self.env.config):
            raise ActionError(f"action must be finite, got {values.tolist()}")
        stepped = self.env.step_arrays(values[None])
        ends, figures = stepped.flags[0].tolist(), stepped.figures[0]
        terminated, truncated = ends[c.FLAG.terminated], ends[c.FLAG.truncated]
        info = Info(self.env.tell_arrays(stepped), 0)
        self._tally.add(figures, stepped.names)
        self._look(info, over=terminated or truncated)
        seen = self._observation(stepped.seen, stepped.bar[0])
        return seen, figures.item(REWARD), terminated, truncated, info

    def _look(self, info: Info, *, over: bool) -> None:
        """Show the step that was taken, and tell what its episode came to if it is over."""
        if self._screen is not None:
            self._screen.look()
        if over:
            self._over = True
            info["episode_statistics"] = self._tally.end()

    def render(self) -> Frame | None:
        """The account since the episode's start as a picture [480, 640, 3], or in its window."""
        frames = rendered(self._screen, self.render_mode, begun=self._begun)
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the window, and end the episode; `reset` begins another.

        Gymnasium closes an environment from which it learned the spaces, and may use it again.
        """
        if self._screen is not None:
            self._screen.close()
        self._begun = False

    def _observation(self, columns: NDArray[Any], bar: int) -> Any:
        """Columns [1, width] and a bar in the types of the observation space."""
        row = columns[0]
        if row.dtype != FLOAT32:
            row = row.astype(np.float32)
        return {"bar": np.int64(bar), "portfolio": row} if self._shows_bar else row


class PortfolioVectorEnv(Specified, VectorEnv[Any, Any, Tensor]):
    """N portfolios, torch in and out, on one device. Takes the arguments of `build_env`.

    Restarts follow `autoreset`: "next_step" (Gymnasium's default) or "same_step", which puts a
    dense `final_obs` [N, width] and its mask `_final_obs` into the info. A row of actions that is
    not finite holds its positions and is counted in the info's `invalid_actions`. The info's
    `wealth` is that at the close, before any restart in the same step. Where the mask
    `_episode_statistics` [N] says that an episode ended, `episode_statistics` holds what it came
    to, each of `fastsim.env.tally.FIGURES` a tensor [N], and 0 elsewhere. On a CPU both are there
    only in steps that end an episode.

    `autoreset_mode`, an `AutoresetMode`, may be given in place of `autoreset`, and
    `max_episode_steps` in place of `episode.horizon`. `render` gives a picture of every row for
    `render_mode` "rgb_array"; "human" shows the first in a window at every step.
    """

    def __init__(
        self,
        num_envs: int = 1,
        market: MarketSource = "us20",
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        check_render_mode(render_mode)
        rules = as_rules(arguments)
        refuse_disabled(rules)
        self.env = build_env(num_envs, market, **rules)
        self.num_envs = self.env.num_envs
        self.render_mode = render_mode
        self._screen = Screen(self.env, render_mode) if render_mode else None
        self.autoreset_mode = AUTORESET_MODES[self.env.config.autoreset]
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": RENDER_FPS,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = action_space(self.env)
        self.single_observation_space = observation_space(self.env)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.observation_names = self.env.observation_names
        self.timestamps = self.env.timestamps
        self._tally = EpisodeTally(self.env)
        self._begun = False

    @property
    def statistics(self) -> Averages:
        """What the episodes that ended so far came to, on average; reads the device."""
        return self._tally.averages

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere; with a seed, the first of that seed.

        With a list of seeds [N], every row is what `gymnasium.make` is under its seed. Options:
        `start`, bars or dates to begin at, and `mask` (or `reset_mask`), the rows [N] to begin
        anew, as in `PortfolioEnv.reset`.
        """
        _check_open(closed=self.closed)
        where = begin_with(options, rows=True, begun=self._begun)
        seeds = seeds_of(seed, self.num_envs, self.env.config.players)
        super().reset(seed=seeds if isinstance(seeds, int) else None)
        observation = _begin(self, self.env, seeds, begun=self._begun, **where)
        self._begun, mask = True, where.get("mask")
        if self._screen is not None:
            self._screen.begin(mask)
        device = self.env.tape.device
        self._tally.begin(None if mask is None else torch.as_tensor(mask, device=device))
        return self._observation(observation), Info(self.env.tell_start(observation))

    def step(self, actions: Any) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Trade every portfolio to its row of `actions` [N, width] and move to the next close."""
        _check_open(closed=self.closed)
        if not self._begun:
            raise ActionError("there is no episode under way: call reset() before step()")
        rows = rows_of(actions, self.env.tape.device)
        self.env.renew()
        transition = self.env.step(rows)
        if self._screen is not None:
            self._screen.look()
        info = Info(self.env.tell(transition))
        statistics, ended = self._tally.add(transition, transition.outcome.total_cost)
        if ended.is_cuda or ended.any():  # a GPU is not waited for
            info["episode_statistics"], info["_episode_statistics"] = statistics, ended
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

    def render(self) -> tuple[Frame, ...] | None:
        """A picture [480, 640, 3] of every row since its episode's start; None with a window."""
        return rendered(self._screen, self.render_mode, begun=self._begun, closed=self.closed)

    def call(self, name: str, *arguments: Any, **keywords: Any) -> tuple[Any, ...]:
        """What each row's `name` returns, as Gymnasium's own batches offer; here only "render"."""
        if name != "render":
            raise ConfigError(
                f"cannot call {name!r} on single environments of a batch, but 'render'"
            )
        return self.render() or (None,) * self.num_envs

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window."""
        if self._screen is not None:
            self._screen.close()

    def _observation(self, observation: Observation) -> Any:
        columns = self.env.columns(observation)
        if self.env.config.observation == "index":
            return {"bar": observation.bar, "portfolio": columns}
        return columns


def shared_market(market: MarketSource = SHARED_MARKET, **arguments: Any) -> PortfolioGymEnv:
    """One player alone in a market whose prices its trades move; arguments of `build_env`."""
    return PortfolioGymEnv(market, **_shared(1, arguments))


def shared_markets(
    num_envs: int = 1, market: MarketSource = SHARED_MARKET, **arguments: Any
) -> PortfolioVectorEnv:
    """Markets of `players` each, by default one of all `num_envs`; arguments of `build_env`.

    Rows are players, those of a market side by side. They restart together: one who is ruined is
    terminated at once, and its row then waits, with reward 0, until its market begins again.
    """
    return PortfolioVectorEnv(num_envs, market, **_shared(num_envs, arguments))


def _shared(players: int, arguments: dict[str, Any]) -> dict[str, Any]:
    defaults = {"players": players, "impact": SHARED_IMPACT}
    return arguments if "config" in arguments else defaults | arguments


def numbers_of(action: Any) -> NDArray[np.float32]:
    """An action as numbers, whatever its shape.

    Raises
    ------
    ActionError
        It is not made of real numbers.
    """
    if type(action) is np.ndarray and action.dtype == FLOAT32:
        return action
    try:
        values = np.asarray(action)
        if values.dtype.kind in "biuf":
            return values.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ActionError(f"an action must be an array of real numbers, got {_short(action)}")


def rows_of(actions: Any, device: torch.device) -> Tensor:
    """Actions of a batch as a tensor on this device, whatever their shape.

    Raises
    ------
    ActionError
        They are not made of real numbers.
    """
    try:
        rows = torch.as_tensor(actions, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ActionError(
            f"actions must be a tensor or an array of real numbers, got {_short(actions)}"
        ) from None
    if rows.is_complex():
        raise ActionError(f"actions must be real numbers, got {rows.dtype}")
    return rows


def rendered(
    screen: Screen | None, mode: str | None, *, begun: bool, closed: bool = False
) -> tuple[Frame, ...] | None:
    """Pictures of all rows, or None where there is a window, or nothing to be seen."""
    _check_open(closed=closed)
    if screen is None:
        warn_of_no_mode()
        return None
    if not begun:
        raise ActionError("there is nothing to render yet: call reset() before render()")
    return screen.frames() if mode == "rgb_array" else None


def _short(value: object) -> str:
    return f"{type(value).__name__} {one_line(repr(value), 80)}"


def _check_open(*, closed: bool) -> None:
    if closed:
        raise ActionError("the environment is closed: make another")


def says_something(values: NDArray[np.float32], config: EnvConfig) -> bool:
    """Whether an action is of finite numbers, or of NaN alone where that leaves orders open.

    The sum of squares tells in a quarter of the time, but for huge numbers whose squares overflow.
    """
    squares = values.dot(values) if values.ndim == 1 else np.vdot(values, values)
    if isfinite(squares) or np.isfinite(values).all():
        return True
    return config.orders.carries and bool(np.isnan(values).all())


def _begin(
    owner: PortfolioGymEnv | PortfolioVectorEnv,
    env: PortfolioEnv,
    seed: int | Sequence[int] | None,
    *,
    begun: bool,
    **where: Any,
) -> Observation:
    """Reset with this seed; without one, go on, or begin from a random seed the first time."""
    if seed is None and not begun:
        seed = int(owner.np_random.integers(2**32))
    return env.reset(seed, **where)
