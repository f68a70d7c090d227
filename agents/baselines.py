"""Classic portfolio selection on any data, at the same costs as an agent: what it has to beat.

    python agents/baselines.py --source us20 --costs default --start 2017-01-01

Needs `fastsim-rl[baselines]`, for the covariance of two of the strategies.
"""

import sys
from typing import Literal

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsim.backtest.history import History
from fastsim.backtest.refused import refusals_in_words
from fastsim.backtest.strategies import classic_strategies, hindsight_bounds, play_strategies
from fastsim.backtest.summary import summarize
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration
from fastsim.data.dates import rows_between, show_span
from fastsim.data.source import DataConfig, load_bars
from fastsim.env.config import EnvConfig
from fastsim.errors import DataError
from fastsim.market.costs import CostConfig
from fastsim.market.tape import MarketTape, make_tape

COSTS = {
    "default": CostConfig(),
    "free": CostConfig(fee_bps=0.0, half_spread_bps=0.0, impact=0.0, borrow_bps_per_year=0.0),
}


@configuration(slots=False)
class Options:
    """Play the classic strategies, and print what each came to."""

    source: str = "us20"
    """A built-in data set, or a path to .csv, .csv.gz or .parquet."""
    costs: Literal["default", "free"] = "default"
    """Commission 1 bp and half spread 2 bp, or nothing."""
    start: str | None = None
    """ISO date of the first decision; the bars before it are known."""
    end: str | None = None
    """ISO date of the last bar, inclusive."""


def load_tape(options: Options) -> MarketTape:
    """The market, with decisions from `start` on."""
    config = DataConfig(source=options.source, start=options.start, end=options.end)
    bars = load_bars(DataConfig(source=config.source, end=config.end))
    tape = make_tape(bars, dtype=torch.float64)
    if options.start is None:
        return tape
    rows = rows_between(tape.timestamps, options.start, None)
    if rows.start >= len(tape) - 1:
        raise DataError(f"--start {options.start} leaves no step: {config.source} ends before")
    return tape.between(rows)


def results_table(history: History) -> Table:
    """One row per strategy: wealth in multiples of what it began with, and the rest."""
    summary = summarize(history, periods_per_year=history.steps_per_year)
    title = f"{show_span(history.timestamps)}, {len(history.symbols)} assets"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("strategy", no_wrap=True)
    columns = {
        "terminal\nwealth": (1.0 + summary.total_return, "{:.4g}"),
        "annual\nreturn": (summary.annual_return, "{:.1%}"),
        "volatility": (summary.annual_volatility, "{:.1%}"),
        "Sharpe": (summary.sharpe_ratio, "{:.2f}"),
        "max\ndrawdown": (summary.max_drawdown, "{:.1%}"),
        "turnover\na year": (summary.turnover, "{:.1f}x"),
        "costs paid of\ninitial wealth": (summary.relative_cost, "{:.1%}"),
    }
    for name in columns:
        table.add_column(name, justify="right")
    for row, name in enumerate(history.names):
        cells = [text.format(figure[row].item()) for figure, text in columns.values()]
        table.add_row(Text(name), *cells)
    return table


def main() -> None:
    """Play and print."""
    with one_line_errors("baselines", Options):
        options = read_options(Options)
        tape = load_tape(options)
        strategies = [*classic_strategies(), *hindsight_bounds(tape)]
        history = play_strategies(tape, strategies, EnvConfig(costs=COSTS[options.costs]))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(results_table(history))
    for sentence in refusals_in_words(history):
        console.print(sentence, highlight=False, markup=False)


if __name__ == "__main__":
    main()
