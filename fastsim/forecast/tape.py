"""Forecasts of a whole market, tabulated once, kept on disk, and turned into features.

The table is written in parts, each whole or absent, under a fingerprint of everything it depends
on: a build that was killed goes on with the parts it has, a second run only reads, and any change
of data, model or settings is another table.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fastsim.config import require_count, write_whole
from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import Context, Forecaster, can_forecast, check_horizons
from fastsim.forecast.statistics import Counted
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.tape import MarketTape
from fastsim.progress import ON_STDERR, Progress

FORMAT = 2
"""Of the figures: a table that was made by other rules is made again."""
FIGURES = ("return", "dispersion", "rise")
BARS_PER_PART = 256


class ForecastTape(NamedTuple):
    """What was forecast at every bar for every asset: K figures, NaN where nothing could be.

    For each horizon h: the expected log return over h bars, its dispersion (width of the 80 % band
    in standard deviations of a normal), and the probability of a rise.
    """

    values: Tensor  # [T, A, K]  float32
    horizons: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K figures: `forecast_return_5` and so on."""
        return tuple(f"forecast_{figure}_{h}" for h in self.horizons for figure in FIGURES)

    def features(self, tape: MarketTape) -> dict[str, Tensor]:
        """Features [T, A] of order one; missing forecasts are zero.

        Returns and dispersions are divided by sigma sqrt(h); rises are taken less one half.
        """
        sigma = tape.known.sigma.clamp_min(1e-6)
        features = {}
        for column, name in enumerate(self.names):
            horizon = self.horizons[column // len(FIGURES)]
            values = self.values[..., column].to(sigma)
            scaled = values - 0.5 if "rise" in name else values / (sigma * horizon**0.5)
            features[f"scaled_{name}" if "rise" not in name else name] = scaled.nan_to_num(nan=0.0)
        return features


def build_forecast_tape(
    tape: MarketTape,
    forecaster: Forecaster,
    folder: Path,
    *,
    horizons: Sequence[int] = (1, 5, 21),
    context_length: int = 512,
    batch_size: int = 1024,
    progress: Progress = ON_STDERR,
) -> ForecastTape:
    """Forecast every asset at every bar, or read what an earlier run has forecast.

    Parameters
    ----------
    folder
        Where tables are kept, one folder per fingerprint.
    batch_size
        Forecasts asked for at once. Rows do not depend on their batch, so neither does the table.

    Raises
    ------
    ForecastError
        The horizons do not fit the forecaster, or a stored part is damaged.
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
    settings = {
        "format": FORMAT,
        "market": market_fingerprint(tape),
        "forecaster": forecaster.key,
        "context_length": context_length,
        "horizons": wanted,
    }
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    parts = folder / name
    starts = range(0, len(tape), BARS_PER_PART)
    missing = [start for start in starts if not _part(parts, start).exists()]
    if missing:
        done = len(tape) * (len(starts) - len(missing)) // len(starts)
        with progress.task("forecasting", len(tape), unit="bars", done=done) as task:
            started, made = time.perf_counter(), 0
            for start in missing:
                rows = slice(start, min(start + BARS_PER_PART, len(tape)))
                values = torch.cat(
                    [
                        _figures(tape, forecaster, bars, wanted, context_length)
                        for bars in _batches(rows, max(1, batch_size // tape.num_assets))
                    ]
                )
                write_whole(_part(parts, start), save({"values": values.contiguous()}))
                made += (rows.stop - rows.start) * tape.num_assets
                rate = made / (time.perf_counter() - started)
                task.advance(rows.stop - rows.start, rate=f"{rate:,.0f} forecasts/s")
        write_whole(parts / "settings.json", json.dumps(settings, indent=2).encode())
    read = {start: _read(_part(parts, start)) for start in starts}
    if isinstance(forecaster, Counted):
        kept = [values for start, values in read.items() if start not in missing]
        forecaster.found(sum(int((~values.isnan()).any(-1).sum()) for values in kept))
    values = torch.cat(list(read.values()))
    return ForecastTape(values, wanted)


def _batches(rows: slice, size: int) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def _figures(
    tape: MarketTape,
    forecaster: Forecaster,
    bars: slice,
    horizons: tuple[int, ...],
    context_length: int,
) -> Tensor:
    """Figures [bars, A, K] of these bars; NaN where an asset is not listed or too young."""
    context = context_at(tape, bars, context_length)
    close = context.close
    known = can_forecast(forecaster, context)
    ready = (known & close[:, -1].isfinite()).nonzero().squeeze(1)
    figures = torch.full((len(close), len(horizons) * len(FIGURES)), torch.nan)
    if len(ready):
        chosen = Context(context.bars[ready], context.timestamps[ready])
        forecast = forecaster.forecast(chosen, max(horizons))
        price = chosen.close[:, -1].to(forecast.quantiles)
        columns = torch.tensor(horizons, device=price.device) - 1
        parts = (
            forecast.expected_return(price),
            forecast.dispersion(price),
            forecast.probability_of_rise(price),
        )
        stacked = torch.stack([part[:, columns] for part in parts], dim=-1)  # [rows, horizons, 3]
        figures[ready.cpu()] = stacked.flatten(1).float().cpu()
    return figures.view(-1, tape.num_assets, figures.shape[-1])


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.safetensors"


def _read(path: Path) -> Tensor:
    try:
        return load(path.read_bytes())["values"]
    except (SafetensorError, KeyError, OSError) as error:
        reason = one_line(error, 120)
        raise ForecastError(f"{path}: damaged ({reason}); delete it to forecast it again") from None
