"""`fastsim forecast evaluate`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.score_tables import score_tables
from fastsim.cli.scores import (
    WALK,
    require_different,
    score_all,
    scores_apart,
    windows_in_words,
    write_scores,
)
from fastsim.cli.seen import all_seen, apart_table, doubts_of, first_scored
from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.data.dates import show_day
from fastsim.errors import ConfigError
from fastsim.forecast.evaluate import (
    Centred,
    Windows,
    common_windows,
    dependent_origins,
    spaced_origins,
)
from fastsim.forecast.interface import (
    Forecaster,
    check_horizons,
)
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import (
    load_ensemble,
    load_forecaster,
    parse_names,
)
from fastsim.forecast.season.setting import AUTO, check_season, resolved, season_of, with_season


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
        lags = dependent_origins(windows, longest)
        tables = score_tables(entries, self.horizons, lags)
        for table in (*tables, *([apart_table(sides)] if sides else [])):
            console.print(table)
        console.print(self._legend(len(origins), lags), highlight=False)
        for sentence in (windows_in_words(windows), *all_seen(models), *doubts):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if self.json is not None:
            settings = self._settings(len(bars.symbols), bars.timestamps[origins], windows)
            write_scores(
                entries,
                settings,
                self.json,
                windows=windows,
                horizons=self.horizons,
                sides=sides,
            )
            console.print(f"Wrote {self.json}", highlight=False, markup=False, soft_wrap=True)

    def _legend(self, origins: int, lags: int) -> str:
        return (
            f"{origins} origins, horizons {', '.join(map(str, self.horizons))}; brackets are 95 % "
            f"bootstrap intervals over origins. A ratio below 1 beats what it is held against; p "
            f"is Diebold and Mariano's, of no difference, with {lags} lags. PIT: share of outcomes "
            f"in each tenth of the forecast, flat if calibrated."
        )

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
