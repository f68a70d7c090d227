"""Where the positions of a decision are to be closed: stops, targets and liquidations as prices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.agent.books import Held
from fastsim.agent.entries import wish_of
from fastsim.agent.state import AgentState
from fastsim.data.bars import Bars, FloatArray
from fastsim.env.brackets import Since, levels, traded
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import liquidation_levels
from fastsim.market.margin import Margin


class Bracket(NamedTuple):
    """Where a position is to be closed, in prices as the last close is; None where nowhere.

    What is opened is taken to be filled at that close: at another price its levels move along in
    proportion, and those of what is added to a position with its mean entry.
    """

    stop: float | None  # the nearer of a fixed and a trailing one
    target: float | None
    liquidation: float | None = None  # by the exchange, of perpetual futures


def brackets_of(
    held: Held,
    shares: FloatArray,
    since: Since,
    window: Bars,
    state: AgentState,
    orders: OrderConfig,
    margin: Margin | None,
) -> dict[str, Bracket]:
    """By symbol, of what is held after these shares [A] have been traded at the last close.

    Parameters
    ----------
    since
        How that close stands to the entries of what is held.
    state
        What is remembered after the decision: what it asked for above all.
    """
    if not since.entry.shape[-1]:
        return {}
    prices = torch.from_numpy(window.close[-1])
    before, trade = torch.from_numpy(held.holdings)[None], torch.from_numpy(shares) * prices
    wish = wish_of(state.asked, window.symbols, before) if since.stop.shape[-1] else None
    since = traded(since, before, trade[None], orders, wish)
    holdings = before + trade
    places = levels(since, holdings, orders)
    line = torch.full_like(holdings, torch.inf)
    if margin is not None:
        line = liquidation_levels(holdings, since.entry, margin)
    return {
        symbol: Bracket(
            stop=_price(places.stop[0, column] * prices[column]),
            target=_price(places.target[0, column] * prices[column]),
            liquidation=_price(line[0, column] * prices[column]),
        )
        for column, symbol in enumerate(window.symbols)
        if holdings[0, column] != 0
    }


def _price(price: Tensor) -> float | None:
    """A level that can be reached."""
    return float(price) if bool(price.isfinite()) and price > 0 else None
