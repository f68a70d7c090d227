"""One step of N portfolios on one shared market: the reference that every backend is held to.

`step` is a function from state and action to state and transition, differentiable and free of host
reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.accounting import Outcome, advance, close_accounts
from fastsim.env.actions import asked_distances, target_weights
from fastsim.env.nested import select
from fastsim.env.observe import Observation, observe
from fastsim.env.orders import Wish
from fastsim.env.randomize import draw_friction, restrict_conditions, volatility_of
from fastsim.env.reward import measure_growth
from fastsim.env.slots import masked, to_assets
from fastsim.env.state import EnvParams, EnvState, restart, standing
from fastsim.extensions import checked
from fastsim.market.conditions import Conditions, conditions_at, conditions_on_close, scaled
from fastsim.market.costs import Friction


class Transition(NamedTuple):
    """What a step returns."""

    observation: Observation  # of the next decision
    reward: Tensor  # [N]
    terminated: Tensor  # [N]  bool: ruined, or at an end that terminates
    truncated: Tensor  # [N]  bool: horizon or end of the tape
    restarted: Tensor  # [N]  bool: the row ignored its action and began an episode (next_step)
    final_observation: Observation | None  # where an episode ended, before its restart (same_step)
    outcome: Outcome  # a restarted row's is that of an account to which nothing happened

    @property
    def ignored(self) -> Tensor:
        """Rows [N] whose action did nothing: restarted, or ruined and waiting for their market."""
        return self.restarted | (self.outcome.wealth_before <= 0)


def meet(params: EnvParams, state: EnvState) -> tuple[Conditions, Friction]:
    """The market and the costs that every environment is about to meet in its episode."""
    config, key, number = params.config.randomize, state.key, state.episode.number
    market, factor = conditions_at(params.tape, state.episode.bar), _volatility(params, state)
    if factor is not None:
        market = scaled(market, params.tape.next.columns, factor)
    return (
        restrict_conditions(market, state.slots),
        draw_friction(config, params.friction, key, number),
    )


def meet_closing(params: EnvParams, state: EnvState, market: Conditions) -> Conditions | None:
    """What holds at the close that `market` leads to; None if the fill is the last trade."""
    if params.config.orders.maintenance_margin == 0 and not params.config.closes_within:
        return None
    bar = (state.episode.bar + 1).clamp_max(len(params.tape) - 1)  # rows that restart are past it
    return conditions_on_close(params.tape, market, bar, _volatility(params, state))


def _volatility(params: EnvParams, state: EnvState) -> Tensor | None:
    """Factor [N] on log returns, in the type of the tape; None where it is not drawn."""
    factor = volatility_of(params.config.randomize, state.key, state.episode.number)
    return None if factor is None else factor.to(params.tape.dtype)


def trade_and_move(
    params: EnvParams, state: EnvState, action: Tensor
) -> tuple[EnvState, Tensor, Outcome]:
    """Carry every environment from one close to the next; returns state, reward [N], outcome."""
    config, rules = params.config, params.rules
    weights, invalid = target_weights(action, rules.action, config.max_gross, masked(state.slots))
    checked("action mode", rules.action, weights, (len(state.key), params.tape.num_assets))
    weights = to_assets(weights, state.slots)
    hold = invalid
    if config.orders.carries:
        invalid = invalid & ~action.isnan().all(-1)  # a row of NaN alone leaves its orders open
    bar = state.episode.bar + 1
    last = bar >= state.episode.end
    if config.episode.liquidate_at_end:
        weights, hold = torch.where(last[:, None], 0.0, weights), hold & ~last
    market, friction = meet(params, state)
    closing = meet_closing(params, state, market)
    asked = asked_distances(action, rules.action)
    away = () if asked is None else (to_assets(each, state.slots) for each in asked)
    wish = Wish(weights, hold, *away)
    account, outcome = advance(state.account, wish, market, friction, rules.terms, closing)
    if config.players > 1:
        account = close_accounts(account, outcome.ruined)
    peak = torch.maximum(state.peak, outcome.wealth)
    growth = measure_growth(outcome, state.peak, peak, market.market_return)
    reward, memory = rules.reward.measure(growth, state.memory, config.reward)
    checked("reward", rules.reward, reward, peak.shape)
    done = _over(outcome.ruined, config.players) | last
    moved = EnvState(
        **account._asdict(),
        episode=state.episode._replace(bar=bar, done=done),
        peak=peak,
        memory=memory,
        invalid_actions=state.invalid_actions + invalid,
        key=state.key,
        slots=state.slots,
    )
    return moved, torch.where(outcome.wealth_before > 0, reward, 0.0), outcome


def _over(ruined: Tensor, players: int) -> Tensor:
    """Which episodes [N] end for want of players: those of markets where everyone is ruined."""
    return ruined.view(-1, players).all(1).repeat_interleave(players)


def step(params: EnvParams, state: EnvState, action: Tensor) -> tuple[EnvState, Transition]:
    """Step every environment once; `action` is [N, A], or [N, A + 1] for logits.

    Under `next_step`, an environment whose episode has ended ignores its action and begins the
    next, with reward 0. Under `same_step` it begins the next in the step that ended it, and the
    last observation of the old episode is `final_observation`. A player who is ruined among others
    is terminated then, trades no more, and begins again with its market.
    """
    moved, reward, outcome = trade_and_move(params, state, action)
    done = moved.episode.done
    final = None
    if params.config.autoreset == "next_step":
        restarted = state.episode.done
        after = select(restarted, restart(params, state), moved)
        done = done & ~restarted
        reward = torch.where(restarted, 0.0, reward)
    else:
        restarted = torch.zeros_like(done)
        final = observe(params, moved)
        after = select(done, restart(params, moved), moved)
    alive = (outcome.wealth_before > 0) & ~restarted
    over = params.config.episode.at_end == "terminate"
    terminated = outcome.ruined | done if over else outcome.ruined
    now = standing(params, after)
    if params.config.autoreset == "next_step":
        outcome = outcome.still_where(restarted, now.wealth, after.portfolio.holdings)
    return after, Transition(
        observation=observe(params, after, now),
        reward=reward,
        terminated=terminated & alive,
        truncated=done & ~terminated,
        restarted=restarted,
        final_observation=final,
        outcome=outcome,
    )
