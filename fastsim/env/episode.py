"""Where episodes start and end."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.env.random import draw_integers
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape

START_STREAM, STAGGER_STREAM, WORLD_STREAM = 0, 1, 2


@configuration
class EpisodeConfig:
    """Length and start of episodes."""

    horizon: int | None = 252
    """Steps until an episode is truncated; None runs to the end of the tape."""
    random_start: bool = True
    """Start anywhere that leaves room for the horizon, or always at the first bar."""
    staggered: bool = False
    """Cut each environment's first episode at random, so that later ends are spread out."""
    liquidate_at_end: bool = False
    """Sell everything at the last fill of an episode that reaches its end."""
    at_end: Literal["truncate", "terminate"] = "truncate"
    """What the end means: time is up in a task that would go on, or the task is done, as when a
    block had to be sold by then, and learners are to expect nothing from what follows."""

    def __post_init__(self) -> None:
        require_choice(self, "at_end")
        if self.horizon is not None:
            require_between(self, "horizon", 1)


class Episode(NamedTuple):
    """Where each of N environments is in its episode."""

    bar: Tensor  # [N]  int64, the bar of the next decision
    end: Tensor  # [N]  int64, the bar at which the episode is truncated
    number: Tensor  # [N]  int64, episodes begun before this one
    done: Tensor  # [N]  bool: ended, and begins anew at the next step


def check_worlds(tape: MarketTape, markets: int) -> None:
    """Raise ConfigError if there are more markets than the tape has worlds for."""
    room = tape.worlds // tape.worlds_per_market if tape.worlds_per_market else markets
    if markets > room:
        raise ConfigError(
            f"the tape has worlds for {room} markets, not for {markets}; "
            f"give FreshWorlds instead of a tape"
        )


def check_room(tape: MarketTape, config: EpisodeConfig) -> None:
    """Raise ConfigError if the tape is shorter than the horizon."""
    steps = tape.last - tape.first
    if config.horizon is not None and config.horizon > steps:
        raise ConfigError(
            f"EpisodeConfig.horizon = {config.horizon} is longer than the tape's {steps} steps; "
            f"use a shorter horizon, None, or more bars"
        )


def world_of(tape: MarketTape, key: Tensor, number: Tensor, players: int) -> Tensor:
    """World [N] of episode `number` [N]: the next of the market's own, or any one, drawn."""
    if tape.worlds_per_market:
        market = torch.arange(len(key), device=key.device) // players
        return market + number % tape.worlds_per_market * (tape.worlds // tape.worlds_per_market)
    return draw_integers(key, number, WORLD_STREAM, tape.worlds)


def begin(
    tape: MarketTape,
    config: EpisodeConfig,
    key: Tensor,
    number: Tensor,
    *,
    players: int = 1,
    first: bool = False,
    chosen: Tensor | None = None,
) -> Episode:
    """Begin episode `number` [N] of the environments with these keys [N], each in some world.

    It begins at the bar `chosen` [N] of its world, or where that is negative at one that is drawn.
    Who chooses a start sees the whole episode.
    """
    room = tape.last - tape.first - (config.horizon or 1)  # last start, relative to the first bar
    first_bar = torch.full_like(number, tape.first)
    if tape.worlds > 1:
        first_bar = first_bar + world_of(tape, key, number, players) * tape.bars_per_world
    start = first_bar
    if config.random_start:
        start = start + draw_integers(key, number, START_STREAM, room + 1)
    drawn = torch.ones_like(number, dtype=torch.bool) if chosen is None else chosen < 0
    if chosen is not None:
        start = torch.where(drawn, start, first_bar - tape.first + chosen)
    steps = tape.last - tape.first
    end = first_bar + steps if config.horizon is None else start + config.horizon
    if first and config.staggered:
        cut = start + 1 + draw_integers(key, number, STAGGER_STREAM, end - start)
        end = torch.where(drawn, cut, end)
    return Episode(start, end, number, torch.zeros_like(number, dtype=torch.bool))
