"""Bars of whatever a caller calls a market; those of a named source are read once in a process."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.store import is_store_name, manifest_of
from fastsim.errors import ConfigError
from fastsim.extensions import is_reference
from fastsim.market.tape import MarketTape
from fastsim.synthetic.fresh import FreshWorlds

MarketSource = str | Path | DataConfig | Mapping[str, Any] | Bars | MarketTape | FreshWorlds
"""A built-in sample's name, a file of bars, a data configuration or its fields, bars, a tape, or
fresh worlds."""

log = logging.getLogger(__name__)

_IMPORTED_BY = os.getpid()
_read_by: set[int] = set()
"""Processes that have read bars: this one, and those that it was forked from."""

SPAWN = 'vector_kwargs={"context": "spawn"}'


def bars_of(market: str | Path | DataConfig | Mapping[str, Any] | Bars) -> Bars:
    """The bars that a market stands for.

    What was read last is kept, so that environments made side by side, and those of a forked
    process, share it; a file that has changed is read again.

    Raises
    ------
    ConfigError
        It is nothing that bars can be had of, or this process was forked from one that has read
        others: the threads that read do not survive that.
    DataError
        Bars that cannot be had or cannot be used.
    """
    if isinstance(market, Bars):
        return market
    if isinstance(market, str | Path):
        market = DataConfig(source=str(market))
    elif isinstance(market, Mapping):
        market = from_mapping(DataConfig, market)
    if not isinstance(market, DataConfig):
        raise ConfigError(
            f"market must be a sample's name, a path, a DataConfig, Bars, a MarketTape or "
            f"FreshWorlds, got {type(market).__name__}"
        )
    if is_reference(market.source) and not is_store_name(market.source):
        return _read(market)  # whoever wrote the function may want it called every time
    return _kept(replace(market, symbols=tuple(market.symbols)), _stamp(market.source))


def settle_in_fork(device: torch.device) -> None:
    """Let torch work in a process that was forked: with one thread, as others do not survive it.

    Raises
    ------
    ConfigError
        The device is a GPU, which a forked process cannot use.
    """
    if os.getpid() == _IMPORTED_BY:
        return
    if device.type == "cuda":
        raise ConfigError(
            f"device {str(device)!r} cannot be used in a forked process; use {SPAWN}, or one "
            f"make_vec for all environments"
        )
    if torch.get_num_threads() > 1:
        log.info("this process was forked: torch goes on with one thread")
        torch.set_num_threads(1)


@lru_cache(maxsize=2)
def _kept(config: DataConfig, stamp: tuple[int, int] | None) -> Bars:
    return _read(config)


def _read(config: DataConfig) -> Bars:
    if _read_by - {os.getpid()}:
        raise ConfigError(
            f"market {config.source!r} cannot be read in a process that was forked after bars were "
            f"read: use {SPAWN}, or give Bars or a ready tape as market"
        )
    _read_by.add(os.getpid())
    return load_bars(config)


def _stamp(source: str) -> tuple[int, int] | None:
    """When a file was last written, and its size; None for what is no file."""
    try:
        found = (manifest_of(source) if is_store_name(source) else Path(source)).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
