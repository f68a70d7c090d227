"""Skill across assets as tables of at most 120 columns, in words, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

import fastsim
from fastsim.backtest.summary import summarize
from fastsim.backtest.wording import metrics_table, percent, sharpe_sentence
from fastsim.cli.intervals import cell, p_cell, plain, plain_mean, plain_number
from fastsim.config import to_mapping, write_whole
from fastsim.data.dates import show_day
from fastsim.experiment.skill import STYLES, AtHorizon, SkillConfig, SkillReport
from fastsim.forecast.evaluate import BLOCK, INTERVAL, RESAMPLES
from fastsim.forecast.skill import RankSkill
from fastsim.stats.reliability import Reliability

NONE = "none"
FIGURES = (
    *("annual_return", "annual_volatility", "sharpe_ratio", "max_drawdown", "turnover"),
    "relative_cost",
)
"""Of a book, in JSON."""


def skill_tables(report: SkillReport, config: SkillConfig) -> Iterator[Table]:
    """Rank ICs and Brier's score by horizon, reliability where the book is, and the book."""
    yield _orders(report)
    yield _scores(report)
    every = config.bars_held
    yield from _reliability_tables(report, every)
    history = report.books.history
    summary = summarize(history, periods_per_year=history.steps_per_year)
    table = metrics_table(summary, history.names)
    table.title = f"The {config.top} assets of the highest forecast {config.by}, every {every} bars"
    yield table


def skill_words(report: SkillReport, config: SkillConfig) -> list[str]:
    """What the tables mean, and what the books came to beside equal weight."""
    told = [
        f"{len(report.timestamps)} origins, {config.step} bars apart. Rank IC: Spearman's "
        f"correlation of forecast ({config.by}) and outcome across assets, mean over origins; "
        f"beyond: of what ranks of {' and '.join(STYLES)} do not say. Brackets are 95 % "
        f"intervals, by Newey and West and by a block bootstrap over origins.",
        "Wilson's intervals of shares take forecasts for independent, which those of one day are "
        "not: they are too narrow.",
    ]
    told += [report.why_none] if report.why_none else []
    for name, apart in report.books.differences.items():
        low, high = percent(apart.growth.low), percent(apart.growth.high)
        told.append(sharpe_sentence(apart.sharpe, name, report.books.beside))
        told.append(
            f"Log growth a year less that of {report.books.beside}: "
            f"{percent(apart.growth.estimate)}, "
            f"{100 * apart.growth.level:g}% interval {low} to {high}."
        )
    return told


def _orders(report: SkillReport) -> Table:
    table = Table(
        "Forecaster",
        "Bars\nahead",
        "Origins",
        "Rank IC\nNewey-West",
        "p",
        "\nbootstrap",
        "Above\nzero",
        "Beyond\nNewey-West",
        "p",
        title="Rank IC by horizon",
    )
    for name, horizons in report.skills.items():
        for horizon, at in horizons.items():
            raw, beyond = at.raw, at.beyond
            above = NONE if not raw.origins else percent(raw.above, 0)
            cells = (_mean(raw), p_cell(raw.newey_west), cell(raw.bootstrap), above)
            rest = (_mean(beyond), p_cell(beyond.newey_west))
            table.add_row(Text(name), str(horizon), str(raw.origins), *cells, *rest)
    return table


def _mean(skill: RankSkill) -> str:
    return NONE if skill.newey_west is None else cell(skill.newey_west.mean)


def _scores(report: SkillReport) -> Table:
    table = Table(
        "Forecaster",
        "Bars\nahead",
        "Brier",
        "Reliability",
        "Resolution",
        "Uncertainty",
        "Within",
        title="Probability of a rise: Brier = reliability - resolution + uncertainty + within",
    )
    for name, horizons in report.skills.items():
        for horizon, at in horizons.items():
            if at.rise is not None:
                parts = (at.rise.brier, at.rise.reliability, at.rise.resolution)
                rest = (at.rise.uncertainty, at.rise.within)
                cells = (f"{part:.5f}" for part in (*parts, *rest))
                table.add_row(Text(name), str(horizon), *cells)
    return table


def _reliability_tables(report: SkillReport, horizon: int) -> Iterator[Table]:
    for name, horizons in report.skills.items():
        found = horizons[horizon].rise
        if found is None:
            continue
        table = Table(
            "P(rise) from",
            "to",
            "Forecasts",
            "Mean P(rise)",
            "Rose",
            title=f"Reliability of {name}, {horizon} bars ahead",
        )
        for each in found.bins:
            ends = (f"{each.low:.3f}", f"{each.high:.3f}", f"{each.forecasts:,}")
            table.add_row(*ends, f"{each.forecast:.3f}", cell(each.observed))
        yield table


def write_skill(
    report: SkillReport, config: SkillConfig, path: Path, *, source: str, season: str
) -> None:
    """Write the figures, their intervals and the settings as one JSON object, in one piece.

    Estimates are [value, low, high], null where undefined.
    """
    history = report.books.history
    summary = summarize(history, periods_per_year=history.steps_per_year)
    record = {
        "benchmark": "skill",
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "source": source,
        "season": season,
        "settings": to_mapping(config),
        "assets": report.assets,
        "origins": len(report.timestamps),
        "first_origin": show_day(report.timestamps[0]),
        "last_origin": show_day(report.timestamps[-1]),
        "interval": INTERVAL,
        "least_block_origins": BLOCK,
        "resamples": RESAMPLES,
        "beyond": list(STYLES),
        "forecasters": {
            name: {str(horizon): _record(at) for horizon, at in horizons.items()}
            for name, horizons in report.skills.items()
        },
        "books": {
            name: {
                figure: plain_number(float(getattr(summary, figure)[place])) for figure in FIGURES
            }
            for place, name in enumerate(history.names)
        },
        "differences": {
            name: {
                "beside": report.books.beside,
                "sharpe": plain(apart.sharpe),
                "log_growth": plain(apart.growth),
                "p_value": plain_number(apart.p_value, digits=12),
            }
            for name, apart in report.books.differences.items()
        },
    }
    write_whole(path, (json.dumps(record, allow_nan=False) + "\n").encode())


def _record(at: AtHorizon) -> dict[str, Any]:
    return {
        "rank_ic": _order_record(at.raw),
        "beyond": _order_record(at.beyond),
        "rise": None if at.rise is None else _rise_record(at.rise),
    }


def _order_record(skill: RankSkill) -> dict[str, Any]:
    return {
        "origins": skill.origins,
        "assets": plain_number(skill.assets),
        "newey_west": plain_mean(skill.newey_west),
        "bootstrap": plain(skill.bootstrap),
        "above_zero": plain_number(skill.above),
    }


def _rise_record(found: Reliability) -> dict[str, Any]:
    scores = found._asdict()
    bins = scores.pop("bins")
    return {name: plain_number(value, digits=9) for name, value in scores.items()} | {
        "bins": [each._asdict() | {"observed": plain(each.observed)} for each in bins]
    }
