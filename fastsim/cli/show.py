"""`fastsim forecast show`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsim.cli.fan import write_fan_chart
from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.seen import seen_from
from fastsim.config import configuration, require_between
from fastsim.data.dates import rows_between, show_day
from fastsim.errors import DataError
from fastsim.forecast.columns import forecast_bars
from fastsim.forecast.interface import (
    Context,
    Forecast,
    check_horizon,
)
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import (
    load_ensemble,
    parse_names,
    parse_weights,
)
from fastsim.forecast.season.setting import AUTO, check_season, resolved
from fastsim.forecast.windows import context_at
from fastsim.market.tape import MarketTape, make_tape


@configuration(slots=False)
class ShowCommand:
    """Forecast one asset from one bar: a table, and a fan chart if asked for."""

    symbol: tyro.conf.Positional[str]
    source: str = "us20"
    """A sample's name, or a CSV or Parquet file."""
    forecaster: str = "fastsim-prior"
    """Names separated by commas, such as toto, toto@REVISION, toto:/folder or an artefact."""
    weights: str = ""
    """Of several forecasters."""
    column: Literal["open", "high", "low", "close", "volume", "amount"] = "close"
    """Which column of the bars to forecast: others than the close are for kronos."""
    date: str | None = None
    """Forecast from this day's close; by default the last."""
    horizon: int = 21
    context: int = 512
    """Bars to look back on."""
    implementation: Implementation = "fastsim"
    """Whose code runs it: "official" is the package of those who published it."""
    season: str = AUTO
    """Of volatility: a time zone, the .json file of a fitted profile, or "none"; "auto" is UTC
    where bars are shorter than a day, and none else."""
    plot: Path | None = None
    """Write a fan chart to this HTML file."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        require_between(self, "context", 1)
        check_season(self.season, "--season")

    def __call__(self, console: Console) -> None:
        """Forecast and show."""
        require_place("--plot", self.plot)
        names, weights = parse_names(self.forecaster), parse_weights(self.weights)
        tape = make_tape(self.reading.bars(self.source))
        column, bar = self._place(tape)
        forecaster = load_ensemble(
            names,
            weights,
            implementation=self.implementation,
            season=resolved(self.season, tape.timestamps),
        )
        check_horizon(forecaster.card, self.horizon)
        rows = context_at(tape, slice(bar, bar + 1), self.context)
        context = Context(rows.bars[column : column + 1], rows.timestamps[column : column + 1])
        day = show_day(tape.timestamps[bar])
        title = f"{self.symbol} from {day}"
        if self.column == "close":
            forecast = forecaster.forecast(context, self.horizon)
        else:
            forecast = forecast_bars(forecaster, context, self.horizon)[self.column]
            context = context.of_column(self.column)
            title = f"{self.column} of {title}"
        console.print(_fan_table(forecast, context, title))
        for sentence in seen_from(forecaster.card, tape.timestamps[bar]):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if self.plot is not None:
            page = f"{self.symbol}: {forecaster.card.name} from {day}"
            page = page if self.column == "close" else f"{self.column} of {page}"
            write_fan_chart(self.plot, forecast, context, page)
            console.print(f"Wrote {self.plot}", highlight=False, markup=False, soft_wrap=True)

    def _place(self, tape: MarketTape) -> tuple[int, int]:
        if self.symbol not in tape.symbols:
            raise DataError(f"no symbol {self.symbol!r}; there are {', '.join(tape.symbols)}")
        if self.date is None:
            return tape.symbols.index(self.symbol), len(tape) - 1
        bar = rows_between(tape.timestamps, None, self.date).stop - 1
        if bar < 0:
            raise DataError(
                f"{self.date} lies before the first bar, {show_day(tape.timestamps[0])}"
            )
        return tape.symbols.index(self.symbol), bar


def _fan_table(forecast: Forecast, context: Context, title: str) -> Table:
    table = Table(
        "Bars ahead", "10 %", "Median", "90 %", "Probability of a rise", title=Text(title)
    )
    price = context.close[:, -1]
    rise = forecast.probability_of_rise(price)[0].tolist()
    bands = [forecast.at(level)[0].tolist() for level in (0.1, 0.5, 0.9)]
    steps = len(rise)
    for step in sorted({1, 2, 3, 5, 10, 21, 42, 64, steps} & set(range(1, steps + 1))):
        cells = [f"{band[step - 1]:,.2f}" for band in bands]
        table.add_row(str(step), *cells, f"{rise[step - 1]:.1%}")
    return table
