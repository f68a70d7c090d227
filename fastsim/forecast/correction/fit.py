"""Fitting a correction of volatility to bars: a convex problem in a few hundred weights."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.bars import Bars
from fastsim.forecast.correction.corrected import (
    Corrected,
    Correction,
    Seen,
    seen_by,
)
from fastsim.forecast.evaluate import BLOCK, DECILES, resampled
from fastsim.forecast.interface import Context, Forecast, Forecaster, check_horizon
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.setting import fit_season, has_season_at
from fastsim.forecast.seen import latest_day
from fastsim.forecast.training.config import SplitConfig
from fastsim.forecast.training.series import series_of_bars
from fastsim.forecast.training.split import Look, split_origins, split_stamp, spread_origins
from fastsim.forecast.training.windows import windows_at
from fastsim.stats.bootstrap import Interval

TRAIN_WINDOWS, VALIDATION_WINDOWS, CHUNK = 12_000, 6_000, 512
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of squared weights, of which validation chooses."""
ITERATIONS = 60


class CorrectionFit(NamedTuple):
    """What a fit gives."""

    corrected: Corrected
    """Its weights zero where nothing was better: the forecaster in its season."""
    ratio: Interval
    """Validation loss of the correction over that without it, both in the season."""
    kept: bool
    """Whether the interval lies below 1, so that the correction is there."""
    penalty: float
    windows: tuple[int, int]
    """Of training and of validation."""


class _Problem(NamedTuple):
    """Windows with what was forecast, read and came."""

    returns: Tensor  # [B, h, Q]  quantiles of the log return without the season, at DECILES
    inputs: Tensor  # [B, F]
    outcome: Tensor  # [B, h]  log return that came over its growth, NaN where unknown
    scale: Tensor  # [B, 1, 1]  the forecast's own dispersion of a bar
    stamps: Tensor  # [B]


def fit_correction(
    forecaster: Forecaster,
    bars: Bars,
    *,
    horizons: tuple[int, ...],
    zone: str = "UTC",
    context: int = 512,
    split: SplitConfig | None = None,
    name: str = "",
) -> CorrectionFit:
    """Fit the season and the volatility of a forecaster to the first part of some bars.

    The mean pinball loss over DECILES and horizons, in units of the forecast's own dispersion, is
    minimised by L-BFGS under a penalty on squared weights that validation chooses. A correction
    that is not better on validation by the 95 % interval of a block bootstrap is left out.

    Raises
    ------
    ConfigError
        There is no such time zone.
    DataError
        The bars hold no window for one of the parts.
    ForecastError
        The forecaster cannot look as far ahead.
    """
    check_horizon(forecaster.card, horizons[-1])
    split = SplitConfig() if split is None else split
    series = series_of_bars(bars)
    look = Look(min(context, len(bars)), forecaster.card.min_context, horizons)
    origins = split_origins(series, look, split)
    season = _season(bars, split_stamp(series, split), zone)
    parts = []
    for rows, most in ((origins.train, TRAIN_WINDOWS), (origins.validation, VALIDATION_WINDOWS)):
        chosen = spread_origins(series, rows, most).origins
        chunks = np.split(chosen, range(CHUNK, len(chosen), CHUNK))
        windows = [windows_at(series, chunk, look) for chunk in chunks]
        told = [
            _problem(forecaster, season, each.context, each.future[:, 0], horizons)
            for each in windows
        ]
        parts.append(_Problem(*map(torch.cat, zip(*told, strict=True))))
    train, validation = parts
    tried = {penalty: _fitted(train, penalty, horizons) for penalty in PENALTIES}
    losses = {penalty: _losses(validation, each, horizons) for penalty, each in tried.items()}
    penalty = min(losses, key=lambda each: float(losses[each].mean()))
    start = _losses(validation, Correction(), horizons)
    ratio = _ratio(losses[penalty], start, validation.stamps)
    kept = ratio.high < 1.0
    corrected = Corrected(
        forecaster,
        tried[penalty] if kept else Correction(),
        season,
        name=name or f"{forecaster.card.name}, corrected",
        known_until=latest_day(
            [forecaster.card, replace(forecaster.card, known_until=series.last_day)]
        ),
    )
    return CorrectionFit(
        corrected, ratio, kept, penalty, (len(train.stamps), len(validation.stamps))
    )


def _season(bars: Bars, border: int, zone: str) -> Season:
    """The profile of the bars before validation; none where they are a day or longer."""
    seconds = torch.from_numpy(bars.timestamps.astype("datetime64[s]").astype("int64"))
    if not has_season_at(seconds):
        return Season(zone)
    before = int((seconds < border).sum())
    table = torch.from_numpy(bars.table()[:before]).transpose(0, 1)
    return fit_season(Context(table, seconds[:before].expand(len(table), -1)), zone)


@torch.inference_mode()
def _problem(
    forecaster: Forecaster,
    season: Season,
    context: Context,
    future: Tensor,
    horizons: tuple[int, ...],
) -> _Problem:
    seen: Seen = seen_by(forecaster, season, context, horizons[-1])
    ahead = torch.tensor(horizons) - 1
    chosen = Forecast(seen.told.quantiles[:, ahead], seen.told.levels)
    returns = chosen.log_returns(seen.last)
    return _Problem(
        torch.stack([returns.at(level) for level in DECILES], -1).double(),
        seen.inputs,
        future.double() / seen.growth[:, ahead],
        seen.told.dispersion(seen.last)[:, :1, None].double(),
        context.timestamps[:, -1],
    )


def _losses(problem: _Problem, correction: Correction, horizons: tuple[int, ...]) -> Tensor:
    """Loss [B] of each window: mean over its known horizons and DECILES."""
    factor = correction(problem.inputs, horizons[-1])[:, torch.tensor(horizons) - 1]
    middle = problem.returns[..., len(DECILES) // 2, None]
    told = middle + (problem.returns - middle) * factor[..., None]
    known = problem.outcome.isfinite()
    error = (problem.outcome.nan_to_num()[..., None] - told) / problem.scale
    levels = torch.tensor(DECILES, dtype=torch.float64)
    pinball = torch.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    return (pinball * known).sum(1) / known.sum(1)


def _fitted(problem: _Problem, penalty: float, horizons: tuple[int, ...]) -> Correction:
    correction = Correction()
    weights = correction.weights.requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _losses(problem, correction, horizons).mean() + penalty * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Correction(weights.detach().clone())


def _ratio(losses: Tensor, start: Tensor, stamps: Tensor) -> Interval:
    """Mean loss over that of the start, with the interval of a block bootstrap over times."""
    _, place, counts = torch.unique(stamps, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), 2, dtype=torch.float64)
    sums.index_add_(0, place, torch.stack([losses, start], 1))
    return resampled(sums / counts[:, None], counts.double(), torch.divide, block=2 * BLOCK)
