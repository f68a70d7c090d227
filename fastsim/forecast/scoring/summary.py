"""What scores come to: means over origins and horizons, ratios and differences, with intervals.

Windows of one origin share their days, and so their luck. Scores are therefore kept per origin, and
an interval comes from resampling blocks of origins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.errors import ForecastError
from fastsim.forecast.scoring.losses import Loss, Scores
from fastsim.stats.bootstrap import Interval, percentile_interval
from fastsim.stats.comparison import LossDifference, diebold_mariano
from fastsim.stats.resample import circular_rows

BLOCK = 6
"""Origins per resampled block."""
RESAMPLES = 2000
INTERVAL = 0.95
# Columns that a summary resamples: means over horizons of fields of `Scores`, and of its bands.
POOLED = ("quantile_loss", "crps", "absolute", "square", "percentage", "hits", "misses")
BAND_NAMES = ("coverage_50", "coverage", "coverage_95")


class ScoreSummary(NamedTuple):
    """What a forecaster is worth; losses as in `Scores`."""

    quantile_loss: Interval
    crps: Interval
    mase: Interval
    rmse: Interval
    mape: Interval
    coverage_50: Interval
    """NaN, as those of the other bands, where the forecaster's levels do not reach so far."""
    coverage: Interval
    """Of the 80 % band."""
    coverage_95: Interval
    hit_rate: Interval
    """Hits among hits and misses; NaN for a random walk, which takes no side."""
    pit: tuple[float, ...]
    windows: int


def summarise(scores: Scores) -> ScoreSummary:
    """Means over origins and horizons, with intervals."""
    columns = {name: getattr(scores, name).mean(1) for name in POOLED}
    bands = scores.covered.mean(1).unbind(-1)
    columns |= zip(BAND_NAMES, bands, strict=True)
    means, draws = _resampled_means(torch.stack([*columns.values()], -1), scores.windows)
    places = {name: place for place, name in enumerate(columns)}

    def over(*names: str, of: Callable[..., Tensor] = _same) -> Interval:
        chosen = [places[name] for name in names]
        return _interval(of, means[chosen], draws[:, chosen])

    share = scores.windows / scores.windows.sum()
    return ScoreSummary(
        quantile_loss=over("quantile_loss"),
        crps=over("crps"),
        mase=over("absolute"),
        rmse=over("square", of=torch.sqrt),
        mape=over("percentage"),
        **{name: over(name) for name in BAND_NAMES},
        hit_rate=over("hits", "misses", of=lambda hits, misses: hits / (hits + misses)),
        pit=tuple((share @ scores.pit.mean(1)).tolist()),
        windows=int(scores.windows.sum()),
    )


def relative(scores: Scores, baseline: Scores, loss: Loss = "quantile_loss") -> Interval:
    """Ratio of a loss to the baseline's on the same windows; below 1 is better.

    Raises
    ------
    ForecastError
        The two were not scored on the same windows.
    """
    columns = torch.stack(_pair(scores, baseline, loss), -1)
    return resampled(columns, scores.windows, torch.divide)


def loss_difference(
    scores: Scores, baseline: Scores, lags: int, loss: Loss = "quantile_loss"
) -> LossDifference | None:
    """How much a loss lies above the baseline's on the same windows, by `diebold_mariano`.

    An origin counts by its windows, as it does in `relative`. `lags` are those of
    `dependent_origins`. None where there are not two origins more than lags.

    Raises
    ------
    ForecastError
        The two were not scored on the same windows.
    """
    own, other = _pair(scores, baseline, loss)
    weights = scores.windows / scores.windows.mean()
    if len(weights) < lags + 2:
        return None
    return diebold_mariano((own - other) * weights, lags, level=INTERVAL)


def _pair(scores: Scores, baseline: Scores, loss: Loss) -> tuple[Tensor, Tensor]:
    """A loss [R] of both, means over horizons; ForecastError unless their windows are the same."""
    if not torch.equal(scores.windows, baseline.windows):
        raise ForecastError(
            f"scores of {int(scores.windows.sum())} and {int(baseline.windows.sum())} windows: "
            f"score both forecasters on the same origins and context"
        )
    return getattr(scores, loss).mean(1), getattr(baseline, loss).mean(1)


def resampled(
    values: Tensor,
    windows: Tensor,
    statistic: Callable[..., Tensor],
    *,
    seed: int = 0,
    block: int = BLOCK,
) -> Interval:
    """Estimate `statistic` of the mean of each column of `values` [R, C], weighted by `windows`.

    The interval is the circular block bootstrap's, of `block` neighbouring origins each, because
    good and bad times come in spells.
    """
    return _interval(statistic, *_resampled_means(values, windows, block=block, seed=seed))


def _resampled_means(
    values: Tensor, windows: Tensor, *, block: int = BLOCK, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Means [C] of values [R, C] over windows, and those [RESAMPLES, C] of resampled origins."""
    weight = windows[:, None]
    sums = torch.cat([values * weight, weight], 1)  # [R, C + 1]
    own, resampled_sums = sums.sum(0), _often(len(values), block, seed).to(sums) @ sums
    return own[:-1] / own[-1], resampled_sums[:, :-1] / resampled_sums[:, -1:]


@lru_cache(maxsize=2)
def _often(length: int, block: int, seed: int) -> Tensor:
    """How often each row is drawn [RESAMPLES, R]: the same for all that is resampled."""
    drawn = circular_rows(length, block, RESAMPLES, torch.Generator().manual_seed(seed))
    # A product with it is small, where a copy of all columns per resample is large.
    often = torch.zeros(drawn.shape, dtype=torch.float64)
    return often.scatter_add_(1, drawn, often.new_ones(()).expand_as(drawn))


def _interval(statistic: Callable[..., Tensor], means: Tensor, draws: Tensor) -> Interval:
    """A statistic of means [C], with the interval of the same of drawn ones [RESAMPLES, C]."""
    value = statistic(*means.unbind(-1))
    return percentile_interval(float(value), statistic(*draws.unbind(-1)), INTERVAL)


def _same(mean: Tensor) -> Tensor:
    return mean
