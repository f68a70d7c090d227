"""What every process of a search is given, and what it does with a trial: a fit in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.forecast.digests import digest_of, fingerprint
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import Fitting, put_together
from fastsim.forecast.training.folder import CHECKPOINT, DATA
from fastsim.forecast.training.series import Series, series_of_bars
from fastsim.forecast.tuning.config import SearchConfig
from fastsim.forecast.tuning.spaces import candidate
from fastsim.forecast.tuning.study import VALUES, Study, pruned
from fastsim.progress import SILENT
from fastsim.space import Space, drawn

if TYPE_CHECKING:
    from optuna.trial import Trial

TRIALS = "trials"


class Job(NamedTuple):
    """A search, as whoever works on it needs it."""

    model: ForecastModel
    bars: Bars
    """To learn from and be judged by: those of the test are not among them."""
    others: Series | None
    config: FitConfig
    """Of every trial, but for what is searched."""
    search: SearchConfig
    space: Space
    name: str
    folder: Path

    def study(self) -> Study:
        """Its study, which is made if it is not there; errors as `Study`."""
        parts = [each.fingerprint() for each in (series_of_bars(self.bars), self.others) if each]
        space = {name: list(each) for name, each in self.space.items()}
        settings = [to_mapping(self.config), space, self.name, *parts, fingerprint(self.model)]
        return Study(
            self.folder, digest_of(settings), seed=self.config.seed, prune=self.search.prune
        )

    def place(self, number: int) -> Path:
        """Folder of a trial."""
        return self.folder / TRIALS / f"{number:04d}"

    def fitting(self, number: int, values: Mapping[str, Any]) -> Fitting:
        """The fit of a trial, where its folder has it."""
        model, config = candidate(self.model, self.config, values)
        return put_together(
            model,
            self.bars,
            config,
            others=self.others,
            name=self.name,
            folder=self.place(number),
        )

    def objective(self, number: int, trial: Trial) -> float:
        """The best loss on validation that the fit of a trial comes to, from wherever it is.

        Raises
        ------
        optuna.TrialPruned
            It is given up.
        """
        values = drawn(self.space, trial)
        trial.set_user_attr(VALUES, values)
        fitting = self.fitting(number, values)

        def watch(step: int, loss: float) -> None:
            trial.report(loss, step)
            if trial.should_prune():
                raise pruned(step)

        fitting.course.run(fitting.beginning.before, SILENT, watch)
        return fitting.course.best_loss

    def tidy(self, study: Study) -> None:
        """Drop what ended trials went on from, but for that of the best one."""
        attempts = study.attempts()
        best = best_of(study)
        for each in attempts:
            if each.state in ("running", "waiting"):
                continue
            shutil.rmtree(self.place(each.number) / DATA, ignore_errors=True)
            if each.number != best:
                with suppress(FileNotFoundError):
                    (self.place(each.number) / CHECKPOINT).unlink()


def best_of(study: Study) -> int | None:
    """Number of the trial with the lowest loss of those that came to their end; None of none."""
    whole = [
        each for each in study.attempts() if each.state == "complete" and each.loss is not None
    ]
    return min(whole, key=lambda each: (each.loss, each.number)).number if whole else None
