"""Whether what is recommended for bars within the day is right in markets whose season is planted.

    python benchmarks/intraday_worlds.py --json benchmarks/results/intraday-worlds.json

Hourly and 15-minute bars, round the clock and in sessions, with a strong season of volatility, a
weak one and none, by a clock that is changed, with days missing, and volatility of four laws
(`planted_seasons.py`). The profile and the correction are fitted to the first part of each world;
the last is scored as `intraday.py` does: the mean of the correction and GARCH(1,1)-t in the profile
over GARCH without it, and fastsim-prior with the season of each context over itself without.
Needs `fastsim-rl[baselines]`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from common import header, write
from intraday import (
    COMBINED,
    GARCH,
    GARCH_SEASON,
    IN_CONTEXT,
    PRIOR,
    Row,
    corrected_on,
    forecasters_of,
    scored,
)
from planted_seasons import WORLDS, ZONE, World, planted_bars

from fastsim.data.dates import show_day
from fastsim.forecast.evaluate import Scores, relative, summarise
from fastsim.forecast.training.config import HORIZONS

SCORED = (GARCH, PRIOR, IN_CONTEXT, GARCH_SEASON, COMBINED)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much of each world."""

    bars: int = 7000
    assets: int = 2
    validation_from: float = 0.5
    """Share of the bars after which the correction is judged while it is fitted."""
    test_from: float = 0.7
    """Share of the bars after which forecasts are scored."""
    step: int = 13
    """Bars between origins."""
    context: int = 512
    seed: int = 0
    json: Path | None = None


def main(options: Options) -> None:
    """Score every world, and write a row for each."""
    torch.set_num_threads(1)
    rows = []
    for number, world in enumerate(WORLDS):
        rows.append(row_of(world, options, options.seed + number))
        print(json.dumps(rows[-1]), flush=True)
    write([header("intraday_worlds", "cpu") | row for row in rows], options.json)


def row_of(world: World, options: Options, seed: int) -> Row:
    """What came of one world."""
    bars = planted_bars(world, options.bars, options.assets, seed)
    start = int(options.test_from * len(bars))
    day = show_day(bars.timestamps[int(options.validation_from * len(bars))])
    fitted = corrected_on(bars.take(slice(0, start)), day, ZONE, options.context)
    everyone = forecasters_of(fitted.corrected, ZONE)
    chosen = {name: everyone[name] for name in SCORED}
    origins = np.arange(start, len(bars) - HORIZONS[-1], options.step)
    scores: dict[str, Scores] = dict(scored(bars, chosen, origins, options.context))

    def over(name: str, other: str) -> list[float]:
        return [round(value, 5) for value in relative(scores[name], scores[other])[:3]]

    return {
        **asdict(world),
        "bars": len(bars),
        "windows": int(scores[GARCH].windows.sum()),
        "correction_kept": fitted.kept,
        "combined_over_garch": over(COMBINED, GARCH),
        "garch_season_over_garch": over(GARCH_SEASON, GARCH),
        "season_over_none": over(IN_CONTEXT, PRIOR),
        "coverage": [round(value, 4) for value in summarise(scores[COMBINED]).coverage[:3]],
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
