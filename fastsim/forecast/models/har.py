"""The heterogeneous autoregression of realised variance, fitted to every window by least squares.

Corsi (2009), "A simple approximate long-memory model of realized volatility", Journal of Financial
Econometrics 7(2), equation 8: the variance of the next bar is linear in the mean variances of the
last bar, of the last 5 and of the last 22. What is realised of a bar here is its squared log
return, so that any closes will do. It is noisy, and a line through it can foretell anything: that
is kept within the range of the means of 22 bars that the window has seen, a filter in the
manner of Swanson and White (1997), "A model selection approach to real-time macroeconomic
forecasting using linear models and artificial neural networks", Review of Economics and Statistics
79(4).

Variances of bars further ahead are those of the recursion, and add up.
"""

from __future__ import annotations

from functools import lru_cache
from math import copysign, lgamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

from fastsim.forecast.digests import OWN_CODE
from fastsim.forecast.models.classical import WindowFitted
from fastsim.forecast.networks.return_network import LEVELS
from fastsim.stats.student import student_margin

SPANS = (1, 5, 22)
"""Bars of the means: a day, a week and a month of daily ones."""
LEAST_ROWS = 20
"""Bars that a regression rests on, at least."""
LEAST_SHARE = 1e-4
"""Of the largest variance: no bar has less, so that prices that stood still may move again."""
DEGREES = (*range(3, 31),)
"""Of Student's t that scaled residuals are held against."""
MORE_EVERY = 4
"""Bars ahead for each degree more: sums of returns lose their tails slowly."""

Array = NDArray[np.float64]


def har(*, levels: tuple[float, ...] = LEVELS) -> WindowFitted:
    """HAR on squared returns, with Student's t for what the variance leaves over.

    The median is the last close. The degrees of freedom are those whole ones under which the
    window's returns, each divided by the root of its fitted variance, are likeliest, one more for
    every MORE_EVERY bars ahead: bad times come in spells, so that sums of returns lose their tails
    slowly. Quantile loss over that of a random walk, and what the 80 % band held at 21 bars:

    | | daily, `us20`, 2,520 windows | daily, `tech4` | hourly, three currencies |
    | --- | --- | --- | --- |
    | so | 0.9955, 82.6 % | 1.0003, 79.2 % | 0.9888, 80.6 % |
    | the same degrees at all horizons | 0.9948, 79.8 % | 1.0024, 75.6 % | 0.9906, 72.9 % |
    | those of a sum of independent returns | 0.9960, 81.7 % | 1.0019, 77.3 % | 0.9905, 73.6 % |
    | normal | 1.0007, 84.2 % | 1.0010, 81.8 % | 0.9979, 83.2 % |

    A window of fewer than 42 known returns is forecast by the EWMA random walk, and counted.
    """

    def law(returns: Array, horizon: int) -> Array | None:
        squares = np.square(returns)
        mean = float(squares.mean()) if len(squares) else 0.0
        if len(returns) < SPANS[-1] + LEAST_ROWS or not mean > 0.0:
            return None
        coefficients = har_coefficients(squares / mean)
        fitted, ahead = har_variances(squares / mean, coefficients, horizon)
        scaled = returns[SPANS[-1] :] / np.sqrt(mean * fitted)
        spread = np.sqrt(mean * ahead.cumsum())
        return spread[:, None] * _quantiles(_likeliest(scaled), horizon, levels)

    return WindowFitted(
        name="har",
        licence="MIT",
        package=OWN_CODE,
        settings={"spans": SPANS, "degrees": DEGREES, "more_every": MORE_EVERY},
        law=law,
        levels=levels,
    )


def har_coefficients(squares: Array) -> Array:
    """Constant and weights of the means over SPANS [4], by ordinary least squares.

    `squares` [n] are squared returns, oldest first; each from the 23rd on is a row.
    """
    rows = _means(squares)[:-1]
    found: Array = np.linalg.lstsq(rows, squares[SPANS[-1] :], rcond=None)[0].astype(np.float64)
    return found


def har_variances(squares: Array, coefficients: Array, horizon: int) -> tuple[Array, Array]:
    """Variances of the bars of the regression [n - 22], and of the next `horizon` [H].

    All are kept within the range of the means of 22 squares, and above LEAST_SHARE of its top.
    """
    means = _means(squares)
    high = means[:, -1].max()
    low = max(means[:, -1].min(), LEAST_SHARE * high)
    fitted = np.clip(means[:-1] @ coefficients, low, high)
    path = [*squares[-SPANS[-1] :].tolist()]
    for _ in range(horizon):
        row = [1.0, *(sum(path[-span:]) / span for span in SPANS)]
        path.append(float(np.clip(np.dot(row, coefficients), low, high)))
    return fitted, np.array(path[SPANS[-1] :])


def _means(squares: Array) -> Array:
    """A one and the means over SPANS [n - 21, 4] that end at each square from the 22nd on."""
    sums = np.concatenate([[0.0], squares.cumsum()])
    ends = np.arange(SPANS[-1], len(sums))
    means = [(sums[ends] - sums[ends - span]) / span for span in SPANS]
    return np.stack([np.ones(len(ends)), *means], axis=1)


def _quantiles(degrees: int, horizon: int, levels: tuple[float, ...]) -> Array:
    """Quantiles [H, Q] of a return over 1 to H bars, in units of the root of its variance."""
    return np.stack([_student(degrees + bars // MORE_EVERY, levels) for bars in range(horizon)])


def _likeliest(scaled: Array) -> int:
    """The degrees of freedom of Student's t of unit variance under which returns are likeliest."""
    square = np.square(scaled)

    def likelihood(degrees: int) -> float:
        constant = lgamma((degrees + 1) / 2) - lgamma(degrees / 2) - log(degrees - 2) / 2
        fall = (degrees + 1) / 2 * np.log1p(square / (degrees - 2)).mean()
        return constant - float(fall)

    found: int = max(DEGREES, key=likelihood)
    return found


@lru_cache(maxsize=1024)
def _student(degrees: int, levels: tuple[float, ...]) -> Array:
    """Quantiles [Q] of Student's t of unit variance."""
    unit = sqrt((degrees - 2) / degrees)
    signed = [
        copysign(student_margin(abs(2.0 * level - 1.0), degrees), level - 0.5)
        if level != 0.5
        else 0.0
        for level in levels
    ]
    return unit * np.array(signed)
