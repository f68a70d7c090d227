"""Estimates with their intervals, and p-values: for tables, and as plain values for JSON."""

from __future__ import annotations

import math

from fastsim.stats.bootstrap import Interval
from fastsim.stats.comparison import DependentMean, LossDifference

LEAST_P = 0.001
"""Smaller p-values are shown as below it."""


def cell(interval: Interval) -> str:
    """As "0.982 [0.975, 0.989]", or "none" where it is not defined.

    The value alone where it has no ends.
    """
    if math.isnan(interval.estimate):
        return "none"
    if math.isnan(interval.low):
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def percent_cell(interval: Interval) -> str:
    """A share in percent, as "3.48 [2.40, 4.87]", or "none" where it is not defined."""
    if math.isnan(interval.estimate):
        return "none"
    value, low, high = (f"{100.0 * part:.2f}" for part in interval[:3])
    return f"{value} [{low}, {high}]"


def p_cell(difference: LossDifference | DependentMean | None) -> str:
    """A p-value, or "none" where there is no test."""
    if difference is None or math.isnan(difference.p_value):
        return "none"
    if difference.p_value < LEAST_P:
        return f"< {LEAST_P}"
    return f"{difference.p_value:.3f}"


def short_p(p_value: float) -> str:
    """A p-value in two digits."""
    return "<.01" if p_value < 0.01 else f"{p_value:.2f}".lstrip("0")


def plain(interval: Interval) -> list[float | None]:
    """As [value, low, high], null where it is not defined."""
    return [plain_number(value) for value in interval[:3]]


def plain_difference(difference: LossDifference | None) -> dict[str, object] | None:
    """As an object of its parts; null where there is no test."""
    if difference is None:
        return None
    return {
        "difference": plain(difference.difference),
        "statistic": plain_number(difference.statistic),
        "p_value": plain_number(difference.p_value, digits=12),
        "lags": difference.lags,
    }


def plain_mean(found: DependentMean | None) -> dict[str, object] | None:
    """As an object of its parts; null where there is none."""
    if found is None:
        return None
    return {
        "mean": plain(found.mean),
        "statistic": plain_number(found.statistic),
        "p_value": plain_number(found.p_value, digits=12),
        "lags": found.lags,
    }


def plain_number(value: float, digits: int = 6) -> float | None:
    """Rounded; null where it is not defined."""
    return round(value, digits) if math.isfinite(value) else None
