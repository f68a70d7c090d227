"""One step of N portfolios on one shared market: the reference that every backend is held to.

`step` is a function from state and action to state and transition, differentiable and free of host
reads.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.env.accounting import Account, Outcome, Portfolio, Terms, advance, worth
from fastsim.env.actions import ActionMode, target_weights
from fastsim.env.conditions import Conditions, conditions_at, conditions_on_close
from fastsim.env.episode import Episode, EpisodeConfig, begin
from fastsim.env.impact import Displacement, ImpactConfig, undisturbed
from fastsim.env.nested import select
from fastsim.env.observe import Observation, observe_portfolio, relative_to
from fastsim.env.orders import OrderConfig, Wish
from fastsim.env.randomize import (
    RandomizeConfig,
    draw_friction,
    restrict_conditions,
    scale_conditions,
    scale_displacement,
    view_of,
)
from fastsim.env.reward import REWARDS, RewardConfig, RewardMemory, fresh_memory, measure_growth
from fastsim.env.slots import draw_slots, drawn_assets, masked, to_assets, to_slots
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig, Friction
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape


@configuration
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
    orders: OrderConfig = field(default_factory=OrderConfig)
    """How orders are filled, and when a broker steps in."""
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
        _check_together(self)


def _check_together(config: EnvConfig) -> None:
    """Raise ConfigError for rules that contradict one another."""
    if config.action != "signed" and config.max_gross != 1.0:
        raise ConfigError(
            f'EnvConfig.max_gross = {config.max_gross!r} needs action="signed", '
            f"got action={config.action!r}"
        )
    if config.max_gross * config.orders.maintenance_margin >= 1.0:
        raise ConfigError(
            f"orders.maintenance_margin = {config.orders.maintenance_margin!r} would be called "
            f"at once on a gross leverage of max_gross = {config.max_gross!r}: their product "
            f"must be < 1"
        )
    if config.orders.whole_shares and config.impact.moves_prices:
        raise ConfigError(
            "orders.whole_shares counts shares at the prices of the data, and impact moves "
            "them: use one or the other"
        )
    if config.randomize.price_impact and not config.impact.moves_prices:
        raise ConfigError(
            "randomize.price_impact is a factor on impact, which is off: set "
            "impact.transient or impact.permanent, or leave it out"
        )
    by_share = config.orders.whole_shares or config.costs.fee_per_share > 0
    if by_share and config.randomize.volatility:
        raise ConfigError(
            "orders.whole_shares and costs.fee_per_share count shares at the prices of the "
            "data, and randomize.volatility draws others: use one or the other"
        )


class EnvState(NamedTuple):
    """Everything that changes, for N environments."""

    portfolio: Portfolio
    displacement: Displacement
    open_orders: Tensor  # [N, A]  what orders still lack; without columns where none are carried
    episode: Episode
    peak: Tensor  # [N]  highest wealth of the episode
    memory: RewardMemory
    invalid_actions: Tensor  # [N]  int64, actions that were not finite, since the last reset
    key: Tensor  # [N]  int64, identity under the seed; players of a market share theirs
    slots: Tensor  # [N, A]  int64, assets as agents are shown them; [N, 0] if as they are

    @property
    def account(self) -> Account:
        """What the books are about."""
        return Account(self.portfolio, self.displacement, self.open_orders)

    @property
    def wealth(self) -> Tensor:
        """Value of everything held [N]: what selling it now would bring, where that differs."""
        return worth(self.account)


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


class EnvParams(NamedTuple):
    """What does not change: the market, the frictions and the rules."""

    tape: MarketTape
    friction: Friction
    config: EnvConfig


def begin_state(params: EnvParams, key: Tensor, number: Tensor, *, first: bool = False) -> EnvState:
    """The start of episode `number` [N] of the environments `key` [N]: all cash, or invested."""
    tape, config = params.tape, params.config
    episode = begin(tape, config.episode, key, number, players=config.players, first=first)
    markets = episode.bar[:: config.players]  # [M]
    known = tape.known
    displacement = scale_displacement(
        config.randomize,
        undisturbed(config.impact, known.sigma[markets], known.dollar_volume[markets]),
        key[:: config.players],
        number[:: config.players],
    )
    slots = draw_slots(config.randomize.assets, tape.num_assets, key, number)
    portfolio = endowment(params, episode.bar, slots)
    state = EnvState(
        portfolio=portfolio,
        displacement=displacement,
        open_orders=torch.zeros_like(portfolio.holdings[:, : _carried(params)]),
        episode=episode,
        peak=portfolio.cash,
        memory=fresh_memory(portfolio.cash),
        invalid_actions=torch.zeros_like(number),
        key=key,
        slots=slots,
    )
    return state._replace(peak=state.wealth)


def _carried(params: EnvParams) -> int:
    """Columns of open orders."""
    return params.tape.num_assets if params.config.orders.carries else 0


def endowment(params: EnvParams, bar: Tensor, slots: Tensor) -> Portfolio:
    """What episodes that begin at `bar` [N] begin with: cash, and equal parts of what is listed."""
    tape, config = params.tape, params.config
    cash = torch.full(bar.shape, config.initial_cash, device=tape.device, dtype=tape.dtype)
    holdings = cash.new_zeros(len(bar), tape.num_assets)
    if config.initial_invested > 0:
        drawn = drawn_assets(slots, tape.num_assets)
        listed = (tape.known.listed[bar] & drawn).to(cash.dtype)
        each = config.initial_invested * cash / listed.sum(-1).clamp_min(1.0)
        holdings = listed * each[:, None]
        cash = cash - holdings.sum(-1)
    return Portfolio(holdings, cash)


def restart(params: EnvParams, state: EnvState) -> EnvState:
    """The next episode of every environment."""
    fresh = begin_state(params, state.key, state.episode.number + 1)
    return fresh._replace(invalid_actions=state.invalid_actions)


def observe(params: EnvParams, state: EnvState) -> Observation:
    """What the agents see of this state."""
    config, slots, wealth = params.config, state.slots, state.wealth
    shown = state.portfolio._replace(holdings=to_slots(state.portfolio.holdings, slots))
    columns = [observe_portfolio(shown, wealth, state.peak, config.initial_cash)]
    if state.displacement.exists or config.orders.carries:
        columns.append(to_slots(observe_displacement(params, state), slots))
    if config.orders.carries:
        columns.append(relative_to(wealth, to_slots(state.open_orders, slots)))
    view = view_of(config.randomize, slots, state.key, state.episode.number, wealth.dtype)
    return Observation(state.episode.bar, torch.cat(columns, dim=-1), view=view)


def observe_displacement(params: EnvParams, state: EnvState) -> Tensor:
    """Transient displacement of each asset's price [N, A], in hundredths, as agents see it."""
    if not state.displacement.exists:
        return torch.zeros_like(state.portfolio.holdings)
    players = params.config.players
    displaced = (100.0 * state.displacement.transient).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
    return displaced.repeat_interleave(players, 0)


def meet(params: EnvParams, state: EnvState) -> tuple[Conditions, Friction]:
    """The market and the costs that every environment is about to meet in its episode."""
    config, key, number = params.config.randomize, state.key, state.episode.number
    market = conditions_at(params.tape, state.episode.bar)
    market = scale_conditions(config, market, key, number)
    return (
        restrict_conditions(market, state.slots),
        draw_friction(config, params.friction, key, number),
    )


def meet_margin_call(params: EnvParams, state: EnvState, market: Conditions) -> Conditions | None:
    """What forced sales would meet at the close that `market` leads to; None if there are none."""
    config = params.config
    if config.orders.maintenance_margin == 0:
        return None
    bar = (state.episode.bar + 1).clamp_max(len(params.tape) - 1)  # rows that restart are past it
    closing = conditions_on_close(params.tape, market, bar)
    return scale_conditions(config.randomize, closing, state.key, state.episode.number)


def trade_and_move(
    params: EnvParams, state: EnvState, action: Tensor
) -> tuple[EnvState, Tensor, Outcome]:
    """Carry every environment from one close to the next; returns state, reward [N], outcome."""
    config = params.config
    weights, invalid = target_weights(action, config.action, config.max_gross, masked(state.slots))
    weights = to_assets(weights, state.slots)
    hold = invalid
    if config.orders.carries:
        invalid = invalid & ~action.isnan().all(-1)  # a row of NaN alone leaves its orders open
    bar = state.episode.bar + 1
    last = bar >= state.episode.end
    if config.episode.liquidate_at_end:
        weights, hold = torch.where(last[:, None], 0.0, weights), hold & ~last
    market, friction = meet(params, state)
    closing = meet_margin_call(params, state, market)
    terms = Terms(config.impact, config.orders)
    account, outcome = advance(state.account, Wish(weights, hold), market, friction, terms, closing)
    if config.players > 1:
        account = _close_accounts(account, outcome.ruined)
    peak = torch.maximum(state.peak, outcome.wealth)
    left = torch.where(outcome.ruined, 0.0, outcome.wealth)  # ruin is final, whatever comes after
    growth = measure_growth(outcome.wealth_before, left, state.peak, peak, market.market_return)
    reward, memory = REWARDS[config.reward.kind](growth, state.memory, config.reward)
    moved = state._replace(
        **account._asdict(),
        episode=state.episode._replace(bar=bar, done=_over(outcome.ruined, config.players) | last),
        peak=peak,
        memory=memory,
        invalid_actions=state.invalid_actions + invalid,
    )
    return moved, torch.where(outcome.wealth_before > 0, reward, 0.0), outcome


def _close_accounts(account: Account, ruined: Tensor) -> Account:
    """Take all from the ruined [N], or prices could bring back to life who waits for the others.

    Their positions are taken over at no cost and without an order: they move no price.
    """
    (holdings, cash), solvent = account.portfolio, ~ruined[:, None]
    return account._replace(
        portfolio=Portfolio(torch.where(solvent, holdings, 0.0), torch.where(ruined, 0.0, cash)),
        open_orders=torch.where(solvent, account.open_orders, 0.0),
    )


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
    return after, Transition(
        observation=observe(params, after),
        reward=reward,
        terminated=terminated & alive,
        truncated=done & ~terminated,
        restarted=restarted,
        final_observation=final,
        outcome=outcome,
    )
