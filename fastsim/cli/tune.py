"""`fastsim forecast tune`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from fastsim.cli.fit import FitCommand, hint
from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.forecast.training.folder import ABOUT, STUDY
from fastsim.forecast.training.keep import require_no_fit, save_fit
from fastsim.forecast.training.series import series_of_frame
from fastsim.forecast.tuning.config import SearchConfig
from fastsim.forecast.tuning.outcome import TuneResult
from fastsim.forecast.tuning.tune import tune
from fastsim.progress import ProgressBars
from fastsim.space import in_words, read_space

SHOWN = 10
"""Trials of a table, the best first."""


@configuration(slots=False)
class TuneCommand(FitCommand):
    """Search for the settings of a fit by Optuna, and score the best on bars that no trial saw.

    What comes of it is named fit:FOLDER wherever forecasters are, and says of how many trials it is
    the best. A search that was stopped goes on where it was, by the same command, and the same
    command in another shell works on it as well. Needs `pip install 'fastsim-rl[tune]'`.
    """

    space: Path | None = None
    """What is searched, in YAML: `learning_rate: {log: [1e-4, 3e-3]}`, `hidden: [32, 64]`; by
    default what docs/fitting.md says of the model and the mode."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)

    def __call__(self, console: Console) -> None:
        """Search, say what came of it, and keep the best."""
        folder = self.out or Path("fits") / f"{self._name()}-tuned"
        require_no_fit(folder)
        model, bars = self._model(), self._bars()
        if bars is None:
            raise ConfigError("a search is judged by bars: name some by --data.source")
        with hint():
            result = tune(
                model,
                bars,
                self.fit,
                search=self.search,
                space=None if self.space is None else read_space(self.space),
                others=None if self.series is None else series_of_frame(self.series),
                name=folder.name,
                folder=folder / STUDY,
                progress=ProgressBars(console),
            )
        tuned = result.report.to_json()
        with FileLock(folder / STUDY / "end.lock"):  # of commands that worked on it together
            if not (folder / ABOUT).exists():
                source, base = self.data.source, self._base()
                save_fit(result.fit, folder, result.config, source=source, base=base, tuned=tuned)
        console.print(trials_table(result))
        told = (result.report.sentence, result.fit.report.sentence)
        for line in (*told, f"Wrote {folder}: name it fit:{folder}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def trials_table(result: TuneResult) -> Table:
    """The best trials that came to their end, of how many."""
    whole = [each for each in result.attempts if each.state == "complete"]
    table = Table(
        "Trial",
        "Loss on validation",
        "Settings",
        title=f"The best of {result.report.trials} trials",
    )
    for each in sorted(whole, key=lambda each: each.loss or 0.0)[:SHOWN]:
        table.add_row(str(each.number), f"{each.loss:.5f}", in_words(each.values))
    return table
