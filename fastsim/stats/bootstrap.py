"""How sure an estimate is, and a difference between two Sharpe ratios: the stationary bootstrap.

Daily returns are not independent, so whole blocks of days are resampled: Politis and Romano (1994),
"The Stationary Bootstrap", JASA 89(428). Both series are resampled with the same days, so what
they have in common cancels, as in Ledoit and Wolf (2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from math import isnan, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import require_count, require_positive, whole_number
from fastsim.errors import ConfigError, DataError
from fastsim.stats.metrics import rounding_of, sharpe_ratio
from fastsim.stats.resample import resampled_blocks
from fastsim.stats.years import TRADING_DAYS


class Interval(NamedTuple):
    """An estimate and the interval that a bootstrap puts around it."""

    estimate: float
    low: float
    high: float
    level: float

    @property
    def contains_zero(self) -> bool:
        """Whether the data are compatible with no difference at this level."""
        return self.low <= 0.0 <= self.high


def sharpe_difference(
    returns_a: Tensor,
    returns_b: Tensor,
    *,
    block_length: float = 21,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    risk_free: float = 0.0,
    periods_per_year: float = TRADING_DAYS,
) -> Interval:
    """Estimate the annualised Sharpe ratio of `a` minus that of `b`, with a percentile interval.

    The interval needs many blocks to keep its word. Simulated at level 0.9 and block_length 21, it
    covered a true difference of zero 90 % of the time with T = 2000, and 84 % with T = 500.

    Parameters
    ----------
    returns_a, returns_b
        Simple returns [T] of the same periods, T >= 2.
    block_length
        Mean length of a resampled block, in periods. Longer blocks keep longer dependence.
    resamples
        Number of bootstrap samples.
    level
        Probability that the interval should cover the true difference.
    seed
        Of this call's own generator, on the CPU: the same seed gives the same interval anywhere.
    risk_free
        Simple return per period.
    periods_per_year
        Periods a year.

    Returns
    -------
    Interval
        NaN throughout where a Sharpe ratio is not a finite number, as of a series that does not
        vary. Resamples of which that is so are left out.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If the series differ in length, are shorter than two, or hold values that are not finite.
    """
    _check_settings(block_length=block_length, resamples=resamples, level=level)
    require_positive("periods_per_year", periods_per_year)
    pair = _paired(returns_a, returns_b)  # [T, 2]
    rounding = max(rounding_of(each.dtype) for each in (returns_a, returns_b))

    ratios = sharpe_ratio(
        pair, risk_free=risk_free, periods_per_year=periods_per_year, rounding=rounding
    )
    estimate = float(_difference(ratios))
    if isnan(estimate):
        return Interval(estimate, torch.nan, torch.nan, level)
    generator = torch.Generator().manual_seed(whole_number("seed", seed))
    excess = pair.cpu() - risk_free
    draws = [
        _difference(ratio * sqrt(periods_per_year))
        for ratio in _resampled_ratios(excess, block_length, resamples, rounding, generator)
    ]
    return percentile_interval(estimate, torch.cat(draws), level)


def _difference(ratios: Tensor) -> Tensor:
    """The first of two Sharpe ratios [..., 2] less the second; NaN where it is not finite."""
    lacking = ratios[..., 0] - ratios[..., 1]
    return lacking.masked_fill(lacking.isinf(), torch.nan)


def _resampled_ratios(
    excess: Tensor,
    block_length: float,
    resamples: int,
    rounding: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Yield mean over standard deviation [chunk, S] of resampled series [T, S].

    Both follow from sums over blocks, which are differences of running sums of the series and its
    squares: as much work as there are blocks, not rows. A millionth of the series' own deviation
    is none: running sums round.
    """
    length, series = excess.shape
    centre = excess.mean(0)
    parts = torch.cat([excess - centre, (excess - centre).square()], dim=1).repeat(2, 1)
    running = torch.cat([parts.new_zeros(1, 2 * series), parts.cumsum(0)])  # [2 T + 1, 2 S]
    usual = excess.std(0)
    # numba takes half a second to import.
    add_up = import_module("fastsim.stats.numba_blocks").add_blocks
    for starts, ends in resampled_blocks(length, block_length, resamples, generator):
        sums = parts.new_zeros(len(starts), 2 * series)
        add_up(*(part.numpy() for part in (starts, ends, running, sums)))
        shift, squares = (sums / length).chunk(2, dim=1)
        mean = centre + shift
        variance = (squares - shift.square()).clamp_min(0.0) * length / (length - 1)
        least = torch.maximum(rounding * (1.0 + mean.abs()), 1e-6 * usual)
        deviation = variance.sqrt()
        deviation = deviation.masked_fill(deviation <= least, 0.0)
        still = (deviation == 0) & (mean.abs() <= least)
        yield mean.masked_fill(still, 0.0) / deviation


def percentile_interval(estimate: float, draws: Tensor, level: float) -> Interval:
    """The middle `level` of resampled estimates [resamples]; NaN among them are left out."""
    tail = (1.0 - level) / 2.0
    low, high = draws.nanquantile(draws.new_tensor([tail, 1.0 - tail])).tolist()
    return Interval(estimate=estimate, low=low, high=high, level=level)


def _check_settings(*, block_length: float, resamples: int, level: float) -> None:
    if not block_length >= 1:
        raise ConfigError(f"block_length must be >= 1, got {block_length!r}")
    require_count("resamples", resamples)
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must be between 0 and 1, got {level!r}")


def _paired(returns_a: Tensor, returns_b: Tensor) -> Tensor:
    """Stack two series into [T, 2] float64, checked."""
    shapes = tuple(returns_a.shape), tuple(returns_b.shape)
    if returns_a.ndim != 1 or shapes[0] != shapes[1] or len(returns_a) < 2:
        raise DataError(f"paired returns must be two series [T] with T >= 2, got {shapes}")
    pair = torch.stack([returns_a.detach(), returns_b.detach()], dim=-1).double()
    if not bool(pair.isfinite().all()):
        row = int((~pair.isfinite()).any(-1).nonzero()[0])
        raise DataError(f"paired returns must be finite, got {pair[row].tolist()} in row {row}")
    return pair
