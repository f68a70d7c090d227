"""Where a run takes its bars from, as configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars
from fastsim.data.checks import CheckConfig
from fastsim.data.dates import check_range
from fastsim.data.doubts import tell
from fastsim.data.read import as_table, bars_from_table
from fastsim.data.sample import SAMPLES, sample_table
from fastsim.data.store import Store, is_store_name
from fastsim.data.tables import FILE_TYPES, Table, is_file_name, load_table
from fastsim.errors import ConfigError, DataError, FastsimError, one_line
from fastsim.extensions import import_object, is_reference


@configuration
class DataConfig:
    """Which bars to use."""

    source: str = "us20"
    """The name of a built-in data set, a path to .csv, .csv.gz or .parquet, or a function of your
    own, "package.module:function", that gives bars or a frame of them, or "store:NAME"."""
    symbols: tuple[str, ...] = ()
    """Symbols to keep, in this order; none means all."""
    num_assets: int | None = None
    """How many symbols to keep, the first in the data, in place of naming them."""
    start: str | None = None
    """ISO date of the first bar."""
    end: str | None = None
    """ISO date of the last bar, inclusive."""
    repair: bool = False
    """Mend what can be mended, as `CheckConfig.repairing`; otherwise problems are errors."""
    ignore_volume: bool = False
    """Leave out the volume, such as that of currencies, which is none or counts ticks: trades then
    have neither limits of participation nor market impact."""

    def __post_init__(self) -> None:
        try:
            check_range(self.start, self.end)
        except DataError as error:
            raise ConfigError(f"DataConfig: {error}") from None
        if self.num_assets is not None:
            require_between(self, "num_assets", 1)
            if self.symbols and not isinstance(self.symbols, str):
                raise ConfigError(
                    f"DataConfig.num_assets = {self.num_assets} keeps the first symbols and "
                    f"DataConfig.symbols names {', '.join(self.symbols)}: give one of them"
                )


def load_bars(config: DataConfig) -> Bars:
    """Load the bars that `config` names, and log a warning for what looks wrong in them.

    Raises
    ------
    ConfigError, DataError
        As `read_source`.
    """
    bars = read_source(config)
    tell(bars, config.source)
    return bars


def read_source(config: DataConfig) -> Bars:
    """Load the bars that `config` names; what looks wrong in them is in their `doubts`.

    Raises
    ------
    ConfigError
        The source is "package.module:object", and cannot be imported.
    DataError
        The source is neither built in nor a file, or a function that fails; or as `read_bars`.
    """
    table = source_table(config.source)
    kept = is_store_name(config.source) and Store.open(config.source).spec.repair
    checks = CheckConfig.repairing() if config.repair or kept else CheckConfig()
    if config.ignore_volume:
        checks = replace(checks, zero_volume="drop")
    bars = bars_from_table(
        table,
        checks=checks,
        symbols=config.symbols or None,
        num_assets=config.num_assets,
        start=config.start,
        end=config.end,
    )
    return replace(bars, doubts=()) if config.source in SAMPLES else bars  # what they hold is known


def source_table(source: str) -> Table:
    """The table of a source, as it is; errors as `read_source`."""
    if source in SAMPLES:
        return sample_table(source)
    if is_store_name(source):
        return Store.open(source).table()
    if is_file_name(source) or Path(source).exists():
        return load_table(source)
    if is_reference(source):
        return _imported(source)
    raise DataError(
        f"unknown data source {source!r}: use one of {', '.join(SAMPLES)}, a path "
        f"to a CSV or Parquet file ({', '.join(FILE_TYPES)}), store:NAME, or "
        f"package.module:function"
    )


def _imported(source: str) -> Table:
    """The table that a user's function gives, or that can be imported itself."""
    found = import_object(source, "data source")
    try:
        given = found() if callable(found) else found
    except FastsimError:
        raise
    except Exception as error:  # whatever a user's function does
        reason = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"data source {source!r} fails: {reason}") from error
    return as_table(given, f"data source {source!r}")
