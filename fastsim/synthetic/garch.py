"""GARCH volatility with Student-t shocks."""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel
from fastsim.synthetic.shocks import (
    FactorConfig,
    draw_parts,
    linear_recurrence,
    student_from_normals,
)

MAX_FREEDOM = 1e6
"""Degrees of freedom at which a Student-t is a normal for every purpose."""


class GarchParameters(NamedTuple):
    """GJR-GARCH(1, 1) with unconditional variance 1."""

    alpha: Tensor  # [...]
    gamma: Tensor  # [...]  extra weight of negative news
    beta: Tensor  # [...]


def garch_variance(
    parameters: GarchParameters, student: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Variance of each bar [T, ...] and of the next [...], by GJR-GARCH(1, 1).

    s2_{t+1} = omega + (alpha + gamma [z_t < 0]) s2_t z_t^2 + beta s2_t, with
    omega = 1 - alpha - gamma / 2 - beta so that E s2 = 1. Glosten, Jagannathan and Runkle (1993).
    It is linear in s2, with a random slope.
    """
    alpha, gamma, beta = parameters
    news = torch.where(student < 0, alpha + gamma, alpha)
    slope = beta + news * student.square()
    omega = 1.0 - alpha - 0.5 * gamma - beta
    return linear_recurrence(slope, omega.expand_as(slope), start)


@configuration(slots=False)
class Garch(SyntheticModel):
    """GJR-GARCH(1, 1) with Student-t shocks; gamma = 0 is Bollerslev's (1986, 1987).

    r_t = m dt + sd s_t x_t with s2_t by `garch_variance` and sd^2 = volatility^2 dt the
    unconditional variance of a bar. x is Student-t of variance 1, symmetric, its normals correlated
    by `factors` (`student_from_normals`). With k = 3 + 6 / (nu - 4) the kurtosis of x and
    c = beta^2 + 2 beta (alpha + gamma / 2) + k (alpha^2 + alpha gamma + gamma^2 / 2) < 1, the
    kurtosis of r is k (1 - p^2) / (1 - c), p = alpha + gamma / 2 + beta.
    """

    log_drift: PerAsset = 0.04
    """m: mean log return. E S_t does not exist for Student-t shocks."""
    volatility: PerAsset = 0.25
    """Of the unconditional law."""
    alpha: PerAsset = 0.03
    """Weight of a bar's squared news in the next one's variance."""
    gamma: PerAsset = 0.08
    """Extra weight where the news is negative."""
    beta: PerAsset = 0.9
    """Weight of the variance before."""
    freedom: PerAsset = 6.0
    """nu > 2, degrees of freedom of the shocks; 1e6 for normal ones."""
    burn_in: int = 250
    """Bars simulated and dropped: the first variance is its mean."""
    factors: FactorConfig = field(default_factory=FactorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("log_drift", -10, 10)
        self.require("volatility", 0, 10, open_low=True)
        for name in ("alpha", "gamma", "beta"):
            self.require(name, 0, 1)
        self.require("freedom", 2, MAX_FREEDOM, open_low=True)
        require_between(self, "burn_in", 0)
        self.factors.check(self.assets, "Garch.factors")
        alpha, gamma, beta = self._weights(torch.device("cpu"))
        worst = float((alpha + 0.5 * gamma + beta).max())
        if worst >= 1.0:
            raise ConfigError(
                f"Garch.alpha + gamma / 2 + beta must be < 1 for a stationary variance, "
                f"got {worst:g}"
            )

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]."""
        device, years = generator.device, self.years_per_bar
        total, count = bars + self.burn_in, self.factors.count
        parts = [draw_parts(total, worlds, count, self.assets, generator) for _ in range(2)]
        first, second = (self.factors.mix(part) for part in parts)
        student = student_from_normals(first, second, self.column("freedom", device))
        variance, _ = garch_variance(self._weights(device), student, torch.ones_like(student[0]))
        student, variance = student[self.burn_in :], variance[self.burn_in :]
        typical = self.column("volatility", device) * years**0.5
        news = typical * variance.sqrt() * student
        mean = self.column("log_drift", device) * years
        return Moves(mean + news, typical.square() * variance, typical)

    def _weights(self, device: torch.device) -> GarchParameters:
        return GarchParameters(*(self.column(name, device) for name in GarchParameters._fields))
