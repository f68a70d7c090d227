"""Do forecasts help? The same run with and without them, over several seeds."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

import fastsim
from fastsim.config import to_mapping, write_whole
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.folder import start_name
from fastsim.experiment.train import train
from fastsim.forecast.registry import NO_FORECASTER
from fastsim.progress import ON_STDERR, Progress
from fastsim.stats.bootstrap import Interval
from fastsim.stats.student import mean_interval

FEWEST = 5
"""Seeds below which nothing is decided."""


class Ablation(NamedTuple):
    """Sharpe ratios on the test bars, one per seed, and the mean difference's interval."""

    with_forecasts: tuple[float, ...]
    without: tuple[float, ...]
    difference: Interval  # Student's t over the paired differences
    folder: Path | None = None  # where the summary is

    @property
    def differences(self) -> tuple[float, ...]:
        """With forecasts less without, one per seed."""
        pairs = zip(self.with_forecasts, self.without, strict=True)
        return tuple(having - lacking for having, lacking in pairs)

    @property
    def verdict(self) -> str:
        """What may be said of it: nothing, of few seeds."""
        if not all(map(isfinite, self.difference)):
            return "nothing can be said: a Sharpe ratio is undefined"
        if len(self.without) < FEWEST:
            return f"{len(self.without)} seeds decide nothing; it takes {FEWEST} at least"
        if self.difference.contains_zero:
            return "no evidence that forecasts matter"
        return f"forecasts {'help' if self.difference.low > 0 else 'hurt'} here"

    @property
    def sentence(self) -> str:
        """The result in words, whatever it is."""
        seeds, (mean, low, high, level) = len(self.without), self.difference
        told = f"Sharpe ratio with forecasts minus without, mean over {seeds} seeds: {mean:+.3f}"
        if seeds < FEWEST:
            each = ", ".join(f"{value:+.3f}" for value in self.differences)
            return f"{told}, of {each}: {self.verdict}."
        return (
            f"{told}, {level:.0%} interval over seeds (Student's t) {low:+.3f} to {high:+.3f}: "
            f"{self.verdict}. Seeds share the test years: the interval says nothing of other years."
        )


def ablate(config: TrainConfig, seeds: int, *, progress: Progress = ON_STDERR) -> Ablation:
    """Train `seeds` pairs of runs that differ in their forecasts alone, and compare them.

    A folder beside those of the runs, NAME-ablation, keeps the result as `summary.json` and, a row
    for each seed, as `summary.parquet`.

    Raises
    ------
    ConfigError
        Fewer than two seeds, a configuration without a forecaster, or a folder that is there
        already.
    """
    if seeds < 2:
        raise ConfigError(f"an ablation compares runs over at least 2 seeds, got seeds = {seeds}")
    if config.forecaster == NO_FORECASTER:
        raise ConfigError(
            "there is nothing to leave out: the run has no forecaster; name one as "
            "TrainConfig.forecaster"
        )
    name, numbers = start_name(config), range(config.seed, config.seed + seeds)
    folder = Path(config.runs_dir) / f"{name}-ablation"
    labels = {"with": config.forecaster, "without": NO_FORECASTER}
    runs = {
        label: [
            replace(config, seed=seed, forecaster=forecaster, name=f"{name}-{label}-{seed}")
            for seed in numbers
        ]
        for label, forecaster in labels.items()
    }
    _check_room([folder, *(_folder(run) for each in runs.values() for run in each)])

    def sharpe(run: TrainConfig) -> float:
        return float(evaluate(train(run, progress=progress)).summary.sharpe_ratio[0])

    pairs = [
        (sharpe(having), sharpe(lacking))
        for having, lacking in zip(runs["with"], runs["without"], strict=True)
    ]
    result = summarize_pairs(pairs)._replace(folder=folder)
    write_summary(result, config, folder)
    return result


def summarize_pairs(pairs: list[tuple[float, float]]) -> Ablation:
    """Mean difference of pairs with its Student-t interval over pairs."""
    having, lacking = zip(*pairs, strict=True)
    result = Ablation(having, lacking, Interval(0.0, 0.0, 0.0, 0.0))
    return result._replace(difference=mean_interval(torch.tensor(result.differences)))


def write_summary(result: Ablation, config: TrainConfig, folder: Path) -> None:
    """Write what came of an ablation as JSON and as Parquet; an undefined number is null."""
    columns: dict[str, list[Any]] = {
        "seed": [config.seed + number for number in range(len(result.without))],
        "with_forecasts": list(map(_plain, result.with_forecasts)),
        "without": list(map(_plain, result.without)),
        "difference": list(map(_plain, result.differences)),
    }
    mean, low, high, level = result.difference
    record = {
        "fastsim": fastsim.__version__,
        "figure": "Sharpe ratio on the test bars",
        **columns,
        "mean_difference": _plain(mean),
        "interval": [_plain(low), _plain(high)],
        "level": level,
        "method": "Student's t over paired differences",
        "verdict": result.verdict,
        "configuration": to_mapping(config),
    }
    table = io.BytesIO()
    schema = {"seed": pl.Int64, **dict.fromkeys(list(columns)[1:], pl.Float64)}
    pl.DataFrame(columns, schema=schema).write_parquet(table)
    write_whole(folder / "summary.parquet", table.getvalue())
    write_whole(folder / "summary.json", (json.dumps(record, indent=2) + "\n").encode())


def _check_room(folders: list[Path]) -> None:
    """Hours of training are not to end at a name that is taken."""
    for folder in folders:
        if folder.exists():
            raise ConfigError(f"{folder} is there already: choose another TrainConfig.name")


def _folder(run: TrainConfig) -> Path:
    return Path(run.runs_dir) / str(run.name)


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None
