"""Jump-diffusion."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Generator

from fastsim.config import configuration, require_between
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel
from fastsim.synthetic.shocks import FactorConfig


@configuration(slots=False)
class MertonJumps(SyntheticModel):
    """Diffusion and normal jumps at Poisson times: Merton (1976), J. Financial Economics 3.

    r = (mu - sigma^2 / 2 - lambda kbar) dt + sigma sqrt(dt) n + sum of N jumps ~ normal(m, d^2),
    N ~ Poisson(lambda dt), kbar = exp(m + d^2 / 2) - 1 so that E S_t = S_0 exp(mu t). The diffusion
    is correlated by factors, and so are the sizes of jumps that come together, of which there are
    `shared_jumps`. Jumps come between close and open, as news.
    Cumulants of r, with L = lambda dt: variance sigma^2 dt + L (m^2 + d^2), third
    L (m^3 + 3 m d^2), fourth L (m^4 + 6 m^2 d^2 + 3 d^4).
    """

    drift: PerAsset = 0.06
    """mu: growth rate of the expected price."""
    volatility: PerAsset = 0.2
    """sigma, of the diffusion alone."""
    jumps_per_year: PerAsset = 6.0
    """lambda."""
    jump_mean: PerAsset = -0.005
    """m: mean log return of a jump."""
    jump_deviation: PerAsset = 0.05
    """d: standard deviation of a jump's log return."""
    shared_jumps: float = 0.2
    """Share of the arrivals (of the lowest lambda, where they differ) that strike all assets."""
    factors: FactorConfig = field(default_factory=FactorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("drift", -10, 10)
        self.require("volatility", 0, 10, open_low=True)
        self.require("jumps_per_year", 0, 1e5)
        self.require("jump_mean", -5, 5)
        self.require("jump_deviation", 0, 5)
        require_between(self, "shared_jumps", 0, 1)
        self.factors.check(self.assets, "MertonJumps.factors")

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]."""
        device, years = generator.device, self.years_per_bar
        drift, sigma = self.column("drift", device), self.column("volatility", device)
        rate = self.column("jumps_per_year", device)
        mean, deviation = self.column("jump_mean", device), self.column("jump_deviation", device)
        diffused = self.factors.draw(bars, worlds, self.assets, generator) * sigma * years**0.5
        shared = self.shared_jumps * rate.min()
        together = (shared * years).expand(bars, worlds, 1)
        alone = ((rate - shared) * years).expand_as(diffused)
        count = torch.poisson(together, generator=generator)
        count = count + torch.poisson(alone, generator=generator)  # [T, M, A]
        size = self.factors.draw(bars, worlds, self.assets, generator)
        jump = count * mean + count.sqrt() * deviation * size
        compensator = rate * torch.expm1(mean + 0.5 * deviation.square())
        log_return = (drift - 0.5 * sigma.square() - compensator) * years + diffused + jump
        variance = sigma.square() * years
        total = variance + rate * years * (mean.square() + deviation.square())
        return Moves(log_return, variance.expand_as(jump), total.sqrt(), jump)
