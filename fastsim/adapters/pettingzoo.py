"""PettingZoo: the players of one shared market, in NumPy. Needs `fastsim-rl[pettingzoo]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from fastsim.adapters.build import MarketSource, build_env
from fastsim.adapters.gym_env import (
    SHARED_IMPACT,
    action_space,
    observation_space,
    says_something,
)
from fastsim.adapters.options import begin_with
from fastsim.env.info import RowInfos, Source, on_host
from fastsim.env.observe import Observation
from fastsim.errors import ActionError, ConfigError

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
    player raise ActionError, and so does a step after the episode's end.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "fastsim_shared_market_v0",
        "render_modes": [],
        "is_parallelizable": True,
    }

    def __init__(
        self,
        players: int = 2,
        market: MarketSource = "us20",
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if "config" not in arguments:
            arguments = {"players": players, "impact": SHARED_IMPACT} | arguments
        self.env = build_env(players, market, **arguments)
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
        self._begun = False

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
        if options == PETTINGZOO_TEST:
            options = None
        where = begin_with(options, rows=False)
        if seed is None and not self._begun:
            seed = int(seeding.np_random()[0].integers(2**32))
        observation = self.env.reset(seed, **where)
        self._begun, self.agents = True, list(self.possible_agents)
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
        transition = self.env.step(torch.from_numpy(self._rows(actions)).to(self.env.tape.device))
        observation, infos = transition.observation, self._infos(self.env.tell(transition))
        ends = (transition.terminated.tolist(), transition.truncated.tolist())
        columns = (self._observations(observation), transition.reward.tolist(), *ends, infos)
        seen, reward, terminated, truncated, info = map(self._of_agents, columns)
        self.agents = [name for name in self.agents if not (terminated[name] or truncated[name])]
        return seen, reward, terminated, truncated, info

    def render(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to release."""

    def _rows(self, actions: dict[str, Values]) -> Values:
        """Actions of all players; those who have left hold."""
        if not self.agents:
            raise ActionError("there is no episode under way: call reset() before step()")
        if set(actions) != set(self.agents):
            raise ActionError(
                f"actions must be of {', '.join(self.agents)}, got {', '.join(actions) or 'none'}"
            )
        rows = np.zeros((len(self.possible_agents), self.env.action_width), dtype=np.float32)
        for name, action in actions.items():
            values = np.asarray(action, dtype=np.float32)
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
