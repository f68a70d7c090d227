"""TiRex, small and from nothing: minutes of one core, simulated worlds and real bars together.

    python benchmarks/tirex_scratch.py --minutes 30 --json benchmarks/results/tirex-scratch.json

Every batch is of new simulated paths and of bars of `us20` before the test, every patch of them a
target. What comes of it is scored on `us20` from the test's start on, beside a Gaussian walk with
trailing 60-day volatility, on the same windows; and its checkpoint is read by the official package,
`tirex-ts`, whose forecasts are held against its own. Minutes are of CPU time of one thread, told
ahead from a few steps.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
import tyro
from common import header, write

from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, show_day
from fastsim.data.sample import sample_bars
from fastsim.forecast.evaluate import common_windows, relative, rolling_origins, summarise
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.tirex_official import read_official
from fastsim.forecast.registry import load_forecaster, load_network
from fastsim.forecast.training.architectures import from_scratch
from fastsim.forecast.training.config import HORIZONS, FitConfig
from fastsim.forecast.training.fit import FitResult, fit
from fastsim.forecast.training.folder import OFFICIAL
from fastsim.forecast.training.keep import save_fit
from fastsim.progress import SILENT

PROBE = 60
"""Steps of a short fit that tells how many fit into the minutes."""
JUDGED = 8
"""Validations."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long it learns, from what, and what it is scored on."""

    minutes: float = 30.0
    sizes: tuple[str, ...] = (
        *("blocks=2", "width=64", "heads=2", "block_hidden=128"),
        *("embedding_hidden=128", "context=512"),
    )
    learning_rate: float = 2e-3
    batch_size: int = 64
    simulated: float = 0.8
    """Share of simulated worlds in a batch."""
    dense: bool = True
    test_start: str = "2012-01-01"
    step: int = 21
    """Bars between origins of the test."""
    json: Path | None = None


def main(options: Options) -> None:
    """Learn for so long, score, and write one row."""
    torch.set_num_threads(1)
    bars = sample_bars("us20")
    start = int(np.searchsorted(bars.timestamps, iso_date(options.test_start, "--test-start")))
    before = bars.take(slice(0, start))
    config = FitConfig(
        mode="scratch",
        centre="fitted",
        dense=options.dense,
        simulated=options.simulated,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        patience=JUDGED,
        validation_windows=2048,
        sure=False,
    )
    short = replace(config, steps=PROBE, evaluate_every=PROBE)
    steps = int(options.minutes * 60.0 * PROBE / learned(before, options, short)[1])
    whole = replace(config, steps=steps, evaluate_every=max(1, steps // JUDGED))
    result, seconds = learned(before, options, whole)
    folder = Path(mkdtemp()) / "fit"
    save_fit(result, folder, whole, source="us20")
    scored = score(bars, start, options.step, load_forecaster(f"fit:{folder}"))
    row = {
        **header("tirex_scratch", "cpu"),
        "parameters": result.model.card.parameters,
        "steps": steps,
        "batch_size": options.batch_size,
        "simulated": options.simulated,
        "dense": options.dense,
        "cpu_seconds": round(seconds),
        "validation_loss": result.report.loss,
        "start_loss": result.report.start_loss,
        **scored,
        "official_error": official_error(folder, bars),
    }
    print(json.dumps(row, indent=2))
    write([row], options.json)


def learned(bars: Bars, options: Options, config: FitConfig) -> tuple[FitResult, float]:
    """What is learned, and the CPU seconds that it took."""
    began = time.process_time()
    result = fit(from_scratch("tirex", options.sizes), bars, config, progress=SILENT)
    return result, time.process_time() - began


def score(bars: Bars, start: int, step: int, forecaster: Forecaster) -> Row:
    """Losses beside the walk, from the start of the test on; and beside the prior."""
    origins = np.arange(start, len(bars) - HORIZONS[-1], step)
    walk, prior = trailing_random_walk(60), load_forecaster("fastsim-prior")
    all_of_them = [forecaster, walk, prior]
    windows = common_windows(bars, all_of_them, HORIZONS, origins, 512)
    mine, base, other = (
        rolling_origins(bars, each, HORIZONS, origins, 512, windows=windows) for each in all_of_them
    )
    return {
        "test": [show_day(bars.timestamps[start]), show_day(bars.timestamps[-1])],
        "windows": windows.scored,
        "over_walk": list(relative(mine, base))[:3],
        "over_prior": list(relative(mine, other))[:3],
        "prior_over_walk": list(relative(other, base))[:3],
        "coverage": list(summarise(mine).coverage)[:3],
    }


@torch.inference_mode()
def official_error(folder: Path, bars: Bars) -> float:
    """Largest difference to what the official package forecasts, in deviations of a context."""
    closes = torch.from_numpy(bars.close[-512:].T.copy()).float()
    ours = load_network(f"fit:{folder}")(closes, horizon=21)
    theirs = read_official(folder / OFFICIAL)(closes, horizon=21)
    return float(((ours - theirs).abs() / closes.std(1)[:, None, None]).max())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
