"""A decision as the ledger keeps it: with what it came of, and what was forecast there."""

from __future__ import annotations

from collections.abc import Mapping

from fastsim.agent.agent import Agent
from fastsim.agent.decision import Decision
from fastsim.agent.fan import fan_at
from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.data.dates import show
from fastsim.live.records import Decided


def decided(agent: Agent, bars: Bars, decision: Decision, closes: Mapping[str, float]) -> Decided:
    """A decision by these bars, at closes by symbol."""
    why = decision.why
    told = {
        "observation": dict(why.observation),
        "forecast": dict(why.forecast),
        "bounds": list(why.bounds),
        "signals": {symbol: signal._asdict() for symbol, signal in why.signals.items()},
        "brackets": {symbol: bracket._asdict() for symbol, bracket in decision.brackets.items()},
        "fan": dict(fan_at(agent, bars)),
        "holds": decision.holds,
    }
    bar, state = show(decision.timestamp), to_mapping(decision.state)
    return Decided(bar, state, decision.weights, closes, told)
