"""What a fit to daily stocks brings on later ones, and what it costs elsewhere.

    python benchmarks/forgetting.py --intraday fx_hourly.parquet --zone America/New_York \
        --json benchmarks/results/forgetting-us20.json

fastsim-prior is fitted to `us20` up to `--end`, in each mode that begins with its weights and with
the settings that a fit has by default. What was learned is then scored beside its start, whether a
fit would have kept it or not: on `us20` after that day, on `tech4`, on bars within the day (a file
of yours, of which only the name is written down; both in the season of the context) and on a
simulated market.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import header, write

from fastsim.data.bars import Bars
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.forecast.evaluate import common_windows, relative, rolling_origins, spaced_origins
from fastsim.forecast.interface import Forecaster, ModuleForecaster
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.season.setting import season_of, with_season
from fastsim.forecast.training.comparison import BETTER
from fastsim.forecast.training.config import HORIZONS, FitConfig, Mode
from fastsim.forecast.training.fit import FitResult, fit
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import to_bars

CONTEXT = 512
SIMULATED_BARS, SIMULATED_ASSETS = 5000, 20
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is fitted and scored."""

    modes: tuple[Mode, ...] = ("full", "head", "lora")
    end: str = "2016-12-31"
    """Last day that is fitted to."""
    intraday: Path | None = None
    """Bars shorter than a day, CSV or Parquet."""
    zone: str = "UTC"
    """By whose clock their hours are told."""
    steps: int | None = None
    """Of each fit, at most; by default as many as a fit takes."""
    every: int = 21
    """Daily bars between origins."""
    intraday_every: int = 31
    """The same within the day."""
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Bars that are scored."""

    bars: Bars
    every: int
    begins: int = CONTEXT - 1
    """Row of the first origin."""
    season: str = "none"


def main(options: Options) -> None:
    """Fit and score each mode."""
    torch.set_num_threads(1)
    rows, grounds = [], grounds_of(options)
    for mode in options.modes:
        rows.append(row_of(mode, options, grounds))
        print(json.dumps(rows[-1]), flush=True)
    about = header("forgetting", "cpu") | {
        "fitted_to": f"us20 until {options.end}",
        "intraday": None if options.intraday is None else options.intraday.name,
    }
    write([about | row for row in rows], options.json)


def grounds_of(options: Options) -> dict[str, Ground]:
    """What is scored, by name."""
    whole = sample_bars("us20")
    after = int(np.searchsorted(whole.timestamps, np.datetime64(options.end), side="right"))
    grounds = {
        f"us20 after {options.end[:4]}": Ground(bars=whole, every=options.every, begins=after),
        "tech4": Ground(bars=sample_bars("tech4"), every=options.every),
    }
    if options.intraday is not None:
        bars = load_bars(DataConfig(source=str(options.intraday), repair=True))
        name = options.intraday.stem
        grounds[name] = Ground(bars=bars, every=options.intraday_every, season=options.zone)
    generator = torch.Generator().manual_seed(0)
    drawn = Garch(assets=SIMULATED_ASSETS).sample(1, SIMULATED_BARS, generator)
    grounds["a simulated market"] = Ground(bars=to_bars(drawn, 0), every=options.every)
    return grounds


def row_of(mode: Mode, options: Options, grounds: dict[str, Ground]) -> Row:
    """Fit in one mode, and score what was learned beside its start."""
    bars = load_bars(DataConfig(source="us20", end=options.end))
    given = {} if options.steps is None else {"steps": options.steps}
    began = time.process_time()
    result = fit(load_prior(), bars, FitConfig(mode=mode, sure=False, **given))
    seconds = time.process_time() - began
    report = result.report
    ratio = report.ratio
    return {
        "mode": mode,
        "steps": report.steps,
        "best_step": report.best_step,
        "cpu_s": round(seconds, 1),
        "validation": None if ratio is None else list(ratio)[:3],
        "kept": ratio is not None and ratio.high < BETTER,
        "learned": not report.keeps_start,
        "forgetting": report.forgetting,
        "after_over_before": {
            name: after_over_before(result, ground) for name, ground in grounds.items()
        },
    }


def after_over_before(result: FitResult, ground: Ground) -> list[float]:
    """Loss of what was learned over that of its start, with its interval."""
    season = season_of(ground.season)
    pair: list[Forecaster] = [
        with_season(ModuleForecaster(model), season) for model in (result.model, load_prior())
    ]
    every = spaced_origins(ground.bars, context=CONTEXT, horizon=HORIZONS[-1], step=1)
    origins = every[every >= ground.begins][:: ground.every]
    windows = common_windows(ground.bars, pair, HORIZONS, origins, CONTEXT)
    after, before = (
        rolling_origins(ground.bars, one, HORIZONS, origins, CONTEXT, windows=windows)
        for one in pair
    )
    return [round(value, 5) for value in relative(after, before)[:3]]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
