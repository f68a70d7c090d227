"""Do forecasts help? The same run with and without them, over several seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.folder import start_name
from fastsim.experiment.train import train
from fastsim.forecast.registry import NO_FORECASTER
from fastsim.progress import ON_STDERR, Progress
from fastsim.stats.bootstrap import Interval, percentile_interval
from fastsim.stats.resample import circular_rows

RESAMPLES = 10_000


class Ablation(NamedTuple):
    """Sharpe ratios on the test bars, one per seed, and the mean difference's interval."""

    with_forecasts: tuple[float, ...]
    without: tuple[float, ...]
    difference: Interval

    @property
    def sentence(self) -> str:
        """The result in words, whatever it is."""
        difference, low, high, level = self.difference
        verdict = (
            "no evidence that forecasts matter"
            if self.difference.contains_zero
            else f"forecasts {'help' if low > 0 else 'hurt'} here"
        )
        return (
            f"Sharpe ratio with forecasts minus without, mean over {len(self.without)} seeds: "
            f"{difference:+.3f}, {level:.0%} bootstrap interval over seeds {low:+.3f} to "
            f"{high:+.3f}: {verdict}. Seeds share the test years: the interval says nothing "
            f"of other years."
        )


def ablate(config: TrainConfig, seeds: int, *, progress: Progress = ON_STDERR) -> Ablation:
    """Train `seeds` pairs of runs that differ in their forecasts alone, and compare them.

    Raises
    ------
    ConfigError
        Fewer than two seeds, or a configuration without a forecaster.
    """
    if seeds < 2:
        raise ConfigError(f"an interval over seeds needs at least 2 of them, got {seeds}")
    if config.forecaster == NO_FORECASTER:
        raise ConfigError("there is nothing to leave out: the run has no forecaster")
    name = start_name(config)

    def sharpe(seed: int, forecaster: str, label: str) -> float:
        run = replace(config, seed=seed, forecaster=forecaster, name=f"{name}-{label}-{seed}")
        return float(evaluate(train(run, progress=progress)).summary.sharpe_ratio[0])

    pairs = [
        (sharpe(seed, config.forecaster, "with"), sharpe(seed, NO_FORECASTER, "without"))
        for seed in range(config.seed, config.seed + seeds)
    ]
    return summarize_pairs(pairs)


def summarize_pairs(pairs: list[tuple[float, float]]) -> Ablation:
    """Mean difference of pairs with its percentile bootstrap interval over pairs."""
    having, lacking = zip(*pairs, strict=True)
    differences = -torch.tensor(pairs, dtype=torch.float64).diff()[:, 0]  # [seeds]
    rows = circular_rows(len(pairs), 1, RESAMPLES, torch.Generator().manual_seed(0))
    draws = differences[rows].mean(1)  # [RESAMPLES]
    interval = percentile_interval(float(differences.mean()), draws, level=0.95)
    return Ablation(having, lacking, interval)
