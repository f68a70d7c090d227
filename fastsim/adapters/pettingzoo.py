"""PettingZoo: the players of one shared market, in NumPy. Needs `fastsim-rl[pettingzoo]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray
from torch import Tensor

from fastsim.adapters.arguments import alone, as_rules, check_seed
from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.gym_env import (
    SHARED_IMPACT,
    SHARED_MARKET,
    action_space,
    numbers_of,
    observation_space,
    rendered,
    says_something,
)
from fastsim.adapters.options import begin_with
from fastsim.adapters.render import RENDER_FPS, Screen, check_render_mode
from fastsim.config import require_count
from fastsim.env.info import RowInfos, Source, on_host
from fastsim.env.observe import Observation
from fastsim.env.tally import Averages, EpisodeTally
from fastsim.errors import ActionError, ConfigError
from fastsim.market.features import FEATURE_LIMIT

try:
    from pettingzoo import ParallelEnv
except ImportError:
    raise ConfigError("pettingzoo is not installed: pip install 'fastsim-rl[pettingzoo]'") from None

Values = NDArray[np.float32]
PETTINGZOO_TEST = {"options": 1}
"""What the test that comes with PettingZoo gives as options; it is to have no effect."""


class SharedMarketParallelEnv(ParallelEnv[str, Any, Values]):  # type: ignore[misc]
    """One market in which several players move the prices for one another.

    Takes the arguments of `build_env` but `num_envs`; trades move prices by `SHARED_IMPACT` unless
    `impact` says otherwise. A ruined player is terminated and leaves; at the horizon all who are
    left are truncated. An action with a NaN or an infinity, or of the wrong shape, and a missing
    player raise ActionError, and so does an action after the episode's end; a step of nobody is
    then a step of nothing. `episode_statistics` tells of the players whose episode is over what it
    came to, each of `fastsim.env.tally.FIGURES`; infos have the same keys at every step, as clients
    expect that make tensors of them.

    `state` is what a critic of all players may see: the market once, and every player's portfolio.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "fastsim_shared_market_v0",
        "render_modes": ["rgb_array"],
        "render_fps": RENDER_FPS,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        players: int = 2,
        market: MarketSource = SHARED_MARKET,
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        require_count("players", players)
        check_render_mode(render_mode, self.metadata["render_modes"])
        rules = alone(as_rules(arguments))
        if rules.get("config") is None:
            rules = {"players": players, "impact": SHARED_IMPACT} | rules
        self.env = build_env(players, market, **rules)
        if self.env.config.players != players:
            raise ConfigError(
                f"EnvConfig.players = {self.env.config.players} must be the {players} asked for"
            )
        self.render_mode = render_mode
        self.possible_agents = [f"player_{number}" for number in range(players)]
        self.agents: list[str] = []
        self.observation_names = self.env.observation_names
        self.action_spaces = {agent: action_space(self.env) for agent in self.possible_agents}
        self.observation_spaces = {
            agent: observation_space(self.env) for agent in self.possible_agents
        }
        self.state_space = self._space_of_state()
        self._screen = Screen(self.env, render_mode) if render_mode else None
        self._seen: Observation | None = None
        self._tally = EpisodeTally(self.env)
        self.episode_statistics: dict[str, dict[str, float]] = {}
        self._begun = self._closed = False

    @property
    def statistics(self) -> Averages:
        """What the players' episodes that ended so far came to, on average."""
        return self._tally.averages

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Space of a player's observation, the same object at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Box:
        """Space of a player's action, the same object at every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode with all players; with a seed, the first of that seed.

        The option `start` is a bar or a date to begin at.
        """
        self._check_open()
        where = begin_with(None if options == PETTINGZOO_TEST else options, rows=False)
        check_seed(seed)
        if seed is None and not self._begun:
            seed = int(seeding.np_random()[0].integers(2**32))
        observation = self.env.reset(None if seed is None else int(seed), **where)
        self._seen = observation
        if self._screen is not None:
            self._screen.begin()
        self._begun, self.agents = True, list(self.possible_agents)
        self._tally.begin()
        self.episode_statistics = {}
        infos = self._infos(self.env.tell_start(observation))
        return self._of_agents(self._observations(observation)), self._of_agents(infos)

    def step(
        self, actions: dict[str, Values]
    ) -> tuple[
        dict[str, Any],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Trade every player to its action and move to the next close."""
        self._check_open()
        if self._begun and not self.agents and isinstance(actions, Mapping) and not actions:
            return {}, {}, {}, {}, {}
        transition = self.env.step(torch.from_numpy(self._rows(actions)).to(self.env.tape.device))
        observation, infos = transition.observation, self._infos(self.env.tell(transition))
        self._seen = observation
        if self._screen is not None:
            self._screen.look()
        self._keep_statistics(*self._tally.add(transition, transition.outcome.total_cost))
        ends = (transition.terminated.tolist(), transition.truncated.tolist())
        columns = (self._observations(observation), transition.reward.tolist(), *ends, infos)
        seen, reward, terminated, truncated, info = map(self._of_agents, columns)
        self.agents = [name for name in self.agents if not (terminated[name] or truncated[name])]
        return seen, reward, terminated, truncated, info

    def state(self) -> Any:
        """The market and all portfolios, of players who have left too; a vector [A F + players P].

        For `observation="index"`, the bar and all portfolios [players P].
        """
        if self._seen is None:
            raise ActionError("there is no state yet: call reset() before state()")
        own = self._seen.portfolio.numpy(force=True).astype(np.float32).ravel()
        if self.env.config.observation == "index":
            return {"bar": self._seen.bar[0].numpy(force=True), "portfolio": own}
        columns = self.env.columns(self._seen)[0, : -self.env.portfolio_width]
        return np.concatenate([columns.numpy(force=True).astype(np.float32), own])

    def render(self) -> Any:
        """Pictures of all players' accounts side by side [480, 640 players, 3]."""
        begun, closed = self._begun, self._closed
        frames = rendered(self._screen, self.render_mode, begun=begun, closed=closed)
        return None if frames is None else np.concatenate(frames, axis=1)

    def close(self) -> None:
        """Nothing to release; what follows is an error."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ActionError("the environment is closed: make another")

    def _space_of_state(self) -> spaces.Space[Any]:
        own, players = self.env.portfolio_width, len(self.possible_agents)
        shared = len(self.observation_names) - own
        limits = -FEATURE_LIMIT, FEATURE_LIMIT
        columns = spaces.Box(*limits, (shared + players * own,), np.float32)
        if self.env.config.observation == "index":
            return spaces.Dict({"bar": spaces.Discrete(len(self.env.tape)), "portfolio": columns})
        return columns

    def _rows(self, actions: dict[str, Values]) -> Values:
        """Actions of all players; those who have left hold."""
        if not self.agents:
            raise ActionError("there is no episode under way: call reset() before step()")
        if not isinstance(actions, Mapping) or set(actions) != set(self.agents):
            given = ", ".join(map(str, actions)) if isinstance(actions, Mapping) else repr(actions)
            raise ActionError(f"actions must be of {', '.join(self.agents)}, got {given or 'none'}")
        rows = np.zeros((len(self.possible_agents), self.env.action_width), dtype=np.float32)
        for name, action in actions.items():
            values = numbers_of(action)
            if values.shape != rows.shape[1:] or not says_something(values, self.env.config):
                raise ActionError(
                    f"the action of {name} must be {rows.shape[1]} finite numbers, "
                    f"got {values.tolist()}"
                )
            rows[self.possible_agents.index(name)] = values
        return rows

    def _of_agents(self, values: Sequence[Any]) -> dict[str, Any]:
        """Values [P] of the players who are left, by name."""
        by_name = zip(self.possible_agents, values, strict=True)
        return {name: value for name, value in by_name if name in self.agents}

    def _observations(self, observation: Observation) -> Sequence[Any]:
        rows = self.env.columns(observation).numpy(force=True).astype(np.float32)
        if self.env.config.observation == "index":
            bars = observation.bar.numpy(force=True)
            return [{"bar": bar, "portfolio": row} for bar, row in zip(bars, rows, strict=True)]
        return list(rows)

    def _infos(self, source: Source) -> RowInfos:
        return RowInfos(on_host(source), len(self.possible_agents))

    def _keep_statistics(self, statistics: dict[str, Tensor], ended: Tensor) -> None:
        """Keep what the episodes [P] came to that this step ended."""
        for row in ended.nonzero().flatten().tolist():
            figures = {name: values[row].item() for name, values in statistics.items()}
            self.episode_statistics[self.possible_agents[row]] = figures
