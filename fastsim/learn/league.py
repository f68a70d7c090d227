"""Self-play: one policy learns in markets that it shares with its past selves and scripted players.

`LeagueEnv` shows a trainer the first row of each market; who plays the others acts inside its step.
Playing against a pool of past selves, not the latest alone, keeps the learner from chasing its own
tail (Vinyals et al. 2019 call it a league; fictitious self-play, Heinrich et al. 2015).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.decide import Decider, Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.choose import Room
from fastsim.env.kernels.stepper import Stepper
from fastsim.env.nested import flatten, take, unflatten
from fastsim.env.observe import Observation
from fastsim.errors import CheckpointError, ConfigError
from fastsim.learn.snapshot import Snapshot
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape
from fastsim.policy.policy import Policy


@configuration
class LeagueConfig:
    """Who plays against the learner."""

    snapshot_every: int = 10
    """Iterations between the learner's entries into the league."""
    keep: int = 8
    """Snapshots in the league; the oldest leave."""
    scripted_share: float = 0.5
    """Share of the seats that scripted players take."""

    def __post_init__(self) -> None:
        require_between(self, "snapshot_every", 1)
        require_between(self, "keep", 1)
        require_between(self, "scripted_share", 0, 1)


class LeagueEnv:
    """The learner's row of each of M markets; others, and its past selves, play the rest.

    Parameters
    ----------
    env
        M markets of `config.players` each, at least two.
    scripted
        Who plays from the beginning, at least one; with equal chances.
    """

    def __init__(
        self, env: PortfolioEnv, scripted: Sequence[Decider], config: LeagueConfig, *, seed: int = 0
    ) -> None:
        players = env.config.players
        if env.worlds is not None:
            raise ConfigError(
                "a league's snapshots know one history by heart: give it a tape, not FreshWorlds"
            )
        if env.config.autoreset != "next_step":
            raise ConfigError('a league needs EnvConfig.autoreset = "next_step"')
        if players < 2 or not scripted:
            raise ConfigError(
                f"a league needs EnvConfig.players >= 2 and a scripted player, "
                f"got {players} and {len(scripted)}"
            )
        self.env, self.league = env, config
        self.scripted = [Seat(player, env.tape, env.config) for player in scripted]
        self.num_envs = env.num_envs // players
        self.snapshots: list[Seat[Snapshot]] = []
        self._generator = torch.Generator().manual_seed(seed)
        rows = torch.arange(env.num_envs, device=env.tape.device)
        self.rows, self._others = rows[::players], rows[rows % players > 0]  # [M], [M (P - 1)]
        self._seen = env.reset(seed)
        self.seat()

    @property
    def tape(self) -> MarketTape:
        """The market."""
        return self.env.tape

    @property
    def config(self) -> EnvConfig:
        """The rules."""
        return self.env.config

    @property
    def action_width(self) -> int:
        """W."""
        return self.env.action_width

    @property
    def portfolio_width(self) -> int:
        """P."""
        return self.env.portfolio_width

    @property
    def capturable(self) -> bool:
        """Never: who sits where changes between rollouts, and a recorded one would not know."""
        return False

    @property
    def stepper(self) -> Stepper:
        """Who steps all players."""
        return self.env.stepper

    def state_dict(self) -> dict[str, Any]:
        """All that changes: the markets, the league, who sits where, knows what, and comes next."""
        return {
            "env": self.env.state_dict(),
            "seen": flatten(self._seen._replace(flat=None)),
            "snapshots": [seat.decider.saved for seat in self.snapshots],
            "seats": self._who,
            "memories": [flatten(seat.memory) for seat, _ in self._seated()],
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of a league made alike returned.

        Raises
        ------
        CheckpointError
            It is the state of another league.
        """
        self.env.load_state_dict(saved["env"])
        self._seen = unflatten(self._seen._replace(flat=None), saved["seen"])
        self.snapshots = [self._admit(Snapshot.of(each)) for each in saved["snapshots"]]
        self._generator.set_state(saved["generator"].cpu())
        who, members = saved["seats"], len(self.scripted) + len(self.snapshots)
        if len(who) != len(self._others) or not bool(((who >= 0) & (who < members)).all()):
            raise CheckpointError(
                f"the saved seats are not {len(self._others)} among {members} players"
            )
        self._sit(who)
        for (seat, _), memory in zip(self._seated(), saved["memories"], strict=True):
            seat.memory = unflatten(seat.memory, memory)

    def add(self, policy: Policy) -> None:
        """Let the policy as it is now into the league, in place of the oldest if it is full."""
        kept = self.snapshots[-(self.league.keep - 1) :] if self.league.keep > 1 else []
        self.snapshots = [*kept, self._admit(Snapshot(policy))]

    def seat(self) -> None:
        """Draw who plays each row that is not the learner's, from now on."""
        count, scripted = len(self._others), len(self.scripted)
        draw = torch.rand(2, count, generator=self._generator)
        by_rule = draw[0] < (self.league.scripted_share if self.snapshots else 1.0)
        by_snapshot = scripted + draw[1] * len(self.snapshots)
        self._sit(torch.where(by_rule, draw[1] * scripted, by_snapshot).long())

    def _sit(self, who: Tensor) -> None:
        """Seat these players, scripted ones before snapshots, on the rows [M (P - 1)]."""
        self._who = who.to(self.rows.device)
        members = range(len(self.scripted) + len(self.snapshots))
        seats = [(member, self._others[self._who == member]) for member in members]
        self.seats = [(member, rows) for member, rows in seats if len(rows)]
        for seat, rows in self._seated():
            seat.begin(len(rows))

    def _admit(self, snapshot: Snapshot) -> Seat[Snapshot]:
        return Seat(snapshot, self.tape, self.config)

    def _seated(self) -> Iterator[tuple[Seat[Any], Tensor]]:
        """Who plays now, and the rows."""
        players: list[Seat[Any]] = [*self.scripted, *self.snapshots]
        return ((players[member], rows) for member, rows in self.seats)

    def reset(self, seed: int | None = None) -> Observation:
        """Begin everywhere; returns what the learner sees."""
        self._seen = self.env.reset(seed)
        for seat, rows in self._seated():
            seat.begin(len(rows))
        return take(self._seen, self.rows)

    def room(self, steps: int) -> None:
        """None: the learner's rows lie among those of all players."""

    @torch.no_grad()
    def step(self, action: Tensor, into: Room | None = None) -> Transition:
        """Step all players, the learner by its actions [M, W]; returns its rows."""
        assert into is None, "there is no room"
        transition = self.env.step(self.actions(action))
        self._seen = transition.observation
        for seat, rows in self._seated():
            seat.restart(transition.restarted[rows])
        return take(transition, self.rows)

    def renew(self) -> Tensor:
        """No worlds [0]: a league has one market."""
        return self.env.renew()

    def actions(self, action: Tensor) -> Tensor:
        """Actions of all players [N, W], the learner's [M, W] among them."""
        every = action.new_empty(self.env.num_envs, self.action_width)
        every[self.rows] = action
        for seat, rows in self._seated():
            every[rows] = seat(take(self._seen, rows)).to(action.dtype)
        return every


def train_league(trainer: Trainer, league: LeagueEnv, iterations: int) -> None:
    """Train; the learner joins the league every few iterations, and all seats are drawn anew."""
    for _ in range(iterations):
        if trainer.iteration % league.league.snapshot_every == 0:
            league.add(trainer.policy)
            league.seat()
        trainer.advance()


def play_match(
    tape: MarketTape,
    players: Sequence[Decider],
    config: EnvConfig,
    *,
    markets: int = 64,
    seed: int = 0,
) -> Tensor:
    """Mean log growth per bar of each player [P], all of them together in each of the markets.

    Each market plays one episode. Growth is of liquidation value; a ruined player's last step
    counts as the loss of all but a millionth.
    """
    config = replace(config, players=len(players))
    env = PortfolioEnv(tape, markets * len(players), config, seed=seed)
    seen, rows = env.reset(seed), torch.arange(markets, device=tape.device) * len(players)
    seats = [Seat(player, tape, config, rows=markets) for player in players]
    over = torch.zeros(env.num_envs, dtype=torch.bool, device=tape.device)
    growth, steps = seen.portfolio.new_zeros(2, env.num_envs)
    for _ in range(config.episode.horizon or tape.last - tape.first):
        action = seen.portfolio.new_empty(env.num_envs, env.action_width)
        for number, seat in enumerate(seats):
            mine = rows + number
            action[mine] = seat(take(seen, mine)).to(action.dtype)
        transition = env.step(action)
        outcome, seen = transition.outcome, transition.observation
        counts = ~(over | transition.ignored)
        change = (outcome.wealth / outcome.wealth_before).clamp_min(1e-6).log()
        growth += torch.where(counts, change, 0.0)
        steps += counts
        over |= transition.truncated | transition.restarted
    mean: Tensor = (growth / steps.clamp_min(1.0)).view(markets, -1).mean(0)
    return mean
