"""Losses of forecasts: of each window by itself, and their means over the windows of an origin."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from fastsim.forecast.interface import INNER_BAND, MEDIAN, Forecast
from fastsim.forecast.scoring.windows import scale_of

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BANDS = ((0.25, 0.75), INNER_BAND, (0.025, 0.975))
"""Levels of the bands of 50, 80 and 95 %."""
BAND_SHARES = (0.5, 0.8, 0.95)
Loss = Literal["quantile_loss", "crps", "absolute"]


class WindowScores(NamedTuple):
    """Losses of each of W windows by horizon h, origin by origin, in the units of `Scores`.

    Windows of a `Windows` are in the same order for every forecaster.
    """

    origin: Tensor  # [W]  place among the origins of `Windows`, int64
    asset: Tensor  # [W]  place among the symbols, int64
    quantile_loss: Tensor  # [W, h]
    crps: Tensor  # [W, h]
    absolute: Tensor  # [W, h]
    square: Tensor  # [W, h]
    percentage: Tensor  # [W, h]
    covered: Tensor  # [W, h, 3]  1 in a band, 0 outside, NaN beyond the levels
    side: Tensor  # [W, h]  1 where the median is on the outcome's side, -1 on the other, 0 on none
    tenth: Tensor  # [W, h]  deciles below the outcome, 0 to 9
    quantiles: Tensor  # [W, h, K]  at the levels that were asked for; NaN beyond the forecaster's


class Scores(NamedTuple):
    """Means over the windows of each of R origins that have a window, by horizon h.

    Losses are divided by each window's mean absolute one-bar change over the context, the scale of
    Hyndman and Koehler (2006), so that cheap and dear, calm and wild assets weigh alike. Horizons
    are not scaled: where they are pooled, 21 bars weigh more than one.
    """

    quantile_loss: Tensor  # [R, h]  pinball loss, doubled, mean over DECILES
    crps: Tensor  # [R, h]  over the forecaster's own levels
    absolute: Tensor  # [R, h]  error of the median: its mean is MASE
    square: Tensor  # [R, h]  error of the mean: the root of its mean is the scaled RMSE
    percentage: Tensor  # [R, h]  error of the median as a share of the outcome: its mean is MAPE
    covered: Tensor  # [R, h, 3]  share of outcomes in each of BANDS; NaN beyond the levels
    hits: Tensor  # [R, h]  share of medians on the same side of the last close as the outcome
    misses: Tensor  # [R, h]  share on the other side; a median at the last close is neither
    pit: Tensor  # [R, h, 10]  share of outcomes between neighbouring DECILES, ideally 0.1 each
    windows: Tensor  # [R]  how many


def window_scores(
    forecast: Forecast,
    closes: Tensor,
    outcome: Tensor,
    *,
    origin: int = 0,
    asset: Tensor | None = None,
    levels: tuple[float, ...] = (),
) -> WindowScores:
    """Losses of forecasts [B, h, Q] for `outcome` [B, h].

    Parameters
    ----------
    closes
        Contexts [B, L], whose last is known.
    origin, asset
        Whose windows these are: one origin's, of these assets [B], the first B unless given.
    levels
        Of quantiles that are kept.
    """
    last, scale = closes[:, -1:], scale_of(closes)
    deciles = Forecast(torch.stack([forecast.at(level) for level in DECILES], -1), DECILES)
    median = forecast.at(MEDIAN)
    error = (outcome - median).abs()
    # Forecasts are float32: so must be the close that a median is held against.
    side = (median - last.float()).sign() * (outcome - last).sign()
    count = len(closes)
    kept = [_within_levels(forecast, level) for level in levels]
    return WindowScores(
        origin=torch.full((count,), origin),
        asset=torch.arange(count) if asset is None else asset,
        quantile_loss=2.0 * deciles.quantile_loss(outcome).mean(-1) / scale,
        crps=forecast.crps(outcome) / scale,
        absolute=error / scale,
        square=((outcome - forecast.mean) / scale).square(),
        percentage=error / outcome,
        covered=torch.stack([_covered(forecast, band, outcome) for band in BANDS], -1),
        side=side.to(torch.int8),
        tenth=(deciles.quantiles < outcome[..., None]).sum(-1).to(torch.int8),
        quantiles=torch.stack(kept, -1).float() if kept else outcome.new_empty(*outcome.shape, 0),
    )


def together(parts: list[WindowScores]) -> WindowScores:
    """Windows of several origins, one after the other."""
    return WindowScores(*map(torch.cat, zip(*parts, strict=True)))


def chosen_windows(told: WindowScores, chosen: Tensor) -> WindowScores:
    """Some of the windows alone: bool [W], or their places in order."""
    return WindowScores(*(part[chosen] for part in told))


def by_origin(told: WindowScores) -> Scores:
    """Means over the windows of each origin that has one."""
    origins, place = torch.unique_consecutive(told.origin, return_inverse=True)
    windows = torch.bincount(place).double()  # [R]

    def mean(values: Tensor) -> Tensor:
        sums = torch.zeros(len(origins), *values.shape[1:], dtype=torch.float64)
        counts = windows.view(-1, *(1,) * (values.dim() - 1))
        return sums.index_add_(0, place, values.double()) / counts

    losses = ("quantile_loss", "crps", "absolute", "square", "percentage", "covered")
    return Scores(
        **{name: mean(getattr(told, name)) for name in losses},
        hits=mean(told.side > 0),
        misses=mean(told.side < 0),
        pit=mean(one_hot(told.tenth.long(), len(DECILES) + 1)),
        windows=windows,
    )


def score(forecast: Forecast, closes: Tensor, outcome: Tensor) -> Scores:
    """Scores, without their dimension R, of forecasts [B, h, Q] for `outcome` [B, h].

    `closes` [B, L] are the context, whose last is known.
    """
    return Scores(*(part[0] for part in by_origin(window_scores(forecast, closes, outcome))))


def at_horizon(scores: Scores, place: int) -> Scores:
    """The scores of one of the horizons alone, by its place."""
    named = scores._asdict()
    windows = named.pop("windows")
    only = {name: part[:, [place]] for name, part in named.items()}
    return Scores(**only, windows=windows)


def chosen_origins(scores: Scores, rows: NDArray[np.bool_]) -> Scores:
    """The scores of some of the origins [R] alone."""
    return Scores(*(part[torch.from_numpy(rows)] for part in scores))


def _covered(forecast: Forecast, band: tuple[float, float], outcome: Tensor) -> Tensor:
    """Whether outcomes [B, h] lie between two levels; NaN where the forecast ends before them."""
    low, high = (_within_levels(forecast, level) for level in band)
    inside = ((low <= outcome) & (outcome <= high)).float()
    return torch.where(low.isnan() | high.isnan(), torch.nan, inside)


def _within_levels(forecast: Forecast, level: float) -> Tensor:
    """Quantile [B, h] at a level; NaN where the forecast ends before it."""
    found = forecast.at(level)
    known = forecast.levels[0] <= level <= forecast.levels[-1]
    return found if known else torch.full_like(found, torch.nan)
