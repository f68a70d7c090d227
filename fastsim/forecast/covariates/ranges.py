"""Variance of bars by their open, high, low and close.

A range says more of a bar's volatility than its return does: the estimators here have a fifth to a
fourteenth of the variance that a squared return has (Garman and Klass 1980; Yang and Zhang 2000).
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from fastsim.data.bars import CLOSE, HIGH, LOW, OPEN

YANG_ZHANG_BARS = 21
"""Bars that the estimator of Yang and Zhang looks back on."""


def parkinson(bars: Tensor) -> Tensor:
    """Variance [B, L] of each of `bars` [B, L, 6]: (log high / low)^2 / (4 log 2).

    Parkinson, "The Extreme Value Method for Estimating the Variance of the Rate of Return" (1980).
    """
    return _log(bars, HIGH, LOW).square() / (4.0 * math.log(2.0))


def garman_klass(bars: Tensor) -> Tensor:
    """Variance [B, L] of each of `bars` [B, L, 6]; may be below zero where a bar is all body.

    (log high / low)^2 / 2 - (2 log 2 - 1) (log close / open)^2: the practical estimator of Garman
    and Klass, "On the Estimation of Security Price Volatilities from Historical Data" (1980).
    """
    body = _log(bars, CLOSE, OPEN).square()
    return 0.5 * _log(bars, HIGH, LOW).square() - (2.0 * math.log(2.0) - 1.0) * body


def yang_zhang(bars: Tensor, count: int = YANG_ZHANG_BARS) -> Tensor:
    """Variance [B, L] of a bar, from close to close, over the `count` bars up to each.

    V_o + k V_c + (1 - k) V_rs of the sample variances of the returns from close to open and from
    open to close, the mean of Rogers and Satchell's (1991) estimator, and
    k = 0.34 / (1.34 + (n + 1) / (n - 1)): Yang and Zhang, "Drift-Independent Volatility Estimation
    Based on High, Low, Open, and Close Prices" (2000). NaN where one of these bars, or the close
    before them, is missing.
    """
    opened = functional.pad((bars[:, 1:, OPEN] / bars[:, :-1, CLOSE]).log(), (1, 0), value=math.nan)
    body, up, down = (_log(bars, field, OPEN) for field in (CLOSE, HIGH, LOW))
    rogers_satchell = up * (up - body) + down * (down - body)
    weight = 0.34 / (1.34 + (count + 1) / (count - 1))
    overnight, within = (_sample_variance(each, count) for each in (opened, body))
    return overnight + weight * within + (1.0 - weight) * _trailing(rogers_satchell, count).mean(-1)


def _log(bars: Tensor, upper: int, lower: int) -> Tensor:
    return (bars[..., upper] / bars[..., lower]).log()


def _sample_variance(values: Tensor, count: int) -> Tensor:
    """Of the `count` values [B, L] up to each, over count - 1."""
    return _trailing(values, count).var(-1)


def _trailing(values: Tensor, count: int) -> Tensor:
    """The `count` values up to each of [B, L], NaN before the first: [B, L, count]."""
    return functional.pad(values, (count - 1, 0), value=math.nan).unfold(1, count, 1)
