"""From what a caller of `make` writes to an environment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

from fastsim.adapters.sources import MarketSource, bars_of, settle_in_fork
from fastsim.config import from_mapping, require_count
from fastsim.data.bars import Bars
from fastsim.data.dates import rows_between
from fastsim.devices import resolve_device
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.choose import Backend
from fastsim.errors import ConfigError, DataError, did_you_mean
from fastsim.forecast.interface import Forecaster
from fastsim.market.costs import make_friction
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.synthetic.config import NO_MODEL, WorldsConfig
from fastsim.synthetic.fresh import FreshWorlds

__all__ = ["MarketSource", "build_env"]

SPELLED = ("render_mode", "max_episode_steps", "autoreset_mode")
"""Arguments that the adapters take beside those of `build_env`."""

Settings = TypeVar("Settings")


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
    config: EnvConfig | Mapping[str, Any] | None = None,
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
    forecaster, forecast
        Whose forecasts of one history are observed: names as `fastsim train` takes them, an
        artefact's path, or an object; and how, as a `ForecastConfig` or its fields. Columns and
        numbers are those of a training run. Weights that are to be fitted, `{"weights": "fit"}`,
        are fitted on the bars before `start`.
    forecasts_dir
        Where forecasts are kept once they are tabulated; training's place by default.
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
    require_count("num_envs", num_envs)
    if not isinstance(costs_per_env or {}, Mapping):
        raise ConfigError(f"costs_per_env must map costs to tensors, got {costs_per_env!r}")
    settled, place = _env_config(config, rules), resolve_device(device)
    lived_in = None if worlds is None else _settings(WorldsConfig, "worlds", worlds)
    asked = _asked(forecaster, forecast, forecasts_dir, dated=start is not None)
    if asked is not None:
        _require_history(market, lived_in)
    settle_in_fork(place)
    source = market if isinstance(market, MarketTape | FreshWorlds) else bars_of(market)
    ready, rows = _ready(source, tape, place), slice(None)
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


def _tape_config(tape: TapeConfig | Mapping[str, Any] | None) -> TapeConfig | None:
    return None if tape is None else _settings(TapeConfig, "tape", tape)


def _settings(cls: type[Settings], name: str, given: Any) -> Settings:
    if isinstance(given, Mapping):
        return from_mapping(cls, given)
    if not isinstance(given, cls):
        raise ConfigError(
            f"{name} must be a {cls.__name__} or a mapping of its fields, got {given!r}"
        )
    return given


def _env_config(
    config: EnvConfig | Mapping[str, Any] | None, rules: Mapping[str, Any]
) -> EnvConfig:
    if not rules:
        return EnvConfig() if config is None else _settings(EnvConfig, "config", config)
    known = [field.name for field in fields(EnvConfig)]
    for name in rules:
        if name not in known:
            taken = [other for other in inspect.signature(build_env).parameters if other != "rules"]
            near = did_you_mean(name, [*known, *taken, *SPELLED])
            if name in SPELLED:
                near = f"; {name} is for gymnasium.make and make_vec"
            raise ConfigError(f"there is no rule {name!r}; the rules are {', '.join(known)}{near}")
    if config is not None:
        raise ConfigError(f"give a config or the rule {next(iter(rules))!r}, not both")
    return from_mapping(EnvConfig, rules)


def _rows(tape: MarketTape, start: str | None, end: str | None) -> slice:
    try:
        return rows_between(tape.timestamps, start, end)
    except DataError as error:
        raise ConfigError(str(error)) from None
