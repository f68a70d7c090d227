"""`fastsim backtest`."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsim.backtest.pages import interval_of, write_results_page
from fastsim.backtest.picture import write_picture
from fastsim.backtest.results import Results, read_results, save_results
from fastsim.backtest.summary import mean_of_rest, summarize
from fastsim.backtest.wording import metrics_table, percent, sharpe_sentence
from fastsim.cli.files import require_place
from fastsim.config import configuration
from fastsim.data.symbols import list_symbols
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.backtest import backtest, quick_test
from fastsim.experiment.stage import BacktestConfig
from fastsim.progress import ProgressBars

REPORT, FOLDER = "report.html", Path("backtests")
SHOWN = 200
"""Symbols that are listed unless some are looked for."""


@configuration(slots=False)
class QuickTestCommand:
    """Play a strategy on forecasts through built-in bars, without training, beside benchmarks."""

    out: Path = FOLDER / "quick-test"
    """Folder for its results and report."""

    def __call__(self, console: Console) -> None:
        """Play, show, write."""
        _require_folder(self.out)
        finish(quick_test(progress=ProgressBars(console)), self.out, console)


@configuration(slots=False)
class RunCommand:
    """Play a run, an agent, a strategy's settings or a benchmark through bars, beside others."""

    config: Annotated[BacktestConfig, tyro.conf.arg(name=""), tyro.conf.UseAppendAction]
    engine: Literal["fastsim", "nautilus"] = "fastsim"
    """Who plays: nautilus is NautilusTrader, which is to be installed."""
    out: Path | None = None
    """Folder for its results and report; by default backtests/NAME-TIME."""

    def __call__(self, console: Console) -> None:
        """Play, show, write."""
        if self.engine == "nautilus":
            require_nautilus()
        name = Path(self.config.strategy).stem
        out = self.out or FOLDER / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        _require_folder(out)
        finish(backtest(self.config, progress=ProgressBars(console)), out, console)


@configuration(slots=False)
class SymbolsCommand:
    """List the symbols of a source."""

    source: tyro.conf.Positional[str]
    """A built-in set, a CSV or Parquet file, package.module:function, or an exchange of ccxt as
    ccxt:binance."""
    like: str = ""
    """Only those that hold these letters, whatever their case."""

    def __call__(self, console: Console) -> None:
        """Read or ask, and show."""
        found = [
            each for each in list_symbols(self.source) if self.like.upper() in each.symbol.upper()
        ]
        if not found:
            raise DataError(f"{self.source} has no symbol with {self.like!r} in it")
        shown = found if self.like else found[:SHOWN]
        of_exchange = shown[0].bars is None
        table = Table("Symbol", "Kind") if of_exchange else Table("Symbol", "Bars", "First", "Last")
        for each in shown:
            cells = (each.kind,) if of_exchange else (f"{each.bars:,}", each.first, each.last)
            table.add_row(Text(each.symbol), *cells)
        console.print(table)
        if len(found) > len(shown):
            _say(console, f"and {len(found) - len(shown):,} more: look for some with --like")


@configuration(slots=False)
class ReportCommand:
    """Make a page, or a picture, of results that were written before."""

    results_file: Path
    """The results.json of a backtest, or its folder."""
    out: Path | None = None
    """What to write: .html, or .png, which needs matplotlib; by default report.html beside it."""
    symbol: str | None = None
    """Whose candles a picture shows; by default that of the last trade. A page has all."""

    def __call__(self, console: Console) -> None:
        """Read, check, write."""
        beside = self.results_file if self.results_file.is_dir() else self.results_file.parent
        out = self.out or beside / REPORT
        suffix = out.suffix.lower()
        if suffix not in (".html", ".png"):
            raise ConfigError(f"--out must end in .html or .png, got {out}")
        require_place("--out", out, suffix)
        results = read_results(self.results_file)
        if suffix == ".png":
            write_picture(results, out, self.symbol)
        elif self.symbol is not None:
            raise ConfigError("--symbol is of a picture: a page shows every symbol, one at a time")
        else:
            write_results_page(results, out)
        _say(console, f"Wrote {out}")


BacktestAction = (
    Annotated[QuickTestCommand, tyro.conf.subcommand("quick-test", prefix_name=False)]
    | Annotated[RunCommand, tyro.conf.subcommand("run", prefix_name=False)]
    | Annotated[SymbolsCommand, tyro.conf.subcommand("list-symbols", prefix_name=False)]
    | Annotated[ReportCommand, tyro.conf.subcommand("report", prefix_name=False)]
)


@configuration(slots=False)
class BacktestCommand:
    """Play a strategy through bars, list symbols, or report results."""

    action: Annotated[BacktestAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


def finish(results: Results, folder: Path, console: Console) -> None:
    """Write results and their page into a folder, and print what a person wants to see first."""
    path = save_results(results, folder)
    write_results_page(results, folder / REPORT)
    show_results(results, console)
    _say(console, f"Results: {path}")
    _say(console, f"Report: {folder / REPORT}")


def show_results(results: Results, console: Console) -> None:
    """The table of strategies, the verdict, the trades in a line, and the notes."""
    file, history = results.file, results.history
    summary = summarize(history, periods_per_year=file.periods_per_year)
    singles = history.singles
    names, count = history.names, len(history.names) - len(singles)
    if singles == tuple(range(count, len(names))) and len(singles) > 1:
        summary, names = mean_of_rest(summary, count), (*names[:count], "single asset, mean")
    table = metrics_table(summary, names)
    table.title = f"{file.title}, {file.subtitle}"
    console.print(table)
    interval = interval_of(results)
    if interval is not None:
        console.print(sharpe_sentence(interval, file.focus, file.benchmark), highlight=False)
    if file.trades is not None:
        trades = file.trades
        said = f"{trades.trades:,} trades, {percent(trades.won)} of them won"
        _say(console, f"{said}, mean return {percent(trades.mean_return, 2)} before costs")
    for note in file.notes:
        _say(console, f"- {note}")


def require_nautilus() -> None:
    """Raise ConfigError: NautilusTrader is not installed, or is played from Python alone."""
    if find_spec("nautilus_trader") is None:
        raise ConfigError(
            "--engine nautilus needs NautilusTrader, which is not installed: "
            "pip install 'fastsim-rl[nautilus]'"
        )
    raise ConfigError(
        "--engine nautilus is not played from the command line yet: in Python, "
        "fastsim.adapters.nautilus.runs.backtest(agent, bars) does it"
    )


def _require_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out must be a folder, {out} is a file")
    require_place("--out", out / REPORT)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
