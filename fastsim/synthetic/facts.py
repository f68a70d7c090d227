"""What markets have in common: Cont (2001), "Empirical properties of asset returns"."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.bars import Bars
from fastsim.errors import DataError

TAIL = 0.05
"""Share of absolute returns that count as the tail in Hill's estimator."""
MIN_RETURNS = 100


class Facts(NamedTuple):
    """Figures of one-bar log returns: each the mean over assets, [...] for closes [..., T, A]."""

    volatility: Tensor  # standard deviation per bar
    skew: Tensor
    excess_kurtosis: Tensor
    hill_index: Tensor  # tail exponent of absolute returns: 3 to 5 for stocks, smaller is fatter
    clustering_1: Tensor  # autocorrelation of absolute returns
    clustering_5: Tensor
    clustering_20: Tensor
    leverage_1: Tensor  # correlation of a return with the absolute return so many bars later
    leverage_5: Tensor
    cross_correlation: Tensor  # mean over pairs of assets; NaN for one asset


def complete_closes(bars: Bars) -> Tensor:
    """Adjusted closes [T', A] of the rows on which every symbol traded; DataError below 101."""
    close = bars.adjusted("close")
    assert close is not None
    complete = torch.from_numpy(close[np.isfinite(close).all(1)])
    if len(complete) <= MIN_RETURNS:
        raise DataError(
            f"{len(complete)} bars on which every symbol traded are too few to measure: "
            f"use at least {MIN_RETURNS + 1}, or fewer symbols"
        )
    return complete


def stylised_facts(close: Tensor) -> Facts:
    """Measure closes [..., T, A]; every leading index, such as a world, on its own.

    Raises
    ------
    DataError
        Fewer than 101 closes, or a close that is not finite and above 0.
    """
    if close.ndim < 2 or close.shape[-2] <= MIN_RETURNS:
        raise DataError(f"closes must be [..., T, A] with T > 100, got {tuple(close.shape)}")
    if not bool(((close > 0) & close.isfinite()).all()):
        raise DataError("closes must be finite and > 0")
    log_return = close.double().log().diff(dim=-2)
    centred = log_return - log_return.mean(-2, keepdim=True)
    deviation = centred.square().mean(-2, keepdim=True).sqrt()
    scaled = centred / deviation  # [..., T - 1, A]
    size = scaled.abs()
    lags = {lag: lagged_correlation(size, size, lag).mean(-1) for lag in (1, 5, 20)}
    later = {lag: lagged_correlation(scaled, size, lag).mean(-1) for lag in (1, 5)}
    return Facts(
        volatility=deviation.squeeze(-2).mean(-1),
        skew=scaled.pow(3).mean(-2).mean(-1),
        excess_kurtosis=(scaled.pow(4).mean(-2) - 3.0).mean(-1),
        hill_index=hill_index(size).mean(-1),
        clustering_1=lags[1],
        clustering_5=lags[5],
        clustering_20=lags[20],
        leverage_1=later[1],
        leverage_5=later[5],
        cross_correlation=_mean_correlation(scaled),
    )


def lagged_correlation(first: Tensor, second: Tensor, lag: int) -> Tensor:
    """Correlation [..., A] of `first` [..., T, A] with `second`, `lag` bars later."""
    early, late = first[..., :-lag, :], second[..., lag:, :]
    early, late = early - early.mean(-2, keepdim=True), late - late.mean(-2, keepdim=True)
    return (early * late).sum(-2) / (early.square().sum(-2) * late.square().sum(-2)).sqrt()


def hill_index(size: Tensor, share: float = TAIL) -> Tensor:
    """Tail exponent [..., A] of absolute values [..., T, A]: Hill (1975), Annals of Statistics 3.

    1 / mean(log(x_(i) / x_(k+1))) over the k largest of them.
    """
    count = max(2, int(share * size.shape[-2]))
    largest = size.topk(count + 1, dim=-2).values
    return 1.0 / (largest[..., :-1, :] / largest[..., -1:, :]).log().mean(-2)


def _mean_correlation(scaled: Tensor) -> Tensor:
    bars, assets = scaled.shape[-2:]
    # the variance of the sum of standardised returns is A + A (A - 1) times the mean correlation
    total = scaled.sum(-1).square().sum(-1) / bars
    return (total - assets) / (assets * (assets - 1)) if assets > 1 else total * torch.nan
