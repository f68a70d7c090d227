"""Embeddings as columns: a network's hidden state, reduced to a few numbers of order one.

The directions are those along which the states of the bars that they are fitted on vary most
(principal components: Pearson 1901; Jolliffe 2002, chapter 2), each divided by its deviation there.
Fitted on training bars alone, and on nothing else, a projection is a file that says whose states it
is of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastsim.config import require_count, write_whole
from fastsim.data.dates import show_day
from fastsim.errors import ConfigError, ForecastError, one_line
from fastsim.forecast.embeddings import embed
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import Context, Forecaster, can_forecast
from fastsim.forecast.tape import LEAST_ROWS, tabulated
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.tape import MarketTape
from fastsim.progress import Progress

SUFFIX = ".safetensors"
FORMAT = 1
WINDOWS = 4096
"""Contexts that directions are fitted on, about, spread over the bars."""
LEAST_SHARE = 1e-6
"""Of the largest variance, below which a direction is none."""


class Projection(NamedTuple):
    """From a hidden state [D] to K numbers."""

    mean: Tensor  # [D]  float64
    directions: Tensor  # [D, K]  float64, divided by the deviations along them
    key: str
    """Of the forecaster whose states these are."""
    context_length: int
    until: str
    """Last day of the bars that it was fitted on."""

    def __call__(self, states: Tensor) -> Tensor:
        """Numbers [..., K] of states [..., D], float32."""
        return ((states.double() - self.mean) @ self.directions).float()

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns."""
        return tuple(f"embedding_{place}" for place in range(self.directions.shape[1]))


def check_projection(setting: object, where: str) -> None:
    """Raise ConfigError unless a setting is empty or the file of a projection."""
    if not isinstance(setting, str) or (setting and not setting.endswith(SUFFIX)):
        raise ConfigError(
            f"{where} must be the {SUFFIX} file of a projection, or empty, got {setting!r}"
        )


def fit_projection(
    forecaster: Forecaster,
    tape: MarketTape,
    components: int,
    *,
    context_length: int = 512,
    batch_size: int = 256,
) -> Projection:
    """The directions along which a forecaster's hidden states vary most on the bars of a tape.

    Parameters
    ----------
    tape
        Training bars and no others.
    components
        K.

    Raises
    ------
    ConfigError
        `components` is no whole number from 1 up.
    ForecastError
        The forecaster shows no hidden state, or its states vary along fewer directions.
    """
    require_count("components", components)
    length = min(context_length, forecaster.card.max_context)
    every = max(1, len(tape) * tape.num_assets // WINDOWS)
    bars = range(len(tape) - 1, -1, -every)
    found = (_states(tape, forecaster, slice(bar, bar + 1), length, batch_size) for bar in bars)
    states = [each[each.isfinite().all(-1)] for each in found if each is not None]
    known = torch.cat(states).double() if states else torch.empty(0, 0)  # [N, D]
    if len(known) <= components:
        raise ForecastError(
            f"{len(known)} states of {forecaster.card.name} are too few for {components} "
            f"directions: give more bars"
        )
    mean = known.mean(0)
    variance, directions = torch.linalg.eigh((known - mean).T.cov())
    variance, directions = variance.flip(0)[:components], directions.flip(1)[:, :components]
    if components > len(variance) or float(variance[-1]) <= LEAST_SHARE * float(variance[0]):
        raise ForecastError(
            f"states of {forecaster.card.name} vary along fewer than {components} directions: ask "
            f"for less"
        )
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign() / variance.sqrt()
    return Projection(mean, directions, forecaster.key, length, show_day(tape.timestamps[-1]))


def projected(
    tape: MarketTape, forecaster: Forecaster, projection: Projection, bars: slice, most: int
) -> Tensor:
    """Its numbers [bars, A, K] at these bars, NaN where too little is known; `most` at once.

    Raises
    ------
    ForecastError
        The forecaster is not, and holds not, the one that the projection was fitted for.
    """
    own = _whose(forecaster, projection)
    states = _states(tape, own, bars, projection.context_length, most)
    size = (bars.stop - bars.start, tape.num_assets, len(projection.names))
    return torch.full(size, torch.nan) if states is None else projection(states).view(size)


def embedding_features(
    tape: MarketTape,
    forecaster: Forecaster,
    path: Path,
    folder: Path,
    *,
    batch_size: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Features [T, A] by the projection in a file, tabulated once in `folder`.

    Raises
    ------
    ForecastError
        The file is none, or of a forecaster that is not there.
    """
    projection = read_projection(path)
    _whose(forecaster, projection)
    settings = {
        "format": FORMAT,
        "market": market_fingerprint(tape),
        "projection": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    table = tabulated(
        lambda bars, most: projected(tape, forecaster, projection, bars, most),
        settings,
        folder,
        size=(len(tape), tape.num_assets),
        name=forecaster.card.name,
        batch_size=batch_size,
        progress=progress,
    )
    return columns_of(table.values, projection)


def latest_embedding(
    tape: MarketTape, forecaster: Forecaster, path: Path, bars: int = 1
) -> dict[str, Tensor]:
    """The same at the last bars of a tape alone [bars, A]; not kept."""
    projection, last = read_projection(path), slice(len(tape) - bars, len(tape))
    told = projected(tape, forecaster, projection, last, max(LEAST_ROWS, tape.num_assets))
    return columns_of(told, projection)


def columns_of(values: Tensor, projection: Projection) -> dict[str, Tensor]:
    """Features [T, A] by name of numbers [T, A, K]; 0 where too little was known."""
    return dict(zip(projection.names, values.nan_to_num(nan=0.0).unbind(-1), strict=True))


def write_projection(projection: Projection, path: Path) -> None:
    """Write a projection into a file, in one piece; ConfigError unless it ends in .safetensors."""
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path}: the file of a projection must end in {SUFFIX}")
    tensors = {"mean": projection.mean, "directions": projection.directions.contiguous()}
    told = {
        "key": projection.key,
        "context_length": str(projection.context_length),
        "until": projection.until,
    }
    write_whole(path, save(tensors, told))


def read_projection(path: Path) -> Projection:
    """What `write_projection` wrote; ForecastError if that is not what is there."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata()
            mean, directions = (file.get_tensor(name) for name in ("mean", "directions"))
        return Projection(mean, directions, told["key"], int(told["context_length"]), told["until"])
    except FileNotFoundError:
        raise ForecastError(f"{path}: no projection here; fit one first") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ForecastError(f"{path}: no projection ({one_line(error, 120)})") from None


def _states(
    tape: MarketTape, forecaster: Forecaster, bars: slice, length: int, most: int
) -> Tensor | None:
    """Hidden states [bars A, D], rows bar by bar, NaN where too little is known; None of none."""
    context = context_at(tape, bars, length)
    able = can_forecast(forecaster, context) & context.close[:, -1].isfinite()
    rows = able.nonzero().squeeze(1)
    found: Tensor | None = None
    for chosen in torch.split(rows, most) if len(rows) else ():
        least = min(LEAST_ROWS, most)
        asked = chosen[torch.arange(max(len(chosen), least), device=rows.device) % len(chosen)]
        states = embed(forecaster, Context(*(part[asked] for part in context)))[: len(chosen)].cpu()
        if found is None:
            found = states.new_full((len(able), states.shape[1]), np.nan)
        found[chosen.cpu()] = states
    return found


def _whose(forecaster: Forecaster, projection: Projection) -> Forecaster:
    """The forecaster, or the one within it, that a projection is of."""
    for each in _within(forecaster):
        if each.key == projection.key:
            return each
    raise ForecastError(
        f"the projection is of {projection.key}, which is not {forecaster.card.name} nor a part of "
        f"it: name that forecaster, or fit a projection for this one"
    )


def _within(forecaster: Forecaster) -> Iterator[Forecaster]:
    yield forecaster
    inner = getattr(forecaster, "forecaster", None)  # of one that is around another
    if inner is not None:
        yield from _within(inner)
    if isinstance(forecaster, Ensemble):
        for member in forecaster.members:
            yield from _within(member)
