"""`fastsim forecast evaluate`."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import tyro
from rich.console import Console

from fastsim.cli.contenders import contenders, load_models, names_of, references_of
from fastsim.cli.files import HowToRead, Reading
from fastsim.cli.score_files import ScoreFiles
from fastsim.cli.score_tables import score_tables
from fastsim.cli.scores import Plan, score_all, windows_in_words
from fastsim.cli.seen import all_seen, apart_table, doubts_of
from fastsim.config import configuration, to_mapping
from fastsim.forecast.evaluate import common_windows, spaced_origins
from fastsim.forecast.interface import check_horizons
from fastsim.forecast.record import Implementation
from fastsim.forecast.season.setting import AUTO, check_season, resolved
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.walk_forward import RefitConfig


@configuration(slots=False)
class ScoreCommand:
    """Score forecasters over rolling origins beside random walks and classical models."""

    forecaster: str = "fastsim-prior"
    """Names separated by commas, as for `show`; each is scored on its own."""
    baselines: str = "random-walk-60,random-walk-ewma-0.94"
    """What they are held against, separated by commas; also har, garch-t, garch-t-drift, auto-ets
    and theta, which are fitted to every window, all but har slowly. The first random walk is always
    scored, and alone if this is "none"."""
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
    by: tuple[Literal["asset", "period"], ...] = ()
    """Show scores by asset, or by period, too; the JSON always has both."""
    implementation: Implementation = "fastsim"
    """Whose code runs the forecasters: "official" is the package of those who published them."""
    strict: bool = False
    """Refuse forecasters that may have learned from bars that are scored, instead of warning."""
    files: Annotated[ScoreFiles, tyro.conf.arg(name="")] = field(default_factory=ScoreFiles)
    refits: Annotated[RefitConfig, tyro.conf.arg(name="")] = field(default_factory=RefitConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    """How what is scored is fitted anew, where --refit-every is given and it is no fit itself."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        check_season(self.season, "--season")

    def __call__(self, console: Console) -> None:
        """Score and show."""
        self.files.check()
        longest = check_horizons(self.horizons)
        names, references = names_of(self.forecaster), references_of(self.baselines)
        bars = self.reading.bars(self.source)
        first = None if self.refits.refit_every is None else self.refits.first_row(bars)
        origins = spaced_origins(
            bars, context=self.context, horizon=longest, step=self.step, first=first
        )
        models = load_models(
            names, bars, origins, longest, self.implementation, self.refits, self.fit, console
        )
        season = resolved(self.season, bars.timestamps)
        forecasters = contenders(models, references, season, centred=self.centred)
        windows = common_windows(bars, forecasters, self.horizons, origins, self.context)
        plan = Plan(bars, self.horizons, self.context, windows)
        doubts = doubts_of(forecasters, plan.scored, strict=self.strict)
        scoring = score_all(plan, forecasters, console, levels=self.files.levels)
        notes = [windows_in_words(windows), *all_seen(models), *doubts]
        tables = score_tables(scoring, self.by)
        if scoring.apart:
            tables.append(apart_table(scoring.apart))
        for table in tables:
            console.print(table)
        console.print(self._legend(plan), highlight=False)
        for sentence in notes:
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        focus = scoring.entries[models[0].card.name] if models else scoring.walk
        self.files.write(scoring, focus, self._settings(plan), notes, console)

    def _legend(self, plan: Plan) -> str:
        return (
            f"{len(plan.windows.origins)} origins, horizons {', '.join(map(str, self.horizons))}; "
            f"brackets are 95 % bootstrap intervals over origins. A ratio below 1 beats what it is "
            f"held against; p is Diebold and Mariano's, of no difference, with {plan.lags[-1]} "
            f"lags. PIT: share of outcomes in each tenth of the forecast, flat if calibrated."
        )

    def _settings(self, plan: Plan) -> dict[str, object]:
        settings: dict[str, object] = {
            "source": self.source,
            "assets": len(plan.bars.symbols),
            "first_origin": plan.days[0],
            "last_origin": plan.days[1],
            "origins": len(plan.windows.origins),
            "step": self.step,
            "context": self.context,
            "season": self.season,
            "horizons": list(self.horizons),
            "windows": plan.windows.scored,
            "skipped": plan.windows.skipped,
        }
        if self.refits.refit_every is not None:
            settings |= {"refits": to_mapping(self.refits), "fit": to_mapping(self.fit)}
        return settings
