"""From an action to what it asks for: weights, shares to trade for them, stops and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.agent.books import Held
from fastsim.agent.state import Asked
from fastsim.config import BPS
from fastsim.data.bars import FloatArray
from fastsim.env.actions import ACTIONS, asked_distances, target_weights
from fastsim.env.config import EnvConfig
from fastsim.env.perpetual import within_leverage
from fastsim.market.costs import CostConfig
from fastsim.market.margin import Margin

_SETTLED = 1e-13
"""Of the wealth: what its cost is found to."""


class Target(NamedTuple):
    """What is asked for, and what to trade for it."""

    weights: FloatArray  # [A]  of the wealth after costs
    shares: FloatArray  # [A]  to buy (positive) and sell
    holds: bool  # nothing was asked for
    cut: FloatArray  # [A]  of the weights, what is beyond that for which a leverage is offered


def target_of(
    action: Tensor,
    held: Held,
    prices: FloatArray,
    rules: EnvConfig,
    margin: Margin | None = None,
) -> Target:
    """What an action [W] comes to at prices [A]; one of NaN holds what is held."""
    mode = ACTIONS.find(rules.action)
    asked, hold = target_weights(action[None], mode, rules.max_gross)
    if bool(hold):
        nothing = np.zeros_like(prices)
        return Target(held.holdings / held.wealth, nothing, holds=True, cut=nothing)
    weights = asked[0].double().numpy()
    given = weights
    if margin is not None:
        wealth = torch.tensor([held.wealth], dtype=torch.float64)
        given = within_leverage(asked.double(), wealth, margin)[0].numpy()
    shares = trade_to(given, held, rules.costs) / prices
    shares = np.trunc(shares) if rules.orders.whole_shares else shares
    return Target(weights, shares, holds=False, cut=weights - given)


def asked_of(action: Tensor, symbols: tuple[str, ...], rules: EnvConfig) -> Mapping[str, Asked]:
    """Distances that an action [W] asks for, by symbol; nothing of those that it asks none for."""
    away = asked_distances(action[None].double(), ACTIONS.find(rules.action))
    if away is None:
        return {}
    each = zip(symbols, away[0][0].tolist(), away[1][0].tolist(), strict=True)
    return {s: Asked(stop=stop, target=target) for s, stop, target in each if stop or target}


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
