"""Where a run takes its bars from, as configuration."""

from __future__ import annotations

from pathlib import Path

from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars
from fastsim.data.checks import CheckConfig
from fastsim.data.dates import check_range
from fastsim.data.read import bars_from_table
from fastsim.data.sample import SAMPLES, sample_table
from fastsim.data.tables import FILE_TYPES, load_table
from fastsim.errors import ConfigError, DataError


@configuration
class DataConfig:
    """Which bars to use."""

    source: str = "us20"
    """The name of a built-in data set, or a path to .csv, .csv.gz or .parquet."""
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

    def __post_init__(self) -> None:
        try:
            check_range(self.start, self.end)
        except DataError as error:
            raise ConfigError(f"DataConfig: {error}") from None
        if isinstance(self.symbols, str):
            raise ConfigError(
                f"DataConfig.symbols must be a tuple of names, got the text {self.symbols!r}"
            )
        if self.num_assets is not None:
            require_between(self, "num_assets", 1)
            if self.symbols:
                raise ConfigError(
                    f"DataConfig.num_assets = {self.num_assets} keeps the first symbols and "
                    f"DataConfig.symbols names {', '.join(self.symbols)}: give one of them"
                )


def load_bars(config: DataConfig) -> Bars:
    """Load the bars that `config` names.

    Raises
    ------
    DataError
        The source is neither built in nor a file; or as `read_bars`.
    """
    if config.source in SAMPLES:
        table = sample_table(config.source)
    elif config.source.lower().endswith(FILE_TYPES) or Path(config.source).exists():
        table = load_table(config.source)
    else:
        raise DataError(
            f"unknown data source {config.source!r}: use one of {', '.join(SAMPLES)}, or a path "
            f"to a CSV or Parquet file ({', '.join(FILE_TYPES)})"
        )
    return bars_from_table(
        table,
        checks=CheckConfig.repairing() if config.repair else None,
        symbols=config.symbols or None,
        num_assets=config.num_assets,
        start=config.start,
        end=config.end,
    )
