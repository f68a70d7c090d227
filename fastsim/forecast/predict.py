"""Forecasts of long frames, in and out by the columns that users of Chronos know."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl
import torch

from fastsim.data.coming import Stamps, stamps_to_come
from fastsim.data.parse import floats, names, timestamps
from fastsim.data.tables import Source, load_table
from fastsim.errors import DataError, ForecastError, did_you_mean
from fastsim.forecast.interface import (
    MEDIAN,
    Context,
    Forecast,
    Forecaster,
    can_forecast,
    check_horizon,
)
from fastsim.forecast.levels import check_levels
from fastsim.forecast.training.series import Series, series_of_columns
from fastsim.forecast.training.windows import contexts_at

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def predict_df(
    forecaster: Forecaster,
    df: Source,
    horizon: int,
    levels: Sequence[float] = DECILES,
    *,
    id_column: str = "item_id",
    timestamp_column: str = "timestamp",
    target: str = "target",
    exchange: str | None = None,
    context_length: int = 512,
    batch_size: int = 256,
) -> Any:
    """Forecast the next bars of every series of a long frame.

    Parameters
    ----------
    df
        A frame of pandas or polars, or a path to CSV or Parquet, one row for each series and time,
        in any order; values are above zero, NaN where missing.
    horizon
        Bars ahead.
    levels
        Of quantiles, in any order, each within (0, 1): see `Forecast.to_levels` for those that the
        forecaster does not give itself.
    id_column, timestamp_column, target
        What the columns are called.
    exchange
        Whose sessions the bars are, such as XNYS; by default the next bars come as those before
        them (`fastsim.data.coming`).
    context_length
        Bars that are looked back on, at most.
    batch_size
        Series that are forecast at once.

    Returns
    -------
    A frame of pandas where one came in, else of polars: the id, the timestamp, `target_name`,
    `predictions` (the median) and a column for each level, `"0.1"`, with `horizon` rows for each
    series, in the order in which series appear first.

    Raises
    ------
    ConfigError
        There is no calendar of this exchange, or no package that has it.
    DataError
        A column is missing or cannot be read, or the exchange was closed on a day that has a bar.
    ForecastError
        The horizon or a level does not fit, or a series has too few known values.
    """
    check_horizon(forecaster.card, horizon)
    wanted = tuple(levels)
    check_levels(sorted(wanted))
    table = load_table(df)
    for name in (id_column, timestamp_column, target):
        if name not in table.frame.columns:
            raise DataError(
                f"{table.label} has no column {name!r}; it has {', '.join(table.frame.columns)}"
                f"{did_you_mean(name, table.frame.columns)}"
            )
    ids, times, values = (table.frame[name] for name in (id_column, timestamp_column, target))
    text = names(ids).to_numpy().astype(object)
    series = series_of_columns(text, timestamps(times), floats(values))
    _, first = np.unique(text, return_index=True)  # in the order of `series`
    order = np.argsort(first)
    length = min(context_length, forecaster.card.max_context)
    context = contexts_at(series, series.starts[1:][order] - 1, length)
    labels = [series.names[place] for place in order]
    told = _forecast(forecaster, context, labels, batch_size, horizon)
    coming = np.concatenate(_coming(series, order, horizon, exchange))
    columns = {
        id_column: ids.gather(np.repeat(first[order], horizon)),
        timestamp_column: _as_before(pl.Series(coming), times.dtype),
        "target_name": pl.Series([target] * len(coming)),
        "predictions": _column(told, MEDIAN),
    }
    columns |= {f"{level:g}": _column(told, level) for level in wanted}
    return _frame_like(df, columns)


def _forecast(
    forecaster: Forecaster, context: Context, labels: list[str], batch_size: int, horizon: int
) -> Forecast:
    """Forecasts of all series, some at once; ForecastError names the first that cannot be."""
    able = can_forecast(forecaster, context)
    if not bool(able.all()):
        row, least = int((~able).nonzero()[0]), forecaster.card.min_context
        known = int(context.close[row].isfinite().sum())
        raise ForecastError(
            f"series {labels[row]!r} has {known} known values where {forecaster.card.name} looks, "
            f"and it needs {least}: give more of them, or leave it out"
        )
    parts = [
        forecaster.forecast(Context(*each), horizon)
        for each in zip(*(torch.split(part, batch_size) for part in context), strict=True)
    ]
    return Forecast(torch.cat([part.quantiles.cpu() for part in parts]), parts[0].levels)


def _coming(
    series: Series, order: np.ndarray[Any, Any], horizon: int, exchange: str | None
) -> list[Stamps]:
    """Stamps [H] of the bars to come of each series; those on one calendar share theirs."""
    known: dict[bytes, Stamps] = {}
    found = []
    for place in order:
        stamps = series.stamps[series.starts[place] : series.starts[place + 1]]
        key = stamps.tobytes()
        if key not in known:
            known[key] = stamps_to_come(stamps.astype("datetime64[s]"), horizon, exchange)
        found.append(known[key])
    return found


def _as_before(stamps: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Days as days, and instants in the unit that they had."""
    if isinstance(dtype, pl.Datetime):
        return stamps.cast(pl.Datetime(dtype.time_unit))
    return stamps.cast(dtype) if dtype == pl.Date else stamps


def _column(forecast: Forecast, level: float) -> pl.Series:
    return pl.Series(forecast.to_levels((level,)).quantiles.double().flatten().numpy())


def _frame_like(df: Source, columns: dict[str, pl.Series]) -> Any:
    """A frame of whoever made `df`."""
    if type(df).__module__.split(".")[0] != "pandas":
        return pl.DataFrame(columns)
    pandas = import_module("pandas")
    plain = {
        name: column.to_list() if column.dtype == pl.String else column.to_numpy()
        for name, column in columns.items()
    }
    return pandas.DataFrame(plain)
