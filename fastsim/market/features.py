"""Causal features of bars: what an agent may know at the close of bar t, per asset.

Every feature is a function of bars up to and including t, and of order one: returns are divided by
the trailing volatility of their span, so a feature means the same for a calm and a wild asset. For
the same reason only one of them tells a market from one whose log returns are all f times as large:
the logarithm of volatility, which is higher by log f (`rises_with_volatility`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars, FloatArray
from fastsim.errors import ConfigError

FEATURE_LIMIT = 10.0
"""Features are clipped to this magnitude, so that an observation space has bounds."""


@configuration
class FeatureConfig:
    """Which features are made. Windows are in bars."""

    return_windows: tuple[int, ...] = (1, 5, 21, 63)
    momentum_window: int = 126
    momentum_skip: int = 21
    """Momentum is the return from `momentum_window` to `momentum_skip` bars ago."""
    short_window: int = 21
    volatility_window: int = 63
    """Also the window of the volatility and the average traded value that impact is scaled by."""

    def __post_init__(self) -> None:
        for name in ("momentum_window", "momentum_skip", "short_window", "volatility_window"):
            require_between(self, name, 2)
        if not all(window >= 1 for window in self.return_windows):
            raise ConfigError(
                f"FeatureConfig.return_windows must be bars >= 1, got {self.return_windows!r}"
            )
        if self.momentum_skip >= self.momentum_window:
            raise ConfigError(
                f"FeatureConfig.momentum_skip must be below momentum_window = "
                f"{self.momentum_window}, got {self.momentum_skip!r}"
            )

    @property
    def warmup(self) -> int:
        """Bars before the first at which every feature is complete."""
        # The range is averaged over bars that are each scaled by a complete volatility.
        scaled_range = self.volatility_window + self.short_window - 1
        return max(*self.return_windows, self.momentum_window, scaled_range)


def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of the last `window` rows of `values` [T, A], skipping NaN.

    NaN until half of the window is there.
    """
    present = np.isfinite(values)
    total = _trailing_sum(np.where(present, values, 0.0), window)
    count = _trailing_sum(present.astype(np.float64), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= max(2, window // 2), total / count, np.nan)


def rolling_std(values: FloatArray, window: int) -> FloatArray:
    """Population standard deviation of the last `window` rows of `values` [T, A], skipping NaN."""
    mean = rolling_mean(values, window)
    square = rolling_mean(values * values, window)
    std: FloatArray = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return std


def log_returns(prices: FloatArray, bars: int = 1) -> FloatArray:
    """Log returns [T, A] over `bars` bars; NaN where either end is missing."""
    returns = np.full_like(prices, np.nan)
    returns[bars:] = np.log(prices[bars:] / prices[:-bars])
    return returns


def make_features(bars: Bars, config: FeatureConfig) -> dict[str, FloatArray]:
    """Named features [T, A] of adjusted bars, clipped; 0 where the asset has too little history."""
    return {name: clip_feature(values) for name, values in _features(bars, config)}


def rises_with_volatility(name: str) -> bool:
    """Whether a feature is higher by log f where all log returns are f times as large.

    That is the log of volatility. Returns, momentum, ranges and the short volatility are in units
    of the volatility, and volume knows nothing of prices: they stay as they are. So do forecasts:
    expected log returns and dispersions are in units of the volatility too, a probability of a rise
    has none, and a forecaster who is shown larger returns is taken to expect larger ones. Features
    of other names are left alone, for nobody here knows what they are made of.
    """
    return re.fullmatch(r"log_volatility_\d+", name) is not None


def clip_feature(values: FloatArray) -> FloatArray:
    """Bring a feature into its bounds, with 0 for what is missing."""
    return np.clip(np.nan_to_num(values, nan=0.0), -FEATURE_LIMIT, FEATURE_LIMIT)


def trailing_volatility(bars: Bars, window: int) -> FloatArray:
    """Standard deviation [T, A] of one-bar log returns over the last `window` bars."""
    close = bars.adjusted("close")
    assert close is not None
    return rolling_std(log_returns(close), window)


def _features(bars: Bars, config: FeatureConfig) -> Iterator[tuple[str, FloatArray]]:
    close, high, low = (bars.adjusted(name) for name in ("close", "high", "low"))
    assert close is not None
    sigma = trailing_volatility(bars, config.volatility_window)
    sigma = np.where(sigma > 0, sigma, np.nan)
    for window in config.return_windows:
        yield f"scaled_log_return_{window}", log_returns(close, window) / (sigma * window**0.5)
    span = config.momentum_window - config.momentum_skip
    past = np.full_like(close, np.nan)
    past[config.momentum_skip :] = log_returns(close, span)[: -config.momentum_skip]
    yield (
        f"scaled_momentum_{config.momentum_window}_{config.momentum_skip}",
        past / (sigma * span**0.5),
    )
    with np.errstate(divide="ignore"):
        short = np.log(trailing_volatility(bars, config.short_window) / sigma)
    yield f"log_volatility_ratio_{config.short_window}", short
    yield f"log_volatility_{config.volatility_window}", np.log(sigma / 0.01)
    if high is not None and low is not None:
        span_of_bar = np.log(high / low) / sigma
        yield f"scaled_range_{config.short_window}", rolling_mean(span_of_bar, config.short_window)
    if bars.volume is not None:
        size = np.log1p(bars.volume)
        spread = rolling_std(size, config.volatility_window)
        mean = rolling_mean(size, config.volatility_window)
        yield (
            f"volume_zscore_{config.volatility_window}",
            (size - mean) / np.where(spread > 0, spread, np.nan),
        )


def _trailing_sum(values: FloatArray, window: int) -> FloatArray:
    total = np.cumsum(values, axis=0)
    result = total.copy()
    result[window:] -= total[:-window]
    return result
