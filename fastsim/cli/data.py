"""`fastsim data`: list, check, download, keep or measure bars."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import Tensor

from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.store import UpdateCommand, summary
from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars
from fastsim.data.checks import CheckConfig
from fastsim.data.dates import show_span
from fastsim.data.read import write_bars
from fastsim.data.sample import SAMPLES
from fastsim.data.source import DataConfig, read_source
from fastsim.data.store import known_stores
from fastsim.data.vendors import BarRequest, fetch
from fastsim.synthetic.facts import Facts, complete_closes, stylised_facts
from fastsim.synthetic.models import fit

SYMBOLS = 24
"""So many are named."""


@configuration(slots=False)
class ListCommand:
    """List the data that comes with fastsim, and the stores in `stores/`."""

    def __call__(self, console: Console) -> None:
        """Show every sample and every store with its extent."""
        for name, description in SAMPLES.items():
            console.print(f"[bold]{name}[/bold]: {description}", highlight=False)
            describe(read_source(DataConfig(source=name)), console)
        for folder in known_stores():
            console.print(f"store:{summary(folder)}", highlight=False, markup=False, soft_wrap=True)


@configuration(slots=False)
class CheckCommand:
    """Read bars, say what is in them, and keep them as Parquet if asked to."""

    source: tyro.conf.Positional[str]
    """A sample's name, a CSV or Parquet file, or store:NAME."""
    repair: bool = False
    """Mend what can be mended, and say how often."""
    reading: HowToRead = field(default_factory=Reading)
    out: Path | None = None
    """Write the bars to this Parquet file."""

    def __call__(self, console: Console) -> None:
        """Read, describe, write."""
        require_place("--out", self.out, ".parquet")
        data = self.reading.of(self.source)
        bars = read_source(replace(data, repair=data.repair or self.repair))
        describe(bars, console)
        keep(bars, self.out, console)


@configuration(slots=False)
class FetchCommand:
    """Download bars of these symbols to a Parquet file."""

    vendor: tyro.conf.Positional[str]
    """yfinance, ccxt, or your own as package.module:object."""
    symbols: tyro.conf.Positional[tuple[str, ...]]
    start: str
    """First day, as 2015-01-31."""
    end: str
    """Last day."""
    out: Path
    """The Parquet file to write."""
    exchange: str = ""
    """For ccxt: the exchange, binance if empty."""
    interval: str = "1d"
    """Length of a bar."""
    repair: bool = False
    """Mend what can be mended, and say how often."""
    ignore_volume: bool = False
    """Leave out the volume, such as that of currencies, which is none or counts ticks."""

    def __call__(self, console: Console) -> None:
        """Fetch, describe, write."""
        require_place("--out", self.out, ".parquet")
        checks = CheckConfig.repairing() if self.repair else CheckConfig()
        request = BarRequest(
            symbols=self.symbols,
            start=self.start,
            end=self.end,
            interval=self.interval,
            exchange=self.exchange,
            checks=replace(checks, zero_volume="drop") if self.ignore_volume else checks,
        )
        bars = fetch(self.vendor, request)
        describe(bars, console)
        keep(bars, self.out, console)


@configuration(slots=False)
class FactsCommand:
    """Measure the stylised facts of bars, and of models fitted to them."""

    source: tyro.conf.Positional[str]
    """A sample's name, a CSV or Parquet file, or store:NAME."""
    model: tuple[str, ...] = ()
    """Synthetic models to put beside it: gbm, heston, merton, garch, sv, regimes, bootstrap, or
    your own as package.module:object."""
    worlds: int = 20
    """Worlds simulated of each model, as long as the data: their mean, and a 90 % range."""
    seed: int = 0
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        require_between(self, "worlds", 1)
        require_between(self, "seed", 0, 2**53)

    def __call__(self, console: Console) -> None:
        """Measure, fit, simulate, measure."""
        bars = self.reading.bars(self.source)
        close = complete_closes(bars)
        columns = [[f"{value:.3f}" for value in map(float, stylised_facts(close))]]
        for name in self.model:
            drawn = fit(name, bars).sample(
                self.worlds, len(close), torch.Generator().manual_seed(self.seed)
            )
            columns.append([_range_of(values) for values in stylised_facts(drawn.close)])
        table = Table("Fact", escape(self.source), *map(escape, self.model))
        for name, *cells in zip(Facts._fields, *columns, strict=True):
            table.add_row(name.replace("_", " "), *cells)
        console.print(table)


DataAction = (
    Annotated[ListCommand, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[CheckCommand, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[FetchCommand, tyro.conf.subcommand("fetch", prefix_name=False)]
    | Annotated[UpdateCommand, tyro.conf.subcommand("update", prefix_name=False)]
    | Annotated[FactsCommand, tyro.conf.subcommand("facts", prefix_name=False)]
)


@configuration(slots=False)
class DataCommand:
    """List, check, download, keep or measure bars."""

    action: Annotated[DataAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


def describe(bars: Bars, console: Console) -> None:
    """Print the extent of bars and their symbols, every repair, and what looks wrong."""
    fields = [name for name in ("open", "high", "low", "volume", "adj_close") if _has(bars, name)]
    console.print(
        f"{len(bars):,} bars of {len(bars.symbols)} symbols, {show_span(bars.timestamps)}; "
        f"close{', ' if fields else ' only'}{', '.join(fields)}",
        highlight=False,
    )
    shown = ", ".join(bars.symbols[:SYMBOLS])
    more = len(bars.symbols) - SYMBOLS
    symbols = f"{shown} and {more} more" if more > 0 else shown
    console.print(symbols, highlight=False, markup=False, soft_wrap=True)
    if bars.repairs:
        table = Table("Repaired", "Symbol", "Cells", "First")
        for repair in bars.repairs:
            cells = (str(repair.cells), str(repair.first)[:19])
            table.add_row(repair.problem, Text(repair.symbol), *cells)
        console.print(table)
    for doubt in bars.doubts:
        console.print(f"Warning: {doubt}", highlight=False, markup=False, soft_wrap=True)


def keep(bars: Bars, path: Path | None, console: Console) -> None:
    """Write bars, where a path was given."""
    if path is not None:
        write_bars(bars, path)
        console.print(f"Wrote {path}", highlight=False, markup=False, soft_wrap=True)


def _range_of(values: Tensor) -> str:
    low, high = values.quantile(values.new_tensor([0.05, 0.95])).tolist()
    return f"{float(values.mean()):.3f}\n[{low:.3f}, {high:.3f}]"


def _has(bars: Bars, name: str) -> bool:
    return getattr(bars, name) is not None
