"""Scores of forecasters as one JSON object."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastsim
from fastsim.cli.intervals import plain, plain_difference, plain_number
from fastsim.cli.scores import Entry, Scoring
from fastsim.cli.seen import apart_record
from fastsim.config import write_whole
from fastsim.forecast.scoring.bands import BandTest, band_tests
from fastsim.forecast.scoring.losses import Scores, at_horizon
from fastsim.forecast.scoring.slices import (
    Cuts,
    Part,
    crossed,
    cut_by_asset,
    cut_by_period,
    parts_of,
    worst_part,
)
from fastsim.forecast.scoring.summary import (
    BAND_NAMES,
    BLOCK,
    INTERVAL,
    RESAMPLES,
    ScoreSummary,
    loss_difference,
    relative,
    summarise,
)
from fastsim.stats.bootstrap import Interval
from fastsim.stats.exceedances import LikelihoodRatio

SCHEMA = 2
"""Of the record. 2: tests of bands, assets, periods and the worst of them."""
PACKAGES = ("torch", "numpy", "scipy", "arch", "statsforecast")


def write_scores(scoring: Scoring, settings: Mapping[str, Any], path: Path) -> None:
    """Write scores, their intervals, settings and versions as one JSON object, in one piece.

    `docs/scoring.md` says what is in it.
    """
    record = {
        "benchmark": "accuracy",
        "schema": SCHEMA,
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "device": f"{platform.machine()} CPU",
        "python": platform.python_version(),
        "packages": _versions(),
        **settings,
        "interval": INTERVAL,
        "block_origins": BLOCK,
        "resamples": RESAMPLES,
        "forecasters": [_entry_record(entry, scoring) for entry in scoring.entries.values()],
    }
    write_whole(path, (json.dumps(record, allow_nan=False) + "\n").encode())


def _entry_record(entry: Entry, scoring: Scoring) -> dict[str, Any]:
    plan, others = scoring.plan, scoring.references
    scores = {name: other.scores for name, other in others.items()}
    side = scoring.apart.get(entry.name)
    by_asset = cut_by_asset(entry.told, plan.bars.symbols)
    by_period = cut_by_period(entry.told, plan.origin_stamps)
    return {
        "name": entry.name,
        "key": entry.forecaster.key,
        "known_until": entry.card.known_until,
        "known_source": entry.card.known_source,
        "trials": entry.card.trials,
        **_figures(entry.scores, scores, plan.lags[-1]),
        "fallbacks": entry.fallbacks,
        "seconds": round(entry.seconds, 1),
        "by_horizon": _by_horizon(entry, scoring),
        "by_asset": _by_part(entry, others, by_asset),
        "by_period": _by_part(entry, others, by_period),
        "worst": {
            "asset": _worst(entry, others, by_asset),
            "period": _worst(entry, others, by_period),
            "asset_in_a_period": _worst(entry, others, crossed(by_asset, by_period)),
        },
        "apart": apart_record(None if side is None else side[1]),
    }


def _by_horizon(entry: Entry, scoring: Scoring) -> list[dict[str, Any]]:
    """The figures of each horizon alone, and the tests of its bands."""
    plan, found = scoring.plan, []
    tests = band_tests(entry.told, plan.windows, plan.horizons)
    for place, horizon in enumerate(plan.horizons):
        others = {
            name: at_horizon(other.scores, place) for name, other in scoring.references.items()
        }
        figures = _figures(at_horizon(entry.scores, place), others, plan.lags[place])
        bands = {
            name: _test_record(test) for name, test in zip(BAND_NAMES, tests[place], strict=True)
        }
        found.append({"horizon": horizon, **figures, "bands": bands})
    return found


def _figures(scores: Scores, others: Mapping[str, Scores], lags: int) -> dict[str, Any]:
    """A summary as plain values, and `relative` to each of the others."""
    summary: ScoreSummary = summarise(scores)
    figures: dict[str, Any] = {
        name: plain(value) if isinstance(value, Interval) else value
        for name, value in summary._asdict().items()
    }
    figures["pit"] = [round(share, 6) for share in summary.pit]
    figures["relative"] = {
        name: {
            "quantile_loss": plain(relative(scores, other, "quantile_loss")),
            "crps": plain(relative(scores, other, "crps")),
            "diebold_mariano": plain_difference(loss_difference(scores, other, lags)),
        }
        for name, other in others.items()
    }
    return figures


def _test_record(test: BandTest | None) -> dict[str, Any] | None:
    """A band's tests as plain values; null where there is none."""
    if test is None:
        return None
    return {
        name: _ratio_record(value) if isinstance(value, LikelihoodRatio) else value
        for name, value in test._asdict().items()
    }


def _ratio_record(ratio: LikelihoodRatio) -> dict[str, Any]:
    return {
        "statistic": plain_number(ratio.statistic),
        "degrees": ratio.degrees,
        "p_value": plain_number(ratio.p_value, digits=12),
    }


def _by_part(entry: Entry, others: Mapping[str, Entry], cuts: Cuts) -> list[dict[str, Any]]:
    told = {name: other.told for name, other in others.items()}
    return [_part_record(part) for part in parts_of(entry.told, told, cuts)]


def _part_record(part: Part) -> dict[str, Any]:
    record = {
        name: plain(value) if isinstance(value, Interval) else value
        for name, value in part._asdict().items()
    }
    return record | {"relative": {name: plain(ratio) for name, ratio in part.relative.items()}}


def _worst(entry: Entry, others: Mapping[str, Entry], cuts: Cuts) -> dict[str, Any]:
    """By what it is held against; null where every part is too small."""
    found = {name: worst_part(entry.told, other.told, cuts) for name, other in others.items()}
    return {
        name: None if worst is None else worst._asdict() | {"relative": round(worst.relative, 6)}
        for name, worst in found.items()
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
