"""A prior that `fastsim forecast fit` makes from scratch, beside the one that ships.

    OMP_NUM_THREADS=1 python benchmarks/scratch.py --steps 500 \
        --json benchmarks/results/scratch-prior.json

Random weights are fitted to simulated worlds alone, by default as many steps and worlds a step as
the shipped prior was trained with. Both are then judged by worlds that neither has met.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import header, write

from fastsim.forecast.models.prior import PriorModel, load_prior
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.judge import judge_of_simulations
from fastsim.forecast.training.loop import Student
from fastsim.forecast.training.split import Look
from fastsim.forecast.training.train_prior import PriorTraining

JUDGED_BY = 7919
"""Seed of the worlds that judge, which no fit draws from."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long it is fitted, and by how much it is judged."""

    steps: int = PriorTraining.steps
    batch_size: int = PriorTraining.batch
    worlds: int = 8192
    """That judge."""
    seed: int = 0
    json: Path | None = None


def main(options: Options) -> None:
    """Fit, judge, and write what came of it."""
    torch.set_num_threads(1)
    write([header("scratch", "cpu") | measure(options)], options.json)


def measure(options: Options) -> Row:
    """What a fit from scratch comes to."""
    config = FitConfig(
        mode="scratch",
        centre="fitted",
        simulated=1.0,
        steps=options.steps,
        batch_size=options.batch_size,
        evaluate_every=max(1, options.steps // 10),
        seed=options.seed,
    )
    began = time.process_time()
    fitted = fit(PriorModel(), None, config).model
    seconds = time.process_time() - began
    look = Look(512, fitted.card.min_context, config.horizons)
    judge = judge_of_simulations(look, config.futures, options.worlds, JUDGED_BY)
    ours, shipped = (judge.verdict(Student(each, None)) for each in (fitted.spread, load_prior()))
    ratio = judge.ratio(ours, shipped)
    return {
        "steps": options.steps,
        "batch_size": options.batch_size,
        "cpu_s": round(seconds, 1),
        "worlds": ours.windows,
        "loss": ours.loss,
        "shipped_loss": shipped.loss,
        "over_shipped": [ours.loss / shipped.loss] * 3 if ratio is None else list(ratio)[:3],
        "coverage": ours.coverage,
        "shipped_coverage": shipped.coverage,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
