"""A rollout that keeps its way back: steps of the reference, and what they owe to the policy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.core import step
from fastsim.env.state import EnvParams, EnvState
from fastsim.learn.rollout import Rollout, decide, keep, record
from fastsim.policy.policy import Policy, Table


class Path(NamedTuple):
    """What a rollout led through: tensors whose gradients reach the policy."""

    reward: Tensor  # [T, N]
    portfolio: Tensor  # [T + 1, N, P]  before each step, and after the last


def roll_out(
    params: EnvParams,
    state: EnvState,
    policy: Policy,
    table: Table,
    rollout: Rollout,
    generator: torch.Generator,
) -> tuple[EnvState, Path]:
    """Fill `rollout` from where it ended, as `collect` does; returns the last state and the path.

    Gradients flow through holdings, cash and all that follows from them, and through what the
    policy sees of its portfolio. What begins anew owes nothing to what was.
    """
    steps = len(rollout.action)
    record(rollout, 0, rollout.seen(steps))
    known = None
    if rollout.view is None and table.bars <= rollout.reward.numel():
        known = policy.encode_table(table)  # [B, ...]  each bar once for the whole rollout
    seen = rollout.seen(0)
    seen = seen._replace(portfolio=seen.portfolio.clone())  # its place will be written over
    rewards, portfolios = [], [seen.portfolio]
    for number in range(steps):
        output = decide(policy, table, known, seen)
        noise = torch.empty_like(rollout.action[0]).normal_(generator=generator)
        action = torch.addcmul(output.mean, policy.log_std.exp(), noise)
        state, transition = step(params, state, action.to(params.tape.dtype))
        keep(rollout, number, transition)
        with torch.no_grad():
            rollout.action[number], rollout.value[number] = action, output.value
            rollout.log_prob[number] = output.log_prob(action)
        seen = transition.observation
        rewards.append(transition.reward)
        portfolios.append(seen.portfolio)
    return state, Path(torch.stack(rewards), torch.stack(portfolios))


def earnings(path: Path, value: Tensor, rollout: Rollout, discount: float) -> Tensor:
    """What the agents [N] earn, discounted, from the rollout's start and from every restart in it.

    `path.reward` [T, N] and `value` [T + 1, N] of the states before each step and after the last
    are in one unit. A truncated episode ends with the value of its true last state, a terminated
    one with nothing.
    """
    ahead, total = value[-1], torch.zeros_like(value[-1])
    for number in range(len(path.reward) - 1, -1, -1):
        ahead = torch.where(rollout.truncated[number], value[number + 1], ahead)
        ahead = torch.where(rollout.terminated[number], 0.0, ahead)
        ahead = path.reward[number] + discount * ahead
        if number > 0:
            total = total + torch.where(rollout.restarted[number], ahead, 0.0)
    return total + ahead
