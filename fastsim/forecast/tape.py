"""Forecasts of a whole market, tabulated once, kept on disk, and turned into features.

The table is written in parts, each whole or absent, under a fingerprint of everything it depends
on: a build that was killed goes on with the parts it has, a second run only reads, and any change
of data, model or settings is another table.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fastsim.config import require_count, write_whole
from fastsim.devices import memory_shortage
from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    can_forecast,
    check_horizon,
    check_horizons,
)
from fastsim.forecast.statistics import Counted
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.tape import MarketTape
from fastsim.progress import ON_STDERR, SILENT, Progress

log = logging.getLogger(__name__)

FORMAT = 2
"""Of the figures: a table that was made by other rules is made again."""
FIGURES = ("return", "dispersion", "rise")
BARS_PER_PART = 256
LEAST_ROWS = 16
"""Series that are asked for at once, at least: products of fewer rows have other last bits."""
LEAST_SIGMA = 1e-6
"""Volatility of a bar, at least, in whose units features are."""


class ForecastTape(NamedTuple):
    """What was forecast at every bar for every asset: K figures, NaN where nothing could be.

    For each horizon h: the expected log return over h bars, its dispersion (width of the 80 % band
    in standard deviations of a normal), the probability of a rise, and quantiles of the log return
    where some were asked for.
    """

    values: Tensor  # [T, A, K]  float32
    horizons: tuple[int, ...]
    levels: tuple[float, ...] = ()
    """Of the quantiles."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K figures: `forecast_return_5`, `forecast_quantile_10_5` (%) and so on."""
        figures = (*FIGURES, *map(quantile_figure, self.levels))
        return tuple(figure_name(figure, h) for h in self.horizons for figure in figures)

    def figure(self, name: str) -> Tensor:
        """One figure [T, A]; ForecastError if there is none of this name."""
        if name not in self.names:
            raise ForecastError(f"{name!r} was not forecast: the table has {', '.join(self.names)}")
        return self.values[..., self.names.index(name)]

    def features(self, tape: MarketTape) -> dict[str, Tensor]:
        """Features [T, A] of order one; missing forecasts are zero.

        Returns, dispersions and quantiles are divided by sigma sqrt(h); rises are taken less one
        half.
        """
        sigma = tape.known.sigma.clamp_min(LEAST_SIGMA)
        features = {}
        for column, name in enumerate(self.names):
            horizon = self.horizons[column // (len(FIGURES) + len(self.levels))]
            values = self.values[..., column].to(sigma)
            scaled = values - 0.5 if "rise" in name else values / (sigma * horizon**0.5)
            features[f"scaled_{name}" if "rise" not in name else name] = scaled.nan_to_num(nan=0.0)
        return features


def figure_name(figure: str, horizon: int) -> str:
    """Name of a figure at one horizon: `forecast_return_5`."""
    return f"forecast_{figure}_{horizon}"


def quantile_figure(level: float) -> str:
    """The figure that a quantile of the log return is, by its level in %: `quantile_10`."""
    return f"quantile_{100.0 * level:g}"


class Told(NamedTuple):
    """What a table tells: figures at these horizons, and quantiles of these levels."""

    horizons: tuple[int, ...]
    levels: tuple[float, ...] = ()


def build_forecast_tape(
    tape: MarketTape,
    forecaster: Forecaster,
    folder: Path,
    *,
    horizons: Sequence[int] = (1, 5, 21),
    levels: Sequence[float] = (),
    context_length: int = 512,
    batch_size: int = 1024,
    progress: Progress = ON_STDERR,
) -> ForecastTape:
    """Forecast every asset at every bar, or read what an earlier run has forecast.

    Parameters
    ----------
    folder
        Where tables are kept, one folder per fingerprint.
    levels
        Of quantiles that are tabulated too, such as (0.1, 0.9).
    batch_size
        Forecasts asked for at once; half as many from where they do not fit in memory. Rows do not
        depend on their batch but for the last bits of products, so neither does the table.

    Raises
    ------
    ForecastError
        The horizons do not fit the forecaster, a level is none, a stored part is damaged, or a
        single series is too much for the memory; parts that were whole before that stay.
    """
    if tape.worlds > 1:
        raise ForecastError(f"forecast one world at a time, tape.world(i), not {tape.worlds}")
    wanted, reach = tuple(horizons), forecaster.card.max_horizon
    require_count("batch_size", batch_size)
    if check_horizons(wanted) > reach:
        raise ForecastError(
            f"{forecaster.card.name} forecasts 1 to {reach} bars ahead; "
            f"horizons {wanted} do not fit"
        )
    told = Told(wanted, _checked_levels(levels))
    settings = {
        "format": FORMAT,
        "market": market_fingerprint(tape),
        "forecaster": forecaster.key,
        "context_length": context_length,
        "horizons": wanted,
    }
    if told.levels:
        settings["levels"] = told.levels

    def figures(bars: slice, most: int) -> Tensor:
        return _figures(tape, forecaster, bars, told, context_length, most)

    table = tabulated(
        figures,
        settings,
        folder,
        size=(len(tape), tape.num_assets),
        name=forecaster.card.name,
        batch_size=batch_size,
        progress=progress,
    )
    if isinstance(forecaster, Counted):
        forecaster.found(table.found)
    return ForecastTape(table.values, *told)


class Tabulated(NamedTuple):
    """A table that lies on disk, and how many of its series were there before."""

    values: Tensor  # [T, A, K]  float32
    found: int


def tabulated(
    figures: Callable[[slice, int], Tensor],
    settings: Mapping[str, Any],
    folder: Path,
    *,
    size: tuple[int, int],
    name: str,
    batch_size: int,
    progress: Progress,
) -> Tabulated:
    """Read a table of figures [T, A, K], or make what is missing of it, part by part.

    Parameters
    ----------
    figures
        Those [bars, A, K] of a span of bars, made of at most so many series at once.
    settings
        All that the table depends on; its fingerprint names the folder that it is in.
    size
        T and A.
    name
        Of the forecaster, for what is said of memory.

    Raises
    ------
    ForecastError
        As `build_forecast_tape`.
    """
    bars, assets = size
    parts = folder / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    starts = range(0, bars, BARS_PER_PART)
    missing = [start for start in starts if not _part(parts, start).exists()]
    if missing:
        done = bars * (len(starts) - len(missing)) // len(starts)
        batch = _Batch(batch_size)
        with progress.task("forecasting", bars, unit="bars", done=done) as task:
            started, made = time.perf_counter(), 0
            for start in missing:
                rows = slice(start, min(start + BARS_PER_PART, bars))
                values = _forecast(figures, rows, assets, name, batch)
                write_whole(_part(parts, start), save({"values": values.contiguous()}))
                made += (rows.stop - rows.start) * assets
                rate = made / (time.perf_counter() - started)
                task.advance(rows.stop - rows.start, rate=f"{rate:,.0f} forecasts/s")
        write_whole(parts / "settings.json", json.dumps(settings, indent=2).encode())
    read = {start: _read(_part(parts, start)) for start in starts}
    kept = [values for start, values in read.items() if start not in missing]
    found = sum(int((~values.isnan()).any(-1).sum()) for values in kept)
    return Tabulated(torch.cat(list(read.values())), found)


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    given = tuple(levels)
    if any(not 0.0 < level < 1.0 for level in given) or len(set(given)) < len(given):
        raise ForecastError(
            f"levels of quantiles must be different and lie between 0 and 1, got {given!r}"
        )
    return given


def forecast_last(
    tape: MarketTape,
    forecaster: Forecaster,
    *,
    horizons: Sequence[int],
    context_length: int,
    levels: Sequence[float] = (),
    bars: int = 1,
    batch_size: int = 1024,
) -> ForecastTape:
    """What is forecast at the last `bars` of a tape alone, for every asset [bars, A, K]; not kept.

    Raises
    ------
    ForecastError
        The horizons do not fit the forecaster, or a level is none.
    """
    told = Told(tuple(horizons), _checked_levels(levels))
    rows = slice(len(tape) - bars, len(tape))
    most = max(batch_size, tape.num_assets)
    return ForecastTape(_figures(tape, forecaster, rows, told, context_length, most), *told)


def forecast_rows(
    tape: MarketTape,
    forecaster: Forecaster,
    rows: Sequence[int],
    *,
    horizons: Sequence[int],
    context_length: int,
    batch_size: int = 256,
    progress: Progress = SILENT,
) -> ForecastTape:
    """What is forecast at these rows [R] of a tape alone, for every asset [R, A, K]; not kept.

    Raises
    ------
    ForecastError
        The horizons do not fit the forecaster, or a row is not on the tape.
    """
    told = Told(tuple(horizons))
    check_horizon(forecaster.card, check_horizons(told.horizons))
    size, made = max(1, batch_size // tape.num_assets), []
    with progress.task(forecaster.card.name, len(rows), unit="origins") as task:
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            each = [context_at(tape, slice(row, row + 1), context_length) for row in chosen]
            context = Context(*map(torch.cat, zip(*each, strict=True)))
            made.append(_figures_from(forecaster, context, told, len(context.bars)))
            task.advance(len(chosen))
    values = torch.cat(made)
    return ForecastTape(values.view(len(rows), tape.num_assets, -1), *told)


@dataclass
class _Batch:
    """Series that are asked for at once: half as many once they did not fit."""

    size: int
    shortage: str = ""
    """What was last said of memory; empty as long as it suffices."""
    told: bool = False

    def halve(self, shortage: str, name: str) -> None:
        """Ask for half from now on; ForecastError if it was a single series."""
        if self.size == 1:
            raise ForecastError(
                f"{name}: memory is too small for a single series ({shortage}); use a shorter "
                f"context, or a device that has more"
            )
        self.size, self.shortage = self.size // 2, shortage
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def tell(self, name: str) -> None:
        """Say once, when a smaller batch fits, that it does."""
        if self.shortage and not self.told:
            self.told = True
            log.warning(
                "%s: memory is too small for the batch (%s); it goes on with %d series at once",
                name,
                self.shortage,
                self.size,
            )


def _forecast(
    figures: Callable[[slice, int], Tensor], rows: slice, assets: int, name: str, batch: _Batch
) -> Tensor:
    """Figures [bars, A, K] of these bars, as many series at once as memory allows."""
    start, made = rows.start, []
    while start < rows.stop:
        bars = slice(start, min(start + max(1, batch.size // assets), rows.stop))
        shortage = None
        try:
            made.append(figures(bars, batch.size))
        except (RuntimeError, MemoryError) as error:
            shortage = memory_shortage(error)
            if shortage is None:
                raise
        if shortage is not None:  # here the error is gone, and with it the tensors of its frames
            batch.halve(shortage, name)
            continue
        batch.tell(name)
        start = bars.stop
    return torch.cat(made)


def _figures(
    tape: MarketTape,
    forecaster: Forecaster,
    bars: slice,
    told: Told,
    context_length: int,
    most: int,
) -> Tensor:
    """Figures [bars, A, K] of these bars; NaN where an asset is not listed or too young.

    At most so many series are asked for at once.
    """
    figures = _figures_from(forecaster, context_at(tape, bars, context_length), told, most)
    return figures.view(-1, tape.num_assets, figures.shape[-1])


def _figures_from(forecaster: Forecaster, context: Context, told: Told, most: int) -> Tensor:
    """Figures [B, K] of these contexts; as above."""
    close = context.close
    known = can_forecast(forecaster, context)
    ready = (known & close[:, -1].isfinite()).nonzero().squeeze(1)
    each = len(FIGURES) + len(told.levels)
    figures = torch.full((len(close), len(told.horizons) * each), torch.nan)
    for rows in torch.split(ready, most) if len(ready) else ():
        least = min(LEAST_ROWS, most)  # fewer, where memory is too small
        asked = rows[torch.arange(max(len(rows), least), device=rows.device) % len(rows)]
        chosen = Context(context.bars[asked], context.timestamps[asked])
        forecast = forecaster.forecast(chosen, max(told.horizons))
        made = figures_of(forecast, chosen.close[:, -1].to(forecast.quantiles), told)
        figures[rows.cpu()] = made[: len(rows)].float().cpu()
    return figures


def figures_of(forecast: Forecast, price: Tensor, told: Told) -> Tensor:
    """Figures [B, K] of forecasts from these prices [B]."""
    columns = torch.tensor(told.horizons, device=price.device) - 1
    parts = (
        forecast.expected_return(price),
        forecast.dispersion(price),
        forecast.probability_of_rise(price),
        *(forecast.log_returns(price).at(level) for level in told.levels),
    )
    return torch.stack([part[:, columns] for part in parts], dim=-1).flatten(1)


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.safetensors"


def _read(path: Path) -> Tensor:
    try:
        return load(path.read_bytes())["values"]
    except (SafetensorError, KeyError, OSError) as error:
        reason = one_line(error, 120)
        raise ForecastError(f"{path}: damaged ({reason}); delete it to forecast it again") from None
