"""A broker's account in the terms of the environment, and what is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastsim.agent.entries import remembered_entries, since_entries
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.data.bars import Bars
from fastsim.env.accounting import Account, Portfolio
from fastsim.env.actions import ACTIONS
from fastsim.env.brackets import Since
from fastsim.env.config import EnvConfig
from fastsim.env.episode import Episode
from fastsim.env.impact import Displacement
from fastsim.env.observe import Observation
from fastsim.env.portfolio_columns import Standing, look, portfolio_columns
from fastsim.errors import DataError
from fastsim.market.margin import Margin
from fastsim.market.tape import MarketTape

FloatArray = NDArray[np.float64]


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


def stood(
    held: Held,
    window: Bars,
    before: AgentState | None,
    rules: EnvConfig,
    margin: Margin | None,
    *,
    at_open: bool,
) -> tuple[AgentState, Since]:
    """What is to be remembered of an account at the last close of a window, and its entries."""
    asks = ACTIONS.find(rules.action).brackets
    since = since_entries(
        *(held.holdings, window, before, rules.orders), at_open=at_open, asks=asks, margin=margin
    )
    entries = remembered_entries(since, held.holdings, window.symbols)
    return replace(AgentState.after(window, held.wealth, before), entries=entries), since


def seen_of(
    held: Held, since: Since, state: AgentState, tape: MarketTape, rules: EnvConfig
) -> Observation:
    """What is seen of it at a close, by its entries; `rules` begin with the initial wealth."""
    holdings = torch.from_numpy(held.holdings)[None]
    here, nothing = torch.tensor([len(tape) - 1]), holdings[:, :0]
    cash = holdings.new_tensor([held.cash])
    account = Account(
        Portfolio(holdings, cash),
        Displacement(nothing, nothing),
        torch.from_numpy(held.open_orders)[None] if rules.orders.carries else nothing,
        torch.zeros_like(cash),
        since,
    )
    standing = Standing(
        account=account,
        wealth=account.portfolio.wealth,
        peak=cash.new_tensor([state.peak_wealth]),
        episode=Episode(here, here, torch.zeros_like(here), here < 0),
        tape=tape,
        config=rules,
    )
    columns = look(portfolio_columns(rules), standing, here[:, None][:, :0])
    return Observation(here, columns.to(tape.dtype))
