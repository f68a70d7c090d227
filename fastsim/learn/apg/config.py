"""Settings of the analytic policy gradient."""

from __future__ import annotations

from typing import Literal

from fastsim.config import configuration, require_between, require_choice


@configuration
class APGConfig:
    """One step along the gradient per rollout, then some that fit the values at its end."""

    learning_rate: float = 1e-2
    critic_rate: float = 1e-2
    """Learning rate of the values."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How both learning rates fall to zero over the run."""
    discount: float = 0.95
    trace: float = 0.95
    """Lambda of the returns that values are fitted to."""
    critic_steps: int = 8
    """Steps of the values after each rollout, on all of its samples."""
    target_rate: float = 0.5
    """Share of the way to the latest values that those at the end of a rollout go after each."""
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        require_between(self, "critic_steps", 1)
        for name in ("learning_rate", "critic_rate", "max_grad_norm"):
            require_between(self, name, 0, open_low=True)
        for name in ("discount", "trace"):
            require_between(self, name, 0, 1)
        require_between(self, "target_rate", 0, 1, open_low=True)
        require_choice(self, "schedule")
