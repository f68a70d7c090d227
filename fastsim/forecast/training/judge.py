"""What a fit is judged by: the same windows every time, before it, while it learns and after."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.forecast.evaluate import BLOCK, resampled
from fastsim.forecast.season.divide import Season
from fastsim.forecast.training.loop import Student
from fastsim.forecast.training.series import Series
from fastsim.forecast.training.split import Look, Spread
from fastsim.forecast.training.windows import SimulatedSource, Windows, freed, seeded, windows_at
from fastsim.stats.bootstrap import Interval

CHUNK = 512
"""Windows that are judged at once."""
LEAST_BLOCKS = 4
"""Blocks of origins that an interval needs."""


class Verdict(NamedTuple):
    """Loss and coverage of a model on the windows of a judge."""

    loss: float
    coverage: float
    """Share of what came within the 80 % band."""
    by_origin: Tensor  # [R]  mean loss of the windows of each time, float64
    windows: int


class Judge:
    """Windows, in order of time, that models are held against each other on."""

    def __init__(
        self, windows: list[Windows], times: Tensor, horizons: tuple[int, ...], *, step: int
    ) -> None:
        self.windows, self.horizons, self.step = windows, torch.tensor(horizons), step
        _, self._place, counts = torch.unique(times, return_inverse=True, return_counts=True)
        self.counts = counts.double()  # [R]

    @torch.inference_mode()
    def verdict(self, student: Student) -> Verdict:
        """Judge a model."""
        device = next(student.model.parameters()).device
        horizons = self.horizons.to(device)
        told = [student.losses(windows, horizons) for windows in self.windows]
        loss = torch.cat([each.pinball for each in told]).double().cpu()
        covered = torch.cat([each.covered for each in told]).double().cpu()
        sums = torch.zeros_like(self.counts).index_add(0, self._place, loss)
        return Verdict(float(loss.mean()), float(covered.mean()), sums / self.counts, len(loss))

    def ratio(self, verdict: Verdict, start: Verdict) -> Interval | None:
        """Loss over that of the start, with the interval of a block bootstrap.

        None where there are too few times for one: blocks are as long as targets overlap.
        """
        overlapping = -(-2 * int(self.horizons[-1]) // self.step)
        block = max(BLOCK, overlapping)
        if len(self.counts) < LEAST_BLOCKS * block:
            return None
        columns = torch.stack([verdict.by_origin, start.by_origin], -1)
        return resampled(columns, self.counts, torch.divide, block=block)


def judge_of_series(
    series: Series, spread: Spread, look: Look, season: Season | None = None
) -> Judge:
    """A judge by windows at these origins, freed of a season if one is given."""
    stamps = series.stamps[spread.origins]
    order = np.argsort(stamps, kind="stable")
    rows = spread.origins[order]
    chunks = np.array_split(rows, -(-len(rows) // CHUNK))
    windows = [windows_at(series, chunk, look) for chunk in chunks]
    if season is not None:
        windows = [freed(each, season, look.horizons) for each in windows]
    return Judge(windows, torch.from_numpy(stamps[order]), look.horizons, step=spread.step)


def judge_of_simulations(look: Look, futures: int, count: int, seed: int) -> Judge:
    """A judge by so many simulated windows, each of a path of its own."""
    source = SimulatedSource(look, futures)
    numbers = range(-(-count // CHUNK))
    windows = [
        source.draw(min(CHUNK, count - CHUNK * number), seeded(seed, "simulated judge", number))
        for number in numbers
    ]
    return Judge(windows, torch.arange(count), look.horizons, step=2 * look.horizons[-1])
