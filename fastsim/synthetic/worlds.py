"""Paths as bars: one world alone, or all of them side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import whole_number
from fastsim.data.bars import Bars, FloatArray
from fastsim.data.dates import iso_date, show
from fastsim.errors import ConfigError, DataError
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.synthetic.interface import PathModel, Paths

START = "2000-01-03"
LAST_DAY = np.datetime64("2262-01-01", "D")


def make_worlds(
    model: PathModel,
    worlds: int,
    bars: int,
    *,
    seed: int = 0,
    config: TapeConfig | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MarketTape:
    """Draw worlds and lay them on one tape, for environments that each live in one of them.

    Parameters
    ----------
    bars
        Of each world, the warm-up of the features included.

    Raises
    ------
    ConfigError
        `model` draws no worlds; sizes that are not whole numbers >= 1; funding of a history.
    DataError
        Too few bars for the features.
    """
    check_model(model, "model")
    if config is not None and (config.funding or config.tiers):
        raise ConfigError(
            "TapeConfig.funding and tiers are of one history, and worlds are drawn: leave them "
            "out, or trade that history"
        )
    generator = torch.Generator().manual_seed(whole_number("seed", seed))
    paths = model.sample(worlds, bars, generator)
    tape = make_tape(wide_bars(paths), config, device=torch.device(device), dtype=dtype)
    symbols = tuple(f"A{asset}" for asset in range(paths.close.shape[2]))
    return replace(tape.fold(worlds), symbols=symbols)


def check_model(model: object, name: str) -> None:
    """Raise ConfigError unless an argument called `name` draws worlds: a name or class does not."""
    if isinstance(model, type) or not callable(getattr(model, "sample", None)):
        given = repr(model) if isinstance(model, str | type) else f"a {type(model).__name__}"
        raise ConfigError(
            f"{name} must be a model such as Garch(assets=20), or one fitted to bars, "
            f'fit("garch", bars), got {given}'
        )


def to_bars(paths: Paths, world: int, start: str = START) -> Bars:
    """Bars of one world on business days from `start`; symbols A0, A1, ...

    Raises
    ------
    ConfigError
        There is no such world.
    DataError
        `start` is not an ISO date, or the calendar runs out of dates.
    """
    worlds, _, assets = paths.close.shape
    if not 0 <= world < worlds:
        raise ConfigError(f"world must be 0 to {worlds - 1}, got {world!r}")
    return _bars(
        paths, slice(world, world + 1), tuple(f"A{asset}" for asset in range(assets)), start
    )


def wide_bars(paths: Paths, start: str = START) -> Bars:
    """Bars of M worlds of A assets as M * A columns, world by world: w0.A0, w0.A1, ..., w1.A0, ...

    One pass of `make_tape` then makes the features of all worlds; errors as `to_bars`.
    """
    worlds, _, assets = paths.close.shape
    names = (f"w{world}.A{asset}" for world in range(worlds) for asset in range(assets))
    return _bars(paths, slice(None), tuple(names), start)


def business_days(count: int, start: str) -> NDArray[np.datetime64]:
    """Monday to Friday from `start`, or the first such day after it [T], as nanoseconds."""
    first = iso_date(start, "start").astype("datetime64[D]")
    days = np.busday_offset(first, np.arange(count), roll="forward")
    if days[-1] >= LAST_DAY:
        raise DataError(f"{count} business days from {show(first)} end after {LAST_DAY}")
    return days.astype("datetime64[ns]")


def _bars(paths: Paths, worlds: slice, symbols: tuple[str, ...], start: str) -> Bars:
    def table(field: Tensor) -> FloatArray:
        wide = field[worlds].transpose(0, 1).flatten(1)  # [T, M * A]
        return np.asarray(wide.double().contiguous().cpu().numpy())

    def optional(field: Tensor | None) -> FloatArray | None:
        return None if field is None else table(field)

    return Bars(
        symbols=symbols,
        timestamps=business_days(paths.close.shape[1], start),
        close=table(paths.close),
        open=optional(paths.open),
        high=optional(paths.high),
        low=optional(paths.low),
        volume=optional(paths.volume),
    )
