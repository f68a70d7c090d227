"""From what a caller of `make` writes to an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
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
from fastsim.forecast.interface import Forecaster
from fastsim.market.costs import make_friction
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.synthetic.config import NO_MODEL, WorldsConfig
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
    forecaster: str | Path | Forecaster | None = None,
    forecast: Any = None,
    forecasts_dir: str | Path = "runs/forecasts",
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
    ForecastError
        Forecasts that cannot be had.
    """
    settled, lived_in = _env_config(config, rules), _worlds_config(worlds)
    asked = _asked(forecaster, forecast, forecasts_dir, dated=start is not None)
    if asked is not None:
        _require_history(market, lived_in)
    source = market if isinstance(market, MarketTape | FreshWorlds) else _bars(market)
    ready, rows = _ready(source, tape, resolve_device(device)), slice(None)
    if start is not None or end is not None:
        if isinstance(ready, FreshWorlds):
            raise ConfigError("start and end are days of a history; drop them with FreshWorlds")
        rows = _rows(ready, start, end)
        ready = ready.between(rows)
    if lived_in is not None:
        ready = _simulated(source, rows, ready, tape, lived_in)
    if asked is not None:
        ready = asked.added_to(ready, settled, rows.start or 0)
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
    worlds: WorldsConfig,
) -> MarketTape | FreshWorlds:
    """Worlds like these rows of the bars; the tape itself for the model "none"."""
    if not isinstance(source, Bars) or isinstance(ready, FreshWorlds):
        raise ConfigError(
            f"worlds are fitted to bars, not to a ready {type(source).__name__}; drop one of them"
        )
    fitted = worlds.fit(source.take(rows), ready, _tape_config(tape) or TapeConfig())
    return ready if fitted is None else fitted


def _worlds_config(worlds: WorldsConfig | Mapping[str, Any] | None) -> WorldsConfig | None:
    if worlds is None or isinstance(worlds, WorldsConfig):
        return worlds
    if not isinstance(worlds, Mapping):
        raise ConfigError(
            f'worlds must be a WorldsConfig or its fields, such as {{"model": "garch"}}, '
            f"got {worlds!r}"
        )
    return from_mapping(WorldsConfig, worlds)


def _asked(forecaster: Any, forecast: Any, folder: str | Path, *, dated: bool) -> Any:
    """Forecasts that are to be added to the market; None where nobody is asked."""
    if forecaster is None:
        if forecast is not None:
            raise ConfigError(
                "forecast has settings of a forecaster, and none is named: give one, such as "
                'forecaster="fastsim-prior", or drop forecast'
            )
        return None
    # Forecasters are imported when they are wanted: the hub's client alone takes half a second.
    return import_module("fastsim.adapters.forecasts").ask(
        forecaster, forecast, folder, dated=dated
    )


def _require_history(market: MarketSource, worlds: WorldsConfig | None) -> None:
    """Raise ConfigError where there is no single history to forecast."""
    simulated = isinstance(market, FreshWorlds) or (worlds and worlds.model != NO_MODEL)
    if simulated or (isinstance(market, MarketTape) and market.worlds > 1):
        raise ConfigError(
            "forecasts are tabulated for one history, not for worlds: drop the forecaster, or give "
            "the market of one history"
        )


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
