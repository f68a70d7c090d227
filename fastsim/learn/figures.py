"""What an iteration is judged by: numbers [] that stay on the device until somebody reads them."""

from __future__ import annotations

from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.env.portfolio_columns import portfolio_names
from fastsim.learn.rollout import Environment, Rollout
from fastsim.stats.metrics import periods_per_year

Figures = dict[str, Tensor]
"""Scalars [] by name, such as "rollout/reward"; the part before the slash groups them."""


EPISODE = "episode/"
"""Group of the figures of episodes."""


def read(figures: Figures) -> dict[str, float]:
    """The same on the host, read at once; those of episodes only where one has ended."""
    if not figures:
        return {}
    values = torch.stack(list(figures.values())).tolist()
    named = zip(figures, values, strict=True)
    return {name: value for name, value in named if not (name.startswith(EPISODE) and isnan(value))}


class Units(NamedTuple):
    """What a market's figures are read by."""

    drawdown: int  # its column of the portfolio
    bars_per_year: float


def units_of(env: Environment) -> Units:
    """Those of this environment: bars a year by the stamps of its tape's first world."""
    tape = env.tape
    return Units(
        drawdown=portfolio_names(tape, env.config).index("drawdown"),
        bars_per_year=periods_per_year(tape.timestamps[: tape.bars_per_world]),
    )


def rollout_figures(rollout: Rollout, units: Units) -> Figures:
    """Means over the valid steps of a rollout; the Sharpe ratio pools all environments."""
    valid = rollout.valid.to(rollout.reward.dtype)
    growth = mean_where(rollout.log_growth, valid)
    deviation = mean_where((rollout.log_growth - growth).square(), valid).sqrt()
    return {
        "rollout/reward": mean_where(rollout.reward, valid),
        "rollout/sharpe_ratio": growth / deviation * units.bars_per_year**0.5,
        "rollout/drawdown": mean_where(rollout.portfolio[:-1, :, units.drawdown], valid),
        "rollout/turnover": mean_where(rollout.turnover, valid),
        "rollout/cost_bps": mean_where(rollout.cost, valid) * 1e4,
    }


class Episodes(nn.Module):
    """Rewards and steps of whole episodes, over as many rollouts as they take."""

    running: Tensor  # [2, N]  sum of rewards, and steps, of the episodes that go on
    latest: Tensor  # [2]  means over those that ended last; NaN before any has

    def __init__(self, num_envs: int, device: torch.device) -> None:
        super().__init__()
        zeros = torch.zeros(2, num_envs, dtype=torch.float64, device=device)
        self.register_buffer("running", zeros)
        self.register_buffer("latest", torch.full_like(zeros[:, 0], torch.nan))

    @torch.no_grad()
    def update(self, rollout: Rollout) -> Figures:
        """Take in a rollout; means over the episodes that ended in it, or in the last that had any.

        A step whose action did not count belongs to no episode. One that began before the first
        rollout, as staggered ones do, counts from there.
        """
        valid = rollout.valid
        over = (rollout.terminated | rollout.truncated) & valid  # [T, N]
        each = torch.stack([rollout.reward.double(), torch.ones_like(rollout.reward.double())])
        sums = self.running[:, None] + (each * valid).cumsum(1)  # [2, T, N]
        before = _before(over, sums)
        done = (sums - before) * over
        count = over.sum()
        means = done.sum((1, 2)) / count  # NaN if none ended
        self.latest.copy_(torch.where(count > 0, means, self.latest))
        ended = torch.where(over[-1], sums[:, -1], before[:, -1])
        self.running.copy_(sums[:, -1] - ended)
        return {
            f"{EPISODE}return": self.latest[0].clone(),
            f"{EPISODE}length": self.latest[1].clone(),
        }


def _before(over: Tensor, sums: Tensor) -> Tensor:
    """Of sums [2, T, N]: those at the last end before each step, 0 where there is none."""
    steps = torch.arange(1, len(over) + 1, device=over.device)[:, None]
    ends = (steps * over).cummax(0).values  # [T, N]  number of the last step that ended, from 1
    last = ends.roll(1, 0).index_fill(0, steps[0] - 1, 0)  # before each step, 0 for none
    padded = torch.cat([torch.zeros_like(sums[:, :1]), sums], dim=1)
    return padded.gather(1, last.expand_as(sums))


def explained_variance(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Share [] of the targets' variance that the values explain; 1 is perfect, 0 a constant."""
    residual = target - prediction
    spread = mean_where((target - mean_where(target, valid)).square(), valid)
    unexplained = mean_where((residual - mean_where(residual, valid)).square(), valid)
    return 1.0 - unexplained / spread.clamp_min(1e-12)


def mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Mean [] of `values` where `valid` is 1, both of one shape."""
    return (values * valid).sum() / valid.sum().clamp_min(1.0)
