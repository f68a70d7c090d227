"""Books of the assets that are forecast best, at the environment's costs, beside equal weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.backtest.benchmarks import benchmark_rules, replay_benchmarks
from fastsim.backtest.history import History, join
from fastsim.backtest.replay import replay_schedule
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.market.benchmark import equal_weights
from fastsim.market.tape import MarketTape
from fastsim.progress import SILENT, Progress
from fastsim.stats.bootstrap import Interval, sharpe_difference
from fastsim.stats.comparison import dependent_mean, newey_west_lags


class Difference(NamedTuple):
    """A book less equal weight that trades at the same bars."""

    sharpe: Interval
    """Of the Sharpe ratios, by the stationary bootstrap."""
    growth: Interval
    """Of the log growth of a year, by Newey and West."""
    p_value: float
    """Of no difference in growth, against one of either sign."""


class Books(NamedTuple):
    """What became of the books."""

    history: History
    """The books, equal weight at their bars, then equal weight at every bar, and buy and hold."""
    beside: str
    """What equal weight at their bars is called."""
    differences: Mapping[str, Difference]
    """By the name of the book."""


def top_weights(scores: Tensor, count: int) -> Tensor:
    """Weights [R, A] of the `count` highest scores of each row [R, A], each as much as the other.

    Those that tie for the last places share them, so that no order of columns decides. NaN is not
    held; where fewer are known, these are held, and nothing where none is.
    """
    ranked = scores.double().masked_fill(scores.isnan(), -torch.inf)
    held = scores.isfinite().sum(-1, keepdim=True).clamp_max(count)
    order = ranked.sort(-1, descending=True).values
    last = order.gather(-1, (held - 1).clamp_min(0))
    above = ranked > last
    tied = (ranked == last) & scores.isfinite()
    places = held - above.sum(-1, keepdim=True)
    share = places / tied.sum(-1, keepdim=True).clamp_min(1)
    weights = above.double() + tied.double() * share
    return weights / held.clamp_min(1)


def play_books(
    tape: MarketTape,
    books: Mapping[str, Tensor],
    rows: NDArray[np.int64],
    hold: int,
    top: int,
    config: EnvConfig | None = None,
    *,
    progress: Progress = SILENT,
) -> Books:
    """Hold the assets of the highest scores, chosen anew at every row, from the first row on.

    All trade in the environment's books, at its fills and costs; what is not filled at once is
    carried until the next row. Equal weight beside them is of all assets that every book has a
    score of, so that what is apart is the choice alone.

    Parameters
    ----------
    books
        Scores [R, A] at the rows by the name of the book; NaN of what cannot be held.
    rows
        Where they are chosen [R], `hold` bars apart.
    top
        How many are held.
    config
        Costs and initial cash; actions are long-only weights whatever it says.

    Raises
    ------
    ConfigError
        There are fewer assets than are to be held.
    """
    if not 1 <= top <= tape.num_assets:
        raise ConfigError(
            f"top must be 1 to {tape.num_assets}, as many as there are assets, got {top}"
        )
    part = tape.between(slice(int(rows[0]), int(rows[-1]) + hold + 1))
    rules = benchmark_rules(config or EnvConfig())
    beside = f"equal weight, every {hold} bars"
    known = torch.stack([scores.isfinite() for scores in books.values()]).all(0)
    chosen = [
        *(top_weights(scores, top) for scores in books.values()),
        equal_weights(known, torch.float64),
    ]
    names = (*books, beside)
    steps = part.last - part.first
    schedule = torch.full((steps, len(names), tape.num_assets), torch.nan, dtype=part.dtype)
    schedule[torch.from_numpy(rows) - part.first] = torch.stack(chosen, 1).to(part.dtype)
    played = replay_schedule(part, schedule, names, rules, progress=progress)
    others = replay_benchmarks(part, rules, alone=False, others=names, progress=progress)
    history = join(played, others)
    return Books(history, beside, {name: _difference(history, name, beside) for name in books})


def _difference(history: History, name: str, beside: str) -> Difference:
    own, other = (history.simple_returns[:, history.column(each)] for each in (name, beside))
    periods = history.steps_per_year
    apart = (1.0 + own).log() - (1.0 + other).log()
    lags = min(newey_west_lags(len(apart)), len(apart) - 2)
    found = dependent_mean(apart, lags)
    low, value, high = (
        periods * each for each in (found.mean.low, found.mean.estimate, found.mean.high)
    )
    return Difference(
        sharpe=sharpe_difference(own, other, periods_per_year=periods),
        growth=Interval(value, low, high, found.mean.level),
        p_value=found.p_value,
    )
