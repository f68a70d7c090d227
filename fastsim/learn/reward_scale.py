"""Rewards in a unit of their own, so that values are of order one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastsim.learn.advantage import fused_sums
from fastsim.learn.rollout import Rollout
from fastsim.policy.normalize import RunningMoments


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
        sums = fused_sums(
            rollout.reward, rollout.terminated, rollout.truncated, discount, self.running
        )
        self.moments.update(sums.view(-1, 1), rollout.valid.view(-1))
        scaled: Tensor = self(rollout.reward)
        return scaled

    def forward(self, reward: Tensor) -> Tensor:
        """Rewards [...] in that unit."""
        return reward / self.moments.std.to(reward.dtype)
