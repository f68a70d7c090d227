"""Geometric Brownian motion."""

from __future__ import annotations

from dataclasses import field

from torch import Generator

from fastsim.config import configuration
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel
from fastsim.synthetic.shocks import FactorConfig


@configuration(slots=False)
class GeometricBrownian(SyntheticModel):
    """dS / S = mu dt + sigma dW, W correlated by factors: Samuelson (1965), Black, Scholes (1973).

    Exact at any bar: r = (mu - sigma^2 / 2) dt + sigma sqrt(dt) n, so that E S_t = S_0 exp(mu t).
    """

    drift: PerAsset = 0.06
    """mu: growth rate of the expected price."""
    volatility: PerAsset = 0.25
    """sigma."""
    factors: FactorConfig = field(default_factory=FactorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("drift", -10, 10)
        self.require("volatility", 0, 10, open_low=True)
        self.factors.check(self.assets, "GeometricBrownian.factors")

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]."""
        device, years = generator.device, self.years_per_bar
        sigma = self.column("volatility", device)
        mean = (self.column("drift", device) - 0.5 * sigma.square()) * years
        spread = sigma * years**0.5
        normal = self.factors.draw(bars, worlds, self.assets, generator)
        return Moves(mean + spread * normal, spread.square().expand_as(normal), spread)
