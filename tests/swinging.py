"""Agents whose actions swing, without training: they open, turn, and are stopped out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastsim.agent.agent import Agent
from fastsim.agent.folder import save_parts
from fastsim.agent.learned import Learned
from fastsim.config import from_mapping
from fastsim.env.actions import ACTIONS
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import Markets, load_markets
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec


def swinging(folder: Path, env: dict[str, Any], **settings: Any) -> tuple[Agent, Markets]:
    """An agent in a folder, by these rules, and the markets of its run."""
    given = {"data": {"source": "tech4"}, "forecaster": "none", "env": env} | settings
    config = from_mapping(TrainConfig, given)
    markets, generator = load_markets(config), torch.Generator().manual_seed(0)
    spec = make_spec(markets.train, config.env, PolicyConfig(hidden=16))
    policy = new_policy(spec, markets.train, seed=0)
    for part in (policy.portfolio_hidden, policy.actor):
        part.weight.data += 0.3 * torch.randn(part.weight.shape, generator=generator)
    if ACTIONS.find(config.env.action).brackets:
        policy.actor.weight.data[len(spec.symbols) :] *= 0.05  # distances of some hundredths
    save_parts(folder, markets.agent, Learned(policy))
    return Agent.load(folder), markets
