"""One step of N portfolios on one shared market: the reference that every backend is held to.

`step` is a function from state and action to state and transition, differentiable and free of host
reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from fastsim.config import require_between, require_choice
from fastsim.env.accounting import (
    Conditions,
    Outcome,
    Portfolio,
    advance,
    advance_with_impact,
    conditions_at,
    worth,
)
from fastsim.env.actions import ActionMode, target_weights
from fastsim.env.episode import Episode, EpisodeConfig, begin
from fastsim.env.impact import Displacement, ImpactConfig, undisturbed
from fastsim.env.observe import Observation, observe_portfolio
from fastsim.env.randomize import (
    RandomizeConfig,
    draw_friction,
    scale_conditions,
    scale_displacement,
)
from fastsim.env.reward import REWARDS, RewardConfig, RewardMemory, fresh_memory, measure_growth
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig, Friction
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape

Nested = TypeVar("Nested", bound="Tensor | tuple[Any, ...]")
MaybeNested = TypeVar("MaybeNested", bound="Tensor | tuple[Any, ...] | None")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig:
    """Everything an agent's world is made of, apart from the market itself."""

    action: ActionMode = "weights"
    max_gross: float = 1.0
    """Gross leverage, sum |w|, of signed weights."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    costs: CostConfig = field(default_factory=CostConfig)
    impact: ImpactConfig = field(default_factory=ImpactConfig)
    """How trades move prices; off by default."""
    randomize: RandomizeConfig = field(default_factory=RandomizeConfig)
    """What is drawn anew for every episode; nothing by default."""
    players: int = 1
    """Environments that share a market: rows 0 to P - 1 trade in the first, and so on."""
    initial_cash: float = 1_000_000.0
    initial_invested: float = 0.0
    """Share of the initial cash that episodes begin with in assets, equally, bought for nothing."""
    observation: Literal["flat", "index", "window"] = "flat"
    """Features of the bar; only its index; or the last `window_length` bars (costly)."""
    window_length: int = 32
    autoreset: Literal["next_step", "same_step"] = "next_step"

    def __post_init__(self) -> None:
        for name in ("action", "observation", "autoreset"):
            require_choice(self, name)
        require_between(self, "max_gross", 0, 4, open_low=True)
        require_between(self, "initial_cash", 0, open_low=True)
        require_between(self, "initial_invested", 0, 1)
        require_between(self, "window_length", 1)
        require_between(self, "players", 1)
        if self.action != "signed" and self.max_gross != 1.0:
            raise ConfigError(
                f'EnvConfig.max_gross = {self.max_gross!r} needs action="signed", '
                f"got action={self.action!r}"
            )


class EnvState(NamedTuple):
    """Everything that changes, for N environments."""

    portfolio: Portfolio
    displacement: Displacement
    episode: Episode
    peak: Tensor  # [N]  highest wealth of the episode
    memory: RewardMemory
    invalid_actions: Tensor  # [N]  int64, actions that were not finite, since the last reset
    key: Tensor  # [N]  int64, identity under the seed; players of a market share theirs

    @property
    def wealth(self) -> Tensor:
        """Value of everything held [N]: what selling it now would bring, where that differs."""
        if not self.displacement.exists:
            return self.portfolio.wealth
        players = len(self.key) // len(self.displacement.rate)
        return worth(self.portfolio, self.displacement.rate.repeat_interleave(players, 0))


class Transition(NamedTuple):
    """What a step returns."""

    observation: Observation  # of the next decision
    reward: Tensor  # [N]
    terminated: Tensor  # [N]  bool: ruined, or at an end that terminates
    truncated: Tensor  # [N]  bool: horizon or end of the tape
    restarted: Tensor  # [N]  bool: the row ignored its action and began an episode (next_step)
    final_observation: Observation | None  # where an episode ended, before its restart (same_step)
    outcome: Outcome  # of every row, a restarted row's to be ignored

    @property
    def ignored(self) -> Tensor:
        """Rows [N] whose action did nothing: restarted, or ruined and waiting for their market."""
        return self.restarted | (self.outcome.wealth_before <= 0)


class World(NamedTuple):
    """What does not change: the market, the frictions and the rules."""

    tape: MarketTape
    friction: Friction
    config: EnvConfig


def begin_state(world: World, key: Tensor, number: Tensor, *, first: bool = False) -> EnvState:
    """The start of episode `number` [N] of the environments `key` [N]: all cash, or invested."""
    tape, config = world.tape, world.config
    episode = begin(tape, config.episode, key, number, first=first)
    markets = episode.bar[:: config.players]  # [M]
    known = tape.known
    displacement = scale_displacement(
        config.randomize,
        undisturbed(config.impact, known.sigma[markets], known.dollar_volume[markets]),
        key[:: config.players],
        number[:: config.players],
    )
    portfolio = endowment(world, episode.bar)
    state = EnvState(
        portfolio=portfolio,
        displacement=displacement,
        episode=episode,
        peak=portfolio.cash,
        memory=fresh_memory(portfolio.cash),
        invalid_actions=torch.zeros_like(number),
        key=key,
    )
    return state._replace(peak=state.wealth)


def endowment(world: World, bar: Tensor) -> Portfolio:
    """What episodes that begin at `bar` [N] begin with: cash, and equal parts of what is listed."""
    tape, config = world.tape, world.config
    cash = torch.full(bar.shape, config.initial_cash, device=tape.device, dtype=tape.dtype)
    holdings = cash.new_zeros(len(bar), tape.num_assets)
    if config.initial_invested > 0:
        listed = tape.known.listed[bar].to(cash.dtype)
        each = config.initial_invested * cash / listed.sum(-1).clamp_min(1.0)
        holdings = listed * each[:, None]
        cash = cash - holdings.sum(-1)
    return Portfolio(holdings, cash)


def restart(world: World, state: EnvState) -> EnvState:
    """The next episode of every environment."""
    fresh = begin_state(world, state.key, state.episode.number + 1)
    return fresh._replace(invalid_actions=state.invalid_actions)


def observe(world: World, state: EnvState) -> Observation:
    """What the agents see of this state."""
    own = observe_portfolio(state.portfolio, state.wealth, state.peak, world.config.initial_cash)
    if state.displacement.exists:
        own = torch.cat([own, observe_displacement(state, world.config.players)], dim=-1)
    return Observation(state.episode.bar, own)


def observe_displacement(state: EnvState, players: int) -> Tensor:
    """Transient displacement of each asset's price [N, A], in hundredths, as agents see it."""
    return (100.0 * state.displacement.transient).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)[
        torch.arange(len(state.key), device=state.key.device) // players
    ]


def meet(world: World, state: EnvState) -> tuple[Conditions, Friction]:
    """The market and the costs that every environment is about to meet in its episode."""
    config, key, number = world.config.randomize, state.key, state.episode.number
    market = conditions_at(world.tape, state.episode.bar)
    return (
        scale_conditions(config, market, key, number),
        draw_friction(config, world.friction, key, number),
    )


def trade_and_move(
    world: World, state: EnvState, action: Tensor
) -> tuple[EnvState, Tensor, Outcome]:
    """Carry every environment from one close to the next; returns state, reward [N], outcome."""
    config = world.config
    weights, invalid = target_weights(action, config.action, config.max_gross)
    hold = invalid
    bar = state.episode.bar + 1
    last = bar >= state.episode.end
    if config.episode.liquidate_at_end:
        weights, hold = torch.where(last[:, None], 0.0, weights), invalid & ~last
    market, friction = meet(world, state)
    displacement = state.displacement
    if displacement.exists:
        portfolio, displacement, outcome = advance_with_impact(
            state.portfolio, displacement, weights, hold, market, friction, config.impact
        )
    else:
        portfolio, outcome = advance(state.portfolio, weights, hold, market, friction)
    if config.players > 1:
        portfolio = _close_accounts(portfolio, outcome.ruined)
    peak = torch.maximum(state.peak, outcome.wealth)
    left = torch.where(outcome.ruined, 0.0, outcome.wealth)  # ruin is final, whatever comes after
    growth = measure_growth(outcome.wealth_before, left, state.peak, peak, market.market_return)
    reward, memory = REWARDS[config.reward.kind](growth, state.memory, config.reward)
    moved = state._replace(
        portfolio=portfolio,
        displacement=displacement,
        episode=state.episode._replace(bar=bar, done=_over(outcome.ruined, config.players) | last),
        peak=peak,
        memory=memory,
        invalid_actions=state.invalid_actions + invalid,
    )
    return moved, torch.where(outcome.wealth_before > 0, reward, 0.0), outcome


def _close_accounts(portfolio: Portfolio, ruined: Tensor) -> Portfolio:
    """Take all from the ruined [N], or prices could bring back to life who waits for the others.

    Their positions are taken over at no cost and without an order: they move no price.
    """
    return Portfolio(
        torch.where(ruined[:, None], 0.0, portfolio.holdings),
        torch.where(ruined, 0.0, portfolio.cash),
    )


def _over(ruined: Tensor, players: int) -> Tensor:
    """Which episodes [N] end for want of players: those of markets where everyone is ruined."""
    return ruined.view(-1, players).all(1).repeat_interleave(players)


def step(world: World, state: EnvState, action: Tensor) -> tuple[EnvState, Transition]:
    """Step every environment once; `action` is [N, A], or [N, A + 1] for logits.

    Under `next_step`, an environment whose episode has ended ignores its action and begins the
    next, with reward 0. Under `same_step` it begins the next in the step that ended it, and the
    last observation of the old episode is `final_observation`. A player who is ruined among others
    is terminated then, trades no more, and begins again with its market.
    """
    moved, reward, outcome = trade_and_move(world, state, action)
    done = moved.episode.done
    final = None
    if world.config.autoreset == "next_step":
        restarted = state.episode.done
        after = select(restarted, restart(world, state), moved)
        done = done & ~restarted
        reward = torch.where(restarted, 0.0, reward)
    else:
        restarted = torch.zeros_like(done)
        final = observe(world, moved)
        after = select(done, restart(world, moved), moved)
    alive = (outcome.wealth_before > 0) & ~restarted
    over = world.config.episode.at_end == "terminate"
    terminated = outcome.ruined | done if over else outcome.ruined
    return after, Transition(
        observation=observe(world, after),
        reward=reward,
        terminated=terminated & alive,
        truncated=done & ~terminated,
        restarted=restarted,
        final_observation=final,
        outcome=outcome,
    )


def select(mask: Tensor, chosen: Nested, other: Nested) -> Nested:
    """Rows of `chosen` where `mask` [N], else rows of `other`, through nested named tuples."""
    if isinstance(chosen, Tensor):
        mask = mask[:: len(mask) // max(len(chosen), 1)]  # one row per market, or per environment
        rows = mask.view(-1, *(1,) * (chosen.dim() - 1))
        return cast(Nested, torch.where(rows, chosen, cast(Tensor, other)))
    pairs = zip(chosen, cast(tuple[Any, ...], other), strict=True)
    build = cast(Callable[..., Nested], type(chosen))
    return build(*(select(mask, new, old) for new, old in pairs))


def copy(state: Nested) -> Nested:
    """A state with tensors of its own, through nested named tuples."""
    if isinstance(state, Tensor):
        return cast(Nested, state.clone())
    build = cast(Callable[..., Nested], type(state))
    return build(*(copy(part) for part in state))


def take(nested: MaybeNested, rows: Tensor) -> MaybeNested:
    """These rows of every tensor of nested named tuples; what is None stays so."""
    if nested is None:
        return nested
    if isinstance(nested, Tensor):
        return cast(MaybeNested, nested[rows])
    parts = cast(tuple[Any, ...], nested)
    return cast(MaybeNested, cast(Any, type(parts))(*(take(part, rows) for part in parts)))
