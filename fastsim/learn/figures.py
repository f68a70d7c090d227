"""What an iteration is judged by: numbers [] that stay on the device until somebody reads them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.portfolio_columns import portfolio_names
from fastsim.learn.rollout import Environment, Rollout
from fastsim.stats.metrics import periods_per_year

Figures = dict[str, Tensor]
"""Scalars [] by name, such as "rollout/reward"; the part before the slash groups them."""


def read(figures: Figures) -> dict[str, float]:
    """The same on the host, read at once."""
    if not figures:
        return {}
    return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))


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


def explained_variance(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Share [] of the targets' variance that the values explain; 1 is perfect, 0 a constant."""
    residual = target - prediction
    spread = mean_where((target - mean_where(target, valid)).square(), valid)
    unexplained = mean_where((residual - mean_where(residual, valid)).square(), valid)
    return 1.0 - unexplained / spread.clamp_min(1e-12)


def mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Mean [] of `values` where `valid` is 1, both of one shape."""
    return (values * valid).sum() / valid.sum().clamp_min(1.0)
