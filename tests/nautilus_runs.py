"""What tests of NautilusTrader share: whether it is here, and small runs that it plays."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch

from fastsim.agent.agent import Agent
from fastsim.backtest.history import History
from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.data.source import read_source
from fastsim.env.config import EnvConfig
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.markets import load_markets
from fastsim.experiment.replays import play
from fastsim.experiment.train import train
from fastsim.market.tape import MarketTape

COSTS = {"fee_bps": 5.0, "half_spread_bps": 0.0, "impact": 0.0}
SMALL = {
    "data": {"source": "tech4"},
    "total_steps": 4096,
    "evaluations": 1,
    "collect": {"num_envs": 64, "rollout_steps": 16},
    "policy": {"hidden": 16, "initial_std": 1.0},
}
RUNS: dict[str, dict[str, Any]] = {
    "open": {"forecaster": "fastsim-prior", "env": {"action": "logits", "costs": COSTS}},
    "close": {
        "forecaster": "fastsim-prior",
        "env": {"action": "logits", "costs": COSTS},
        "tape": {"fill": "close"},
    },
    "signed": {
        "forecaster": "none",
        "env": {
            "action": "signed",
            "max_gross": 1.5,
            "costs": {**COSTS, "half_spread_bps": 2.0, "borrow_bps_per_year": 0.0},
        },
    },
}
LEVERED = 12.0
"""By which the actor of a signed run is scaled: what it has learned is too timid to be levered."""
_KEPT: list[TemporaryDirectory[str]] = []


def require_nautilus() -> Any:
    """The adapter. Tests are skipped where NautilusTrader is missing; with FASTSIM_CLIENTS=nautilus
    that is a failure.
    """
    if os.environ.get("FASTSIM_CLIENTS") != "nautilus":
        pytest.importorskip("nautilus_trader")
    return import_module("fastsim.adapters.nautilus")


class Run(NamedTuple):
    """A run, its agent, and its own replay over the test bars."""

    folder: Path
    agent: Agent
    bars: Bars  # all that there are
    replay: History
    tape: MarketTape  # the test bars
    env: EnvConfig

    @property
    def span(self) -> dict[str, str]:
        """From the first decision to the last close."""
        return {"start": str(self.replay.timestamps[0]), "end": str(self.replay.timestamps[-1])}


@cache
def run_of(name: str) -> Run:
    """One of `RUNS`, trained when it is first asked for."""
    if not _KEPT:
        _KEPT.append(TemporaryDirectory())
    settings = SMALL | RUNS[name] | {"runs_dir": _KEPT[0].name, "name": name}
    folder = train(from_mapping(TrainConfig, settings))
    config, agent = read_run(folder), Agent.load(folder)
    if name == "signed":
        with torch.no_grad():
            agent.policy.actor.weight *= LEVERED
    tape = load_markets(config).test
    replay = play(agent.policy, tape, config.env)
    return Run(folder, agent, read_source(config.data), replay, tape, config.env)


@cache
def played(name: str, **rules: Any) -> History:
    """A run's test bars, as NautilusTrader's engine plays them."""
    adapter, run = require_nautilus(), run_of(name)
    history: History = adapter.backtest(
        run.agent, run.bars, **run.span, rules=adapter.VenueRules(**rules)
    )
    return history
