"""A run on its own bars: the market, policy and rules that its evaluation has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastsim.agent.agent import Agent
from fastsim.data.source import load_bars
from fastsim.experiment.config import read_run
from fastsim.experiment.folder import policy_folder
from fastsim.experiment.markets import Markets, load_markets
from fastsim.experiment.replays import AGENT
from fastsim.experiment.stage import BacktestConfig, Stage, between
from fastsim.market.tape import MarketTape
from fastsim.policy.folder import load_policy
from fastsim.progress import Progress


def is_run(folder: Path) -> bool:
    """Whether training has left this folder."""
    return (folder / "config.yaml").exists()


def run_source(folder: Path) -> str:
    """Where a run has its bars from."""
    return read_run(folder).data.source


def run_stage(config: BacktestConfig, progress: Progress) -> Stage:
    """A run on its test bars, or on those of its bars that are asked for."""
    folder = Path(config.strategy)
    run = read_run(folder)
    policy = load_policy(policy_folder(folder))
    markets = load_markets(run, progress=progress)
    tape = _asked(markets, config)
    markets.seen.doubts(tape, bars="tested bars", strict=config.strict)
    seen = tape.first < markets.test.first
    note = "Some of these bars are not test bars: the agent or its selection has seen them."
    return Stage(
        policy.to(tape.device),
        AGENT,
        tape,
        config.rules(run.env),
        run.data.source,
        ((note,) if seen else ()) + markets.seen.notes(tape, bars="tested bars"),
    )


def deployed(stage: Stage, folder: Path) -> Stage:
    """The same with the run's agent, and the bars that it is to look back on.

    Raises
    ------
    CheckpointError
        The run left no agent.
    """
    return stage._replace(agent=Agent.load(folder), bars=load_bars(read_run(folder).data))


def _asked(markets: Markets, config: BacktestConfig) -> MarketTape:
    if config.start is None:
        return between(markets.test, config)
    return between(replace(markets.train, last=markets.test.last), config)
