"""Markov regime switching."""

from __future__ import annotations

from dataclasses import field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.synthetic.intrabar import Moves
from fastsim.synthetic.model import PerAsset, SyntheticModel, per_asset, require_per_asset
from fastsim.synthetic.shocks import FactorConfig, draw_parts


@configuration(slots=False)
class Regime:
    """The market in one regime."""

    log_drift: PerAsset = 0.1
    """Mean log return."""
    volatility: PerAsset = 0.16
    factors: FactorConfig = field(default_factory=FactorConfig)


def _calm_and_wild() -> tuple[Regime, ...]:
    wild = Regime(log_drift=-0.15, volatility=0.4, factors=FactorConfig(loadings=((0.75,),)))
    return (Regime(), wild)


@configuration(slots=False)
class RegimeSwitching(SyntheticModel):
    """A Markov chain picks every bar's drift, volatility and correlation: Hamilton (1989).

    r_t = m_{s_t} dt + sigma_{s_t} sqrt(dt) n_t, one chain s for all assets of a world, started from
    its stationary law. A spell of regime k lasts 1 / (1 - P_kk) bars on average.
    """

    regimes: tuple[Regime, ...] = field(default_factory=_calm_and_wild)
    transitions: tuple[tuple[float, ...], ...] = ((0.99, 0.01), (0.04, 0.96))
    """P: row k holds the probabilities per bar of going from regime k to each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.regimes)
        if not count or {len(row) for row in self.transitions} | {len(self.transitions)} != {count}:
            raise ConfigError(
                f"RegimeSwitching.transitions must be {count} rows of {count}, one a regime, "
                f"got {self.transitions!r}"
            )
        for number, row in enumerate(self.transitions):
            if not (min(row) >= 0.0 and abs(sum(row) - 1.0) <= 1e-9):
                raise ConfigError(
                    f"RegimeSwitching.transitions must have rows of probabilities with sum 1, "
                    f"row {number} {row!r} has sum {sum(row):g}"
                )
        if np.linalg.matrix_rank(np.array(self.transitions) - np.eye(count)) < count - 1:
            raise ConfigError(
                f"RegimeSwitching.transitions must lead to one set of regimes from anywhere, "
                f"got {self.transitions!r}"
            )
        for regime in self.regimes:
            require_per_asset(regime, "log_drift", self.assets, -10, 10)
            require_per_asset(regime, "volatility", self.assets, 0, 10, open_low=True)
            regime.factors.check(self.assets, "Regime.factors")
        if len({regime.factors.count for regime in self.regimes}) > 1:
            raise ConfigError("Regime.factors must have as many columns in every regime")

    def stationary(self) -> NDArray[np.float64]:
        """Long-run share of bars [K] in each regime: pi P = pi, sum pi = 1."""
        count = len(self.regimes)
        system = np.vstack([np.array(self.transitions).T - np.eye(count), np.ones(count)])
        return np.asarray(np.linalg.lstsq(system, np.append(np.zeros(count), 1.0))[0])

    def chain(self, worlds: int, bars: int, generator: Generator) -> Tensor:
        """Regime of every bar [T, M], int64."""
        device = generator.device
        uniform = torch.rand(
            (bars, worlds), generator=generator, device=device, dtype=torch.float64
        )
        # bounds inside (0, 1) alone: the last regime takes what is left, rounding included
        first = torch.from_numpy(self.stationary().cumsum()[:-1]).to(device)  # [K - 1]
        bounds = torch.tensor(self.transitions, dtype=torch.float64, device=device)
        bounds = bounds.cumsum(1)[:, :-1].contiguous()  # [K, K - 1]
        path = torch.empty((bars, worlds), dtype=torch.int64, device=device)
        path[0] = (uniform[0, :, None] >= first).sum(-1)
        for bar in range(1, bars):
            path[bar] = (uniform[bar, :, None] >= bounds[path[bar - 1]]).sum(-1)
        return path

    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A]."""
        device, years = generator.device, self.years_per_bar
        path = self.chain(worlds, bars, generator)[..., None]  # [T, M, 1]
        parts = draw_parts(bars, worlds, self.regimes[0].factors.count, self.assets, generator)
        log_return = torch.zeros_like(parts.own)
        variance = torch.zeros_like(parts.own)
        for number, regime in enumerate(self.regimes):
            mean = per_asset(regime.log_drift, self.assets, device) * years
            spread = per_asset(regime.volatility, self.assets, device) * years**0.5
            here, drawn = path == number, mean + spread * regime.factors.mix(parts)
            log_return = torch.where(here, drawn, log_return)
            variance = torch.where(here, spread.square(), variance)
        return Moves(log_return, variance, self._typical(device))

    def _typical(self, device: torch.device) -> Tensor:
        """Standard deviation [A] of the mixture of regimes."""
        mean = torch.zeros(self.assets, dtype=torch.float64, device=device)
        square = torch.zeros_like(mean)
        for share, regime in zip(self.stationary(), self.regimes, strict=True):
            drift = per_asset(regime.log_drift, self.assets, device) * self.years_per_bar
            sigma = per_asset(regime.volatility, self.assets, device)
            mean = mean + share * drift
            square = square + share * (drift.square() + sigma.square() * self.years_per_bar)
        return (square - mean.square()).sqrt()
