"""Settings of SAC."""

from __future__ import annotations

from typing import Literal

from fastsim.config import configuration, require_between, require_choice
from fastsim.env.actions import ACTIONS
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.learn.rollout import CollectConfig


@configuration
class SACConfig:
    """What is kept of experience, and how much is made of it after each rollout."""

    capacity: int = 131_072
    """Steps that are kept; the oldest leave."""
    updates: int = 32
    """Steps of critics, actor and temperature after each rollout."""
    batch_size: int = 512
    """Kept steps that an update is made from."""
    learning_rate: float = 3e-3
    """Of the actor and the temperature."""
    critic_rate: float = 3e-3
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rates fall to zero over the run."""
    discount: float = 0.95
    target_rate: float = 0.02
    """Share of the way to the critics that their slow averages go at each update."""
    temperature: float = 0.01
    """What a unit of entropy is worth at the start, in units of the scaled reward."""
    target_entropy: float = -2.0
    """Entropy that the temperature holds exploration to, in nats for each number that is chosen; 0
    is that of all admissible portfolios being as likely as any other."""
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("capacity", "updates", "batch_size"):
            require_between(self, name, 1)
        for name in ("learning_rate", "critic_rate", "temperature", "max_grad_norm"):
            require_between(self, name, 0, open_low=True)
        require_between(self, "discount", 0, 1)
        require_between(self, "target_rate", 0, 1, open_low=True)
        require_between(self, "target_entropy", -20, 20)
        require_choice(self, "schedule")


def check_capacity(config: SACConfig, collect: CollectConfig) -> None:
    """Raise ConfigError if not even one rollout can be kept."""
    if config.capacity < collect.frames:
        raise ConfigError(
            f"SACConfig.capacity = {config.capacity} does not hold the {collect.frames} steps of "
            f"one iteration"
        )


def check_action(rules: EnvConfig) -> None:
    """Raise ConfigError for actions that ask for more than the weights that critics see."""
    if ACTIONS.find(rules.action).brackets:
        raise ConfigError(
            f"SAC's critics see weights alone, and EnvConfig.action = {rules.action!r} asks for "
            f"distances of stops and targets as well: use another algorithm, such as ppo"
        )
