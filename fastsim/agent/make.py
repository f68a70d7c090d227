"""From settings of a strategy on signals to an agent, as a run leaves one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastsim.agent.agent import Agent
from fastsim.agent.artifact import AgentSpec
from fastsim.agent.config import StrategyConfig
from fastsim.agent.folder import save_parts
from fastsim.agent.signalling import Signalling
from fastsim.agent.window import fields_of
from fastsim.data.bars import Bars
from fastsim.data.calendar import TradingCalendar
from fastsim.data.source import load_bars
from fastsim.errors import ConfigError
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.interface import check_horizon
from fastsim.forecast.registry import load_ensemble, parse_names
from fastsim.market.tape import make_tape


def agent_of(config: StrategyConfig, bars: Bars | None = None) -> Agent:
    """The agent of a strategy, by the bars that its settings name, or by these.

    Raises
    ------
    ConfigError, DataError, ForecastError
        The settings, the bars or the forecaster's weights are not what they have to be.
    """
    bars = load_bars(config.data) if bars is None else bars
    signals, names = config.signals, parse_names(config.signals.forecaster)
    seen = ForecastConfig(season=signals.season).for_bars(bars.timestamps)
    forecaster = load_ensemble(names, season=seen.season)
    card, length = forecaster.card, min(signals.context_length, forecaster.card.max_context)
    check_horizon(card, signals.horizon)
    if length < card.min_context:
        raise ConfigError(
            f"SignalConfig.context_length must be at least the {card.min_context} bars that "
            f"{card.name} reads, got {length}"
        )
    needed = replace(signals, context_length=length).bars_needed
    tape = make_tape(bars, config.tape)
    spec = AgentSpec(
        tape=replace(config.tape, fill=tape.fill),
        env=config.env,
        calendar=TradingCalendar.of(bars.timestamps, config.calendar),
        fields=fields_of(bars),
        bars_needed=max(needed, config.tape.features.bars_needed(bars.timestamps)),
        forecasters=names,
        forecast=replace(seen, horizons=(signals.horizon,), context_length=length),
        forecaster_key=forecaster.key,
    )
    return Agent(spec, Signalling(signals, bars.symbols), forecaster)


def make_agent(config: StrategyConfig, folder: Path) -> Agent:
    """Write the agent of a strategy into a folder, from which `Agent.load` has it.

    Raises
    ------
    ConfigError, DataError, ForecastError
        As `agent_of`; or the folder holds the agent of a run.
    CheckpointError
        Weights of its forecaster cannot be copied.
    """
    agent = agent_of(config)
    save_parts(folder, agent.spec, agent.who)
    return agent
