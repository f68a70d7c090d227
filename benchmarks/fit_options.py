"""What the options of a fit are worth on daily prices, one at a time.

    python benchmarks/fit_options.py --steps 100 --models nhits patch-transformer \
        --json benchmarks/results/fit-options.json

A network from scratch, its bars those of `us20` and `tech4` before validation, is fitted as it is
and with each option, over several seeds; what is told is its loss on validation, over that of the
plain fit of the same seed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import header, write

from fastsim.data.sample import sample_bars
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.training.architectures import from_scratch
from fastsim.forecast.training.config import FitConfig, JitterConfig
from fastsim.forecast.training.fit import fit
from fastsim.progress import SILENT

Row = dict[str, Any]
PLAIN = "plain"
TIREX = (
    "blocks=2",
    "width=64",
    "heads=2",
    "block_hidden=128",
    "embedding_hidden=128",
    "context=512",
)
COVARIATES = (
    "weekday",
    "month-end",
    "session",
    "parkinson",
    "garman-klass",
    "yang-zhang",
    "volume",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is fitted."""

    sources: tuple[str, ...] = ("us20", "tech4")
    steps: int = 150
    seeds: int = 2
    models: tuple[str, ...] = ("nhits", "patch-transformer", "tirex")
    json: Path | None = None


def cases_of(model: str, plain: FitConfig) -> dict[str, tuple[tuple[str, ...], FitConfig]]:
    """Sizes and settings to try with a model, by what they are."""
    sizes = TIREX if model == "tirex" else ()
    cases = {PLAIN: (sizes, plain)}
    if model == "tirex":
        cases["dense"] = (sizes, replace(plain, dense=True))
    else:
        cases["covariates"] = (sizes, replace(plain, covariates=",".join(COVARIATES)))
    if model == "patch-transformer":
        cases["decoder of one layer"] = (("decoder=1", "layers=2"), plain)
        return cases
    for name, jitter in (
        ("jitter of scale 0.2", JitterConfig(scale=0.2)),
        ("jitter of amplitude 0.5", JitterConfig(amplitude=0.5)),
        ("jitter of time 0.3", JitterConfig(time=0.3)),
    ):
        cases[name] = (sizes, replace(plain, jitter=jitter))
    cases["growing horizons 0.5"] = (sizes, replace(plain, growing=0.5))
    return cases


def main(options: Options) -> None:
    """Fit, and write a row for each source, model and option."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for source in options.sources:
        bars = sample_bars(source)
        for model in options.models:
            plain = FitConfig(
                mode="scratch",
                steps=options.steps,
                evaluate_every=max(1, options.steps // 2),
                batch_size=64,
                validation_windows=1024,
                sure=False,
            )
            losses: dict[str, list[float]] = {}
            for name, (sizes, config) in cases_of(model, plain).items():
                losses[name] = [
                    fit(
                        network(model, sizes), bars, replace(config, seed=seed), progress=SILENT
                    ).report.tried_loss
                    for seed in range(options.seeds)
                ]
                rows.append(row_of(source, model, name, losses, options))
                print(json.dumps(rows[-1]), flush=True)
    write(rows, options.json)


def network(model: str, sizes: tuple[str, ...]) -> ForecastModel:
    """A network of these sizes."""
    return from_scratch(model, sizes)


def row_of(
    source: str, model: str, name: str, losses: dict[str, list[float]], options: Options
) -> Row:
    """Mean loss over the seeds, and the mean and range of its ratio to the plain one's."""
    ratios = np.array(losses[name]) / np.array(losses[PLAIN])
    return {
        **header("fit_options", "cpu"),
        "source": source,
        "model": model,
        "option": name,
        "steps": options.steps,
        "loss": float(np.mean(losses[name])),
        "over_plain": [float(ratios.mean()), float(ratios.min()), float(ratios.max())],
        "seeds": options.seeds,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
