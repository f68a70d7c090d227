"""Proximal policy optimisation (Schulman et al. 2017), on the device where the market lies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastsim.config import require_between, require_choice
from fastsim.env.nested import copy
from fastsim.env.slots import View
from fastsim.errors import ConfigError
from fastsim.learn.advantage import fused_gae
from fastsim.learn.rollout import Rollout
from fastsim.policy.network import MarketTable, Policy
from fastsim.policy.normalize import RunningMoments


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig:
    """Hyper-parameters of one iteration: a rollout, then epochs of minibatch updates."""

    num_envs: int = 1024
    rollout_steps: int = 16
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls to zero over the run."""
    discount: float = 0.95
    trace: float = 0.9
    """Lambda of generalised advantage estimation."""
    clip: float = 0.2
    value_clip: float | None = None
    """Clip value updates to this distance too, in units of the scaled reward; None does not."""
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    max_grad_norm: float = 0.5
    target_kl: float | None = 0.03
    """End an iteration's updates once the policy has moved this far; None never does."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products; log-probabilities, values and the optimiser are float32 in any case."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "rollout_steps", "epochs", "minibatches"):
            require_between(self, name, 1)
        for name in ("learning_rate", "clip", "max_grad_norm"):
            require_between(self, name, 0, open_low=True)
        for name in ("discount", "trace"):
            require_between(self, name, 0, 1)
        for name in ("value_weight", "entropy_weight"):
            require_between(self, name, 0)
        for name in ("value_clip", "target_kl"):
            if getattr(self, name) is not None:
                require_between(self, name, 0, open_low=True)
        for name in ("schedule", "precision"):
            require_choice(self, name)
        if self.minibatches > self.num_envs * self.rollout_steps:
            raise ConfigError(
                f"PPOConfig.minibatches = {self.minibatches} exceeds the "
                f"{self.num_envs * self.rollout_steps} samples of an iteration"
            )


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


class RewardScale(nn.Module):
    """Divides rewards by the running deviation of their discounted sums.

    Values are then of order one whatever the reward. The mean is left alone: shifting rewards
    would change the task.
    """

    running: Tensor  # [N]

    def __init__(self, num_envs: int, device: torch.device) -> None:
        super().__init__()
        self.moments = RunningMoments(1, device=device)
        self.register_buffer("running", torch.zeros(num_envs, dtype=torch.float64, device=device))

    @torch.no_grad()
    def update(self, rollout: Rollout, discount: float) -> Tensor:
        """Take in a rollout's rewards and return them scaled [T, N]."""
        sums = []
        for step, reward in enumerate(rollout.reward):
            self.running.mul_(discount).add_(reward)
            sums.append(self.running.clone())
            ended = rollout.terminated[step] | rollout.truncated[step]
            self.running.masked_fill_(ended, 0.0)
        self.moments.update(torch.stack(sums).view(-1, 1), rollout.valid.view(-1))
        return rollout.reward / self.moments.std.to(rollout.reward.dtype)


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
        view=copy(_samples(rollout.view)),
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
    return Batch(
        bar=rollout.bar[:-1].flatten(),
        portfolio=rollout.portfolio[:-1].flatten(0, 1),
        action=rollout.action.flatten(0, 1),
        log_prob=rollout.log_prob.flatten(),
        value=rollout.value[:-1].flatten(),
        advantage=((advantage - mean) / (deviation + 1e-8)).flatten(),
        value_target=target.flatten(),
        valid=valid.flatten(),
        view=_samples(rollout.view),
    )


def _samples(view: View | None) -> View | None:
    """The views [T + 1, N, ...] of a rollout as those [T N, ...] of its samples."""
    if view is None:
        return None
    return View(view.slots[:-1].flatten(0, 1), view.volatility[:-1].flatten())


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
    device = policy.log_std.device
    rate = torch.tensor(config.learning_rate, device=device)
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate, eps=1e-5, fused=True)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    _skip_if(optimizer, torch.ones((), device=device))
    optimizer.step()
    return optimizer


def matmul_precision(config: PPOConfig, device: torch.device) -> torch.autocast:
    """Within this context matrix products run in the precision of the configuration."""
    wanted = config.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def ppo_losses(policy: Policy, table: MarketTable, batch: Batch, config: PPOConfig) -> Losses:
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
    table: MarketTable,
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


def learning_rate(config: PPOConfig, done: float) -> float:
    """Learning rate after a share `done` in [0, 1] of the run."""
    if config.schedule == "linear":
        return config.learning_rate * (1.0 - done)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate


def explained_variance(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Share [] of the targets' variance that the values explain; 1 is perfect, 0 a constant."""
    residual = target - prediction
    spread = mean_where((target - mean_where(target, valid)).square(), valid)
    unexplained = mean_where((residual - mean_where(residual, valid)).square(), valid)
    return 1.0 - unexplained / spread.clamp_min(1e-12)


def mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Mean [] of `values` where `valid` is 1, both of one shape."""
    return (values * valid).sum() / valid.sum().clamp_min(1.0)
