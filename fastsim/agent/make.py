"""From settings of a strategy on signals to an agent, as a run leaves one."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path

from fastsim.agent.agent import Agent
from fastsim.agent.artifact import AgentSpec
from fastsim.agent.calendar import TradingCalendar
from fastsim.agent.folder import save_parts
from fastsim.agent.signalling import Signalling
from fastsim.agent.window import fields_of
from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.interface import check_horizon
from fastsim.forecast.registry import load_ensemble, parse_names
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.signals.config import SignalConfig
from fastsim.signals.strategy import SignalStrategy


@configuration
class StrategyConfig:
    """A strategy on signals with all that an agent of it is made from, as YAML holds it."""

    data: DataConfig = field(default_factory=DataConfig)
    """Bars by which it learns what it trades, which fields they have and when they are due."""
    tape: TapeConfig = field(default_factory=TapeConfig)
    """How bars become a market: the fill above all."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The rules that it trades by: costs, orders, and "signed" actions for shorts."""
    signals: SignalConfig = field(default_factory=SignalConfig)
    """Whose forecasts are traded on, when, how much of what, and until when."""

    def __post_init__(self) -> None:
        strategy = SignalStrategy(signals=self.signals)
        strategy.check(self.env)
        if self.env.action not in ("signed", strategy.answers):
            raise ConfigError(
                f"SignalConfig.sides = {self.signals.sides!r} needs "
                f"EnvConfig.action = {strategy.answers!r}, got {self.env.action!r}"
            )


def agent_of(config: StrategyConfig, bars: Bars | None = None) -> Agent:
    """The agent of a strategy, by the bars that its settings name, or by these.

    Raises
    ------
    ConfigError, DataError, ForecastError
        The settings, the bars or the forecaster's weights are not what they have to be.
    """
    bars = load_bars(config.data) if bars is None else bars
    signals, names = config.signals, parse_names(config.signals.forecaster)
    forecaster = load_ensemble(names)
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
        calendar=TradingCalendar.of(bars.timestamps),
        fields=fields_of(bars),
        bars_needed=max(needed, config.tape.features.bars_needed(bars.timestamps)),
        forecasters=names,
        forecast=ForecastConfig(horizons=(signals.horizon,), context_length=length),
        forecaster_key=forecaster.key,
    )
    return Agent(spec, Signalling(SignalStrategy(signals=signals), bars.symbols), forecaster)


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
