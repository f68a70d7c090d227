"""GARCH(1,1)-t whose parameters are fitted anew once in so many bars, as a desk would run it.

Between, its variance goes on through each new window by the parameters of the last fit. Everything
else is that of `garch_t`: a third of its time, where origins are a few bars apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from arch.univariate import GARCH, StudentsT, ZeroMean
from numpy.typing import NDArray
from torch import Tensor

from fastsim.forecast.interface import Context, Forecast, ModelCard, can_forecast
from fastsim.forecast.models.classical import PATHS, garch_t
from fastsim.forecast.returns import returns_with_gaps

Array = NDArray[np.float64]


class Fit(NamedTuple):
    """What was fitted to one series."""

    parameters: Array
    scale: float
    """Of the returns that they are for."""
    stamp: int
    """Of the last bar that was fitted to."""


class RollingGarch:
    """A forecaster of series that are asked for bar by bar, which keeps all that it has told.

    Series are told apart by their rows: another number of them is fitted anew.

    Parameters
    ----------
    every
        Bars from one fit to the next.
    """

    def __init__(self, every: int = 50) -> None:
        self.every, self._whole = every, garch_t()
        self._fits: dict[int, Fit] = {}
        self._rows = 0
        self._told: dict[tuple[int, float, int], Tensor] = {}

    @property
    def card(self) -> ModelCard:
        """That of `garch_t`."""
        return self._whole.card

    @property
    def key(self) -> str:
        """That of `garch_t`, and how often it is fitted."""
        return f"{self._whole.key}/every-{self.every}"

    @property
    def fallbacks(self) -> int:
        """Windows that no fit was found for."""
        return self._whole.fallbacks

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] have enough known closes."""
        return can_forecast(self._whole, context)

    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series."""
        if len(context.bars) != self._rows:
            self._fits, self._rows = {}, len(context.bars)
        told = [self._row(context, row, horizon) for row in range(len(context.bars))]
        return Forecast(torch.stack(told), self.card.levels)

    def _row(self, context: Context, row: int, horizon: int) -> Tensor:
        closes, stamps = context.close[row : row + 1].double(), context.timestamps[row]
        name = (int(stamps[-1]), float(closes[0, -1]), horizon)
        if name not in self._told:
            window = Context(context.bars[row : row + 1], context.timestamps[row : row + 1])
            self._told[name] = self._asked(window, row, horizon)
        return self._told[name]

    def _asked(self, window: Context, row: int, horizon: int) -> Tensor:
        closes, stamps = window.close.double(), window.timestamps[0]
        gaps = returns_with_gaps(closes, torch.arange(closes.shape[1]))
        returns = gaps.returns[gaps.known].numpy()
        fit = self._fits.get(row)
        if fit is not None and not 0 <= self._since(fit, stamps) < self.every:
            fit = None
        if fit is None:
            fit = fitted(returns, int(stamps[-1]))
            if fit is None:
                return self._whole.forecast(window, horizon).quantiles[0]
            self._fits[row] = fit
        law = quantiles(returns, fit, horizon, self.card.levels)
        return (gaps.last[0] * torch.from_numpy(law).exp()).float()

    def _since(self, fit: Fit, stamps: Tensor) -> int:
        """Bars since a fit; below zero before it."""
        return int((stamps > fit.stamp).sum()) if int(stamps[-1]) >= fit.stamp else -1


def fitted(returns: Array, stamp: int) -> Fit | None:
    """Parameters for known one-bar log returns; None unless the optimiser converged."""
    scale = float(np.sqrt(np.square(returns).mean()))
    found = model(returns / scale).fit(disp="off", show_warning=False)
    converged = found.convergence_flag == 0 and np.isfinite(found.params).all()
    return Fit(np.asarray(found.params), scale, stamp) if converged else None


def quantiles(returns: Array, fit: Fit, horizon: int, levels: tuple[float, ...]) -> Array:
    """Quantiles [H, Q] of the log return over 1 to H bars, each path with its mirror image."""
    fixed = model(returns / fit.scale).fix(fit.parameters)
    told = fixed.forecast(horizon=horizon, method="simulation", simulations=PATHS, reindex=False)
    sums = told.simulations.values[0].cumsum(-1)  # [paths, H]
    found: Array = fit.scale * np.quantile(np.concatenate([sums, -sums]), levels, axis=0).T
    return found


def model(returns: Array) -> ZeroMean:
    """GARCH(1,1) with Student-t shocks, the same for every window."""
    shocks = StudentsT(seed=np.random.default_rng(0))
    return ZeroMean(returns, volatility=GARCH(), distribution=shocks, rescale=False)
