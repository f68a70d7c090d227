"""Every scored outcome as a row of one long table, for programs; columns: `docs/scoring.md`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import write_whole
from fastsim.data.bars import Bars
from fastsim.forecast.scoring.losses import BANDS, DECILES, WindowScores
from fastsim.forecast.scoring.windows import Windows, history_of, past_of, scale_of

SCHEMA = 1
"""Of the table, in its first column."""
LEVELS = tuple(sorted({*DECILES, *(level for band in BANDS for level in band)}))
"""Of the quantiles that it holds."""
LOSSES = ("quantile_loss", "crps", "absolute", "square", "percentage")
BANDS_IN = ("in_50", "in_80", "in_95")


def score_table(
    told: Mapping[str, WindowScores],
    bars: Bars,
    windows: Windows,
    horizons: Sequence[int],
    context: int,
) -> pl.DataFrame:
    """A row per forecaster, window and horizon, in this order.

    Columns: `schema`, `forecaster`, `origin` and `outcome_at` (times of the bars), `symbol`,
    `horizon`, `last` (close), `outcome`, `scale` (what losses are divided by), a quantile of the
    close for each of LEVELS by its name ("0.1"), losses by the names of `WindowScores`, `in_50`,
    `in_80`, `in_95`, `side` and `tenth`. Null is what a forecaster does not tell.

    Parameters
    ----------
    told
        By forecaster: scores of all `windows`, with quantiles at LEVELS.
    """
    shared = _shared(bars, windows, tuple(horizons), context)
    names = pl.Enum(list(told))
    tables = [
        shared.select(
            pl.lit(SCHEMA, pl.Int8).alias("schema"),
            pl.lit(name, names).alias("forecaster"),
            pl.all(),
        ).with_columns(**_own(scores))
        for name, scores in told.items()
    ]
    return pl.concat(tables)


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table as Parquet, in one piece."""
    content = io.BytesIO()
    table.write_parquet(content)
    write_whole(path, content.getvalue())


def _shared(bars: Bars, windows: Windows, horizons: tuple[int, ...], context: int) -> pl.DataFrame:
    """What all forecasters have in common."""
    history, ahead = history_of(bars), torch.tensor(horizons)
    last, outcome, scale = [], [], []
    for row, usable in zip(windows.origins, windows.usable, strict=True):
        past = past_of(history, row, context).close[usable]
        last.append(past[:, -1])
        scale.append(scale_of(past)[:, 0])
        outcome.append(history.close[usable][:, row + ahead])
    place, asset = windows.usable.nonzero().unbind(1)  # [W], origin by origin
    rows = torch.tensor(windows.origins)[place]
    count = len(horizons)
    symbols = pl.Series(bars.symbols, dtype=pl.Enum(bars.symbols))
    stamps: NDArray[np.datetime64] = bars.timestamps.astype("datetime64[ns]")
    return pl.DataFrame(
        {
            "origin": stamps[rows.numpy()].repeat(count),
            "outcome_at": stamps[(rows[:, None] + ahead).flatten().numpy()],
            "symbol": symbols.gather(asset.repeat_interleave(count).numpy()),
            "horizon": np.tile(np.array(horizons, dtype=np.int32), len(rows)),
            "last": torch.cat(last).repeat_interleave(count).numpy(),
            "outcome": torch.cat(outcome).flatten().numpy(),
            "scale": torch.cat(scale).repeat_interleave(count).numpy(),
        }
    )


def _own(scores: WindowScores) -> dict[str, pl.Series]:
    """Columns of one forecaster, window by window and in each by horizon."""
    found = {
        f"{level:g}": _column(scores.quantiles[..., place]) for place, level in enumerate(LEVELS)
    }
    found |= {name: _column(getattr(scores, name)) for name in LOSSES}
    found |= {
        name: _column(scores.covered[..., place]).cast(pl.Boolean)
        for place, name in enumerate(BANDS_IN)
    }
    return found | {"side": _column(scores.side), "tenth": _column(scores.tenth)}


def _column(values: Tensor) -> pl.Series:
    """Values [W, h] one after the other; null for NaN."""
    series = pl.Series(values.flatten().numpy())
    return series.fill_nan(None) if values.is_floating_point() else series
