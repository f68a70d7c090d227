"""How good forecasts are: rolling origins over bars, against a random walk, with intervals.

Windows of one origin share their days, and so their luck. Scores are therefore kept per origin, and
an interval comes from resampling blocks of origins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from fastsim.data.bars import Bars
from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    INNER_BAND,
    MEDIAN,
    Context,
    Forecast,
    Forecaster,
    can_forecast,
    check_horizon,
    check_horizons,
)
from fastsim.forecast.statistics import Counted, counted
from fastsim.progress import SILENT, Progress
from fastsim.stats.bootstrap import Interval, percentile_interval
from fastsim.stats.comparison import (
    LossDifference,
    diebold_mariano,
    newey_west_lags,
    overlapping,
)
from fastsim.stats.resample import circular_rows

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BANDS = ((0.25, 0.75), INNER_BAND, (0.025, 0.975))
"""Levels of the bands of 50, 80 and 95 %."""
Loss = Literal["quantile_loss", "crps", "absolute"]
BLOCK = 6
"""Origins per resampled block."""
RESAMPLES = 2000
INTERVAL = 0.95
# Columns that a summary resamples: means over horizons of fields of `Scores`, and of its bands.
POOLED = ("quantile_loss", "crps", "absolute", "square", "percentage", "hits", "misses")
BAND_NAMES = ("coverage_50", "coverage", "coverage_95")
STILL = 4 * float(np.finfo(np.float32).eps)
"""A mean move of a bar below this share of the price is none: forecasts are float32."""


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


class Centred(Counted):
    """Another forecaster's law with its median at the last close: what its score owes to no drift.

    Quantiles are multiplied by last close / median at every horizon, so that widths and shape in
    log prices stay. Series whose last close is missing have no forecast: NaN.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster
        self.card = replace(forecaster.card, name=f"{forecaster.card.name}, centred")
        self.key = f"{forecaster.key}/centred"

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] the forecaster itself can."""
        return can_forecast(self.forecaster, context)

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes; ForecastError as the forecaster itself."""
        told = self.forecaster.forecast(context, horizon)
        last = context.close[:, -1, None, None].to(told.quantiles)  # [B, 1, 1]
        # The median divided by itself is one exactly, so that it takes no side.
        return Forecast(told.quantiles / told.median[..., None] * last, told.levels)


class Windows(NamedTuple):
    """Which assets are scored from which origins: one set for all who are held to each other.

    What is skipped counts under the first reason that applies.
    """

    origins: tuple[int, ...]  # R  rows of the bars
    usable: Tensor  # [R, A]  bool
    unknown: int  # of which the close at the origin is missing: not listed yet, or halted
    young: int  # of which too little is known for one of the forecasters
    constant: int  # whose closes did not move in the context, which leaves errors without a scale
    open: int  # of which an outcome is missing

    @property
    def rows(self) -> NDArray[np.int64]:
        """The origins that have a window: those of R in `Scores`."""
        found: NDArray[np.int64] = np.asarray(self.origins)[self.usable.any(1).numpy()]
        return found

    @property
    def scored(self) -> int:
        """How many are scored."""
        return int(self.usable.sum())

    @property
    def skipped(self) -> dict[str, int]:
        """How many are not, by why: for people and for JSON."""
        return {
            "no close at the origin": self.unknown,
            "too few known closes": self.young,
            "closes that never move": self.constant,
            "an outcome missing": self.open,
        }


def spaced_origins(bars: Bars, *, context: int, horizon: int, step: int) -> NDArray[np.int64]:
    """Rows [R] to forecast from, `step` apart, with a whole context before and horizon after.

    Raises
    ------
    ForecastError
        Context, horizon or step is no whole number from 1 up, or the bars are too few for one row.
    """
    for name, count in (("context", context), ("horizon", horizon), ("step", step)):
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ForecastError(f"{name} must be a whole number of bars from 1 up, got {count!r}")
    origins: NDArray[np.int64] = np.arange(context - 1, len(bars) - horizon, step, dtype=np.int64)
    if not len(origins):
        raise ForecastError(
            f"{len(bars)} bars hold no context of {context} with {horizon} bars after it: "
            f"use less of either, or more bars"
        )
    return origins


def common_windows(
    bars: Bars,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
) -> Windows:
    """The windows that every one of these forecasters can be scored on.

    A window is one asset from one origin. It counts if its last close and its outcomes are known,
    as much of its context as each forecaster needs, and if its closes move by more than float32
    can round away.

    Raises
    ------
    ForecastError
        Horizons or origins do not increase or do not fit the bars or a forecaster, or no window is
        left.
    """
    longest = _check_plan(bars, forecasters, horizons, origins, context)
    history, ahead = _history(bars), torch.tensor(list(horizons))
    usable, counts = [], torch.zeros(4, dtype=torch.int64)
    for row in map(int, origins):
        past, outcome = _past(history, row, context), history.close[:, row + ahead]
        closes = past.close
        lasting = closes[:, -1].isfinite()
        enough = closes.isfinite().sum(1) >= 2
        for forecaster in forecasters:
            enough = enough & can_forecast(forecaster, past)
        moving = _scale(closes)[:, 0] > STILL * closes[:, -1]
        told = outcome.isfinite().all(1)
        held, reasons = torch.ones_like(lasting), []
        for fits in (lasting, enough, moving, told):
            reasons.append((held & ~fits).sum())
            held = held & fits
        counts += torch.stack(reasons)
        usable.append(held)
    windows = Windows(tuple(map(int, origins)), torch.stack(usable), *counts.tolist())
    if not windows.scored:
        skipped = ", ".join(f"{count} {why}" for why, count in windows.skipped.items() if count)
        raise ForecastError(
            f"no origin has an asset whose context and outcomes are known ({skipped}) over "
            f"{longest} bars: use a shorter context or horizon, or more bars"
        )
    return windows


def rolling_origins(
    bars: Bars,
    forecaster: Forecaster,
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
    *,
    windows: Windows | None = None,
    progress: Progress = SILENT,
) -> Scores:
    """Forecast every asset from every origin, and score the closes that came.

    Parameters
    ----------
    horizons
        In bars, increasing; all are scored, with equal weight.
    origins
        Rows of `bars`, increasing; a forecast knows the row and the `context - 1` before it.
    windows
        Those that count, of these origins: give the `common_windows` of all forecasters that are
        to be compared. None takes those that this one can be scored on.
    progress
        Told of the origins that are done.

    Raises
    ------
    ForecastError
        As `common_windows`.
    """
    if windows is None:
        windows = common_windows(bars, [forecaster], horizons, origins, context)
    longest = _check_plan(bars, [forecaster], horizons, origins, context)
    history, ahead = _history(bars), torch.tensor(list(horizons))
    scores = []
    with progress.task(forecaster.card.name, len(origins), unit="origins") as task:
        for row, usable in zip(map(int, origins), windows.usable, strict=True):
            if bool(usable.any()):
                past = Context(*(part[usable] for part in _past(history, row, context)))
                outcome = history.close[usable][:, row + ahead]  # [B, h]
                told = forecaster.forecast(past, longest)
                chosen = Forecast(told.quantiles.cpu().double()[:, ahead - 1], told.levels)
                scores.append(score(chosen, past.close, outcome))
            task.advance()
    return Scores(*(torch.stack(column) for column in zip(*scores, strict=True)))


def _check_plan(
    bars: Bars,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
) -> int:
    """The longest horizon; ForecastError unless horizons and origins fit bars and forecasters."""
    longest = check_horizons(horizons)
    if list(horizons) != sorted(horizons):
        raise ForecastError(f"horizons must be in increasing order, got {list(horizons)}")
    for forecaster in forecasters:
        check_horizon(forecaster.card, longest)
    rows = list(map(int, origins))
    if not rows or any(later <= earlier for earlier, later in pairwise(rows)):
        raise ForecastError(f"origins must be rows that increase, got {rows[:5]}")
    for row in rows:
        if not context - 1 <= row < len(bars) - longest:
            raise ForecastError(
                f"origin {row} lacks {context} bars up to it or {longest} after it: use rows "
                f"{context - 1} to {len(bars) - longest - 1}"
            )
    return longest


def _history(bars: Bars) -> Context:
    """All bars [A, T, 6], as one context of every asset."""
    table = torch.from_numpy(bars.table()).transpose(0, 1).contiguous()
    seconds = torch.from_numpy(bars.timestamps.astype("datetime64[s]").astype(np.int64))
    return Context(table, seconds.expand(len(table), -1))


def _past(history: Context, row: int, context: int) -> Context:
    """The context of every asset that ends at `row`."""
    span = slice(row + 1 - context, row + 1)
    return Context(history.bars[:, span], history.timestamps[:, span])


def _scale(closes: Tensor) -> Tensor:
    """Mean absolute one-bar change [B, 1] of closes [B, L]; 0 where no two neighbours are known."""
    return closes.diff().abs().nanmean(1, keepdim=True).nan_to_num(nan=0.0)


def score(forecast: Forecast, closes: Tensor, outcome: Tensor) -> Scores:
    """Scores, without their dimension R, of forecasts [B, h, Q] for `outcome` [B, h].

    `closes` [B, L] are the context, whose last is known.
    """
    last = closes[:, -1:]
    scale = _scale(closes)
    deciles = Forecast(torch.stack([forecast.at(level) for level in DECILES], -1), DECILES)
    median = forecast.at(MEDIAN)
    error = (outcome - median).abs()
    # Forecasts are float32: so must be the close that a median is held against.
    side = (median - last.float()).sign() * (outcome - last).sign()
    rank = (deciles.quantiles < outcome[..., None]).sum(-1)  # [B, h]
    return Scores(
        quantile_loss=(2.0 * deciles.quantile_loss(outcome).mean(-1) / scale).mean(0),
        crps=(forecast.crps(outcome) / scale).mean(0),
        absolute=(error / scale).mean(0),
        square=((outcome - forecast.mean) / scale).square().mean(0),
        percentage=(error / outcome).mean(0),
        covered=torch.stack([_covered(forecast, band, outcome) for band in BANDS], -1),
        hits=(side > 0).double().mean(0),
        misses=(side < 0).double().mean(0),
        pit=one_hot(rank, len(DECILES) + 1).double().mean(0),
        windows=torch.tensor(float(len(closes)), dtype=torch.float64),
    )


def _covered(forecast: Forecast, band: tuple[float, float], outcome: Tensor) -> Tensor:
    """Share [h] of outcomes [B, h] between two levels; NaN where the forecast ends before them."""
    low, high = band
    if low < forecast.levels[0] or high > forecast.levels[-1]:
        return outcome.new_full(outcome.shape[1:], torch.nan)
    inside = (forecast.at(low) <= outcome) & (outcome <= forecast.at(high))
    return inside.double().mean(0)


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


def dependent_origins(windows: Windows, horizon: int) -> int:
    """How many origins after one share its luck, among those that have a window.

    As many as have outcomes, up to `horizon` bars ahead, within its own; good and bad times come
    in spells, so at least as many as `newey_west_lags` takes.
    """
    rows = windows.rows
    return max(overlapping(rows, horizon), newey_west_lags(len(rows)))


def _pair(scores: Scores, baseline: Scores, loss: Loss) -> tuple[Tensor, Tensor]:
    """A loss [R] of both, means over horizons; ForecastError unless their windows are the same."""
    if not torch.equal(scores.windows, baseline.windows):
        raise ForecastError(
            f"scores of {int(scores.windows.sum())} and {int(baseline.windows.sum())} windows: "
            f"score both forecasters on the same origins and context"
        )
    return getattr(scores, loss).mean(1), getattr(baseline, loss).mean(1)


def at_horizon(scores: Scores, place: int) -> Scores:
    """The scores of one of the horizons alone, by its place."""
    named = scores._asdict()
    windows = named.pop("windows")
    only = {name: part[:, [place]] for name, part in named.items()}
    return Scores(**only, windows=windows)


def chosen_origins(scores: Scores, rows: NDArray[np.bool_]) -> Scores:
    """The scores of some of the origins [R] alone."""
    return Scores(*(part[torch.from_numpy(rows)] for part in scores))


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
    drawn = circular_rows(len(values), block, RESAMPLES, torch.Generator().manual_seed(seed))
    # A product with how often each origin is drawn: a copy of all columns per resample is large.
    often = sums.new_zeros(drawn.shape).scatter_add_(1, drawn, sums.new_ones(()).expand_as(drawn))
    own, resampled_sums = sums.sum(0), often @ sums  # [C + 1], [RESAMPLES, C + 1]
    return own[:-1] / own[-1], resampled_sums[:, :-1] / resampled_sums[:, -1:]


def _interval(statistic: Callable[..., Tensor], means: Tensor, draws: Tensor) -> Interval:
    """A statistic of means [C], with the interval of the same of drawn ones [RESAMPLES, C]."""
    value = statistic(*means.unbind(-1))
    return percentile_interval(float(value), statistic(*draws.unbind(-1)), INTERVAL)


def _same(mean: Tensor) -> Tensor:
    return mean
