"""A broker's account in the terms of the environment: what is seen of it, and its orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.config import BPS
from fastsim.env.accounting import Account, Portfolio
from fastsim.env.actions import ACTIONS, target_weights
from fastsim.env.brackets import entered_now
from fastsim.env.config import EnvConfig
from fastsim.env.episode import Episode
from fastsim.env.impact import Displacement
from fastsim.env.observe import Observation
from fastsim.env.portfolio_columns import Standing, look, portfolio_columns
from fastsim.errors import DataError
from fastsim.market.costs import CostConfig
from fastsim.market.tape import MarketTape

FloatArray = NDArray[np.float64]
_SETTLED = 1e-13
"""Of the wealth: what its cost is found to."""


class Held(NamedTuple):
    """What is held at a close, in account currency."""

    holdings: FloatArray  # [A]
    open_orders: FloatArray  # [A]
    cash: float

    @classmethod
    def of(cls, account: BrokerAccount, symbols: tuple[str, ...], prices: FloatArray) -> Held:
        """The account at prices [A]; DataError if it is in other symbols, or worth nothing."""
        held = cls(
            holdings=_by_symbol("shares", account.shares, symbols) * prices,
            open_orders=_by_symbol("open orders", account.open_orders, symbols) * prices,
            cash=account.cash,
        )
        if not held.wealth > 0:
            raise DataError(f"the account is worth {held.wealth:,.2f}: there is nothing to decide")
        return held

    @property
    def wealth(self) -> float:
        """Value of everything."""
        return float(self.holdings.sum()) + self.cash


def _by_symbol(what: str, given: Mapping[str, float], symbols: tuple[str, ...]) -> FloatArray:
    """Numbers [A] of these symbols, 0 where none is given."""
    for symbol, number in given.items():
        if symbol not in symbols and number:
            raise DataError(
                f"the account has {what} of {symbol}, which the agent does not trade: keep them in "
                f"another account"
            )
    return np.array([given.get(symbol, 0.0) for symbol in symbols])


def seen_of(held: Held, state: AgentState, tape: MarketTape, rules: EnvConfig) -> Observation:
    """What a policy sees of it at the one bar of a tape; `rules` begin with the initial wealth."""
    holdings = torch.from_numpy(held.holdings)[None]
    here, nothing = torch.zeros(1, dtype=torch.int64), holdings[:, :0]
    cash = holdings.new_tensor([held.cash])
    account = Account(
        Portfolio(holdings, cash),
        Displacement(nothing, nothing),
        torch.from_numpy(held.open_orders)[None] if rules.orders.carries else nothing,
        torch.zeros_like(cash),
        entered_now(holdings, rules.orders),
    )
    standing = Standing(
        account=account,
        wealth=account.portfolio.wealth,
        peak=cash.new_tensor([state.peak_wealth]),
        episode=Episode(here, here, here, here > 0),
        tape=tape,
        config=rules,
    )
    columns = look(portfolio_columns(rules), standing, here[:, None][:, :0])
    return Observation(here, columns.to(tape.dtype))


class Target(NamedTuple):
    """What is asked for, and what to trade for it."""

    weights: FloatArray  # [A]  of the wealth after costs
    shares: FloatArray  # [A]  to buy (positive) and sell
    holds: bool  # nothing was asked for


def target_of(action: Tensor, held: Held, prices: FloatArray, rules: EnvConfig) -> Target:
    """What an action [W] comes to at prices [A]; one of NaN holds what is held."""
    mode = ACTIONS.find(rules.action)
    asked, hold = target_weights(action[None], mode, rules.max_gross)
    if bool(hold):
        return Target(held.holdings / held.wealth, np.zeros_like(prices), holds=True)
    weights = asked[0].double().numpy()
    shares = trade_to(weights, held, rules.costs) / prices
    return Target(weights, np.trunc(shares) if rules.orders.whole_shares else shares, holds=False)


def trade_to(weights: FloatArray, held: Held, costs: CostConfig) -> FloatArray:
    """Values to trade [A] so that weights [A] are exact after fee and half spread.

    V+ = V - C(w V+ - h), by repetition: C changes by a small part of what V+ does.
    """
    fee, half_spread = BPS * costs.fee_bps, BPS * costs.half_spread_bps
    buying = (1.0 + half_spread) * (1.0 + fee) - 1.0
    selling = 1.0 - (1.0 - half_spread) * (1.0 - fee)
    left, before = held.wealth, float("inf")
    while abs(left - before) > _SETTLED * held.wealth:
        before = left
        trade = weights * left - held.holdings
        left = held.wealth - float(np.where(trade > 0, buying, -selling) @ trade)
    result: FloatArray = weights * left - held.holdings
    return result
