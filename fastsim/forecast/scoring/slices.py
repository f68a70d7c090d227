"""Scores of parts of the windows: by asset, by period, and where a forecaster is worst."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.forecast.scoring.losses import WindowScores, by_origin, chosen_windows
from fastsim.forecast.scoring.summary import BLOCK, relative, summarise
from fastsim.stats.bootstrap import Interval

HALVES_UP_TO = 5
"""Years that are cut into halves; longer spans into years."""
LEAST = BLOCK
"""Windows that a part has at least to be called the worst, of a fewer luck decides."""
LEAST_ORIGINS = 4 * BLOCK
"""For an interval: a circle of fewer blocks hardly varies."""


class Cuts(NamedTuple):
    """How windows are parted: a label for each."""

    names: tuple[str, ...]  # G
    label: Tensor  # [W]  place among the names, int64


class Part(NamedTuple):
    """A forecaster on some of the windows."""

    name: str
    windows: int
    origins: int
    quantile_loss: Interval  # without ends where there are few origins, as the others
    coverage_50: Interval
    coverage: Interval
    coverage_95: Interval
    relative: dict[str, Interval]  # of the quantile loss, by the name of what it is held against


class Worst(NamedTuple):
    """Where a forecaster's loss is largest beside another's."""

    name: str
    windows: int
    relative: float


def cut_by_asset(told: WindowScores, symbols: Sequence[str]) -> Cuts:
    """One part for each asset that has a window."""
    return _cuts(tuple(symbols), told.asset)


def cut_by_period(told: WindowScores, stamps: NDArray[np.datetime64]) -> Cuts:
    """One part for each year, or half of one, in which an origin lies, by origins' times [R]."""
    months = stamps.astype("datetime64[M]").astype(np.int64)
    used = months[torch.unique(told.origin).numpy()]
    each = 6 if used.max() - used.min() < 12 * HALVES_UP_TO else 12
    number = months // each
    first = int(number.min())
    names = tuple(
        _period(place * each, halves=each == 6) for place in range(first, int(number.max()) + 1)
    )
    return _cuts(names, torch.from_numpy(number - first)[told.origin])


def crossed(one: Cuts, other: Cuts) -> Cuts:
    """One part for each pair of parts that has a window."""
    names = tuple(f"{first}, {second}" for first in one.names for second in other.names)
    return _cuts(names, one.label * len(other.names) + other.label)


def parts_of(told: WindowScores, others: dict[str, WindowScores], cuts: Cuts) -> list[Part]:
    """A forecaster on each part, beside others on the same windows, by their names."""
    counts = torch.bincount(cuts.label, minlength=len(cuts.names)).tolist()
    parts = torch.split(cuts.label.argsort(stable=True), counts)  # each origin by origin
    found = []
    for name, chosen in zip(cuts.names, parts, strict=True):
        own = by_origin(chosen_windows(told, chosen))
        many = len(own.windows) >= LEAST_ORIGINS
        summary = summarise(own)
        ratios = {
            other: relative(own, by_origin(chosen_windows(scored, chosen)))
            for other, scored in others.items()
        }
        found.append(
            Part(
                name=name,
                windows=len(chosen),
                origins=len(own.windows),
                quantile_loss=_with_ends(summary.quantile_loss, many),
                coverage_50=_with_ends(summary.coverage_50, many),
                coverage=_with_ends(summary.coverage, many),
                coverage_95=_with_ends(summary.coverage_95, many),
                relative={other: _with_ends(ratio, many) for other, ratio in ratios.items()},
            )
        )
    return found


def worst_part(told: WindowScores, other: WindowScores, cuts: Cuts) -> Worst | None:
    """The part in which a quantile loss is largest beside another's; None if all are too small."""
    count = torch.bincount(cuts.label, minlength=len(cuts.names))
    own, theirs = (
        torch.zeros(len(cuts.names), dtype=torch.float64).index_add_(
            0, cuts.label, each.quantile_loss.double().mean(1)
        )
        for each in (told, other)
    )
    ratio = torch.where(count >= LEAST, own / theirs, -torch.inf)
    place = int(ratio.argmax())
    if count[place] < LEAST:
        return None
    return Worst(cuts.names[place], int(count[place]), float(ratio[place]))


def _cuts(names: tuple[str, ...], label: Tensor) -> Cuts:
    """Without the parts that have no window."""
    used, place = torch.unique(label, return_inverse=True)
    return Cuts(tuple(names[number] for number in used.tolist()), place)


def _period(month: int, *, halves: bool) -> str:
    """A year, or a half of it, by its first month, counted since 1970."""
    year, half = 1970 + month // 12, month % 12 // 6 + 1
    return f"{year}, half {half}" if halves else f"{year}"


def _with_ends(interval: Interval, there: bool) -> Interval:
    return interval if there else interval._replace(low=nan, high=nan)
