"""From an agent's folder to who decides and whose forecasts are looked at, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from fastsim.agent.artifact import (
    FORMAT,
    POLICY,
    STRATEGY,
    AgentSpec,
    read_json,
    read_spec,
    save_spec,
)
from fastsim.agent.learned import Learned
from fastsim.agent.signalling import Signalling
from fastsim.agent.who import Who
from fastsim.config import configuration, from_mapping, to_mapping, write_whole
from fastsim.errors import CheckpointError, ConfigError, one_line
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import load_ensemble
from fastsim.policy.folder import load_policy, save_policy
from fastsim.signals.config import SignalConfig


class Parts(NamedTuple):
    """What an agent is made of."""

    spec: AgentSpec
    who: Who
    forecaster: Forecaster | None


@configuration
class _Strategy:
    """What stands in `strategy.json`."""

    symbols: tuple[str, ...]
    signals: SignalConfig


def load_parts(folder: Path) -> Parts:
    """What lies in an agent's folder, or in that of a run.

    Raises
    ------
    ConfigError
        There is no such folder.
    CheckpointError
        A file is missing or damaged.
    ForecastError
        The forecaster's weights cannot be had.
    """
    folder = agent_folder(folder)
    spec = read_spec(folder)
    who = _load_who(folder)
    forecaster = None
    if spec.forecasters:
        forecaster = load_ensemble(
            spec.forecasters,
            spec.forecaster_weights or None,
            precision=spec.forecast.precision,
            implementation=spec.forecast.implementation,
            season=spec.forecast.season,
        )
    return Parts(spec, who, forecaster)


def save_parts(folder: Path, spec: AgentSpec, who: Who) -> None:
    """Write an agent's folder.

    Raises
    ------
    CheckpointError
        Weights of its forecaster cannot be copied.
    ConfigError
        There is an agent of the other kind.
    """
    other = POLICY if isinstance(who, Signalling) else STRATEGY
    if (folder / other).exists():
        raise ConfigError(f"{folder} holds another agent, with a {other}: choose another folder")
    if isinstance(who, Signalling):
        strategy = _Strategy(symbols=who.symbols, signals=who.decider.signals)
        mapping = {"format": FORMAT, **to_mapping(strategy)}
        write_whole(folder / STRATEGY, json.dumps(mapping, indent=2).encode())
    else:
        save_policy(who.policy, folder / POLICY)
    save_spec(folder, spec)


def _load_who(folder: Path) -> Who:
    """Whoever of them is there."""
    path = folder / STRATEGY
    if not path.exists():
        return Learned(load_policy(folder / POLICY))
    if (folder / POLICY).exists():
        raise CheckpointError(f"{folder} holds a {POLICY} and a {STRATEGY}: leave the agent's own")
    mapping = read_json(path, "strategy")
    try:
        strategy = from_mapping(_Strategy, mapping)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from None
    return Signalling(strategy.signals, strategy.symbols)


def agent_folder(folder: Path) -> Path:
    """The agent's own folder, given that or the run's.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name a run's, or its agent's")
    inner = folder / "agent"
    return inner if inner.is_dir() else folder
