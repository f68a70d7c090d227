"""The command line: `fastsim train`, `fastsim evaluate`, `fastsim data`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from fastsim.backtest.report import metrics_table, sharpe_sentence
from fastsim.config import load_yaml
from fastsim.errors import ConfigError, FastsimError
from fastsim.learn.evaluate import AGENT, BENCHMARK, Evaluation, evaluate, headline
from fastsim.learn.run import TrainConfig, resume, train
from fastsim.market.bars import Bars
from fastsim.market.read import write_bars
from fastsim.market.sample import SAMPLES
from fastsim.market.source import DataConfig, load_bars
from fastsim.market.vendors import fetch_ccxt, fetch_yfinance


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a PPO agent, evaluate it on bars it never saw, and write a report."""

    config: Path | None = None
    """YAML of an earlier run to repeat; other options override it."""
    resume: Path | None = None
    """Folder of a run that stopped, to go on with from its latest checkpoint."""
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def __call__(self, console: Console) -> None:
        """Train, then evaluate."""
        if self.resume is not None and self.run != TrainConfig():
            raise ConfigError("--resume goes on with the run's own configuration: drop the others")
        if self.resume is not None:
            folder = resume(self.resume, console=console)
        else:
            folder = train(self.run, console=console)
        show(evaluate(folder), folder, console)


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Evaluate a trained run beside equal weight, buy and hold, and each asset."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    part: Literal["train", "validation", "test"] = "test"
    """Which bars."""
    checkpoint: Literal["best", "latest"] = "best"
    """The best on the validation bars, or the last."""

    def __call__(self, console: Console) -> None:
        """Evaluate and show."""
        show(evaluate(self.run, self.part, self.checkpoint), self.run, console)


@dataclass(frozen=True, kw_only=True)
class ListCommand:
    """List the data that comes with fastsim."""

    def __call__(self, console: Console) -> None:
        """Show every sample with its extent."""
        for name, description in SAMPLES.items():
            console.print(f"[bold]{name}[/bold]: {description}", highlight=False)
            describe(load_bars(DataConfig(source=name)), console)


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Read bars, say what is in them, and keep them as Parquet if asked to."""

    source: tyro.conf.Positional[str]
    """A sample's name, or a CSV or Parquet file."""
    repair: bool = False
    """Mend what can be mended, and say how often."""
    out: Path | None = None
    """Write the bars to this Parquet file."""

    def __call__(self, console: Console) -> None:
        """Read, describe, write."""
        bars = load_bars(DataConfig(source=self.source, repair=self.repair))
        describe(bars, console)
        keep(bars, self.out, console)


@dataclass(frozen=True, kw_only=True)
class FetchCommand:
    """Download bars of these symbols to a Parquet file."""

    vendor: tyro.conf.Positional[Literal["yfinance", "ccxt"]]
    symbols: tyro.conf.Positional[tuple[str, ...]]
    start: str
    """First day, as 2015-01-31."""
    end: str
    """Last day."""
    out: Path
    """The Parquet file to write."""
    exchange: str = "binance"
    """For ccxt: the exchange."""
    interval: str = "1d"
    """Length of a bar."""

    def __call__(self, console: Console) -> None:
        """Fetch, describe, write."""
        start, end, interval = self.start, self.end, self.interval
        if self.vendor == "yfinance":
            bars = fetch_yfinance(self.symbols, start=start, end=end, interval=interval)
        else:
            bars = fetch_ccxt(self.exchange, self.symbols, start=start, end=end, timeframe=interval)
        describe(bars, console)
        keep(bars, self.out, console)


DataAction = (
    Annotated[ListCommand, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[CheckCommand, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[FetchCommand, tyro.conf.subcommand("fetch", prefix_name=False)]
)


@dataclass(frozen=True, kw_only=True)
class DataCommand:
    """List, check or download bars."""

    action: Annotated[DataAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


def show(evaluation: Evaluation, folder: Path, console: Console) -> None:
    """Print the metrics table, the verdict and where the rest is."""
    table = metrics_table(*headline(evaluation))
    table.title = f"{evaluation.part} bars, {dates(evaluation.history.timestamps)}"
    console.print(table)
    sentence = sharpe_sentence(evaluation.interval, AGENT, BENCHMARK)
    console.print(sentence, highlight=False)
    for note in evaluation.notes:
        console.print(f"- {note}", highlight=False)
    console.print(f"Report: {evaluation.report}", highlight=False, soft_wrap=True)


def describe(bars: Bars, console: Console) -> None:
    """Print the extent of bars, and every repair."""
    fields = [name for name in ("open", "high", "low", "volume", "adj_close") if _has(bars, name)]
    console.print(
        f"{len(bars):,} bars of {len(bars.symbols)} symbols, {dates(bars.timestamps)}; "
        f"close{', ' if fields else ' only'}{', '.join(fields)}",
        highlight=False,
    )
    if bars.repairs:
        table = Table("Repaired", "Symbol", "Cells", "First")
        for repair in bars.repairs:
            table.add_row(repair.problem, repair.symbol, str(repair.cells), str(repair.first)[:19])
        console.print(table)


def keep(bars: Bars, path: Path | None, console: Console) -> None:
    """Write bars, where a path was given."""
    if path is not None:
        write_bars(bars, path)
        console.print(f"Wrote {path}", highlight=False, soft_wrap=True)


def dates(timestamps: Any) -> str:
    """First and last day."""
    return f"{str(timestamps[0])[:10]} to {str(timestamps[-1])[:10]}"


def _has(bars: Bars, name: str) -> bool:
    return getattr(bars, name) is not None


def parse(arguments: Sequence[str]) -> Any:
    """Turn command-line arguments into a command; `--config` gives the defaults of `train`."""
    default = TrainCommand(run=_configured(arguments))
    train_command = tyro.conf.subcommand("train", default=default, prefix_name=False)
    commands = (
        Annotated[TrainCommand, train_command]
        | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate", prefix_name=False)]
        | Annotated[DataCommand, tyro.conf.subcommand("data", prefix_name=False)]
    )
    return tyro.cli(commands, prog="fastsim", args=arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input is one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        parse(arguments)(console)
    except FastsimError as error:
        print(f"fastsim: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("fastsim: stopped; `fastsim train --resume RUN` goes on", file=sys.stderr)
        raise SystemExit(130) from None


def _configured(arguments: Sequence[str]) -> TrainConfig:
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            given = value or next(iter(arguments[position + 1 :]), "")
            if not given:
                raise ConfigError("--config needs the path of a YAML file")
            return load_yaml(TrainConfig, Path(given))
    return TrainConfig()


if __name__ == "__main__":
    main()
