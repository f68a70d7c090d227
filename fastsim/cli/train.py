"""`fastsim train`, `evaluate` and `ablate`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from fastsim.backtest.wording import metrics_table, sharpe_sentence
from fastsim.config import changes, configuration, load_yaml
from fastsim.data.dates import show_span
from fastsim.errors import ConfigError
from fastsim.experiment.ablate import ablate
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import Evaluation, evaluate, headline
from fastsim.experiment.replays import AGENT, BENCHMARK
from fastsim.experiment.train import resume, train
from fastsim.progress import Progress, ProgressBars, Whole


@configuration(slots=False)
class TrainCommand:
    """Train an agent, evaluate it on bars it never saw, and write a report.

    --num-envs, --num-assets and --total-timesteps are understood too.
    """

    config: Path | None = None
    """YAML of an earlier run to repeat; other options override it."""
    resume: Path | None = None
    """Folder of a run to go on with from its latest checkpoint; --total-steps, its new total,
    lets it go further than it was to."""
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def __call__(self, console: Console) -> None:
        """Train, then evaluate."""
        with Whole(ProgressBars(console), "run") as progress:
            folder = self._train(progress)
            evaluation = evaluate(folder, progress=progress)
        show(evaluation, folder, console)

    def _train(self, progress: Progress) -> Path:
        if self.resume is None:
            return train(self.run, progress=progress)
        given = changes(self.run, load_yaml(TrainConfig, self.resume / "config.yaml"))
        steps = given.pop("total_steps", None)
        if self.config is not None or given:
            others = ", ".join(given or ["config"])
            raise ConfigError(
                f"--resume goes on with the run's own configuration, but for --total-steps: "
                f"drop {others}"
            )
        return resume(self.resume, total_steps=steps, progress=progress)


@configuration(slots=False)
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
        progress = ProgressBars(console)
        evaluation = evaluate(self.run, self.part, self.checkpoint, progress=progress)
        show(evaluation, self.run, console)


@configuration(slots=False)
class AblateCommand:
    """Train with and without forecasts over several seeds, and report the difference."""

    seeds: int = 5
    """Runs of each kind."""
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def __call__(self, console: Console) -> None:
        """Train, compare, say what came of it."""
        with Whole(ProgressBars(console), "ablation", runs=2 * self.seeds) as progress:
            result = ablate(self.run, self.seeds, progress=progress)
        table = Table("Seed", "Sharpe with forecasts", "without", "difference")
        rows = zip(result.with_forecasts, result.without, result.differences, strict=True)
        for seed, (having, lacking, difference) in enumerate(rows):
            figures = (f"{having:.3f}", f"{lacking:.3f}", f"{difference:+.3f}")
            table.add_row(str(self.run.seed + seed), *figures)
        console.print(table)
        console.print(result.sentence, highlight=False)
        console.print(f"Wrote {result.folder}", highlight=False, markup=False, soft_wrap=True)


def show(evaluation: Evaluation, folder: Path, console: Console) -> None:
    """Print the metrics table, the verdict and where the rest is."""
    table = metrics_table(*headline(evaluation))
    table.title = f"{evaluation.part} bars, {show_span(evaluation.history.timestamps)}"
    console.print(table)
    sentence = sharpe_sentence(evaluation.interval, AGENT, BENCHMARK)
    console.print(sentence, highlight=False)
    for note in evaluation.notes:
        console.print(f"- {note}", highlight=False, markup=False)
    console.print(f"Report: {evaluation.report}", highlight=False, markup=False, soft_wrap=True)
