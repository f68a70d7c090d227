"""What an agent sees: a bar of the shared market, and its own portfolio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.config import EnvConfig
from fastsim.env.portfolio_columns import Standing, as_shown, look, portfolio_names
from fastsim.env.randomize import view_of
from fastsim.env.slots import View, look_up
from fastsim.env.state import EnvParams, EnvState, standing
from fastsim.env.window import window_at, window_names
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape


class Observation(NamedTuple):
    """An index into the market and what is the agent's own; all observations derive from it."""

    bar: Tensor  # [N]  int64, row of the tape's tables
    portfolio: Tensor  # [N, P]  as `PORTFOLIO_COLUMNS` says
    flat: Tensor | None = None  # [N, A F + P]  laid out already, by a fused backend
    view: View | None = None  # None where every agent sees the tape as it is


def feature_columns(symbols: Sequence[str], features: Sequence[str]) -> tuple[str, ...]:
    """Names of the A x F columns of a bar's features, asset by asset."""
    return tuple(f"{symbol}.{name}" for symbol in symbols for name in features)


def observation_names(tape: MarketTape, config: EnvConfig) -> tuple[str, ...]:
    """Names of the columns of an observation, by asset, or by slot where assets are drawn."""
    shown, own = as_shown(tape, config), portfolio_names(tape, config)
    if config.observation == "index":
        return own
    if config.observation == "window":
        return (*window_names(shown, config.window_length, config.window_columns), *own)
    return (*feature_columns(shown.symbols, shown.feature_names), *own)


def portfolio_width(tape: MarketTape, config: EnvConfig) -> int:
    """P, how many columns of an observation are the portfolio's."""
    return len(portfolio_names(tape, config))


def observe(params: EnvParams, state: EnvState, now: Standing | None = None) -> Observation:
    """What the agents see of this state, where they stand as `now` says, if it is known."""
    config, slots, episode = params.config, state.slots, state.episode
    now = now or standing(params, state)
    view = view_of(config.randomize, slots, state.key, episode.number, now.wealth.dtype)
    return Observation(episode.bar, look(params.rules.columns, now, slots), view=view)


def features_at(tape: MarketTape, bar: Tensor, view: View | None = None) -> Tensor:
    """Features [N, A, F] at `bar` [N] of the assets in their slots, at the episode's volatility."""
    known = tape.known
    if view is None:
        return known.features[bar]
    features = look_up(known.features, bar, view.slots)
    present = look_up(known.sigma, bar, view.slots) > 0  # a volatility that is unknown stays 0
    rise = torch.where(present, view.volatility.log()[:, None], 0.0)
    for column, name in enumerate(tape.feature_names):
        if name in tape.rising:
            features[..., column] += rise
    return features.clamp_(-FEATURE_LIMIT, FEATURE_LIMIT)


def flat_observation(tape: MarketTape, observation: Observation) -> Tensor:
    """Features of the bar and the portfolio [N, A F + P]."""
    if observation.flat is not None:
        return observation.flat
    features = features_at(tape, observation.bar, observation.view)
    return torch.cat([features.flatten(1), observation.portfolio], dim=-1)


def window_observation(tape: MarketTape, observation: Observation, config: EnvConfig) -> Tensor:
    """The last bars in the columns that the rules name, and the portfolio [N, L A C + P].

    The reference, which makes every number anew; `fastsim.env.window_tables` copies them.
    """
    length, names = config.window_length, config.window_columns
    window = window_at(tape, observation.bar, observation.view, length, names)
    columns = torch.cat([window.flatten(1), observation.portfolio], dim=-1)
    return columns.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
