"""From an action to the weights that it asks for, and the shares to trade for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fastsim.agent.books import Held
from fastsim.config import BPS
from fastsim.data.bars import FloatArray
from fastsim.env.actions import ACTIONS, target_weights
from fastsim.env.config import EnvConfig
from fastsim.market.costs import CostConfig

_SETTLED = 1e-13
"""Of the wealth: what its cost is found to."""


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
