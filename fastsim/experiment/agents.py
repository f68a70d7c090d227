"""What a run's agent needs to know once it is out of training."""

from __future__ import annotations

from dataclasses import replace

from fastsim.agent.artifact import AgentSpec
from fastsim.agent.window import fields_of
from fastsim.data.bars import Bars
from fastsim.data.calendar import TradingCalendar
from fastsim.experiment.config import TrainConfig
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.features import bars_needed
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import parse_names
from fastsim.market.tape import MarketTape
from fastsim.policy.spec import MLP


def agent_spec(
    config: TrainConfig, bars: Bars, rows: slice, tape: MarketTape, forecaster: Forecaster | None
) -> AgentSpec:
    """What an agent needs to know that learns from these rows of the bars."""
    needed = config.tape.features.bars_needed(bars.timestamps)
    if forecaster is not None:
        needed = max(needed, bars_needed(bars.timestamps, config.forecast, forecaster))
    if config.policy.encoder != MLP:
        needed += config.policy.window - 1
    return AgentSpec(
        tape=replace(config.tape, fill=tape.fill),
        env=config.env,
        calendar=TradingCalendar.of(bars.timestamps[rows], config.calendar),
        fields=fields_of(bars),
        bars_needed=needed,
        forecasters=parse_names(config.forecaster),
        forecast=config.forecast.for_bars(bars.timestamps),
        forecaster_weights=forecaster.weights if isinstance(forecaster, Ensemble) else (),
        forecaster_key="" if forecaster is None else forecaster.key,
    )
