"""What forecasters have seen of the bars that they are scored on: doubts, and scores apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from fastsim.cli.intervals import cell, plain
from fastsim.forecast.evaluate import (
    Scores,
    Windows,
    chosen_origins,
    relative,
    summarise,
)
from fastsim.forecast.interface import UNKNOWN, Forecaster, ModelCard
from fastsim.forecast.seen import doubt, may_remember, seen_in_words
from fastsim.stats.bootstrap import Interval

SPANS = ("before", "after")


class Span(NamedTuple):
    """A forecaster on the origins whose first scored bar lies on one side of its day."""

    windows: int
    relative: Interval  # of its quantile loss to the random walk's
    coverage: Interval


class Apart(NamedTuple):
    """A forecaster on bars that it may remember, and on those that it cannot have seen."""

    before: Span
    after: Span


def all_seen(forecasters: Sequence[Forecaster]) -> list[str]:
    """What each has seen of markets, a sentence for each."""
    return [seen_in_words(forecaster.card) for forecaster in forecasters]


def seen_from(card: ModelCard, bar: np.datetime64) -> list[str]:
    """What a model has seen of markets, and whether it may know what came after a bar."""
    told = [seen_in_words(card)]
    if may_remember(card, np.array([bar])).any():
        told.append("Beware: it may remember what came next rather than forecast it.")
    return told


def first_scored(
    timestamps: NDArray[np.datetime64], windows: Windows, horizons: Sequence[int]
) -> NDArray[np.datetime64]:
    """The first bar [R] whose close is scored, of every origin that has a window."""
    scored: NDArray[np.datetime64] = timestamps[windows.rows + min(horizons)]
    return scored


def doubts_of(
    forecasters: Sequence[Forecaster], scored: NDArray[np.datetime64], *, strict: bool
) -> list[str]:
    """What to beware of, a sentence for each; under `strict` the first is a ForecastError."""
    told = [
        doubt(forecaster.card, scored, bars="scored bars", strict=strict)
        for forecaster in forecasters
    ]
    return [sentence for sentence in told if sentence]


def apart(
    card: ModelCard, scores: Scores, walk: Scores, scored: NDArray[np.datetime64]
) -> Apart | None:
    """Scores on either side of the day that a model has seen; None unless there are both."""
    remembered = may_remember(card, scored)
    if card.known_until in (None, UNKNOWN) or remembered.all() or not remembered.any():
        return None
    return Apart(*(_span(scores, walk, rows) for rows in (remembered, ~remembered)))


def _span(scores: Scores, walk: Scores, rows: NDArray[np.bool_]) -> Span:
    own, other = chosen_origins(scores, rows), chosen_origins(walk, rows)
    return Span(int(own.windows.sum()), relative(own, other), summarise(own).coverage)


def apart_table(found: Mapping[str, tuple[str, Apart]]) -> Table:
    """Before and after the day of each, by the name of the forecaster."""
    table = Table(
        "Forecaster",
        "Has seen until",
        "Quantile loss / walk\nbefore",
        "\nafter",
        "80 % band\nbefore",
        "\nafter",
        "Windows\nbefore and after",
        title="Scores before and after the last day that a forecaster has seen",
    )
    for name, (day, (before, after)) in found.items():
        bands = (f"{span.coverage.estimate:.3f}" for span in (before, after))
        counts = f"{before.windows:,}\n{after.windows:,}"
        table.add_row(Text(name), day, cell(before.relative), cell(after.relative), *bands, counts)
    return table


def apart_record(found: Apart | None) -> dict[str, object] | None:
    """The same as plain values; estimates are [value, low, high]."""
    if found is None:
        return None
    return {
        name: {
            "windows": span.windows,
            "relative": plain(span.relative),
            "coverage": plain(span.coverage),
        }
        for name, span in zip(SPANS, found, strict=True)
    }
