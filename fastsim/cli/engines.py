"""Who plays a backtest of the command line: fastsim, or a program that is installed beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec

from fastsim.agent.agent import Agent
from fastsim.backtest.history import History
from fastsim.data.dates import show
from fastsim.errors import ConfigError
from fastsim.experiment.backtest import Engine
from fastsim.experiment.stage import Stage


def itself() -> None:
    """No other engine than fastsim."""
    return


def nautilus() -> Engine:
    """NautilusTrader; ConfigError if it is not installed."""
    if find_spec("nautilus_trader") is None:
        raise ConfigError(
            "--engine nautilus needs NautilusTrader, which is not installed: "
            "pip install 'fastsim-rl[nautilus]'"
        )
    return play_by_nautilus


def play_by_nautilus(stage: Stage) -> History:
    """The agent's history as NautilusTrader's engine fills its orders, at the rules of the stage.

    Raises
    ------
    ConfigError
        A benchmark is to be played.
    DataError
        NautilusTrader or the agent cannot use the bars.
    """
    from fastsim.adapters.nautilus.runs import backtest  # noqa: PLC0415

    if stage.agent is None or stage.bars is None:
        raise ConfigError(
            f"--engine nautilus plays agents and strategies, and {stage.name} is a benchmark: "
            f"leave --engine out"
        )
    told, tape = stage.agent, stage.tape
    agent = Agent(replace(told.spec, env=stage.rules), told.who, told.forecaster)
    first, last = (show(tape.timestamps[row]) for row in (tape.first, tape.last))
    return backtest(agent, stage.bars, start=first, end=last, name=stage.name)


ENGINES: Mapping[str, Callable[[], Engine | None]] = {"fastsim": itself, "nautilus": nautilus}
"""By the names that `--engine` has."""
