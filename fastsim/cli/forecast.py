"""`fastsim forecast`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsim.cli.fan import write_fan_chart
from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.fit import FitCommand
from fastsim.cli.scores import (
    WALK,
    require_different,
    score_all,
    score_tables,
    scores_apart,
    windows_in_words,
    write_scores,
)
from fastsim.cli.seen import all_seen, apart_table, doubts_of, first_scored, seen_from
from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars
from fastsim.data.dates import rows_between, show_day
from fastsim.errors import ConfigError, DataError
from fastsim.forecast.evaluate import Centred, Windows, common_windows, spaced_origins
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    check_horizon,
    check_horizons,
)
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import (
    load_ensemble,
    load_forecaster,
    parse_names,
    parse_weights,
)
from fastsim.forecast.season.setting import AUTO, check_season, resolved, season_of, with_season
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
        forecast = forecaster.forecast(context, self.horizon)
        day = show_day(tape.timestamps[bar])
        console.print(_fan_table(forecast, context, f"{self.symbol} from {day}"))
        for sentence in seen_from(forecaster.card, tape.timestamps[bar]):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if self.plot is not None:
            title = f"{self.symbol}: {forecaster.card.name} from {day}"
            write_fan_chart(self.plot, forecast, context, title)
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


@configuration(slots=False)
class ScoreCommand:
    """Score forecasters over rolling origins beside random walks and classical models."""

    forecaster: str = "fastsim-prior"
    """Names separated by commas, as for `show`; each is scored on its own."""
    baselines: str = "random-walk-60,random-walk-ewma-0.94"
    """What they are held against, separated by commas; also garch-t, garch-t-drift, auto-ets and
    theta, which are fitted to every window, slowly. The first random walk is always scored, and
    alone if this is "none"."""
    season: str = AUTO
    """Of volatility: a time zone, the .json file of a fitted profile, or "none"; "auto" is UTC
    where bars are shorter than a day, and none else. With one, all are scored with and without."""
    centred: bool = False
    """Score each forecaster once more with its median at the last close: its gain without drift."""
    source: str = "us20"
    """A sample's name, or a CSV or Parquet file."""
    horizons: tuple[int, ...] = (1, 2, 3, 5, 8, 13, 21)
    context: int = 512
    step: int = 21
    """Bars between origins."""
    implementation: Implementation = "fastsim"
    """Whose code runs the forecasters: "official" is the package of those who published them."""
    strict: bool = False
    """Refuse forecasters that may have learned from bars that are scored, instead of warning."""
    json: Path | None = None
    """Write all figures, their intervals and the settings to this file, as one JSON object."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        check_season(self.season, "--season")

    def __call__(self, console: Console) -> None:
        """Score and show."""
        require_place("--json", self.json)
        longest = check_horizons(self.horizons)
        names, references = self._names(), (WALK, *parse_names(self.baselines))
        bars = self.reading.bars(self.source)
        origins = spaced_origins(bars, context=self.context, horizon=longest, step=self.step)
        models = [self._load(name) for name in names]
        forecasters = [load_forecaster(name) for name in dict.fromkeys(references)]
        forecasters += [model for model in models if model.card.name not in references]
        forecasters += self._with_season(forecasters, bars)
        forecasters += [Centred(model) for model in models if self.centred]
        require_different(forecasters)
        windows = common_windows(bars, forecasters, self.horizons, origins, self.context)
        scored = first_scored(bars.timestamps, windows, self.horizons)
        doubts = doubts_of(forecasters, scored, strict=self.strict)
        entries = score_all(bars, forecasters, self.horizons, windows, self.context, console)
        sides = scores_apart(entries, scored)
        for table in (*score_tables(entries), *([apart_table(sides)] if sides else [])):
            console.print(table)
        console.print(
            f"{len(origins)} origins, horizons {', '.join(map(str, self.horizons))}; brackets are "
            f"95 % bootstrap intervals over origins. A ratio below 1 beats what it is held "
            f"against. PIT: share of outcomes in each tenth of the forecast, flat if calibrated.",
            highlight=False,
        )
        for sentence in (windows_in_words(windows), *all_seen(models), *doubts):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if self.json is not None:
            settings = self._settings(len(bars.symbols), bars.timestamps[origins], windows)
            write_scores(entries, settings, self.json, sides=sides)
            console.print(f"Wrote {self.json}", highlight=False, markup=False, soft_wrap=True)

    def _names(self) -> tuple[str, ...]:
        names = parse_names(self.forecaster)
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"forecaster {name} is named twice: name it once")
        return names

    def _with_season(self, forecasters: list[Forecaster], bars: Bars) -> list[Forecaster]:
        """The same once more with a season around them, where there is one."""
        season = season_of(resolved(self.season, bars.timestamps))
        if season is None:
            return []
        around = [with_season(one, season) for one in forecasters]
        return [new for new, one in zip(around, forecasters, strict=True) if new is not one]

    def _load(self, name: str) -> Forecaster:
        return load_ensemble([name], implementation=self.implementation)

    def _settings(
        self, assets: int, origins: NDArray[np.datetime64], windows: Windows
    ) -> dict[str, object]:
        return {
            "source": self.source,
            "assets": assets,
            "first_origin": show_day(origins[0]),
            "last_origin": show_day(origins[-1]),
            "origins": len(origins),
            "step": self.step,
            "context": self.context,
            "season": self.season,
            "horizons": list(self.horizons),
            "windows": windows.scored,
            "skipped": windows.skipped,
        }


ForecastAction = (
    Annotated[ShowCommand, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[ScoreCommand, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[FitCommand, tyro.conf.subcommand("fit", prefix_name=False)]
)


@configuration(slots=False)
class ForecastCommand:
    """Forecast an asset, score forecasters, or fit one."""

    action: Annotated[ForecastAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


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
