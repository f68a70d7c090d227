"""How good forecasts are: rolling origins over bars, beside others on the same windows.

This is the way in: windows, losses and what they come to are in `fastsim.forecast.scoring`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fastsim.data.bars import Bars
from fastsim.forecast.interface import Context, Forecast, Forecaster
from fastsim.forecast.scoring.centred import Centred
from fastsim.forecast.scoring.losses import (
    BANDS,
    DECILES,
    Loss,
    Scores,
    WindowScores,
    at_horizon,
    by_origin,
    chosen_origins,
    chosen_windows,
    score,
    together,
    window_scores,
)
from fastsim.forecast.scoring.summary import (
    BLOCK,
    INTERVAL,
    RESAMPLES,
    ScoreSummary,
    loss_difference,
    relative,
    resampled,
    summarise,
)
from fastsim.forecast.scoring.windows import (
    Windows,
    check_plan,
    common_windows,
    dependent_origins,
    history_of,
    past_of,
    spaced_origins,
)
from fastsim.progress import SILENT, Progress

__all__ = [
    "BANDS",
    "BLOCK",
    "DECILES",
    "INTERVAL",
    "RESAMPLES",
    "Centred",
    "Loss",
    "ScoreSummary",
    "Scores",
    "WindowScores",
    "Windows",
    "at_horizon",
    "by_origin",
    "chosen_origins",
    "chosen_windows",
    "common_windows",
    "dependent_origins",
    "loss_difference",
    "relative",
    "resampled",
    "rolling_origins",
    "rolling_windows",
    "score",
    "spaced_origins",
    "summarise",
]


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
    """Forecast every asset from every origin, and score the closes that came, origin by origin.

    Parameters and errors are those of `rolling_windows`.
    """
    return by_origin(
        rolling_windows(
            bars, forecaster, horizons, origins, context, windows=windows, progress=progress
        )
    )


def rolling_windows(
    bars: Bars,
    forecaster: Forecaster,
    horizons: Sequence[int],
    origins: Sequence[int] | NDArray[np.int64],
    context: int,
    *,
    windows: Windows | None = None,
    levels: tuple[float, ...] = (),
    progress: Progress = SILENT,
) -> WindowScores:
    """Forecast every asset from every origin, and score the closes that came, window by window.

    Parameters
    ----------
    horizons
        In bars, increasing; all are scored, with equal weight.
    origins
        Rows of `bars`, increasing; a forecast knows the row and the `context - 1` before it.
    windows
        Those that count, of these origins: give the `common_windows` of all forecasters that are
        to be compared. None takes those that this one can be scored on.
    levels
        Of quantiles that are kept.
    progress
        Told of the origins that are done.

    Raises
    ------
    ForecastError
        As `common_windows`.
    """
    if windows is None:
        windows = common_windows(bars, [forecaster], horizons, origins, context)
    longest = check_plan(bars, [forecaster], horizons, origins, context)
    history, ahead = history_of(bars), torch.tensor(list(horizons))
    parts = []
    with progress.task(forecaster.card.name, len(origins), unit="origins") as task:
        pairs = zip(map(int, origins), windows.usable, strict=True)
        for place, (row, usable) in enumerate(pairs):
            if bool(usable.any()):
                past = Context(*(part[usable] for part in past_of(history, row, context)))
                outcome = history.close[usable][:, row + ahead]  # [B, h]
                told = forecaster.forecast(past, longest)
                chosen = Forecast(told.quantiles.cpu().double()[:, ahead - 1], told.levels)
                assets = usable.nonzero().squeeze(1)
                parts.append(
                    window_scores(
                        chosen, past.close, outcome, origin=place, asset=assets, levels=levels
                    )
                )
            task.advance()
    return together(parts)
