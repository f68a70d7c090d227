"""Collecting experience."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.kernels.choose import Room
from fastsim.env.kernels.stepper import Stepper
from fastsim.env.nested import take
from fastsim.env.observe import Observation
from fastsim.env.slots import View
from fastsim.errors import ConfigError
from fastsim.learn.fused.coverage import uncovered_policy
from fastsim.market.tape import MarketTape
from fastsim.policy.make import new_policy
from fastsim.policy.policy import Policy, PolicyOutput, Table
from fastsim.policy.spec import PolicyConfig, make_spec


@configuration
class CollectConfig:
    """How much experience an iteration begins with."""

    num_envs: int = 1024
    """Environments that are stepped side by side."""
    rollout_steps: int = 16
    """Steps that each of them takes."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "rollout_steps"):
            require_between(self, name, 1)

    @property
    def frames(self) -> int:
        """Steps of all environments."""
        return self.num_envs * self.rollout_steps


class Environment(Protocol):
    """What is learned from: a `PortfolioEnv`, or some rows of one."""

    num_envs: int

    @property
    def stepper(self) -> Stepper:
        """Who steps it."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether a step can be recorded as a graph: it leaves everything in its place."""
        ...

    @property
    def tape(self) -> MarketTape:
        """The market."""
        ...

    @property
    def config(self) -> EnvConfig:
        """The rules."""
        ...

    @property
    def action_width(self) -> int:
        """W."""
        ...

    @property
    def portfolio_width(self) -> int:
        """P."""
        ...

    def reset(self, seed: int | None = None) -> Observation:
        """Begin a new episode everywhere."""
        ...

    def room(self, steps: int) -> Room | None:
        """Blocks [steps, N, ...] for what so many steps return, if they can write into them."""
        ...

    def step(self, action: Tensor, into: Room | None = None) -> Transition:
        """Step every row once, into the blocks of one step of a `room` if they are given."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that changes from step to step, in tensors and plain values."""
        ...

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def renew(self) -> Tensor:
        """Draw anew worlds that are used up, where every episode has its own; returns them [K]."""
        ...


class Rollout(NamedTuple):
    """T steps of N environments. Market features are not stored: `bar` finds them.

    The last row of `bar`, `portfolio` and `view` is where the next rollout begins. Where steps can
    write into a room that they are given, `bar` and `portfolio` are its own memory.
    """

    bar: Tensor  # [T + 1, N]  int64
    portfolio: Tensor  # [T + 1, N, P]
    action: Tensor  # [T, N, W]
    log_prob: Tensor  # [T, N]
    value: Tensor  # [T + 1, N]  of the state before each step, and of the last
    reward: Tensor  # [T, N]
    terminated: Tensor  # [T, N]  bool
    truncated: Tensor  # [T, N]  bool
    restarted: Tensor  # [T, N]  bool: the environment ignored this action
    log_growth: Tensor  # [T, N]
    turnover: Tensor  # [T, N]
    cost: Tensor  # [T, N]  relative to wealth before the trade
    view: View | None = None  # [T + 1, N, ...]  of episodes that draw what their agents see
    room: Room | None = None  # [T + 1, N, ...]  what led to each row of `bar`

    @property
    def valid(self) -> Tensor:
        """Steps [T, N] in which the action counted."""
        return ~self.restarted

    def seen(self, step: int) -> Observation:
        """What the agents saw before this step; -1 is where the next rollout begins."""
        return Observation(self.bar[step], self.portfolio[step], view=take(self.view, step))

    def samples(self, steps: int) -> Observation:
        """What they saw before the first `steps` steps, as so many times N observations."""
        view = self.view
        if view is not None:
            view = View(view.slots[:steps].flatten(0, 1), view.volatility[:steps].flatten())
        bar, portfolio = self.bar[:steps].flatten(), self.portfolio[:steps].flatten(0, 1)
        return Observation(bar, portfolio, view=view)


def require_next_step(rules: EnvConfig) -> None:
    """Raise ConfigError unless environments restart at the next step, as `collect` needs."""
    if rules.autoreset != "next_step":
        raise ConfigError('training needs EnvConfig.autoreset = "next_step"')


def begin_policy(env: Environment, config: PolicyConfig, seed: int) -> Policy:
    """A policy for the bars and portfolios of the environment, with weights of this seed.

    Raises
    ------
    ConfigError
        The environment shows windows, which these policies do not look at.
    """
    if env.config.observation == "window":
        raise ConfigError(
            'EnvConfig.observation = "window" is for policies of your own: those trained here look '
            'at the features and forecasts of the bar; use "flat"'
        )
    return new_policy(make_spec(env.tape, env.config, config), env.tape, seed=seed)


def empty_rollout(env: Environment, steps: int) -> Rollout:
    """Room for `steps` steps, to be filled again and again."""
    tape = env.tape

    def room(*extra: int, rows: int = steps, dtype: torch.dtype = tape.dtype) -> Tensor:
        return torch.empty(rows, env.num_envs, *extra, device=tape.device, dtype=dtype)

    view, written = None, env.room(steps + 1)
    if env.config.randomize.shows:
        slots = env.stepper.state.slots.shape[-1]
        view = View(room(slots, rows=steps + 1, dtype=torch.int64), room(rows=steps + 1))
    if written is None:
        bar = room(rows=steps + 1, dtype=torch.int64)
        portfolio = room(env.portfolio_width, rows=steps + 1)
    else:
        bar, portfolio = written.bar, written.seen
    return Rollout(
        bar=bar,
        portfolio=portfolio,
        action=room(env.action_width),
        log_prob=room(),
        value=room(rows=steps + 1),
        reward=room(),
        terminated=room(dtype=torch.bool),
        truncated=room(dtype=torch.bool),
        restarted=room(dtype=torch.bool),
        log_growth=room(),
        turnover=room(),
        cost=room(),
        view=view,
        room=written,
    )


def begin_rollout(rollout: Rollout, observation: Observation) -> None:
    """Let the next rollout begin at this observation."""
    record(rollout, -1, observation)


def record(rollout: Rollout, step: int, observation: Observation) -> None:
    """Keep what the agents see before this step; -1 is where the next rollout begins."""
    rollout.bar[step] = observation.bar
    rollout.portfolio[step] = observation.portfolio
    record_view(rollout, step, observation)


def record_view(rollout: Rollout, step: int, observation: Observation) -> None:
    """Keep how they see the market, where episodes draw that: no room holds it."""
    if rollout.view is not None and observation.view is not None:
        rollout.view.slots[step] = observation.view.slots
        rollout.view.volatility[step] = observation.view.volatility


@torch.no_grad()
def collect(
    env: Environment,
    policy: Policy,
    table: Table,
    rollout: Rollout,
    generator: torch.Generator,
    kept: Kept | None = None,
) -> None:
    """Fill `rollout` by acting from where it ended.

    The environment must restart at the next step, so that the observation after a step is always
    the true last state of an episode and its value needs no second pass.
    """
    assert env.config.autoreset == "next_step"
    steps = len(rollout.action)
    record(rollout, 0, rollout.seen(steps))
    rollout.action.normal_(generator=generator)
    kept = kept or Kept()
    actor, rooms = _actor(policy, table, rollout, kept), kept.rooms_of(rollout)
    with policy.portfolio_moments.held(rollout.portfolio.dtype):
        for step in range(steps):
            actor.act(rollout, step)
            if not rooms:
                keep(rollout, step, env.step(rollout.action[step]))
            else:
                transition = env.step(rollout.action[step], rooms[step + 1])
                record_view(rollout, step + 1, transition.observation)
        actor.judge(rollout)
    if rollout.room is not None:
        keep_all(rollout, rollout.room)


class _Actor(Protocol):
    """Who acts in a rollout."""

    def act(self, rollout: Rollout, step: int) -> None:
        """Make actions of the noise in their place at a step; fill in values and log densities."""
        ...

    def judge(self, rollout: Rollout) -> None:
        """Fill in the values of the state after the last step, and whatever is not there yet."""
        ...


class Kept:
    """What whoever acts by hand works in, from one rollout to the next; copies begin without."""

    def __init__(self) -> None:
        self.acting: Any = None
        self._room: Room | None = None
        self._rooms: list[Room] = []

    def __getstate__(self) -> dict[str, Any]:
        """Tensors and arrays in it share memory."""
        return vars(Kept())

    def rooms_of(self, rollout: Rollout) -> list[Room]:
        """The room of a rollout, step by step; nothing where it has none."""
        room = rollout.room
        if room is not self._room:
            each = [] if room is None else [take(room, step) for step in range(len(rollout.bar))]
            self._room, self._rooms = room, each
        return self._rooms


def _actor(policy: Policy, table: Table, rollout: Rollout, kept: Kept) -> _Actor:
    """The policy by hand, where that is known, or as a module."""
    at_once = rollout.view is None and table.bars <= rollout.reward.numel()
    if uncovered_policy(policy, table) or torch.is_autocast_enabled(table.rows.device.type):
        known = policy.encode_table(table) if at_once else None
        return _Module(policy, table, known, torch.empty_like(rollout.action))
    sizes = (policy, table, len(rollout.bar[0]))
    if kept.acting is None or not kept.acting.fits(*sizes, at_once=at_once):
        # Imported when it is wanted, as kernels are: numba alone takes half a second.
        make = import_module("fastsim.learn.fused.acting").Acting
        kept.acting = make(*sizes, at_once=at_once)
    kept.acting.begin()
    acting: _Actor = kept.acting
    return acting


class _Module(NamedTuple):
    """The policy as a module."""

    policy: Policy
    table: Table
    known: Tensor | None  # [B, ...]  each bar once for the whole rollout
    means: Tensor  # [T, N, W]

    def act(self, rollout: Rollout, step: int) -> None:
        """Actions and values; log densities wait for the others."""
        output = decide(self.policy, self.table, self.known, rollout.seen(step))
        self.means[step], rollout.value[step] = output.mean, output.value
        action = rollout.action[step]
        torch.addcmul(output.mean, output.log_std.exp(), action, out=action)

    def judge(self, rollout: Rollout) -> None:
        """The last values, and log densities of all steps."""
        last = decide(self.policy, self.table, self.known, rollout.seen(-1))
        rollout.value[-1] = last.value
        said = PolicyOutput(self.means, self.policy.log_std, rollout.value[:-1])
        rollout.log_prob.copy_(said.log_prob(rollout.action))


def decide(policy: Policy, table: Table, known: Tensor | None, seen: Observation) -> PolicyOutput:
    """What the policy says to what is seen, from market parts `known` [B, ...] if they are."""
    if known is None:
        market = policy.look_up(table, seen.bar, seen.view)
    else:
        market = policy.pick(known, table.place(seen.bar))
    output: PolicyOutput = policy(market, seen.portfolio)
    return output


@torch.no_grad()
def keep(rollout: Rollout, step: int, transition: Transition) -> None:
    """Keep what came of one step."""
    record(rollout, step + 1, transition.observation)
    for name, values in _figures(transition).items():
        getattr(rollout, name)[step] = values


def keep_all(rollout: Rollout, room: Room) -> None:
    """Keep what came of all steps, which have written it into the room, at once."""
    rows = Room(*(block[1:].flatten(0, 1) for block in room))  # [T N, ...]
    for name, values in _figures(rows.transition(rollout.portfolio.shape[-1])).items():
        column = getattr(rollout, name)
        column.copy_(values.view_as(column))


def _figures(transition: Transition) -> dict[str, Tensor]:
    """What a rollout keeps of a step's outcome, each [N]."""
    outcome, ignored = transition.outcome, transition.ignored
    growth = torch.where(ignored, 1.0, outcome.wealth / outcome.wealth_before)
    fill = outcome.wealth_at_fill
    return {
        "reward": transition.reward,
        "terminated": transition.terminated,
        "truncated": transition.truncated,
        "restarted": ignored,
        "log_growth": growth.clamp_min(1e-6).log(),
        "turnover": outcome.turnover,
        "cost": torch.where(fill > 0, outcome.total_cost / fill, 0.0),
    }
