"""Scores of forecasters as tables of at most 120 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from fastsim.cli.intervals import cell, p_cell, percent_cell
from fastsim.cli.scores import GARCH, REFERENCES, WALK, Entry
from fastsim.forecast.evaluate import (
    Scores,
    at_horizon,
    loss_difference,
    relative,
    summarise,
)

BARS = "▁▂▃▄▅▆▇█"
MOST_HORIZONS = 8
"""Columns of the table by horizon: more do not fit."""


def score_tables(entries: Mapping[str, Entry], horizons: Sequence[int], lags: int) -> list[Table]:
    """Losses beside the references', errors and sides, bands, and losses by horizon."""
    references = {name: entries[name].scores for name in REFERENCES if name in entries}
    short = {WALK: "walk", GARCH: GARCH}
    heads = (head for name in references for head in (f"Quantile loss\n/ {short[name]}", "p"))
    losses = Table("Forecaster", *heads, "CRPS\n/ walk")
    errors = Table("Forecaster", "MASE", "RMSE", "MAPE, %", "Hit rate")
    bands = Table("Forecaster", "50 % band", "80 % band", "95 % band", "PIT")
    for name, entry in entries.items():
        own, title = entry.scores, Text(name)
        held = []
        for other in references.values():
            held += [cell(relative(own, other)), p_cell(loss_difference(own, other, lags))]
        losses.add_row(title, *held, cell(relative(own, references[WALK], "crps")))
        summary = summarise(own)
        sizes = (cell(summary.mase), cell(summary.rmse), percent_cell(summary.mape))
        errors.add_row(title, *sizes, cell(summary.hit_rate))
        shares = map(cell, (summary.coverage_50, summary.coverage, summary.coverage_95))
        bands.add_row(title, *shares, sparkline(summary.pit))
    return [losses, errors, bands, _horizon_table(entries, references[WALK], horizons)]


def _horizon_table(entries: Mapping[str, Entry], walk: Scores, horizons: Sequence[int]) -> Table:
    """Quantile loss beside the walk's and the 80 % band at each horizon, of at most so many."""
    shown = np.linspace(0, len(horizons) - 1, min(len(horizons), MOST_HORIZONS)).round().astype(int)
    table = Table(
        "Forecaster",
        *(f"{horizons[place]}" for place in shown),
        title="Quantile loss / walk, and the share in the 80 % band, by bars ahead",
    )
    for name, entry in entries.items():
        cells = []
        for place in map(int, shown):
            own, other = at_horizon(entry.scores, place), at_horizon(walk, place)
            share = summarise(own).coverage.estimate
            cells.append(f"{relative(own, other).estimate:.3f}\n{100.0 * share:.1f} %")
        table.add_row(Text(name), *cells)
    return table


def sparkline(shares: Sequence[float]) -> str:
    """Ten shares as bars: half the height is the even share, the full height twice that."""
    even = 1.0 / len(shares)
    steps = (round(share / even * len(BARS) / 2) for share in shares)
    return "".join(BARS[min(max(step, 1), len(BARS)) - 1] for step in steps)
