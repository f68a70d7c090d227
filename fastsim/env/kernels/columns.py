"""Where each number of an environment stands in the blocks of `fastsim.env.kernels.buffers`.

Every tuple holds, under the name of each number, its place: one definition for packing, kernels and
whoever reads the results. A number that is added gets its place, and widths follow.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from fastsim.env.info import EXITS, figure_names
from fastsim.env.info import SETTLED as OF_PERPETUALS
from fastsim.env.randomize import DRAWN_COSTS, drawn_names


def places(kind: str, *names: str) -> Any:
    """A named tuple in which every name is its own place."""
    return namedtuple(kind, names)(*range(len(names)))


MOVE = places(
    "Move",
    *("r_before", "r_after", "dollars", "impact_scale"),
    *("start_holdings", "start_rate", "tradable", "present"),
)
"""Rows of `MarketBlocks.moves`. Those from `start_holdings` on are there where episodes begin with
more than cash, and those from `tradable` on where agents see another market than the tape's: what
can be traded, and what has a volatility. Where volatilities are drawn, returns are log returns."""
TERM = places(
    "Term",
    *("price", "borrow", "shortable", "delisted", "listed", "closing_price", "closing_scale"),
)
"""Rows of `MarketBlocks.terms`: where further rules need them, what they need of a bar beside its
moves; the last three are of the next close, for who must trade there."""
RANGE = places("Range", "r_open", "r_high", "r_low")
"""Rows of `MarketBlocks.ranges`: how far prices go within the bar, where positions have stops or
targets. Where volatilities are drawn, they are log returns."""
BARS = places("Bars", "years", "interest", "market_return", "start_cash", "start_wealth")
"""Columns of `MarketBlocks.bars`."""
FRICTION = places("Friction", "fee", "half_spread", "impact", "participation", "borrow")
"""Columns of `MarketBlocks.friction`."""
FEE = places("Fee", "per_share", "minimum")
"""Columns of `MarketBlocks.fees`."""
MONEY = places("Money", "cash", "carry", "peak", "mean", "square")
"""Columns of `State.money`: cash, what its rounding loses, peak, and what the reward remembers."""
MEMORY = ("mean", "square")
"""Those of them that are the reward's."""
DISPLACED = places("Displaced", "transient", "rate")
"""Parts of `State.displaced`, as in `Displacement`."""
SINCE = places("Since", "entry", "best", "stop", "target")
"""Rows of `State.since`, as in `Since`; those from `stop` on where actions ask for distances."""
DRAWN = places("Drawn", *drawn_names())
"""Rows of `Draws.ranges`; the costs among them come first, as in `FRICTION`."""
FACTOR = places("Factor", "volatility", "log_volatility", "rate")
"""Columns of `Draws.factors`: of log returns, the logarithm of that, and of displacements."""
COUNTER = places("Counter", "bar", "end", "number", "invalid_actions", "key")
"""Columns of `State.counters`."""
COSTS = ("commission", "spread", "impact")
"""What kernels charge."""
EXIT = places("Exit", *EXITS)
"""Columns of `Singles.exit_value`."""
SETTLED = places("Settled", *OF_PERPETUALS)
"""Columns of `Singles.settled`."""
TIER = places("Tier", "rate", "amount", "largest")
"""Rows of `MarketBlocks.tiers`: of each tier of maintenance margin; the last is that of all."""
FIGURE = places("Figure", *figure_names(COSTS))
"""Columns of `Results.figures`."""
FLAG = places("Flag", "terminated", "truncated", "restarted", "ruined")
"""Columns of `Results.flags`."""
DESK = places("Desk", "low", "scale", "price", "wanted", "trade", "stop", "target")
"""Rows of the room in which the orders of one environment are worked out under further rules."""
WHOLE = places(
    "Whole",
    *("action", "reward", "same_step", "flat", "first", "last", "horizon", "random_start"),
    *("worlds", "span", "worlds_per_market", "assets", "players", "liquidates", "terminates"),
    *("fewest", "most", "log_spacing"),
    *("carries", "whole_shares", "by_order", "lends", "bans", "delists", "brackets"),
    *("perpetual", "entries", "asks"),
    "stream_from",
    *("weight_at", "drawdown_at", "log_growth_at", "displacement_at", "order_at"),
    *("stop_at", "target_at"),
)
"""Entries of `Rules.whole`; a horizon of 0 is none, and so are 0 assets to be drawn. From so many
bytes on, observations are written past a CPU's caches. The last are where portfolio columns begin.
"""
REAL = places(
    "Real",
    *("max_gross", "initial_cash", "initial_invested", "adaptation", "drawdown_penalty"),
    *("retention", "transient_share", "maintenance_margin", "stop", "target", "trailing"),
    *("leverage", "liquidation_fee"),
)
"""Entries of `Rules.real`."""
ACTION = places("Action", "weights", "signed", "logits", "leveraged", "bracketed")
"""Numbers that stand for action modes."""
REWARD = places(
    "Reward",
    *("log_growth", "excess_log_growth", "simple_return"),
    *("differential_sharpe", "drawdown_penalized_growth"),
)
"""Numbers that stand for rewards."""
assert tuple(column for column, _ in DRAWN_COSTS.values()) == FRICTION._fields[: len(DRAWN_COSTS)]
assert tuple(DRAWN_COSTS) == DRAWN._fields[: len(DRAWN_COSTS)]
PORTFOLIO = ("weight", "drawdown", "log_growth", "displacement", "order", "stop", "target")
"""Portfolio columns that kernels write; those of stops and targets not all of them."""
NUM_BARS, NUM_FRICTIONS, NUM_MONEY, NUM_COUNTERS = map(len, (BARS, FRICTION, MONEY, COUNTER))
NUM_FIGURES, NUM_FLAGS, NUM_COSTS = len(FIGURE), len(FLAG), len(COSTS)
NUM_TERMS, NUM_FEES, NUM_RANGES, NUM_EXITS = len(TERM), len(FEE), len(RANGE), len(EXIT)
NUM_TIERS, NUM_SETTLED = len(TIER), len(SETTLED)
