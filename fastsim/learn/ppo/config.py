"""Settings of PPO."""

from __future__ import annotations

from typing import Literal

from fastsim.config import configuration, require_between, require_choice
from fastsim.errors import ConfigError
from fastsim.learn.optimizer import falling
from fastsim.learn.rollout import CollectConfig


@configuration
class PPOConfig:
    """What PPO makes of a rollout: epochs of minibatch updates."""

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
        for name in ("epochs", "minibatches"):
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


def check_minibatches(config: PPOConfig, collect: CollectConfig) -> None:
    """Raise ConfigError if a rollout has fewer samples than there are to be minibatches."""
    if config.minibatches > collect.frames:
        raise ConfigError(
            f"PPOConfig.minibatches = {config.minibatches} exceeds the {collect.frames} samples of "
            f"an iteration"
        )


def learning_rate(config: PPOConfig, done: float) -> float:
    """Learning rate after a share `done` in [0, 1] of the run."""
    return falling(config.learning_rate, config.schedule, done)
