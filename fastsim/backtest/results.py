"""The results of a backtest in memory and in a folder: figures in JSON, tables in Parquet.

results.json      figures, settings and notes: `fastsim.backtest.schema`
equity.parquet    date, strategy, wealth
weights.parquet   date, strategy, asset, weight
costs.parquet     date, strategy, turnover, and what was paid by part
trades.parquet    the strategy's positions: `fastsim.backtest.trades.TRADES`
bars.parquet      date, symbol, open, high, low, close, adjusted: `BARS`
signals.parquet   what signals said of each bar and symbol: `SIGNALS`
fans.parquet      quantiles of the forecasts that positions were entered on: `FANS`
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fastsim import __version__
from fastsim.backtest.files import read_history, save_history
from fastsim.backtest.history import History
from fastsim.backtest.schema import (
    SCHEMA,
    Difference,
    Figures,
    PlannedRisk,
    ResultsFile,
    TableFile,
    TradeGroup,
    number,
    read_json,
    to_json,
)
from fastsim.backtest.summary import summarize
from fastsim.backtest.trades import (
    STAMP,
    TRADES,
    all_trades,
    by_confidence,
    by_regime,
    risk_of,
)
from fastsim.config import write_whole
from fastsim.data.dates import show
from fastsim.errors import ConfigError, DataError, one_line
from fastsim.stats.bootstrap import Interval

FILE = "results.json"
HISTORY = ("equity", "weights", "costs")
BARS: Mapping[str, Any] = {
    "date": STAMP,
    "symbol": pl.String,
    **dict.fromkeys(("open", "high", "low", "close"), pl.Float64),
}
SIGNALS: Mapping[str, Any] = {
    "date": STAMP,
    "symbol": pl.String,
    "direction": pl.Int8,  # 1 long, -1 short, 0 none: what is traded on
    "confidence": pl.Float64,  # null where nothing was forecast
    "regime": pl.String,  # null where it is not known
    "stop": pl.Float64,  # price, null where there is none
    "target": pl.Float64,
    "position": pl.Float64,  # share of equity by itself
}
FANS: Mapping[str, Any] = {
    "date": STAMP,  # the close that was forecast from
    "symbol": pl.String,
    "ahead": pl.Int64,  # bars
    "level": pl.Float64,  # of the quantile
    "price": pl.Float64,
}
OTHERS = {"trades": TRADES, "bars": BARS, "signals": SIGNALS, "fans": FANS}
"""Columns of the tables beside the history's."""


class About(NamedTuple):
    """What results are of."""

    title: str
    subtitle: str
    strategy: str
    source: str
    focus: str
    benchmark: str
    engine: str = "fastsim"
    regimes: tuple[str, ...] = ()  # in their order
    settings: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


class Results(NamedTuple):
    """A backtest that was played, or read."""

    file: ResultsFile
    history: History
    tables: Mapping[str, pl.DataFrame]  # of `OTHERS`; those that there are


def make_results(
    history: History,
    about: About,
    tables: Mapping[str, pl.DataFrame],
    interval: Interval | None = None,
) -> Results:
    """Put a history and its tables together, with what is to be said of them.

    Raises
    ------
    ConfigError
        There is no table of trades, or a table is unknown or has other columns.
    DataError
        The history cannot be judged.
    """
    if "trades" not in tables or not set(tables) <= set(OTHERS):
        raise ConfigError(
            f"results have the tables {', '.join(OTHERS)}, of which trades must be there, "
            f"got {', '.join(tables) or 'none'}"
        )
    for name, table in tables.items():
        _check_columns(name, table)
    history.column(about.focus, "focus")
    history.column(about.benchmark, "benchmark")
    trades = tables["trades"]
    everything, risk = all_trades(trades), risk_of(trades)
    stamps = history.timestamps
    file = ResultsFile(
        fastsim=__version__,
        engine=about.engine,
        title=about.title,
        subtitle=about.subtitle,
        strategy=about.strategy,
        focus=about.focus,
        benchmark=about.benchmark,
        source=about.source,
        symbols=history.symbols,
        first=show(stamps[0]),
        last=show(stamps[-1]),
        steps=len(stamps) - 1,
        periods_per_year=float(history.steps_per_year),
        figures=_figures(history),
        tables=(),
        sharpe_difference=interval and _difference(interval),
        trades=everything and TradeGroup(**everything._asdict()),
        by_confidence=tuple(TradeGroup(**each._asdict()) for each in by_confidence(trades)),
        by_regime=tuple(TradeGroup(**each._asdict()) for each in by_regime(trades, about.regimes)),
        risk=risk and PlannedRisk(**risk._asdict()),
        settings=dict(about.settings),
        notes=about.notes,
    )
    return Results(file, history, dict(tables))


def save_results(results: Results, folder: Path) -> Path:
    """Write results into a folder; returns the path of results.json, which is written last.

    A folder whose writing was stopped has none, so that tables of two backtests never pass for
    one.

    Raises
    ------
    ConfigError
        `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"results are written to a folder, {folder} is a file: name another")
    path = folder / FILE
    path.unlink(missing_ok=True)
    save_history(results.history, folder)
    for name in OTHERS:
        if name in results.tables:
            content = io.BytesIO()
            results.tables[name].write_parquet(content)
            write_whole(folder / f"{name}.parquet", content.getvalue())
        else:
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    files = tuple(_described(name, folder) for name in (*HISTORY, *results.tables))
    write_whole(path, to_json(replace(results.file, tables=files)))
    return path


def read_results(path: Path) -> Results:
    """Read what `save_results` wrote, given its results.json or the folder.

    Raises
    ------
    DataError
        Something is missing, damaged, of another version, or of another backtest.
    """
    path = path / FILE if path.is_dir() else path
    file = read_json(path)
    known = {*HISTORY, *OTHERS}
    named = [each.name for each in file.tables]
    for name in (*HISTORY, "trades"):
        if name not in named:
            raise DataError(f"{path}: it names no table {name!r}; run the backtest again")
    for name in named:
        if name not in known or named.count(name) > 1:
            raise DataError(
                f"{path}: schema {SCHEMA} has the tables {', '.join(sorted(known))}, each at most "
                f"once, got {name!r}"
            )
    tables = {each.name: _read(path.parent / each.file, each) for each in file.tables}
    history = read_history(*(tables.pop(name) for name in HISTORY), label=str(path.parent))
    for name, table in tables.items():
        _check_columns(name, table)
    names = tuple(each.strategy for each in file.figures)
    if history.names != names or history.symbols != file.symbols:
        raise DataError(f"{path}: its strategies and symbols are not those of its tables")
    return Results(file, history, tables)


def _figures(history: History) -> tuple[Figures, ...]:
    summary = summarize(history, periods_per_year=history.steps_per_year)
    ratios = (
        *("total_return", "annual_return", "annual_volatility", "sharpe_ratio"),
        *("sortino_ratio", "max_drawdown", "calmar_ratio", "turnover"),
    )
    return tuple(
        Figures(
            strategy=name,
            initial_wealth=float(history.wealth[0, place]),
            final_wealth=float(history.wealth[-1, place]),
            cost=float(summary.cost[place]),
            costs={part: float(paid[place]) for part, paid in summary.costs.items()},
            **{ratio: number(getattr(summary, ratio)[place]) for ratio in ratios},
        )
        for place, name in enumerate(history.names)
    )


def _difference(interval: Interval) -> Difference:
    estimate, low, high = map(number, interval[:3])
    return Difference(estimate=estimate, low=low, high=high, level=interval.level)


def _described(name: str, folder: Path) -> TableFile:
    path = folder / f"{name}.parquet"
    content = path.read_bytes()
    rows = len(pl.read_parquet(content, columns=[0]))
    digest = hashlib.sha256(content).hexdigest()
    return TableFile(name=name, file=path.name, rows=rows, sha256=digest)


def _read(path: Path, described: TableFile) -> pl.DataFrame:
    try:
        content = path.read_bytes()
        table = pl.read_parquet(content)
    except FileNotFoundError:
        raise DataError(
            f"{path}: the table of {described.name} is missing; run the backtest again"
        ) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: damaged ({one_line(error, 120)}); run it again") from None
    if hashlib.sha256(content).hexdigest() != described.sha256 or len(table) != described.rows:
        raise DataError(
            f"{path}: not the table that {FILE} was written with: keep the files of one backtest "
            f"together, or run it again"
        )
    return table


def _check_columns(name: str, table: pl.DataFrame) -> None:
    wanted = pl.Schema(OTHERS[name])
    if table.schema != wanted:
        other = next(
            (each for each in wanted if table.schema.get(each) != wanted[each]), None
        ) or next(each for each in table.columns if each not in wanted)
        raise DataError(
            f"the table of {name} has the columns {', '.join(wanted)}, and {other!r} is "
            f"{table.schema.get(other) or 'missing'} where {wanted.get(other) or 'none'} is wanted"
        )
