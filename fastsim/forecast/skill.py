"""Does a forecaster know which assets do better than others: rank correlations over time.

At each origin assets are ordered by what is forecast of them and by what they earned then; the
correlation of the two orders, the rank IC, is one number, and its mean over origins is what the
forecaster is worth to who picks assets. Neighbouring origins share outcomes where their horizons
overlap, so its interval allows for dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.forecast.evaluate import BLOCK, INTERVAL, resampled
from fastsim.forecast.tape import LEAST_SIGMA, ForecastTape, figure_name
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import MarketTape
from fastsim.stats.bootstrap import Interval
from fastsim.stats.comparison import (
    DependentMean,
    dependent_mean,
    overlap_lags,
    overlapping,
)
from fastsim.stats.ranks import rank_correlation

By = Literal["return", "ratio", "rise"]
"""What assets are ordered by: the expected log return, that over its dispersion, or the
probability of a rise."""
RETURN_STEP = 8 * torch.finfo(torch.float32).eps
"""Expected returns are told apart by this much: quantiles are float32, and a driftless walk's are
of either sign by rounding."""


class RankSkill(NamedTuple):
    """Mean rank IC of a forecaster at one horizon."""

    origins: int
    """At which there is a rank correlation."""
    assets: float
    """Of such an origin, on average."""
    newey_west: DependentMean | None
    """None where origins are too few for its lags."""
    bootstrap: Interval
    """Of the same mean, by blocks of origins; NaN where there are none."""
    above: float
    """Share of origins whose rank IC is above zero; NaN where there are none."""


def scores_of(told: ForecastTape, horizon: int, by: By) -> Tensor:
    """What assets are ordered by [R, A] at one horizon, in float64; NaN where nothing is known."""
    figures = {
        name: told.figure(figure_name(name, horizon)).double() for name in ("return", "rise")
    }
    if by == "rise":
        return figures["rise"]
    expected = (figures["return"] / RETURN_STEP).round() * RETURN_STEP
    if by == "return":
        return expected
    dispersion = told.figure(figure_name("dispersion", horizon)).double()
    return expected / dispersion.clamp_min(LEAST_SIGMA)


def realised(tape: MarketTape, rows: NDArray[np.int64], horizon: int) -> Tensor:
    """Log returns [R, A] of the `horizon` bars after each row; NaN where a close is missing.

    Rows that are not followed by as many bars have none.
    """
    closes = tape.known.bars[..., CLOSE].double()  # [T, A]
    later = torch.from_numpy(rows + horizon)
    came = closes[later.clamp_max(len(closes) - 1)] / closes[torch.from_numpy(rows)]
    return came.log().masked_fill((later >= len(closes))[:, None], torch.nan)


def known_styles(tape: MarketTape, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Momentum and trailing volatility [R, A] at these rows: what orders assets without a model.

    Momentum is the log return from `momentum_window` to `momentum_skip` bars before, of the usual
    `FeatureConfig`; volatility is the tape's. NaN where there is none.
    """
    usual = FeatureConfig()
    closes = tape.known.bars[..., CLOSE].double()
    began, ended = (
        torch.from_numpy(rows) - back for back in (usual.momentum_window, usual.momentum_skip)
    )
    momentum = (closes[ended.clamp_min(0)] / closes[began.clamp_min(0)]).log()
    sigma = tape.known.sigma[torch.from_numpy(rows)].double()
    return (
        momentum.masked_fill((began < 0)[:, None], torch.nan),
        sigma.masked_fill(sigma <= LEAST_SIGMA, torch.nan),
    )


def rank_skill(
    scores: Tensor,
    outcomes: Tensor,
    rows: NDArray[np.int64],
    horizon: int,
    *,
    beyond: Sequence[Tensor] = (),
    seed: int = 0,
) -> RankSkill:
    """Mean rank IC of scores [R, A] for outcomes [R, A], with two intervals.

    Origins of too few assets, or whose assets all tie, have no rank IC and are left out
    (`fastsim.stats.ranks.rank_correlation`). As many neighbours depend as overlap: lags are those
    of `overlap_lags`, and blocks of the bootstrap twice as long as that.

    Parameters
    ----------
    rows
        Of the origins [R], increasing; horizons are counted in the same bars.
    beyond
        Tables [R, A] whose ranks are taken out of those of the scores, such as `known_styles`.
    seed
        Of the bootstrap.
    """
    found = rank_correlation(scores, outcomes, beyond=beyond)
    there = found.isfinite()
    if not bool(there.any()):
        nothing = Interval(torch.nan, torch.nan, torch.nan, INTERVAL)
        return RankSkill(0, torch.nan, None, nothing, torch.nan)
    series = found[there]
    known = torch.stack([~each.isnan() for each in (scores, outcomes, *beyond)]).all(0)
    lags = overlap_lags(rows[there.numpy()], horizon)
    shared = overlapping(rows[there.numpy()], horizon)
    return RankSkill(
        origins=len(series),
        assets=float(known[there].sum(1).double().mean()),
        newey_west=dependent_mean(series, lags, level=INTERVAL) if len(series) > lags + 1 else None,
        bootstrap=resampled(
            series[:, None],
            torch.ones_like(series),
            lambda mean: mean,
            seed=seed,
            block=max(BLOCK, 2 * shared),
        ),
        above=float((series > 0).double().mean()),
    )


def rises(told: ForecastTape, outcomes: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Probabilities of a rise [N] and whether it came [N], of all rows and assets.

    Without those of which either is unknown, and those that did not move, which are neither.
    """
    probability = told.figure(figure_name("rise", horizon)).double()
    known = probability.isfinite() & outcomes.isfinite() & (outcomes != 0)
    return probability[known], outcomes[known] > 0
