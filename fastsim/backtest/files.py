"""A history as files for programs, and back: long Parquet tables."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.history import Alone, History, check_history, check_names, unlike
from fastsim.config import write_whole
from fastsim.errors import ConfigError, DataError

CASH = "cash"


def save_history(history: History, folder: Path) -> None:
    """Write a history as three long Parquet tables, each in one piece.

    `equity.parquet` (date, strategy, wealth) has a row per close, the first one included.
    `weights.parquet` (date, strategy, asset, weight; "cash" is the last asset, or "cash (money)"
    where one is called so) and `costs.parquet` (date, strategy, turnover, and a column per cost
    part, by its name) have a row per step, dated by the close that the step is marked at; of who
    owns one asset alone, weights are of that asset and of cash. Money is in account currency.

    Raises
    ------
    ConfigError, DataError
        `folder` is a file, two strategies, or two assets, share a name, a cost part is called like
        another column, or the history cannot be judged (see `check_history`).
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"a history is written to a folder, {folder} is a file: name another")
    check_names("assets", history.symbols)
    check_names("columns of costs.parquet", ("date", "strategy", "turnover", *history.costs))
    check_history(history)
    dates = history.timestamps.astype("datetime64[ns]")
    every = np.arange(len(history.names))
    equity = _rows(history, dates, every) | {"wealth": _values(history.wealth)}
    costs = _rows(history, dates[1:], every) | {"turnover": _values(history.turnover)}
    costs |= {name: _values(paid) for name, paid in history.costs.items()}
    _write_parquet(folder / "equity.parquet", equity)
    _write_parquet(folder / "costs.parquet", costs)
    _write_parquet(folder / "weights.parquet", _weights(history, dates[1:]))


def read_history(
    equity: pl.DataFrame, weights: pl.DataFrame, costs: pl.DataFrame, *, label: str
) -> History:
    """The history that `save_history` wrote as these tables; what was refused is not in them.

    Raises
    ------
    DataError
        They lack a column or rows, or do not fit together; `label` says whose they are.
    """
    for name, table, columns in (
        ("equity", equity, ("date", "strategy", "wealth")),
        ("weights", weights, ("date", "strategy", "asset", "weight")),
        ("costs", costs, ("date", "strategy", "turnover")),
    ):
        missing = [column for column in columns if column not in table.columns]
        if missing or table.is_empty():
            lacks = f"no column {missing[0]!r}" if missing else "no rows"
            raise DataError(f"{label}: the table of {name} has {lacks}: write it anew")
    names = tuple(equity["strategy"].cast(pl.String).unique(maintain_order=True))
    stamps = equity["date"].unique(maintain_order=True).to_numpy()
    steps, count = len(stamps) - 1, len(names)
    first = weights.filter(pl.col("date") == weights["date"][0])
    each = first["strategy"].cast(pl.String).value_counts().rows()
    width = max(rows for _, rows in each)
    whole = sum(rows == width for _, rows in each)
    labels = first["asset"].cast(pl.String).to_list()
    symbols = tuple(labels[: width - 1])
    singles = labels[whole * width :: 2]
    parts = [name for name in costs.columns if name not in ("date", "strategy", "turnover")]
    try:
        held = _numbers(weights["weight"], steps, whole * width + 2 * len(singles))
        history = History(
            names=names,
            symbols=symbols,
            timestamps=stamps,
            wealth=_numbers(equity["wealth"], steps + 1, count),
            weights=held[:, : whole * width].reshape(steps, whole, width),
            turnover=_numbers(costs["turnover"], steps, count),
            costs={part: _numbers(costs[part], steps, count) for part in parts},
            alone=Alone(
                tuple(symbols.index(name) for name in singles), held[:, whole * width :: 2]
            ),
        )
        check_history(history)
    except (ConfigError, DataError, RuntimeError, ValueError) as error:
        raise DataError(f"{label}: tables that do not fit together ({error})") from None
    return history


def _numbers(column: pl.Series, rows: int, width: int) -> Tensor:
    return torch.from_numpy(column.to_numpy(writable=True)).reshape(rows, width)


def _rows(
    history: History, dates: NDArray[np.datetime64], strategies: NDArray[np.intp]
) -> dict[str, pl.Series]:
    """A date and a strategy for each row: date by date, these strategies, by number, in order."""
    names = pl.Series(history.names, dtype=pl.Enum(history.names))
    return {
        "date": pl.Series(np.repeat(dates, len(strategies))),
        "strategy": names.gather(np.tile(strategies, len(dates))),
    }


def _weights(history: History, dates: NDArray[np.datetime64]) -> dict[str, pl.Series]:
    """Date by date, every asset and cash of strategies; then of each asset alone, it and cash."""
    steps, whole, width = history.weights.shape
    labels = (*history.symbols, unlike(CASH, " (money)", history.symbols))
    alone = np.array(history.alone.assets, dtype=np.intp)  # [S]
    strategies = [np.repeat(np.arange(whole), width), whole + np.repeat(np.arange(len(alone)), 2)]
    pairs = np.stack([alone, np.full_like(alone, width - 1)], axis=1)  # [S, 2]
    assets = np.concatenate([np.tile(np.arange(width), whole), pairs.flatten()])
    own = history.alone.weights.view(steps, -1) if len(alone) else history.weights[:, :, 0][:, :0]
    weights = torch.cat([history.weights.flatten(1), torch.stack([own, 1 - own], -1).flatten(1)], 1)
    return {
        **_rows(history, dates, np.concatenate(strategies)),
        "asset": pl.Series(labels, dtype=pl.Enum(labels)).gather(np.tile(assets, steps)),
        "weight": _values(weights),
    }


def _values(figure: Tensor) -> pl.Series:
    return pl.Series(figure.detach().cpu().numpy().reshape(-1))


def _write_parquet(path: Path, columns: Mapping[str, pl.Series]) -> None:
    content = io.BytesIO()
    pl.DataFrame(columns).write_parquet(content)
    write_whole(path, content.getvalue())
