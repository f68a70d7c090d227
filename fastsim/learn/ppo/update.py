"""From a rollout to batches, and from a minibatch to a step of the optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.env.nested import copy
from fastsim.env.slots import View
from fastsim.learn.advantage import fused_gae
from fastsim.learn.figures import mean_where
from fastsim.learn.optimizer import adam
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import Rollout
from fastsim.policy.policy import Policy, Table


class Batch(NamedTuple):
    """Samples of a rollout, flattened to M = T N rows."""

    bar: Tensor  # [M]
    portfolio: Tensor  # [M, P]
    action: Tensor  # [M, W]
    log_prob: Tensor  # [M]
    value: Tensor  # [M]
    advantage: Tensor  # [M]  standardised over the batch
    value_target: Tensor  # [M]
    valid: Tensor  # [M]  1 where the action counted, else 0
    view: View | None = None  # [M, ...]  of episodes that draw what their agents see


class Losses(NamedTuple):
    """Means over the valid samples of a minibatch."""

    policy: Tensor  # []
    value: Tensor  # []
    entropy: Tensor  # []
    kl: Tensor  # []  estimate of KL(old || new): mean of (ratio - 1) - log ratio
    clip_fraction: Tensor  # []


def empty_batch(rollout: Rollout) -> Batch:
    """Room for the samples of a rollout."""

    def room(column: Tensor) -> Tensor:
        return torch.zeros_like(column.flatten(0, 1))

    return Batch(
        bar=room(rollout.bar[1:]),
        portfolio=room(rollout.portfolio[1:]),
        action=room(rollout.action),
        log_prob=room(rollout.log_prob),
        value=room(rollout.reward),
        advantage=room(rollout.reward),
        value_target=room(rollout.reward),
        valid=room(rollout.reward),
        view=copy(rollout.samples(len(rollout.action)).view),
    )


def make_batch(rollout: Rollout, reward: Tensor, config: PPOConfig) -> Batch:
    """Estimate advantages from scaled rewards [T, N] and flatten everything."""
    advantage = fused_gae(
        reward,
        rollout.value,
        rollout.terminated,
        rollout.truncated,
        discount=config.discount,
        trace=config.trace,
    )
    target = advantage + rollout.value[:-1]
    valid = rollout.valid.to(reward.dtype)
    mean = mean_where(advantage, valid)
    deviation = mean_where((advantage - mean).square(), valid).sqrt()
    seen = rollout.samples(len(reward))
    return Batch(
        bar=seen.bar,
        portfolio=seen.portfolio,
        action=rollout.action.flatten(0, 1),
        log_prob=rollout.log_prob.flatten(),
        value=rollout.value[:-1].flatten(),
        advantage=((advantage - mean) / (deviation + 1e-8)).flatten(),
        value_target=target.flatten(),
        valid=valid.flatten(),
        view=seen.view,
    )


class Tally(NamedTuple):
    """What an iteration's updates leave behind, on the device."""

    sums: Tensor  # [5]  of the minibatches' `Losses`
    terms: Tensor  # []  minibatches in them
    stopped: Tensor  # []  1 once the policy has moved too far, else 0

    @property
    def means(self) -> Tensor:
        """Means [5] over the minibatches."""
        return self.sums / self.terms


def empty_tally(device: torch.device) -> Tally:
    """Nothing yet."""
    return Tally(*(torch.zeros(shape, device=device) for shape in (5, (), ())))


def make_optimizer(policy: Policy, config: PPOConfig) -> torch.optim.Adam:
    """Adam whose learning rate and step stay on the device; its moments exist from the start."""
    optimizer = adam(policy.parameters(), config.learning_rate)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        taken = torch.zeros((), device=parameter.device)
        optimizer.state[parameter] = {"step": taken, **moments}
    return optimizer


def matmul_precision(config: PPOConfig, device: torch.device) -> torch.autocast:
    """Within this context matrix products run in the precision of the configuration."""
    wanted = config.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def ppo_losses(policy: Policy, table: Table, batch: Batch, config: PPOConfig) -> Losses:
    """Clipped surrogate and value losses of a minibatch."""
    with matmul_precision(config, batch.bar.device):
        output = policy(policy.look_up(table, batch.bar, batch.view), batch.portfolio)
    log_ratio = output.log_prob(batch.action) - batch.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    surrogate = torch.minimum(ratio * batch.advantage, clipped * batch.advantage)
    error = (output.value - batch.value_target).square()
    if config.value_clip is not None:
        near = batch.value + (output.value - batch.value).clamp(
            -config.value_clip, config.value_clip
        )
        error = torch.maximum(error, (near - batch.value_target).square())
    with torch.no_grad():
        kl = mean_where(ratio - 1.0 - log_ratio, batch.valid)
        outside = ((ratio - 1.0).abs() > config.clip).to(ratio.dtype)
    return Losses(
        policy=-mean_where(surrogate, batch.valid),
        value=mean_where(error, batch.valid),
        entropy=output.entropy(),
        kl=kl,
        clip_fraction=mean_where(outside, batch.valid),
    )


def learn(
    policy: Policy,
    optimizer: torch.optim.Adam,
    table: Table,
    batch: Batch,
    config: PPOConfig,
    tally: Tally,
) -> None:
    """Take one step on a minibatch, unless the policy has moved too far; reads nothing back.

    The minibatch on which the divergence passes its target still counts in the tally.
    """
    losses = ppo_losses(policy, table, batch, config)
    counts = 1.0 - tally.stopped
    if config.target_kl is not None:
        tally.stopped.copy_(torch.maximum(tally.stopped, (losses.kl > config.target_kl).float()))
    total = (
        losses.policy + config.value_weight * losses.value - config.entropy_weight * losses.entropy
    )
    optimizer.zero_grad(set_to_none=False)
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    _skip_if(optimizer, tally.stopped)
    optimizer.step()
    tally.sums.add_(counts * torch.stack(losses).detach())
    tally.terms.add_(counts)


def minibatches(size: int, config: PPOConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of every minibatch of every epoch, of equal size; what does not fill one is left out."""
    rows = size // config.minibatches
    for _ in range(config.epochs):
        order = torch.randperm(size, generator=generator, device=generator.device)
        yield from order[: rows * config.minibatches].view(-1, rows)


def _skip_if(optimizer: torch.optim.Adam, stopped: Tensor) -> None:
    """Let the next step change nothing where `stopped` [] is 1, without reading it back.

    It is how gradient scaling tells a fused optimiser that a gradient was infinite.
    """
    optimizer.found_inf = stopped  # type: ignore[attr-defined]
