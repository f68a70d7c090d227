"""From what a caller of `make` writes to an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.data.dates import rows_between
from fastsim.data.source import DataConfig, load_bars
from fastsim.devices import resolve_device
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.choose import Backend
from fastsim.errors import ConfigError, DataError
from fastsim.market.costs import make_friction
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.synthetic.config import WorldsConfig
from fastsim.synthetic.fresh import FreshWorlds

MarketSource = str | Path | DataConfig | Bars | MarketTape | FreshWorlds
"""A built-in sample's name, a file of bars, a data configuration, bars, a tape, or fresh worlds."""


def build_env(
    num_envs: int,
    market: MarketSource = "us20",
    *,
    start: str | None = None,
    end: str | None = None,
    device: str = "cpu",
    backend: Backend = "auto",
    tape: TapeConfig | Mapping[str, Any] | None = None,
    worlds: WorldsConfig | Mapping[str, Any] | None = None,
    config: EnvConfig | None = None,
    costs_per_env: Mapping[str, torch.Tensor] | None = None,
    **rules: Any,
) -> PortfolioEnv:
    """Build an environment.

    Parameters
    ----------
    market
        Where prices come from.
    start, end
        First and last day (ISO dates) that episodes may use; features may look further back.
    backend
        Who steps, as in `PortfolioEnv`: "auto" takes the fastest that fits the market and device.
    tape
        How bars become a market; not with a ready tape, nor with worlds, which have their own.
    worlds
        Simulated worlds to live in, of a model that is fitted to the bars between `start` and
        `end`: `worlds={"model": "garch", "bars": 400}`.
    config, rules
        The environment's rules: an `EnvConfig`, or its fields by keyword, nested ones as mappings:
        `action="logits", costs={"fee_bps": 5}, episode={"horizon": 64}`.
    costs_per_env
        Costs that differ between environments: fields of `CostConfig` to tensors [num_envs].

    Raises
    ------
    ConfigError
        A rule that does not exist or is out of range, a device that is not there, or a backend that
        cannot step the market.
    DataError
        Bars that cannot be had or cannot be used.
    """
    source = market if isinstance(market, MarketTape | FreshWorlds) else _bars(market)
    ready, rows = _ready(source, tape, resolve_device(device)), slice(None)
    if start is not None or end is not None:
        if isinstance(ready, FreshWorlds):
            raise ConfigError("start and end are days of a history; drop them with FreshWorlds")
        rows = _rows(ready, start, end)
        ready = ready.between(rows)
    if worlds is not None:
        ready = _simulated(source, rows, ready, tape, worlds)
    settled = _env_config(config, rules)
    friction = make_friction(
        settled.costs, num_envs, device=ready.device, dtype=ready.dtype, **costs_per_env or {}
    )
    return PortfolioEnv(ready, num_envs, settled, friction=friction, backend=backend)


def _ready(
    market: Bars | MarketTape | FreshWorlds,
    tape: TapeConfig | Mapping[str, Any] | None,
    device: torch.device,
) -> MarketTape | FreshWorlds:
    if isinstance(market, Bars):
        return make_tape(market, _tape_config(tape), device=device)
    if tape is not None:
        raise ConfigError(
            f"tape settings do not apply to a ready {type(market).__name__}; drop one of them"
        )
    return market.to(device)


def _simulated(
    source: Bars | MarketTape | FreshWorlds,
    rows: slice,
    ready: MarketTape | FreshWorlds,
    tape: TapeConfig | Mapping[str, Any] | None,
    worlds: WorldsConfig | Mapping[str, Any],
) -> MarketTape | FreshWorlds:
    """Worlds like these rows of the bars; the tape itself for the model "none"."""
    if not isinstance(source, Bars) or isinstance(ready, FreshWorlds):
        raise ConfigError(
            f"worlds are fitted to bars, not to a ready {type(source).__name__}; drop one of them"
        )
    config = from_mapping(WorldsConfig, worlds) if isinstance(worlds, Mapping) else worlds
    fitted = config.fit(source.take(rows), ready, _tape_config(tape) or TapeConfig())
    return ready if fitted is None else fitted


def _bars(market: str | Path | DataConfig | Bars) -> Bars:
    if isinstance(market, Bars):
        return market
    if isinstance(market, DataConfig):
        return load_bars(market)
    if isinstance(market, str | Path):
        return load_bars(DataConfig(source=str(market)))
    raise ConfigError(
        f"market must be a sample's name, a path, a DataConfig, Bars, a MarketTape or FreshWorlds, "
        f"got {type(market).__name__}"
    )


def _tape_config(tape: TapeConfig | Mapping[str, Any] | None) -> TapeConfig | None:
    return from_mapping(TapeConfig, tape) if isinstance(tape, Mapping) else tape


def _env_config(config: EnvConfig | None, rules: Mapping[str, Any]) -> EnvConfig:
    if not rules:
        return config or EnvConfig()
    known = [field.name for field in fields(EnvConfig)]
    for name in rules:
        if name not in known:
            raise ConfigError(f"there is no rule {name!r}; the rules are {', '.join(known)}")
    if config is not None:
        raise ConfigError(f"give a config or the rule {next(iter(rules))!r}, not both")
    return from_mapping(EnvConfig, rules)


def _rows(tape: MarketTape, start: str | None, end: str | None) -> slice:
    try:
        return rows_between(tape.timestamps, start, end)
    except DataError as error:
        raise ConfigError(str(error)) from None
