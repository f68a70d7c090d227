"""Log stochastic volatility with leverage and Student-t shocks."""

from __future__ import annotations

from dataclasses import field

from torch import Generator

from fastsim.config import configuration
from fastsim.synthetic.garch import MAX_FREEDOM
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel
from fastsim.synthetic.shocks import (
    FactorConfig,
    draw_normal,
    linear_recurrence,
    student_from_normals,
)


@configuration(slots=False)
class LogVolatility(SyntheticModel):
    """The logarithm of volatility is autoregressive: Taylor (1986), Omori et al. (2007).

    r_t = m dt + sd exp(f_t - d^2) x_t
    f_{t+1} = phi f_t + d sqrt(1 - phi^2) eta_t,  eta_t = rho n_t + sqrt(1 - rho^2) n'_t

    with n the normal behind the Student-t shock x of variance 1 (`student_from_normals`). f has the
    stationary standard deviation d, from which it starts, and E exp(2 f - 2 d^2) = 1, so
    sd^2 = volatility^2 dt is the unconditional variance of a bar. n and n' are correlated by
    factors. With y = log (r - m dt)^2: E y = log sd^2 - 2 d^2 + E log x^2, var y =
    4 d^2 + var log x^2 and autocovariance 4 d^2 phi^k.
    """

    log_drift: PerAsset = 0.04
    """m: mean log return. E S_t does not exist for Student-t shocks."""
    volatility: PerAsset = 0.25
    """Of the unconditional law."""
    persistence: PerAsset = 0.98
    """phi, per bar."""
    deviation: PerAsset = 0.4
    """d: stationary standard deviation of log volatility."""
    leverage: PerAsset = -0.5
    """rho: correlation of a bar's shock with the next log volatility's."""
    freedom: PerAsset = 12.0
    """nu > 2, degrees of freedom of the shocks; 1e6 for normal ones."""
    factors: FactorConfig = field(default_factory=FactorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("log_drift", -10, 10)
        self.require("volatility", 0, 10, open_low=True)
        self.require("persistence", -0.99999, 0.99999)
        self.require("deviation", 0, 3)
        self.require("leverage", -1, 1)
        self.require("freedom", 2, MAX_FREEDOM, open_low=True)
        self.factors.check(self.assets, "LogVolatility.factors")

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]."""
        device, years = generator.device, self.years_per_bar
        phi, deviation = self.column("persistence", device), self.column("deviation", device)
        rho = self.column("leverage", device)
        normal, second, own = (
            self.factors.draw(bars, worlds, self.assets, generator) for _ in range(3)
        )
        student = student_from_normals(normal, second, self.column("freedom", device))
        eta = rho * normal + (1.0 - rho.square()).sqrt() * own
        shift = deviation * (1.0 - phi.square()).sqrt() * eta
        start = deviation * draw_normal((worlds, self.assets), generator)
        factor, _ = linear_recurrence(phi.expand_as(shift), shift, start)
        typical = self.column("volatility", device) * years**0.5
        sigma = typical * (factor - deviation.square()).exp()
        mean = self.column("log_drift", device) * years
        return Moves(mean + sigma * student, sigma.square(), typical)
