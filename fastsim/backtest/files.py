"""A history as files for programs: long Parquet tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.history import History
from fastsim.config import write_whole
from fastsim.errors import ConfigError

CASH = "cash"


def save_history(history: History, folder: Path) -> None:
    """Write a history as three long Parquet tables, each in one piece.

    `equity.parquet` (date, strategy, wealth) has a row per close, the first one included.
    `weights.parquet` (date, strategy, asset, weight; the last asset is "cash") and `costs.parquet`
    (date, strategy, turnover, and a column per cost part, by its name) have a row per step, dated
    by the close that the step is marked at. Money is in account currency.

    Raises
    ------
    ConfigError
        If two strategies, or two assets, share a name, an asset is called "cash", or a cost part is
        called like another column.
    """
    strategies = _labels("strategies", history.names)
    assets = _labels("assets", (*history.symbols, CASH))
    dates = history.timestamps.astype("datetime64[ns]")
    steps, count, width = history.weights.shape

    def rows_of(dates: NDArray[np.datetime64], repeats: int) -> dict[str, pl.Series]:
        codes = np.tile(np.repeat(np.arange(count), repeats), len(dates))
        return {
            "date": pl.Series(np.repeat(dates, count * repeats)),
            "strategy": strategies.gather(codes),
        }

    equity = {**rows_of(dates, 1), "wealth": _values(history.wealth)}
    costs = {**rows_of(dates[1:], 1), "turnover": _values(history.turnover)}
    _labels("columns of costs.parquet", (*costs, *history.costs))
    costs |= {name: _values(paid) for name, paid in history.costs.items()}
    asset = assets.gather(np.tile(np.arange(width), steps * count))
    weights = {**rows_of(dates[1:], width), "asset": asset, "weight": _values(history.weights)}
    _write_parquet(folder / "equity.parquet", equity)
    _write_parquet(folder / "costs.parquet", costs)
    _write_parquet(folder / "weights.parquet", weights)


def _labels(kind: str, names: Sequence[str]) -> pl.Series:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"names of {kind} must differ, got {twice!r} twice in {list(names)}")
    return pl.Series(names, dtype=pl.Enum(names))


def _values(figure: Tensor) -> pl.Series:
    return pl.Series(figure.detach().cpu().numpy().reshape(-1))


def _write_parquet(path: Path, columns: Mapping[str, pl.Series]) -> None:
    content = io.BytesIO()
    pl.DataFrame(columns).write_parquet(content)
    write_whole(path, content.getvalue())
