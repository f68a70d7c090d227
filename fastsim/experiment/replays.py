"""A policy on bars: alone, to be chosen by, and beside what needs no agent."""

from __future__ import annotations

from fastsim.backtest.benchmarks import EQUAL_WEIGHT, replay_benchmarks
from fastsim.backtest.history import History, join
from fastsim.backtest.replay import replay
from fastsim.backtest.summary import summarize
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.market.tape import MarketTape
from fastsim.policy.policy import Policy
from fastsim.progress import SILENT, Progress

AGENT = "agent"
BENCHMARK = EQUAL_WEIGHT
REPLAYS = 2
"""Replays of a comparison: the agent's, and that of everyone beside it."""
REPLAY_SECONDS = 1 / 20_000
"""What a bar of a replay takes, before any has been played."""


def play(
    who: Decider,
    tape: MarketTape,
    env: EnvConfig,
    name: str = AGENT,
    *,
    progress: Progress = SILENT,
) -> History:
    """Let who decides trade the whole tape once; a policy without exploration."""
    return replay(tape, who, [name], env, progress=progress)


def validate(
    policy: Policy, tape: MarketTape, env: EnvConfig, *, progress: Progress = SILENT
) -> dict[str, float]:
    """Figures by which the best policy is chosen, on bars that do not train it."""
    history = play(policy, tape, env, progress=progress)
    summary = summarize(history, periods_per_year=history.steps_per_year)
    growth = (history.wealth[-1, 0] / history.wealth[0, 0]).clamp_min(1e-9).log()
    return {
        "validation/log_growth": float(growth),
        "validation/sharpe_ratio": float(summary.sharpe_ratio[0]),
        "validation/max_drawdown": float(summary.max_drawdown[0]),
        "validation/turnover": float(summary.turnover[0]),
    }


def compare(
    who: Decider,
    tape: MarketTape,
    env: EnvConfig,
    name: str = AGENT,
    *,
    progress: Progress = SILENT,
) -> History:
    """Replay the agent, equal weight, buy and hold and every asset alone, at the same costs."""
    agent = play(who, tape, env, name, progress=progress)
    return join(agent, replay_benchmarks(tape, env, others=(name,), progress=progress))
