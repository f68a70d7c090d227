"""A decision, and what it came of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fastsim.agent.books import Held
from fastsim.agent.levels import Bracket, brackets_of
from fastsim.agent.orders import Target, asked_of, target_of
from fastsim.agent.state import AgentState
from fastsim.agent.who import Said, Signal
from fastsim.data.bars import Bars
from fastsim.env.actions import ACTIONS
from fastsim.env.brackets import Since
from fastsim.env.config import EnvConfig
from fastsim.market.margin import Margin


class Reasons(NamedTuple):
    """What a decision came of."""

    observation: Mapping[str, float]  # by column, `observation_names` of the environment
    forecast: Mapping[str, float]  # those of them that a forecaster said
    bounds: tuple[str, ...]  # of what was asked for and not given, in sentences
    signals: Mapping[str, Signal] = {}  # by symbol, of an agent that trades on signals


class Decision(NamedTuple):
    """What to hold from the next fill on."""

    timestamp: np.datetime64  # of the last bar
    weights: Mapping[str, float]  # by symbol, of the wealth after costs; the rest is cash
    orders: Mapping[str, float]  # shares to buy (positive) and sell, at the last close's price
    state: AgentState  # to be given to the next decision
    why: Reasons
    holds: bool = False  # nothing is to be traded: weights are those that are held
    brackets: Mapping[str, Bracket] = {}  # by symbol, of what is held once orders are filled


def decision_of(
    said: Said,
    held: Held,
    window: Bars,
    since: Since,
    after: AgentState,
    rules: EnvConfig,
    margin: Margin | None,
) -> Decision:
    """What was said at the last close of a window, by these rules, of what is held there."""
    target = target_of(said.action, held, window.close[-1], rules, margin)
    asked = {} if target.holds else asked_of(said.action, window.symbols, rules)
    state = replace(after, positions=said.positions, asked=asked)
    return Decision(
        timestamp=window.timestamps[-1],
        weights=dict(zip(window.symbols, target.weights.tolist(), strict=True)),
        orders=dict(zip(window.symbols, target.shares.tolist(), strict=True)),
        state=state,
        why=_reasons(said, target, window.symbols, rules),
        holds=target.holds,
        brackets=brackets_of(held, target.shares, since, window, state, rules.orders, margin),
    )


def _reasons(said: Said, target: Target, symbols: tuple[str, ...], rules: EnvConfig) -> Reasons:
    seen = said.observation
    forecast = {name: value for name, value in seen.items() if "forecast_" in name}
    cut = [symbol for symbol, beyond in zip(symbols, target.cut, strict=True) if beyond]
    bounds = _bounds(said.action, rules)
    if cut:
        bounds += (f"more of {', '.join(cut)} than the leverage is offered for: cut to that",)
    return Reasons(seen, forecast, bounds, said.signals)


def _bounds(action: Tensor, rules: EnvConfig) -> tuple[str, ...]:
    """What of an action [W] could not be given."""
    if ACTIONS.find(rules.action).brackets:
        action = action.chunk(3)[0]  # what follows are distances
    total, gross = float(action.clamp_min(0.0).sum()), float(action.abs().sum())
    told = []
    if rules.action == "weights":
        if total > 1.0:
            told.append(f"weights added up to {total:.3f}: scaled to 1")
        below = int((action < 0).sum())
        if below:
            told.append(f"{below} weights were below 0: none is sold short")
    elif rules.action in ("signed", "bracketed", "leveraged"):
        if gross > rules.max_gross:
            told.append(f"weights came to {gross:.3f} in gross: scaled to {rules.max_gross:g}")
        if float(action.sum()) > 1.0 and not ACTIONS.find(rules.action).owes:
            told.append(f"weights added up to {float(action.sum()):.3f}: scaled to 1")
    return tuple(told)
