"""`fastsim forecast skill`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.scores import require_different
from fastsim.cli.seen import all_seen, doubts_of
from fastsim.cli.skill_tables import skill_tables, skill_words, write_skill
from fastsim.config import configuration
from fastsim.experiment.skill import SkillConfig, find_skill
from fastsim.forecast.registry import load_ensemble, parse_names
from fastsim.forecast.season.setting import AUTO, check_season, resolved
from fastsim.progress import ProgressBars


@configuration(slots=False)
class SkillCommand:
    """Measure what forecasters know of which assets do better: rank ICs, and a book at costs."""

    forecaster: str = "fastsim-prior"
    """Names separated by commas, as for `show`; each is measured on its own."""
    season: str = AUTO
    """Of volatility, around each forecaster: a time zone, the .json file of a fitted profile, or
    "none"; "auto" is UTC where bars are shorter than a day, and none else."""
    source: str = "us20"
    """A sample's name, or a CSV or Parquet file."""
    strict: bool = False
    """Refuse forecasters that may have learned from bars that are measured, instead of warning."""
    json: Path | None = None
    """Write all figures, their intervals and the settings to this file, as one JSON object."""
    skill: Annotated[SkillConfig, tyro.conf.arg(name="")] = field(default_factory=SkillConfig)
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        check_season(self.season, "--season")

    def __call__(self, console: Console) -> None:
        """Measure and show."""
        require_place("--json", self.json)
        names = parse_names(self.forecaster)
        bars = self.reading.bars(self.source)
        season = resolved(self.season, bars.timestamps)
        models = [load_ensemble([name], season=season) for name in names]
        require_different(models)
        measured = bars.timestamps[self.skill.context :]
        doubts = doubts_of(models, measured, strict=self.strict) if len(measured) else []
        report = find_skill(bars, models, self.skill, progress=ProgressBars(console, stay=False))
        for table in skill_tables(report, self.skill):
            console.print(table)
        for sentence in (*skill_words(report, self.skill), *all_seen(models), *doubts):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if self.json is not None:
            write_skill(report, self.skill, self.json, source=self.source, season=season)
            console.print(f"Wrote {self.json}", highlight=False, markup=False, soft_wrap=True)
