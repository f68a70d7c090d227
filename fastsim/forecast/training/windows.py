"""Windows to learn from: pasts with what came after, from series, from simulations, or mixed.

What is drawn depends on the generator that is handed in alone, so that a fit that goes on draws
what one that never stopped would have.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from fastsim.data.bars import AMOUNT, BAR_FIELDS, CLOSE, HIGH, LOW, OPEN, VOLUME
from fastsim.forecast.interface import Context
from fastsim.forecast.season.divide import Season
from fastsim.forecast.training.series import Series
from fastsim.forecast.training.split import Look
from fastsim.forecast.training.train_prior import PriorTraining, draw_closes

DAY_S = 86_400
AHEAD = 2
"""Batches that are made while others are learned from."""


class Windows(NamedTuple):
    """B pasts and what came after each; of a simulated past, in F ways."""

    context: Context  # of B series; bars float32
    future: Tensor  # [B, F, h]  log return over each horizon, NaN where unknown


class Source(Protocol):
    """Where windows come from."""

    def draw(self, count: int, generator: Generator) -> Windows:
        """Draw so many windows, by this generator alone."""
        ...


class SeriesSource:
    """Windows of series that end at one of these rows, each as likely as the other.

    Their bars are as many of the series, joined to one.
    """

    def __init__(
        self, series: Series, origins: NDArray[np.int64], look: Look, joined: int = 1
    ) -> None:
        self.series, self.origins, self.look, self.joined = series, origins, look, joined

    def draw(self, count: int, generator: Generator) -> Windows:
        """Windows at rows drawn with repetition."""
        chosen = torch.randint(len(self.origins), (count,), generator=generator)
        return windows_at(self.series, self.origins[chosen.numpy()], self.look, self.joined)


class SimulatedSource:
    """Windows of simulated paths, none of which comes again: what fastsim-prior has learned from.

    Some pasts are short and some have gaps, as `PriorTraining` says; each has several futures.
    """

    def __init__(self, look: Look, futures: int) -> None:
        self.look, self.futures = look, futures

    def draw(self, count: int, generator: Generator) -> Windows:
        """Windows of new paths."""
        config = PriorTraining(batch=count, futures=self.futures)
        closes, future = draw_closes(config, generator)
        missing = self.look.context - closes.shape[1]  # below zero, closes are cut
        closes = functional.pad(closes, (missing, 0), value=torch.nan)
        ahead = torch.tensor(self.look.horizons) - 1
        bars = closes.new_full((*closes.shape, len(BAR_FIELDS)), torch.nan)
        bars[..., CLOSE] = closes
        stamps = DAY_S * torch.arange(closes.shape[1]).expand(len(closes), -1)
        return Windows(Context(bars, stamps), future.cumsum(-1)[..., ahead])


class Seasonless:
    """Windows of another source without their season, past and future."""

    def __init__(self, source: Source, season: Season, horizons: tuple[int, ...]) -> None:
        self.source, self.season, self.horizons = source, season, horizons

    def draw(self, count: int, generator: Generator) -> Windows:
        """Those of the source, freed of it."""
        return freed(self.source.draw(count, generator), self.season, self.horizons)


class Mix:
    """Windows of several sources, each with its share."""

    def __init__(self, parts: Sequence[tuple[Source, float]]) -> None:
        self.parts = [(source, share) for source, share in parts if share > 0.0]

    def draw(self, count: int, generator: Generator) -> Windows:
        """Windows of each in turn; futures that one of them has fewer of are unknown."""
        ends = [round(count * share) for share in accumulate(share for _, share in self.parts)]
        sizes = [end - start for start, end in pairwise([0, *ends[:-1], count])]
        drawn = [
            source.draw(size, generator)
            for (source, _), size in zip(self.parts, sizes, strict=True)
            if size
        ]
        most = max(part.future.shape[1] for part in drawn)
        futures = [
            functional.pad(future, (0, 0, 0, most - future.shape[1]), value=torch.nan)
            for _, future in drawn
        ]
        columns = zip(*(part.context for part in drawn), strict=True)
        return Windows(Context(*map(torch.cat, columns)), torch.cat(futures))


def windows_at(series: Series, origins: NDArray[np.int64], look: Look, joined: int = 1) -> Windows:
    """The windows whose last known bars are at these rows [B], with one future each, as below."""
    context = contexts_at(series, origins, look.context, joined)
    closes = series.values[:, CLOSE]
    after = closes[origins[:, None] + joined * np.array(look.horizons)]  # [B, h]
    with np.errstate(invalid="ignore", divide="ignore"):
        future = np.log(after / closes[origins][:, None])
    known = torch.from_numpy(future).float()
    known = torch.where(known.isfinite(), known, torch.nan)
    return Windows(context, known[:, None])


def contexts_at(
    series: Series, origins: NDArray[np.int64], length: int, joined: int = 1
) -> Context:
    """The pasts [B, L] whose last bars are at these rows [B].

    Before the first bar of a series a context is missing, and time goes on backwards at the
    series' first step. Bars are as many of the series, joined to one.
    """
    member = np.searchsorted(series.starts, origins, side="right") - 1
    first = series.starts[member][:, None]  # [B, 1]
    ends = origins[:, None] + joined * np.arange(1 - length, 1)  # [B, L]
    parts = [_bars_at(series, ends - back, first) for back in range(joined - 1, -1, -1)]
    bars = parts[0] if joined == 1 else _joined(parts)
    second = np.minimum(first + 1, series.starts[member + 1][:, None] - 1)
    step = np.maximum(series.stamps[second] - series.stamps[first], 1)
    inside = np.maximum(ends, first)
    stamps = series.stamps[inside] + (ends - inside) * step
    return Context(bars, torch.from_numpy(stamps))


def _bars_at(series: Series, rows: NDArray[np.int64], first: NDArray[np.int64]) -> Tensor:
    """Bars [B, L, 6] at rows [B, L], NaN before the `first` [B, 1] of their series."""
    values = torch.from_numpy(series.values[np.maximum(rows, first)]).float()
    return torch.where(torch.from_numpy(rows >= first)[..., None], values, torch.nan)


def _joined(parts: list[Tensor]) -> Tensor:
    """Bars [B, L, 6] of several that follow each other: first open, last close, sums of trade."""
    whole = torch.stack(parts)
    high, low, sums = whole[..., HIGH].amax(0), whole[..., LOW].amin(0), whole.sum(0)
    columns = (parts[0][..., OPEN], high, low, parts[-1][..., CLOSE])
    return torch.stack((*columns, sums[..., VOLUME], sums[..., AMOUNT]), -1)


@torch.no_grad()
def freed(windows: Windows, season: Season, horizons: tuple[int, ...]) -> Windows:
    """Windows without the season that their contexts show, as forecasters are shown them.

    What came is divided by what a forecast would be multiplied by.
    """
    divided = season(*windows.context, horizons[-1])
    growth = divided.growth[:, torch.tensor(horizons) - 1]  # [B, h]
    context = Context(divided.bars.float(), windows.context.timestamps)
    return Windows(context, windows.future / growth[:, None].float())


def seeded(seed: int, purpose: str, number: int = 0) -> Generator:
    """A generator of its own for each purpose and number of a seed."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def made_ahead(
    draw: Callable[[int], Windows], numbers: Sequence[int]
) -> Iterator[Iterator[Windows]]:
    """What `draw` gives for each number, made in the background while the last is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="windows") as pool:
        waiting: deque[Future[Windows]] = deque()

        def each() -> Iterator[Windows]:
            coming = iter(numbers)
            waiting.extend(pool.submit(draw, number) for number in islice(coming, AHEAD))
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(draw, number) for number in islice(coming, 1))
                yield made

        try:
            yield each()
        finally:
            for future in waiting:
                future.cancel()
