"""Scores of forecasters as tables of at most 120 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from fastsim.cli.intervals import cell, p_cell, percent_cell, short_p
from fastsim.cli.scores import GARCH, WALK, Entry, Scoring
from fastsim.forecast.scoring.bands import BandTest, band_tests
from fastsim.forecast.scoring.losses import BAND_SHARES, at_horizon
from fastsim.forecast.scoring.slices import (
    Cuts,
    Worst,
    crossed,
    cut_by_asset,
    cut_by_period,
    parts_of,
    worst_part,
)
from fastsim.forecast.scoring.summary import loss_difference, relative, summarise

BARS = "▁▂▃▄▅▆▇█"
MOST_HORIZONS = 8
"""Columns of the table by horizon: more do not fit."""
MOST_TESTED = 6
"""Columns of the table of tests."""
SHORT = {WALK: "walk", GARCH: GARCH}
CUTS = {"asset": "assets", "period": "periods"}
"""What scores can be shown by, and how many of it are called."""


def score_tables(scoring: Scoring, by: Sequence[str] = ()) -> list[Table]:
    """Losses beside the references', errors and sides, bands and their tests, by horizon, worst.

    Beside them one for each of CUTS in `by`.
    """
    references = {name: entry.scores for name, entry in scoring.references.items()}
    heads = (head for name in references for head in (f"Quantile loss\n/ {SHORT[name]}", "p"))
    losses = Table("Forecaster", *heads, "CRPS\n/ walk")
    errors = Table("Forecaster", "MASE", "RMSE", "MAPE, %", "Hit rate")
    bands = Table("Forecaster", "50 % band", "80 % band", "95 % band", "PIT")
    lags = scoring.plan.lags[-1]
    for entry in scoring.entries.values():
        own, title = entry.scores, Text(entry.title)
        held = []
        for other in references.values():
            held += [cell(relative(own, other)), p_cell(loss_difference(own, other, lags))]
        losses.add_row(title, *held, cell(relative(own, references[WALK], "crps")))
        summary = summarise(own)
        sizes = (cell(summary.mase), cell(summary.rmse), percent_cell(summary.mape))
        errors.add_row(title, *sizes, cell(summary.hit_rate))
        shares = map(cell, (summary.coverage_50, summary.coverage, summary.coverage_95))
        bands.add_row(title, *shares, sparkline(summary.pit))
    parts = [_part_table(scoring, kind) for kind in by]
    tested = _test_table(scoring)
    return [losses, errors, bands, tested, _horizon_table(scoring), _worst_table(scoring), *parts]


def _horizon_table(scoring: Scoring) -> Table:
    """Quantile loss beside the walk's and the 80 % band at each horizon, of at most so many."""
    horizons, walk = scoring.plan.horizons, scoring.walk.scores
    shown = _shown(len(horizons), MOST_HORIZONS)
    table = Table(
        "Forecaster",
        *(f"{horizons[place]}" for place in shown),
        title="Quantile loss / walk, and the share in the 80 % band, by bars ahead",
    )
    for entry in scoring.entries.values():
        cells = []
        for place in shown:
            own, other = at_horizon(entry.scores, place), at_horizon(walk, place)
            share = summarise(own).coverage.estimate
            cells.append(f"{relative(own, other).estimate:.3f}\n{100.0 * share:.1f} %")
        table.add_row(Text(entry.title), *cells)
    return table


def _test_table(scoring: Scoring) -> Table:
    """The p-values of Kupiec's and of Christoffersen's test of each band, by horizon."""
    plan = scoring.plan
    shown = _shown(len(plan.horizons), MOST_TESTED)
    table = Table(
        "Forecaster",
        "Band",
        *(f"{plan.horizons[place]}" for place in shown),
        title="p that a band holds its share (Kupiec) and is left at independent times "
        "(Christoffersen), by bars ahead",
    )
    for entry in scoring.entries.values():
        tests = band_tests(entry.told, plan.windows, plan.horizons)
        labels = "\n".join(f"{100.0 * share:.0f} %" for share in BAND_SHARES)
        cells = ["\n".join(map(_pair_of_p, tests[place])) for place in shown]
        table.add_row(Text(entry.title), labels, *cells)
    return table


def _pair_of_p(test: BandTest | None) -> str:
    if test is None:
        return "none"
    return f"{short_p(test.kupiec.p_value)} {short_p(test.independence.p_value)}"


def _worst_table(scoring: Scoring) -> Table:
    """The mean ratio beside that of the asset, the period and the pair where it is largest."""
    table = Table(
        "Forecaster",
        "Held against",
        "All",
        "Worst asset",
        "Worst period",
        "Worst asset in a period",
        title="Quantile loss in all, and where it is worst",
    )
    for entry in scoring.entries.values():
        cuts = [_cuts(scoring, entry, kind) for kind in CUTS]
        rows: list[list[str]] = []
        for other in scoring.references.values():
            if other is entry:
                continue
            worst = [worst_part(entry.told, other.told, each) for each in (*cuts, crossed(*cuts))]
            mean = relative(entry.scores, other.scores).estimate
            rows.append([SHORT[other.name], f"{mean:.3f}", *map(_worst_cell, worst)])
        columns = (Text("\n".join(column)) for column in zip(*rows, strict=True))
        if rows:
            table.add_row(Text(entry.title), *columns)
    return table


def _worst_cell(worst: Worst | None) -> str:
    return "none" if worst is None else f"{worst.relative:.3f} {worst.name}"


def _part_table(scoring: Scoring, kind: str) -> Table:
    """Quantile loss beside each reference's, and the 80 % band, in each part."""
    names = list(scoring.references)
    table = Table(
        kind.capitalize(),
        "Forecaster",
        "Windows",
        *(f"Quantile loss\n/ {SHORT[name]}" for name in names),
        "80 % band",
        title=f"By {kind}",
    )
    others = {name: other.told for name, other in scoring.references.items()}
    found = {
        name: parts_of(entry.told, others, _cuts(scoring, entry, kind))
        for name, entry in scoring.entries.items()
    }
    for same in zip(*found.values(), strict=True):
        for name, part in zip(found, same, strict=True):
            ratios = (cell(part.relative[other]) for other in names)
            count = f"{part.windows:,}"
            table.add_row(Text(part.name), Text(name), count, *ratios, cell(part.coverage))
        table.add_section()
    return table


def _cuts(scoring: Scoring, entry: Entry, kind: str) -> Cuts:
    plan = scoring.plan
    if kind == "asset":
        return cut_by_asset(entry.told, plan.bars.symbols)
    return cut_by_period(entry.told, plan.origin_stamps)


def _shown(count: int, most: int) -> list[int]:
    """Places of at most so many of `count`, the first and the last among them."""
    places = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return [int(place) for place in places]


def sparkline(shares: Sequence[float]) -> str:
    """Ten shares as bars: half the height is the even share, the full height twice that."""
    even = 1.0 / len(shares)
    steps = (round(share / even * len(BARS) / 2) for share in shares)
    return "".join(BARS[min(max(step, 1), len(BARS)) - 1] for step in steps)
