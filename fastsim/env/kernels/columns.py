"""Where each number of an environment stands in the blocks of `fastsim.env.kernels.buffers`.

Every tuple holds, under the name of each number, its place: one definition for packing, kernels and
whoever reads the results. A number that is added gets its place, and widths follow.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from fastsim.env.info import figure_names
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
BARS = places("Bars", "years", "interest", "market_return", "start_cash", "start_wealth")
"""Columns of `MarketBlocks.bars`."""
FRICTION = places("Friction", "fee", "half_spread", "impact", "participation", "borrow")
"""Columns of `MarketBlocks.friction`."""
MONEY = places("Money", "cash", "carry", "peak", "mean", "square")
"""Columns of `State.money`: cash, what its rounding loses, peak, and what the reward remembers."""
MEMORY = ("mean", "square")
"""Those of them that are the reward's."""
DISPLACED = places("Displaced", "transient", "rate")
"""Parts of `State.displaced`, as in `Displacement`."""
DRAWN = places("Drawn", *drawn_names())
"""Rows of `Draws.ranges`; the costs among them come first, as in `FRICTION`."""
FACTOR = places("Factor", "volatility", "log_volatility", "rate")
"""Columns of `Draws.factors`: of log returns, the logarithm of that, and of displacements."""
COUNTER = places("Counter", "bar", "end", "number", "invalid_actions", "key")
"""Columns of `State.counters`."""
COSTS = ("commission", "spread", "impact")
"""What kernels charge."""
FIGURE = places("Figure", *figure_names(COSTS))
"""Columns of `Results.figures`."""
FLAG = places("Flag", "terminated", "truncated", "restarted", "ruined")
"""Columns of `Results.flags`."""
WHOLE = places(
    "Whole",
    *("action", "reward", "same_step", "flat", "first", "last", "horizon", "random_start"),
    *("worlds", "span", "worlds_per_market", "assets", "players", "liquidates", "terminates"),
    *("fewest", "most", "log_spacing"),
    *("weight_at", "drawdown_at", "log_growth_at", "displacement_at"),
)
"""Entries of `Rules.whole`; a horizon of 0 is none, and so are 0 assets to be drawn. The last are
where portfolio columns begin."""
REAL = places(
    "Real",
    *("max_gross", "initial_cash", "initial_invested", "adaptation", "drawdown_penalty"),
    *("retention", "transient_share"),
)
"""Entries of `Rules.real`."""
ACTION = places("Action", "weights", "signed", "logits")
"""Numbers that stand for action modes."""
REWARD = places(
    "Reward",
    *("log_growth", "excess_log_growth", "simple_return"),
    *("differential_sharpe", "drawdown_penalized_growth"),
)
"""Numbers that stand for rewards."""
assert tuple(column for column, _ in DRAWN_COSTS.values()) == FRICTION._fields[: len(DRAWN_COSTS)]
assert tuple(DRAWN_COSTS) == DRAWN._fields[: len(DRAWN_COSTS)]
PORTFOLIO = ("weight", "drawdown", "log_growth", "displacement")
"""Portfolio columns that kernels write."""
NUM_BARS, NUM_FRICTIONS, NUM_MONEY, NUM_COUNTERS = map(len, (BARS, FRICTION, MONEY, COUNTER))
NUM_FIGURES, NUM_FLAGS = len(FIGURE), len(FLAG)
