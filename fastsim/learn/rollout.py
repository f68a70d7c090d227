"""Collecting experience."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.env.core import EnvConfig, Transition
from fastsim.env.kernels.stepper import Stepper
from fastsim.env.observe import Observation
from fastsim.learn.policy import MarketTable, Policy
from fastsim.market.tape import MarketTape


class Environment(Protocol):
    """What is learned from: a `PortfolioEnv`, or some rows of one."""

    num_envs: int
    stepper: Stepper

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

    def step(self, action: Tensor) -> Transition:
        """Step every row once."""
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

    The last row of `bar` and `portfolio` is where the next rollout begins.
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

    @property
    def valid(self) -> Tensor:
        """Steps [T, N] in which the action counted."""
        return ~self.restarted


def empty_rollout(env: Environment, steps: int) -> Rollout:
    """Room for `steps` steps, to be filled again and again."""
    tape = env.tape

    def room(*extra: int, rows: int = steps, dtype: torch.dtype = tape.dtype) -> Tensor:
        return torch.empty(rows, env.num_envs, *extra, device=tape.device, dtype=dtype)

    return Rollout(
        bar=room(rows=steps + 1, dtype=torch.int64),
        portfolio=room(env.portfolio_width, rows=steps + 1),
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
    )


def begin_rollout(rollout: Rollout, observation: Observation) -> None:
    """Let the next rollout begin at this observation."""
    rollout.bar[-1] = observation.bar
    rollout.portfolio[-1] = observation.portfolio


@torch.no_grad()
def collect(
    env: Environment,
    policy: Policy,
    table: MarketTable,
    rollout: Rollout,
    generator: torch.Generator,
) -> None:
    """Fill `rollout` by acting from where it ended.

    The environment must restart at the next step, so that the observation after a step is always
    the true last state of an episode and its value needs no second pass.
    """
    assert env.config.autoreset == "next_step"
    steps = len(rollout.action)
    known = None
    if len(table.rows) <= steps * env.num_envs:
        known = policy.encode(table.rows)  # [B, 2 hidden]  each bar once for the whole rollout

    def market(bar: Tensor) -> Tensor:
        return policy.look_up(table, bar) if known is None else known[bar - table.first]

    rollout.bar[0] = rollout.bar[steps]
    rollout.portfolio[0] = rollout.portfolio[steps]
    noise = torch.empty_like(rollout.action[0])
    deviation = policy.log_std.exp()
    for step in range(steps):
        output = policy(market(rollout.bar[step]), rollout.portfolio[step])
        noise.normal_(generator=generator)
        action = torch.addcmul(output.mean, deviation, noise)
        transition = env.step(action)
        outcome = transition.outcome
        ignored, fill = transition.ignored, outcome.wealth_at_fill
        growth = torch.where(ignored, 1.0, outcome.wealth / outcome.wealth_before)
        rollout.bar[step + 1] = transition.observation.bar
        rollout.portfolio[step + 1] = transition.observation.portfolio
        record = {
            "action": action,
            "log_prob": output.log_prob(action),
            "value": output.value,
            "reward": transition.reward,
            "terminated": transition.terminated,
            "truncated": transition.truncated,
            "restarted": ignored,
            "log_growth": growth.clamp_min(1e-6).log(),
            "turnover": outcome.turnover,
            "cost": torch.where(fill > 0, outcome.all_costs.total / fill, 0.0),
        }
        for name, values in record.items():
            getattr(rollout, name)[step] = values
    rollout.value[steps] = policy(market(rollout.bar[steps]), rollout.portfolio[steps]).value
