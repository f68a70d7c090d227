"""The file `results.json` of a backtest: what it holds, written and checked by one class.

`results.schema.json` says the same as JSON Schema, for other programs; `docs/backtest.md` in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from fastsim.config import configuration, from_mapping, require_between, to_mapping
from fastsim.errors import ConfigError, DataError, one_line

SCHEMA = 1
"""Of results.json and of the tables beside it."""


@configuration
class Figures:
    """What a strategy came to; null where a figure is no number."""

    strategy: str
    initial_wealth: float
    final_wealth: float
    total_return: float | None
    annual_return: float | None
    annual_volatility: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    max_drawdown: float | None
    calmar_ratio: float | None
    turnover: float | None
    """Traded value a year, in multiples of wealth."""
    cost: float
    """Everything paid, in account currency."""
    costs: Mapping[str, float]
    """The same by cost part."""


@configuration
class Difference:
    """Of the Sharpe ratio of the strategy less that of its benchmark, with a bootstrap interval."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float


@configuration
class TradeGroup:
    """Trades that have something in common; `fastsim.backtest.trades.Group`."""

    name: str
    trades: int
    won: float
    mean_return: float
    in_risk: float | None
    contribution: float


@configuration
class PlannedRisk:
    """Planned and realised risk; `fastsim.backtest.trades.Risk`."""

    trades: int
    planned_mean: float
    planned_most: float
    realised_mean: float
    realised_most: float
    beyond: float


@configuration
class TableFile:
    """A Parquet file beside results.json."""

    name: str
    file: str
    rows: int
    sha256: str

    def __post_init__(self) -> None:
        require_between(self, "rows", 0)
        if not self.file or Path(self.file).name != self.file:
            raise ConfigError(f"TableFile.file must be a plain file name, got {self.file!r}")


@configuration
class ResultsFile:
    """Everything in results.json but its version."""

    fastsim: str
    """The version that wrote it."""
    engine: str
    title: str
    subtitle: str
    strategy: str
    """What was played, as it was asked for."""
    focus: str
    """What the strategy is called among the figures and in the tables."""
    benchmark: str
    source: str
    symbols: tuple[str, ...]
    first: str
    """Close of the first decision."""
    last: str
    """Close that everything is marked at in the end."""
    steps: int
    periods_per_year: float
    figures: tuple[Figures, ...]
    tables: tuple[TableFile, ...]
    sharpe_difference: Difference | None = None
    trades: TradeGroup | None = None
    by_confidence: tuple[TradeGroup, ...] = ()
    by_regime: tuple[TradeGroup, ...] = ()
    risk: PlannedRisk | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_between(self, "steps", 1)
        require_between(self, "periods_per_year", 0, open_low=True)
        names = [each.strategy for each in self.figures]
        for role in ("focus", "benchmark"):
            if getattr(self, role) not in names:
                raise ConfigError(
                    f"ResultsFile.{role} must be one of the strategies {', '.join(names)}, "
                    f"got {getattr(self, role)!r}"
                )


def to_json(results: ResultsFile) -> bytes:
    """The file's content."""
    mapping = {"schema": SCHEMA, **to_mapping(results)}
    return json.dumps(mapping, indent=2, allow_nan=False, ensure_ascii=False).encode()


def read_json(path: Path) -> ResultsFile:
    """What `to_json` made.

    Raises
    ------
    DataError
        The file is missing or damaged, of another version, or not as it has to be.
    """
    try:
        mapping = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `fastsim backtest run` writes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no results of a backtest ({one_line(error)})") from None
    found = mapping.pop("schema", None) if isinstance(mapping, dict) else None
    if isinstance(found, bool) or found != SCHEMA:
        raise DataError(
            f"{path}: results of schema {SCHEMA} are read here, and these are of {found!r}: use "
            f"the fastsim that wrote them, or run the backtest again"
        )
    try:
        lacking = [each.name for each in fields(ResultsFile) if each.name not in mapping]
        if lacking:
            raise ConfigError(f"it lacks {', '.join(lacking)}")
        return from_mapping(ResultsFile, mapping)
    except (ConfigError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {one_line(error)}") from None


def number(value: Any) -> float | None:
    """A figure as JSON holds it: None where it is not finite."""
    plain = float(value)
    return plain if isfinite(plain) else None
