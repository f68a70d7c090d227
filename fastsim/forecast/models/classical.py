"""Classical models that are fitted anew to every window: GARCH, exponential smoothing, theta.

They are what a trained network has to beat beside the random walks of `baselines`. All of them read
the known one-bar log returns of a window (`returns_with_gaps`), so padding on the left changes
nothing, a return over a hole counts as one return of the right variance, and multiplying the closes
by a constant multiplies the forecast.

A window on which a fit fails or does not converge is forecast by the EWMA random walk: a warning is
logged, and `WindowFitted.fallbacks` counts such windows, so that no figure hides them.

Needs `arch` (NCSA) and `statsforecast` (Apache-2.0): pip install 'fastsim-rl[baselines]'. A window
takes 20 to 80 ms on one shared core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import (
    MEDIAN,
    Context,
    Forecast,
    Identity,
    ModelCard,
    check_request,
)
from fastsim.forecast.models.baselines import MAX_HORIZON, ewma_random_walk
from fastsim.forecast.models.prior import CARD as PRIOR
from fastsim.forecast.networks.return_network import CONTEXT, LEVELS
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.statistics import Counted, counted

PATHS = 4000
"""Simulated paths of a GARCH forecast; each also counts with its sign turned."""
FAILURES = (ValueError, ArithmeticError, NotImplementedError)
"""What the packages raise where a series cannot be fitted."""

Array = NDArray[np.float64]
Law = Callable[[Array, int], Array | None]
"""From known one-bar log returns [n], oldest first, and a horizon, to quantiles [H, Q] of the log
return over 1 to H bars; None where the fit fails."""

logger = logging.getLogger(__name__)


class WindowFitted(Counted):
    """A forecaster with a law that is fitted to every window when it is asked.

    Equal windows give equal forecasts, in whatever company.

    Parameters
    ----------
    law
        Fits one window; its quantiles are at `levels`, increasing.
    package
        Whose code fits, and its version.
    settings
        What the law depends on beside its name: part of the key.
    """

    def __init__(
        self,
        *,
        name: str,
        licence: str,
        package: str,
        settings: Mapping[str, Any],
        law: Law,
        levels: tuple[float, ...],
    ) -> None:
        self.card = ModelCard(
            name=name,
            licence=licence,
            parameters=0,
            max_context=CONTEXT,
            max_horizon=MAX_HORIZON,
            levels=levels,
            min_context=PRIOR.min_context,  # so that both can be scored on the same windows
            known_until=None,
            known_source="nothing is fitted beyond its context",
        )
        self.identity = Identity(card=self.card, implementation=package, settings=settings)
        self.fallbacks = 0
        """Windows so far that the EWMA random walk forecast because the fit failed."""
        self._law = law
        self._fallback = ewma_random_walk(levels=levels)

    @property
    def key(self) -> str:
        """Name, and the hash of its identity."""
        return self.identity.key

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Fit every series and forecast its next `horizon` closes: quantiles [B, horizon, Q].

        Horizons count from the context's last bar and the price starts from the last one known.

        Raises
        ------
        ForecastError
            The horizon is not 1 to 512, or a series has fewer than 32 known closes.
        """
        check_request(self.card, context, horizon)
        device = context.bars.device
        closes = context.close[:, -CONTEXT:].double().cpu()
        gaps = returns_with_gaps(closes, torch.arange(closes.shape[1]))
        quantiles = torch.empty((len(closes), horizon, len(self.card.levels)))
        for row, (returns, known) in enumerate(zip(gaps.returns, gaps.known, strict=True)):
            law = self._law(returns[known].numpy(), horizon)
            if law is None or not np.isfinite(law).all():
                window = Context(*(part[row : row + 1].cpu() for part in context))
                quantiles[row] = self._walk(window, horizon)
            else:
                quantiles[row] = (gaps.last[row] * torch.from_numpy(law).exp()).float()
        return Forecast(quantiles.to(device), self.card.levels)

    def _walk(self, window: Context, horizon: int) -> torch.Tensor:
        self.fallbacks += 1
        logger.warning(
            "%s: no fit of the window up to %s; %s instead (%d so far)",
            self.card.name,
            np.datetime64(int(window.timestamps[0, -1]), "s"),
            self._fallback.name,
            self.fallbacks,
        )
        return self._fallback.forecast(window, horizon).quantiles[0]


def garch_t(
    *,
    drift: bool = False,
    paths: int = PATHS,
    seed: int = 0,
    levels: tuple[float, ...] = LEVELS,
) -> WindowFitted:
    """GARCH(1,1) with Student-t shocks: Bollerslev (1987), by maximum likelihood of `arch`.

    sigma_t^2 = omega + alpha r_{t-1}^2 + beta sigma_{t-1}^2 and r_t = sigma_t z_t, with z of unit
    variance and nu degrees of freedom. The law of a sum over h bars has no closed form: `arch`
    simulates it from the fitted model, from the same seed for every window. The law is symmetric,
    so every path also counts with its sign turned: the median is the last close exactly, and the
    outer quantiles rest on twice the paths.

    Parameters
    ----------
    drift
        Fit a constant mean too, about which the law is then symmetric. Of 512 daily returns a mean
        is mostly noise: the default is driftless.
    paths
        Simulated paths, at least 100. Beside infinitely many, 4,000 cost about 1/4,000 of the CRPS.

    Raises
    ------
    ConfigError
        Fewer than 100 paths.
    ForecastError
        `arch` is not installed.
    """
    if paths < 100:
        raise ConfigError(f"paths must be >= 100, got {paths!r}")
    package = _package("arch.univariate")

    def law(returns: Array, horizon: int) -> Array | None:
        scale = float(np.sqrt(np.square(returns).sum() / max(len(returns), 1)))
        if not scale > 0.0:
            return None
        fitted = _fitted_garch(package, returns / scale, drift=drift, seed=seed)
        if fitted is None:
            return None
        simulated = fitted.forecast(
            horizon=horizon, method="simulation", simulations=paths, reindex=False
        )
        sums = simulated.simulations.values[0].cumsum(-1)  # [paths, H]
        centre = fitted.params["mu"] * np.arange(1, horizon + 1) if drift else 0.0
        both = np.concatenate([sums, 2.0 * centre - sums])
        quantiles: Array = scale * np.quantile(both, levels, axis=0).T
        return quantiles

    return WindowFitted(
        name="garch-t-drift" if drift else "garch-t",
        licence="NCSA",
        package=f"arch-{version('arch')}",
        settings={"drift": drift, "paths": paths, "seed": seed},
        law=law,
        levels=levels,
    )


def auto_ets(*, levels: tuple[float, ...] = LEVELS) -> WindowFitted:
    """Exponential smoothing of log prices, its form chosen by AICc: `statsforecast`'s AutoETS.

    The state-space models of Hyndman et al. (2008) without a season. Log prices count from the
    window's last, whose sign is both, so that errors are additive: a multiplicative error would
    make the volatility depend on the currency. Quantiles are the ends of the package's own
    Gaussian intervals, the median is its mean.

    Raises
    ------
    ForecastError
        `statsforecast` is not installed.
    """
    return _statsforecast("auto-ets", "AutoETS", levels)


def theta(*, levels: tuple[float, ...] = LEVELS) -> WindowFitted:
    """Dynamic optimised theta method on log prices: `statsforecast`'s DynamicOptimizedTheta.

    Fiorucci et al. (2016), without a season. Log prices count from the window's last. Quantiles are
    the ends of the package's own intervals, which rest on 200 simulated paths with a fixed seed
    (that costs about 1/200 of its CRPS); the median is its mean.

    Raises
    ------
    ForecastError
        `statsforecast` is not installed.
    """
    return _statsforecast("theta", "DynamicOptimizedTheta", levels)


def _fitted_garch(package: Any, returns: Array, *, drift: bool, seed: int) -> Any:
    """`arch`'s result on returns of unit mean square; None unless the optimiser converged."""
    mean = package.ConstantMean if drift else package.ZeroMean
    shocks = package.StudentsT(seed=np.random.default_rng(seed))
    model = mean(returns, volatility=package.GARCH(), distribution=shocks, rescale=False)
    try:
        fitted = model.fit(disp="off", show_warning=False)
    except FAILURES:
        return None
    converged = fitted.convergence_flag == 0 and np.isfinite(fitted.params).all()
    return fitted if converged else None


def _statsforecast(name: str, model: str, levels: tuple[float, ...]) -> WindowFitted:
    package = _package("statsforecast.models")
    # An interval of b % ends at the quantiles (1 - b / 100) / 2 and (1 + b / 100) / 2.
    bands = {level: round(100.0 * abs(2.0 * level - 1.0), 9) for level in levels}
    asked = sorted({band for level, band in bands.items() if level != MEDIAN})

    def law(returns: Array, horizon: int) -> Array | None:
        path = np.concatenate([[0.0], returns.cumsum()])
        try:
            with _numpy_random_kept():
                fitted = getattr(package, model)(season_length=1)
                told = fitted.forecast(y=path - path[-1], h=horizon, level=asked)
        except Exception as error:
            # Where no model can be fitted, the package raises Exception itself.
            if type(error) is Exception or isinstance(error, FAILURES):
                return None
            raise
        ends = [
            told["mean"] if level == MEDIAN else told[f"{'lo' if level < MEDIAN else 'hi'}-{band}"]
            for level, band in bands.items()
        ]
        quantiles: Array = np.sort(np.stack(ends, axis=-1).astype(np.float64), axis=-1)
        return quantiles

    return WindowFitted(
        name=name,
        licence="Apache-2.0",
        package=f"statsforecast-{version('statsforecast')}",
        settings={"model": model},
        law=law,
        levels=levels,
    )


@contextmanager
def _numpy_random_kept() -> Iterator[None]:
    """Put NumPy's global generator back: `statsforecast` seeds it."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ForecastError(
            f"{name.partition('.')[0]} is not installed: pip install 'fastsim-rl[baselines]'"
        ) from None
