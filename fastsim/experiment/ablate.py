"""Do forecasts help? The same run with and without them, over several seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from rich.console import Console

from fastsim.errors import ConfigError
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.run import TrainConfig, start_name, train
from fastsim.forecast.registry import NO_FORECASTER

RESAMPLES = 10_000


class Ablation(NamedTuple):
    """Sharpe ratios on the test bars, one per seed, and the mean difference's interval."""

    with_forecasts: tuple[float, ...]
    without: tuple[float, ...]
    difference: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """The result in words, whatever it is."""
        verdict = (
            "no evidence that forecasts matter"
            if self.low <= 0.0 <= self.high
            else f"forecasts {'help' if self.low > 0 else 'hurt'} here"
        )
        return (
            f"Sharpe ratio with forecasts minus without, mean over {len(self.without)} seeds: "
            f"{self.difference:+.3f}, 95% bootstrap interval over seeds {self.low:+.3f} to "
            f"{self.high:+.3f}: {verdict}. Seeds share the test years: the interval says nothing "
            f"of other years."
        )


def ablate(config: TrainConfig, seeds: int, *, console: Console | None = None) -> Ablation:
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
        return float(evaluate(train(run, console=console)).summary.sharpe_ratio[0])

    pairs = [
        (sharpe(seed, config.forecaster, "with"), sharpe(seed, NO_FORECASTER, "without"))
        for seed in range(config.seed, config.seed + seeds)
    ]
    return summarize_pairs(pairs)


def summarize_pairs(pairs: list[tuple[float, float]]) -> Ablation:
    """Mean difference of pairs with its percentile bootstrap interval over pairs."""
    having, lacking = zip(*pairs, strict=True)
    differences = torch.tensor(having, dtype=torch.float64) - torch.tensor(lacking)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(pairs), (RESAMPLES, len(pairs)), generator=generator)
    low, high = differences[rows].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Ablation(having, lacking, float(differences.mean()), low, high)
