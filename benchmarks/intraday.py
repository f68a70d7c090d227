"""How good forecasts of bars within the day are, with the season of volatility and without.

    python benchmarks/intraday.py --source fx_hourly.parquet --zone America/New_York \
        --validation-start 2022-07-01 --test-start 2023-01-01 \
        --json benchmarks/results/intraday-fx.json

fastsim-prior, an exponentially weighted walk, HAR and GARCH(1,1)-t are scored as they are, with the
season that each context shows, with the profile of the bars before the test, and with a correction
of volatility fitted to those bars; last the mean of the correction and GARCH, both in the profile.
GARCH looks back as far as the others and is fitted anew every `--refit-every` bars. Every
`--step`-th bar is an origin: it must share no factor with the bars of a day. Needs
`fastsim-rl[baselines]`. The data is a file of yours, of which only the name is written down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import header, write
from numpy.typing import NDArray
from rolling_garch import RollingGarch

from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, show_day
from fastsim.data.source import DataConfig, load_bars
from fastsim.forecast.correction.corrected import Corrected
from fastsim.forecast.correction.fit import CorrectionFit, fit_correction
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.evaluate import Scores, common_windows, relative, rolling_origins, summarise
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.memo import Remembering
from fastsim.forecast.models.baselines import ewma_random_walk
from fastsim.forecast.models.har import har
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.training.config import HORIZONS, SplitConfig

GARCH, GARCH_SEASON, COMBINED = "garch-t", "garch-t, profile", "mean of correction and garch-t"
PRIOR, IN_CONTEXT = "fastsim-prior", "fastsim-prior, season of the context"
MOST = 100_000
"""Forecasts that are kept, for the combination and for slices of the test."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is scored."""

    source: Path
    """Bars shorter than a day, CSV or Parquet."""
    validation_start: str
    """From where the correction is judged while it is fitted."""
    test_start: str
    """From where forecasts are scored."""
    zone: str = "UTC"
    """By whose clock hours are told."""
    step: int = 7
    """Bars between origins."""
    refit_every: int = 50
    """Bars from one fit of GARCH to the next."""
    context: int = 512
    json: Path | None = None


def main(options: Options) -> None:
    """Fit, score, and write a row for each forecaster."""
    torch.set_num_threads(1)
    bars = load_bars(DataConfig(source=str(options.source), repair=True))
    start = int(np.searchsorted(bars.timestamps, iso_date(options.test_start, "--test-start")))
    began = time.process_time()
    fitted = corrected_on(
        bars.take(slice(0, start)), options.validation_start, options.zone, options.context
    )
    seconds = time.process_time() - began
    forecasters = forecasters_of(fitted.corrected, options.zone, options.refit_every)
    origins = np.arange(start, len(bars) - HORIZONS[-1], options.step)
    scores: dict[str, Scores] = {}
    for name, each in scored(bars, forecasters, origins, options.context):
        scores[name] = each
        print(json.dumps(row_of(name, scores)), flush=True)
    about = {
        **header("intraday", "cpu"),
        "source": options.source.name,
        "zone": options.zone,
        "test": [show_day(bars.timestamps[start]), show_day(bars.timestamps[-1])],
        "refit_every": options.refit_every,
        "windows": int(scores[GARCH].windows.sum()),
        "correction_loss": fitted.ratio.estimate,
        "correction_seconds": round(seconds, 1),
        "worst_slice": worst_slice(bars, forecasters, origins, options.context),
    }
    write([about | row_of(name, scores) for name in scores], options.json)


def corrected_on(bars: Bars, validation_start: str, zone: str, context: int) -> CorrectionFit:
    """fastsim-prior with its season and a correction, both of bars before the test."""
    return fit_correction(
        load_forecaster("fastsim-prior"),
        bars,
        horizons=HORIZONS,
        zone=zone,
        context=context,
        split=SplitConfig(validation_start=validation_start),
    )


def forecasters_of(corrected: Corrected, zone: str, refit_every: int = 50) -> dict[str, Forecaster]:
    """Who is scored, by name."""
    prior, walk = load_forecaster("fastsim-prior"), ewma_random_walk()
    profile = corrected.season
    garch, in_profile = RollingGarch(refit_every), Seasonal(RollingGarch(refit_every), profile)
    kept = Remembering(corrected, MOST)
    return {
        GARCH: garch,
        PRIOR: prior,
        IN_CONTEXT: Seasonal(prior, Season(zone)),
        "fastsim-prior, season of the context by UTC": Seasonal(prior, Season()),
        "fastsim-prior, profile": Seasonal(prior, profile),
        "ewma": walk,
        "ewma, profile": Seasonal(walk, profile),
        "har": har(),
        "har, profile": Seasonal(har(), profile),
        GARCH_SEASON: in_profile,
        "fastsim-prior, profile and correction": kept,
        COMBINED: Ensemble([kept, in_profile]),
    }


def scored(
    bars: Bars, forecasters: dict[str, Forecaster], origins: NDArray[np.int64], context: int
) -> Iterator[tuple[str, Scores]]:
    """Scores of each on the windows that all can be scored on, one after the other."""
    windows = common_windows(bars, list(forecasters.values()), HORIZONS, origins, context)
    for name, forecaster in forecasters.items():
        yield (
            name,
            rolling_origins(bars, forecaster, HORIZONS, origins, context, windows=windows),
        )


def row_of(name: str, scores: dict[str, Scores]) -> Row:
    """What a forecaster is worth beside GARCH without a season and, once scored, with one."""
    mine, summary = scores[name], summarise(scores[name])
    row: Row = {
        "forecaster": name,
        "over_garch": list(relative(mine, scores[GARCH]))[:3],
        "coverage": list(summary.coverage)[:3],
    }
    if GARCH_SEASON in scores:
        row["over_garch_season"] = list(relative(mine, scores[GARCH_SEASON]))[:3]
    return row


def worst_slice(
    bars: Bars, forecasters: dict[str, Forecaster], origins: NDArray[np.int64], context: int
) -> Row:
    """Where the combination is worst beside GARCH: by asset and half a year."""
    halves = bars.timestamps[origins].astype("datetime64[M]").astype(int) // 6
    worst: Row = {"ratio": 0.0}
    pair = {name: forecasters[name] for name in (COMBINED, GARCH)}
    for asset in bars.symbols:
        alone = bars.take(slice(None), [bars.symbols.index(asset)])
        for half in np.unique(halves):
            scores = dict(scored(alone, pair, origins[halves == half], context))
            ratio = relative(scores[COMBINED], scores[GARCH])
            if ratio.estimate > worst["ratio"]:
                month = str(np.datetime64(int(half) * 6, "M"))
                worst = {"ratio": ratio.estimate, "asset": asset, "half_year_from": month}
    return worst


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
