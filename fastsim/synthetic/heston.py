"""Heston's stochastic volatility, by Andersen's quadratic-exponential scheme."""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from fastsim.config import configuration
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel
from fastsim.synthetic.shocks import FactorConfig

SWITCH = 1.5
"""Andersen's psi_c: squared coefficient of variation of v' above which its law is exponential."""


@configuration(slots=False)
class Heston(SyntheticModel):
    """dS / S = mu dt + sqrt(v) dW, dv = kappa (theta - v) dt + xi sqrt(v) dB: Heston (1993).

    corr(dW, dB) = rho, the leverage. The scheme is QE-M of Andersen (2008), "Simple and efficient
    simulation of the Heston stochastic volatility model", J. Computational Finance 11: a draw of v'
    has the exact conditional mean and variance of the process, whatever the bar, and a correction
    makes exp(-mu t) S a martingale. Full-truncation Euler (Lord, Koekkoek and van Dijk 2010) is as
    short, but its v is biased wherever it touches 0, which it does often at weekly bars or a high
    xi. The Feller condition 2 kappa theta >= xi^2 is not required: v may reach 0 and leaves it.

    v starts from the same two-moment draw of its stationary law, which has mean theta and variance
    xi^2 theta / (2 kappa). Both the price's own shocks and the variance's are correlated by
    `factors`, so returns are too, nearly as their loadings say.
    """

    drift: PerAsset = 0.06
    """mu: growth rate of the expected price."""
    mean_variance: PerAsset = 0.0625
    """theta, of log returns a year: 0.0625 is a volatility of 0.25."""
    reversion: PerAsset = 4.0
    """kappa: half of a deviation is gone after log(2) / kappa years."""
    volatility_of_variance: PerAsset = 0.5
    """xi."""
    leverage: PerAsset = -0.6
    """rho, at most 0: the martingale correction needs a moment that rho > 0 need not have."""
    factors: FactorConfig = field(default_factory=FactorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("drift", -10, 10)
        self.require("mean_variance", 0, 100, open_low=True)
        self.require("reversion", 0, 1e4, open_low=True)
        self.require("volatility_of_variance", 0, 100, open_low=True)
        self.require("leverage", -1, 0)
        self.factors.check(self.assets, "Heston.factors")

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]; a bar's variance is the mean of v at its ends times its length."""
        device, years = generator.device, self.years_per_bar
        theta, drift = self.column("mean_variance", device), self.column("drift", device)
        kappa, xi = self.column("reversion", device), self.column("volatility_of_variance", device)
        step, rho = VarianceStep.make(kappa, theta, xi, years), self.column("leverage", device)
        # K1 to K4 of Andersen's equation 33, with the integral of v by the trapezoid
        slope, correlated = 0.5 * years * (kappa * rho / xi - 0.5), rho / xi
        k1, k2, k3 = slope - correlated, slope + correlated, 0.5 * years * (1.0 - rho.square())
        normals = self.factors.draw(bars + 1, worlds, self.assets, generator)  # of the variance
        log_return = self.factors.draw(bars, worlds, self.assets, generator)
        variance = torch.empty_like(log_return)
        v = VarianceStep.make(kappa, theta, xi, float("inf")).law(theta).draw(normals[-1])
        for bar in range(bars):
            law = step.law(v)
            following = law.draw(normals[bar])
            k0 = -law.log_moment(k2 + 0.5 * k3) - (k1 + 0.5 * k3) * v
            spread = (k3 * (v + following)).sqrt()
            log_return[bar] = (
                drift * years + k0 + k1 * v + k2 * following + spread * log_return[bar]
            )
            variance[bar] = 0.5 * years * (v + following)
            v = following
        return Moves(log_return, variance, (theta * years).sqrt())


class VarianceStep(NamedTuple):
    """Conditional moments of a square-root process one step on: Cox, Ingersoll and Ross (1985)."""

    decay: Tensor  # [A]  exp(-kappa dt)
    shift: Tensor  # [A]  mean of v' at v = 0
    slope: Tensor  # [A]  of the variance of v' in v
    base: Tensor  # [A]  variance of v' at v = 0

    @classmethod
    def make(cls, kappa: Tensor, theta: Tensor, xi: Tensor, years: float) -> VarianceStep:
        """The process observed every `years`; infinity makes every step a stationary draw."""
        decay = (-kappa * years).exp()
        gone = -torch.expm1(-kappa * years)
        scale = xi.square() * gone / kappa
        return cls(decay, theta * gone, scale * decay, 0.5 * theta * scale * gone)

    def law(self, v: Tensor) -> VarianceLaw:
        """The two laws [M, A] of v' given v: Andersen's equations 23 to 30."""
        mean = self.shift + self.decay * v
        psi = (self.base + self.slope * v) / mean.square()
        inverse = 2.0 / psi.clamp_max(SWITCH)
        b2 = inverse - 1.0 + (inverse * (inverse - 1.0)).sqrt()
        p = ((psi - 1.0) / (psi + 1.0)).clamp_min(0.0)
        return VarianceLaw(psi <= SWITCH, mean / (1.0 + b2), b2, p, (1.0 - p) / mean)


class VarianceLaw(NamedTuple):
    """Law of v': a (b + n)^2 where quadratic, else 0 with probability p or exponential of beta."""

    quadratic: Tensor  # bool
    a: Tensor
    b2: Tensor
    p: Tensor
    beta: Tensor

    def draw(self, normal: Tensor) -> Tensor:
        """Turn standard normals into draws, increasing in them."""
        square = self.a * (self.b2.sqrt() + normal).square()
        above = torch.special.ndtr(-normal)  # 1 - u
        exponential = ((1.0 - self.p).log() - above.log()).clamp_min(0.0) / self.beta
        return torch.where(self.quadratic, square, exponential)

    def log_moment(self, power: Tensor) -> Tensor:
        """Logarithm of E exp(power v'), power <= 0: Andersen's propositions 9 and 10."""
        damp = 1.0 - 2.0 * power * self.a
        square = power * self.b2 * self.a / damp - 0.5 * damp.log()
        exponential = (self.p + self.beta * (1.0 - self.p) / (self.beta - power)).log()
        return torch.where(self.quadratic, square, exponential)
