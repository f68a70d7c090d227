"""What a stranger adds from outside: one record of every kind, each with money that can be told."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from fastsim.env.actions import ActionMode
from fastsim.env.portfolio_columns import PortfolioColumn
from fastsim.env.reward import Reward, RewardConfig
from fastsim.market.block import Column
from fastsim.market.costs import Cost

DUTY, TAX, HALF = 50e-4, 0.3, 0.5

# A duty on purchases, whose slope is found by differentiation.
STAMP_DUTY = Cost(
    name="stamp_duty", charge=lambda orders: DUTY * orders.trade.clamp_min(0.0).sum(-1)
)

# Growth less the turnover; it remembers the last one.


class LastTurnover(NamedTuple):
    turnover: torch.Tensor


def _calm(growth, memory, config):
    turnover = growth.outcome.turnover
    return growth.log_growth - (turnover - memory.turnover).abs(), LastTurnover(turnover)


CALM = Reward(
    name="calm",
    measure=_calm,
    memory=lambda wealth: LastTurnover(torch.zeros_like(wealth)),
)

# Long only, at most half of the wealth.
NOTHING_TO_REMEMBER = Reward(
    name="plain",
    measure=lambda growth, memory, config: (growth.log_growth, memory),
    memory=lambda wealth: (),
)

HALF_INVESTED = ActionMode(
    name="half",
    weights=lambda action, max_gross, masked: (
        HALF * action.clamp(0.0, 1.0) / action.clamp(0.0, 1.0).sum(-1, keepdim=True).clamp_min(1.0)
    ),
)

# How many steps the episode has left.
STEPS_LEFT = PortfolioColumn(
    name="steps_left", values=lambda now: (now.episode.end - now.episode.bar) / 100.0
)

# A fee by asset and bar, and the cost that charges it.


def _levy_table(bars):
    rows = torch.arange(len(bars.close), dtype=torch.float64)[:, None]
    return (1e-3 * (1.0 + rows % 3 + torch.arange(bars.close.shape[1]))).numpy()


LEVY_TABLE = Column(name="levy_rate", volatility="stays", closing="next", table=_levy_table)
LEVY = Cost(
    name="levy",
    charge=lambda orders: (orders.market.more["levy_rate"] * orders.size).sum(-1),
    slope=lambda orders: (orders.market.more["levy_rate"] * orders.size_change).sum(-1),
)

# A setting of its own, of a reward that reads it.


@dataclass(frozen=True, kw_only=True, slots=True)
class TaxedReward(RewardConfig):
    tax: float = TAX


TAXED = Reward(
    name="taxed",
    measure=lambda growth, memory, config: (
        growth.log_growth - config.tax * growth.simple_return.clamp_min(0.0),
        memory,
    ),
)
