"""Student's t: how sure a mean of few values is."""

from __future__ import annotations

from math import atan, cos, pi, sin, sqrt, tan

from torch import Tensor

from fastsim.config import require_count
from fastsim.errors import ConfigError, DataError
from fastsim.stats.bootstrap import Interval

HALVINGS = 60
"""Of the range in which a quantile is looked for: more than a float64 can tell apart."""


def mean_interval(values: Tensor, level: float = 0.95) -> Interval:
    """Mean of values [n] with its Student-t interval of n - 1 degrees of freedom, n >= 2.

    It covers the true mean with probability `level` where values are independent and normal,
    however few there are. NaN throughout where a value is.

    Raises
    ------
    DataError
        There are fewer than two values.
    ConfigError
        The level is not between 0 and 1.
    """
    if values.ndim != 1 or len(values) < 2:
        raise DataError(f"an interval needs a series of at least 2 values, got {[*values.shape]}")
    values = values.double()
    estimate = float(values.mean())
    margin = student_margin(level, len(values) - 1) * float(values.std()) / sqrt(len(values))
    return Interval(estimate, estimate - margin, estimate + margin, level)


def student_margin(level: float, degrees: int) -> float:
    """The t that a Student variable of so many degrees stays within with probability `level`.

    The probability is a finite sum at whole degrees (Abramowitz and Stegun 1964, 26.7.3 and
    26.7.4), in the angle whose tangent is t over the root of the degrees; it grows with it.
    """
    require_count("degrees", degrees)
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must be between 0 and 1, got {level!r}")
    low, high = 0.0, pi / 2
    for _ in range(HALVINGS):
        angle = (low + high) / 2
        if _within(angle, degrees) < level:
            low = angle
        else:
            high = angle
    return sqrt(degrees) * tan(low)


def student_p_value(statistic: float, degrees: int) -> float:
    """Probability that a Student variable of so many degrees is further from 0; NaN for NaN."""
    require_count("degrees", degrees)
    return max(1.0 - _within(atan(abs(statistic) / sqrt(degrees)), degrees), 0.0)


def _within(angle: float, degrees: int) -> float:
    """Probability that |T| is below the root of the degrees times the angle's tangent."""
    odd = degrees % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= power / (power + 1) * cos(angle) ** 2
    if odd:
        return 2 / pi * (angle + sin(angle) * total)
    return sin(angle) * total
