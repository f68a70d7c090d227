"""What a return series is judged by, batched: time is dim 0, whatever trails is kept.

Definitions and edge cases are those of empyrical-reloaded 0.7 (`empyrical.stats`): sample standard
deviation (ddof 1), missing returns left out, NaN where a series is too short to say. Unlike there,
what is no more than rounding of the wealth that returns were taken from is zero: a constant return
has no deviation, and a mean, a shortfall or a drawdown of that size is none. Nothing here reads a
tensor back to the host.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.errors import DataError
from fastsim.stats.years import DAYS_PER_YEAR, TRADING_DAYS


def total_return(returns: Tensor) -> Tensor:
    """Compound simple returns [T, ...] into one [...]; NaN if T is 0.

    `prod(1 + r) - 1`, empyrical's `cum_returns_final`.
    """
    if len(returns) == 0:
        return _undefined(returns)
    return (1.0 + _missing_as_zero(returns)).prod(0) - 1.0


def annual_return(returns: Tensor, *, periods_per_year: float = TRADING_DAYS) -> Tensor:
    """Compound annual growth rate [...] of simple returns [T, ...]; NaN if T is 0.

    `prod(1 + r) ^ (periods_per_year / T) - 1`, empyrical's `annual_return`.
    """
    if len(returns) == 0:
        return _undefined(returns)
    years = len(returns) / periods_per_year
    growth: Tensor = (1.0 + _missing_as_zero(returns)).prod(0)
    return growth.pow(1.0 / years) - 1.0


def annual_volatility(returns: Tensor, *, periods_per_year: float = TRADING_DAYS) -> Tensor:
    """Sample standard deviation of returns [T, ...] times sqrt(periods a year); NaN if T < 2.

    Empyrical's `annual_volatility` with its `alpha` of 2.
    """
    return _standard_deviation(returns) * sqrt(periods_per_year)


def downside_risk(
    returns: Tensor,
    *,
    required_return: float | Tensor = 0.0,
    periods_per_year: float = TRADING_DAYS,
) -> Tensor:
    """Root mean square of the shortfall below `required_return`, annualised; NaN if T is 0.

    `sqrt(mean(min(r - required, 0)^2)) * sqrt(periods_per_year)`, empyrical's `downside_risk`.

    Parameters
    ----------
    returns
        Simple returns [T, ...].
    required_return
        Least acceptable simple return per period, a number or a tensor that broadcasts.
    periods_per_year
        Periods a year.
    """
    shortfall = (returns - required_return).clamp(max=0.0)
    return shortfall.square().nanmean(0).sqrt() * sqrt(periods_per_year)


def sharpe_ratio(
    returns: Tensor,
    *,
    risk_free: float | Tensor = 0.0,
    periods_per_year: float = TRADING_DAYS,
    rounding: float | None = None,
) -> Tensor:
    """Mean over standard deviation of the returns above risk-free, annualised.

    `mean(r - f) / std(r - f) * sqrt(periods_per_year)`, empyrical's `sharpe_ratio` (Sharpe 1994).
    Infinite for a constant gain or loss, NaN for constant zeros and for T < 2.

    Parameters
    ----------
    returns
        Simple returns [T, ...].
    risk_free
        Simple return per period, a number or a tensor that broadcasts against `returns`.
    periods_per_year
        Periods a year.
    rounding
        Largest error of a return; `rounding_of` their type unless given.
    """
    excess = returns - risk_free
    if len(excess) < 2:
        return _undefined(excess)
    mean = excess.nanmean(0)
    least = (rounding_of(returns.dtype) if rounding is None else rounding) * (1.0 + mean.abs())
    deviation = _or_zero(_standard_deviation(excess), least)
    mean = torch.where(deviation > 0, mean, _or_zero(mean, least))
    return mean / deviation * sqrt(periods_per_year)


def sortino_ratio(
    returns: Tensor,
    *,
    required_return: float | Tensor = 0.0,
    periods_per_year: float = TRADING_DAYS,
) -> Tensor:
    """Annual mean return above `required_return` over the downside risk; NaN if T < 2.

    Empyrical's `sortino_ratio` (Sortino and Price 1994). Infinite for a gain without shortfalls,
    NaN for constant zeros.

    Parameters
    ----------
    returns
        Simple returns [T, ...].
    required_return
        Least acceptable simple return per period, a number or a tensor that broadcasts.
    periods_per_year
        Periods a year.
    """
    if len(returns) < 2:
        return _undefined(returns)
    risk = downside_risk(
        returns, required_return=required_return, periods_per_year=periods_per_year
    )
    mean = (returns - required_return).nanmean(0)
    least = rounding_of(returns.dtype) * (1.0 + mean.abs())
    risk = _or_zero(risk, least * sqrt(periods_per_year))
    return torch.where(risk > 0, mean, _or_zero(mean, least)) * periods_per_year / risk


def drawdown(returns: Tensor) -> Tensor:
    """Fraction lost since the highest wealth so far [T, ...], counting the start as a high.

    Zero or negative; empyrical's `drawdown_series`.
    """
    growth = (1.0 + _missing_as_zero(returns)).cumprod(0)
    if len(growth) == 0:
        return growth
    peak = growth.cummax(0).values.clamp(min=1.0)
    return (growth - peak) / peak


def max_drawdown(returns: Tensor) -> Tensor:
    """Worst drawdown [...] of simple returns [T, ...], zero or negative; NaN if T is 0.

    Empyrical's `max_drawdown`.
    """
    if len(returns) == 0:
        return _undefined(returns)
    return drawdown(returns).amin(0)


def calmar_ratio(returns: Tensor, *, periods_per_year: float = TRADING_DAYS) -> Tensor:
    """Annual return over the size of the worst drawdown; NaN without a drawdown.

    Empyrical's `calmar_ratio` (Young 1991), over the whole series; infinite values become NaN.
    """
    # Rounding adds up over the periods that wealth is compounded over.
    least = rounding_of(returns.dtype) * max(1.0, sqrt(len(returns)))
    growth = annual_return(returns, periods_per_year=periods_per_year)
    ratio = growth / -_or_zero(max_drawdown(returns), least)
    return ratio.masked_fill(ratio.isinf(), torch.nan)


def rounding_of(dtype: torch.dtype) -> float:
    """Largest error of a return that was taken from two amounts of wealth of this type."""
    return 2.0 * torch.finfo(dtype).eps


def periods_per_year(timestamps: NDArray[np.datetime64]) -> float:
    """Infer how many bars make a year, from the calendar that the bars themselves have.

    Bars shorter than a day with next to no gaps are those of a market that never closes: a year
    over their length, 525,600 minutes. Other bars are counted by the days of the week that they
    have: daily ones of five days make exactly 252 by the convention of the field, of seven exactly
    365, of six 365 x 6/7 = 313, and so on. Intraday bars are counted: where the market trades on
    seven days, over the time from the first to the last; else those per such day of the sample,
    times such days a year (holidays then count as days without bars, which is why long samples say
    it better). Anything slower than daily is counted to the nearest whole number: 52 for weeks, 12
    for months. A sample shorter than a week is taken for one of a market with weekends.

    Parameters
    ----------
    timestamps
        Closes [T], datetime64 of any unit, increasing.

    Raises
    ------
    DataError
        If there are fewer than two bars or they do not increase.
    """
    if len(timestamps) < 2:
        raise DataError(f"bars a year need at least 2 timestamps, got {len(timestamps)}")
    gaps = np.diff(timestamps) / np.timedelta64(1, "D")  # [T - 1]  days
    if not gaps.min() > 0:
        place = int(gaps.argmin())
        raise DataError(
            f"timestamps must increase, got {timestamps[place]} before {timestamps[place + 1]}"
        )
    usual_gap = float(np.median(gaps))
    if usual_gap > 1.5:
        return max(1.0, float(round(DAYS_PER_YEAR / float(gaps.mean()))))
    days = timestamps.astype("datetime64[D]")
    week = _days_of_week(days)
    if usual_gap > 0.8:
        return TRADING_DAYS if len(week) == 5 else DAYS_PER_YEAR * len(week) / 7
    if usual_gap > 0.9 * gaps.mean():
        return DAYS_PER_YEAR / usual_gap
    if len(week) == 7:
        return DAYS_PER_YEAR / float(gaps.mean())
    days = _whole_days(days)
    open_days = np.isin(_day_of_week(np.arange(days[0], days[-1] + 1)), week).sum()
    return len(days) / max(1, int(open_days)) * DAYS_PER_YEAR * len(week) / 7


def _whole_days(days: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Days of bars without the first and the last where the sample cuts those short."""
    _, counts = np.unique(days, return_counts=True)
    if len(counts) < 4:
        return days
    whole = 0.75 * float(np.median(counts))
    return days[
        (counts[0] if counts[0] < whole else 0) : len(days)
        - (counts[-1] if counts[-1] < whole else 0)
    ]


def _day_of_week(days: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """0 for Monday to 6 for Sunday."""
    numbers: NDArray[np.int64] = (days.astype("datetime64[D]").astype(np.int64) + 3) % 7
    return numbers


def _days_of_week(days: NDArray[np.datetime64]) -> list[int]:
    """Days on which a market trades: those with bars in half of the weeks, and half as many each.

    A sample shorter than a week says nothing of weekends, unless it has bars on one, and in one
    shorter than four weeks a working day without bars is a holiday.
    """
    numbers = _day_of_week(days)
    span = int((days[-1] - days[0]).astype("timedelta64[D]").astype(int)) + 1
    weeks = np.bincount(_day_of_week(np.arange(days[0], days[-1] + 1)), minlength=7).clip(1)
    dated = np.bincount(_day_of_week(np.unique(days)), minlength=7) / weeks
    bars = np.bincount(numbers, minlength=7) / weeks
    often = (dated >= 0.5) & (bars >= 0.5 * np.median(bars[bars > 0]))
    busy: list[int] = np.flatnonzero(often).tolist()
    if span < 7:
        return list(range(7)) if often[5:].all() else list(range(5))
    holidays = span < 28 and max(busy, default=0) < 5
    return list(range(5)) if holidays else busy or list(range(5))


def _undefined(returns: Tensor) -> Tensor:
    return returns.new_full(returns.shape[1:], torch.nan)


def _or_zero(values: Tensor, least: float | Tensor) -> Tensor:
    """Values whose size is above `least`, or else 0; NaN stays."""
    return values.masked_fill(values.abs() <= least, 0.0)


def _missing_as_zero(returns: Tensor) -> Tensor:
    return torch.where(returns.isnan(), 0.0, returns)


def _standard_deviation(values: Tensor) -> Tensor:
    """Sample standard deviation (ddof 1) of the values that are there; NaN below two of them."""
    count = (~values.isnan()).sum(0)
    squares = (values - values.nanmean(0)).square().nansum(0)
    return (squares / (count - 1)).sqrt().masked_fill(count < 2, torch.nan)
