"""The files that scores are written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fastsim.cli.files import require_place
from fastsim.cli.score_page import write_score_page
from fastsim.cli.score_record import write_scores
from fastsim.cli.scores import Entry, Scoring
from fastsim.config import configuration
from fastsim.forecast.scoring.table import LEVELS, score_table, write_table


@configuration(slots=False)
class ScoreFiles:
    """Where scores are written."""

    json: Path | None = None
    """Write all figures, their intervals and the settings to this file, as one JSON object."""
    parquet: Path | None = None
    """Write every scored outcome to this file: a row for each forecaster, origin, asset and
    horizon, with quantiles and losses."""
    html: Path | None = None
    """Write one page with tables and charts to this file; it needs no network."""

    def check(self) -> None:
        """Raise ConfigError unless the files can be written; nothing is written yet."""
        require_place("--json", self.json)
        require_place("--parquet", self.parquet, ".parquet")
        require_place("--html", self.html, ".html")

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the quantiles that have to be kept."""
        return () if self.parquet is None else LEVELS

    def write(
        self,
        scoring: Scoring,
        focus: Entry,
        settings: Mapping[str, Any],
        notes: Sequence[str],
        console: Console,
    ) -> None:
        """Write those that are asked for, and say so.

        Parameters
        ----------
        focus
            Whom the page shows a forecast of.
        settings
            Of the record.
        notes
            What a reader of the page should see first.
        """
        plan = scoring.plan
        if self.json is not None:
            write_scores(scoring, settings, self.json)
        if self.parquet is not None:
            told = {name: entry.told for name, entry in scoring.entries.items()}
            table = score_table(told, plan.bars, plan.windows, plan.horizons, plan.context)
            write_table(table, self.parquet)
        if self.html is not None:
            write_score_page(scoring, focus, self.html, notes)
        for path in (self.json, self.parquet, self.html):
            if path is not None:
                console.print(f"Wrote {path}", highlight=False, markup=False, soft_wrap=True)
