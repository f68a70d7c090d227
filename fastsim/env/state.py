"""What an environment is made of: what changes, what does not, and how episodes begin."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsim.env.accounting import Account, Portfolio, Terms, worth
from fastsim.env.actions import ACTIONS, ActionMode
from fastsim.env.brackets import Since, entered_now
from fastsim.env.config import EnvConfig
from fastsim.env.episode import Episode, begin, check_room, check_worlds
from fastsim.env.impact import Displacement, check_volume, undisturbed
from fastsim.env.perpetual import check_market, market_margin, without_lending
from fastsim.env.portfolio_columns import PortfolioColumn, Standing, portfolio_columns
from fastsim.env.randomize import check_assets, scale_displacement
from fastsim.env.reward import REWARDS, Reward
from fastsim.env.slots import draw_slots, drawn_assets
from fastsim.env.window import check_columns
from fastsim.market.costs import Friction, costs_of
from fastsim.market.tape import MarketTape


class EnvState(NamedTuple):
    """Everything that changes, for N environments."""

    portfolio: Portfolio
    displacement: Displacement
    open_orders: Tensor  # [N, A]  what orders still lack; without columns where none are carried
    carry: Tensor  # [N]  of the cash, what its type cannot hold; see `accounting.receive`
    since: Since  # [N, A] each, how prices stand to entries; see `brackets`
    episode: Episode
    peak: Tensor  # [N]  highest wealth of the episode
    memory: Any  # what the reward remembers: a `NamedTuple` of tensors [N, ...]
    invalid_actions: Tensor  # [N]  int64, actions that were not finite, since the last reset
    key: Tensor  # [N]  int64, identity under the seed; players of a market share theirs
    slots: Tensor  # [N, A]  int64, assets as agents are shown them; [N, 0] if as they are

    @property
    def account(self) -> Account:
        """What the books are about."""
        return Account(**{name: getattr(self, name) for name in Account._fields})

    @property
    def wealth(self) -> Tensor:
        """Value of everything held [N]: what selling it now would bring, where that differs."""
        return worth(self.account)


def standing(params: EnvParams, state: EnvState) -> Standing:
    """Where the accounts of this state stand."""
    return Standing(
        account=state.account,
        wealth=state.wealth,
        peak=state.peak,
        episode=state.episode,
        tape=params.tape,
        config=params.config,
    )


class Rules(NamedTuple):
    """What the names in a configuration stand for."""

    terms: Terms
    reward: Reward
    action: ActionMode
    columns: tuple[PortfolioColumn, ...]


class EnvParams(NamedTuple):
    """What does not change: the market, the frictions and the rules."""

    tape: MarketTape
    friction: Friction
    config: EnvConfig
    rules: Rules

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles look up again what the names stand for: functions are not copied."""
        return make_params, (self.tape, self.friction, self.config)


def check_fit(tape: MarketTape, config: EnvConfig, markets: int) -> None:
    """Raise ConfigError if the rules ask of the tape what it has not."""
    check_room(tape, config.episode)
    check_assets(tape, config.randomize)
    check_market(tape, config.perpetual)
    if config.observation == "window":
        check_columns(tape, config.window_columns)
    check_worlds(tape, markets)
    if config.impact.moves_prices:
        check_volume(tape)


def equipped(tape: MarketTape, config: EnvConfig) -> MarketTape:
    """The tape with what these rules need of it; DataError if the data has not got that."""
    if config.perpetual.trades:
        tape = without_lending(tape)
    return tape.with_extremes() if config.closes_within else tape


def make_params(tape: MarketTape, friction: Friction, config: EnvConfig) -> EnvParams:
    """Look up what the configuration names."""
    rules = Rules(
        terms=Terms(
            config.impact,
            config.orders,
            costs_of(config.costs),
            market_margin(tape, config.perpetual),
        ),
        reward=REWARDS.find(config.reward.kind),
        action=ACTIONS.find(config.action),
        columns=portfolio_columns(config),
    )
    return EnvParams(tape, friction, config, rules)


def begin_state(
    params: EnvParams,
    key: Tensor,
    number: Tensor,
    *,
    first: bool = False,
    chosen: Tensor | None = None,
) -> EnvState:
    """The start of episode `number` [N] of the environments `key` [N]: all cash, or invested."""
    tape, config = params.tape, params.config
    where = {"players": config.players, "first": first, "chosen": chosen}
    episode = begin(tape, config.episode, key, number, **where)  # type: ignore[arg-type]
    slots = draw_slots(config.randomize.assets, tape.num_assets, key, number)
    portfolio = endowment(params, episode.bar, slots)
    invested = config.initial_invested > 0
    nothing = torch.zeros_like(portfolio.holdings) if invested else portfolio.holdings
    state = EnvState(
        portfolio=portfolio,
        displacement=_undisturbed(params, episode.bar, key, number),
        open_orders=nothing if config.orders.carries else nothing[:, :0],
        carry=torch.zeros_like(portfolio.cash),
        since=entered_now(
            portfolio.holdings,
            config.orders,
            on_margin=config.perpetual.trades,
            asked=params.rules.action.brackets,
        ),
        episode=episode,
        peak=portfolio.cash,
        memory=params.rules.reward.memory(portfolio.cash),
        invalid_actions=torch.zeros_like(number),
        key=key,
        slots=slots,
    )
    return state._replace(peak=state.wealth) if invested else state


def _undisturbed(params: EnvParams, bar: Tensor, key: Tensor, number: Tensor) -> Displacement:
    """Prices at the start of episodes `number` [N] at `bar` [N], market by market."""
    config, known = params.config, params.tape.known
    if not config.impact.moves_prices:
        nothing = known.sigma.new_empty(len(bar) // config.players, 0)
        return Displacement(nothing, nothing)
    bar, key, number = (each[:: config.players] for each in (bar, key, number))
    start = undisturbed(config.impact, known.impact_sigma[bar], known.dollar_volume[bar])
    return scale_displacement(config.randomize, start, key, number)


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
