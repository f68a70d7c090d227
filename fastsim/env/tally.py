"""What episodes come to: return, length, Sharpe ratio, drawdown and cost, each and on average."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from math import nan, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.core import Transition
from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.columns import places
from fastsim.market.tape import MarketTape
from fastsim.stats.metrics import periods_per_year

FIGURES = ("return", "length", "total_return", "sharpe", "drawdown", "cost")
"""Of an episode: the sum of its rewards; its steps; the growth of its wealth, a fraction; mean over
standard deviation of its simple returns, annualised, as `fastsim.stats.metrics.sharpe_ratio`; the
largest loss from a high, a fraction; the costs of its trades, as fractions of wealth, added up."""
NUM_FIGURES, SHARPE = len(FIGURES), FIGURES.index("sharpe")
KEPT = places("Kept", "reward", "length", "gain", "square", "cost", "start", "peak", "drawdown")
"""What is kept of an episode: sums over its steps, of simple returns and their squares too, and
then its first and highest wealth and its largest drawdown."""
NUM_SUMS = int(KEPT.start)
TOTAL = places("Total", *(f"total_{name}" for name in FIGURES), "episodes", "sharpes")
"""Of all that ended: each figure, how many they were, and how many have a Sharpe ratio."""
BLOCK = 256
"""Steps of a single environment that are added up at once."""
EQUAL = 1e-12
"""A share of the squares that is rounding: returns that vary by less are all the same."""


class Averages(NamedTuple):
    """Episodes that ended so far; means are NaN before the first of them."""

    episodes: int
    steps: int
    """Those of episodes that have not ended, or were left, included."""
    steps_per_second: float
    """Since the first reset, the time of whoever decides included."""
    mean_return: float
    mean_length: float
    mean_total_return: float
    mean_sharpe: float
    """Of the episodes that have one."""
    mean_drawdown: float
    mean_cost: float


class EpisodeTally:
    """Adds up the steps of N episodes on their device; nothing is read back from a GPU.

    Where numba steps them, one pass of its own adds them up too.
    """

    def __init__(self, env: PortfolioEnv) -> None:
        tape, options = env.tape, {"device": env.tape.device, "dtype": torch.float64}
        self._kept = torch.zeros(len(KEPT), env.num_envs, **options)  # type: ignore[call-overload]
        self._totals = torch.zeros(len(TOTAL), **options)  # type: ignore[call-overload]
        self._root = _root(tape)
        self._clock = _Clock()
        fused = env.stepper.name == "numba"
        self._add = import_module("fastsim.env.kernels.numba_tally").add_step if fused else None

    def begin(self, rows: Tensor | None = None) -> None:
        """Episodes begin everywhere, or in these rows [N] (bool); those under way are left."""
        under_way = self._kept if rows is None else torch.where(rows, self._kept, 0.0)
        self._clock.leave(int(under_way[KEPT.length].sum()))
        self._kept -= under_way

    def add(self, transition: Transition, cost: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Add a step whose trades cost [N].

        Returns what the episodes came to that it ended, each figure [N], 0 elsewhere, and which [N]
        these are.
        """
        ended = transition.terminated | transition.truncated
        if self._add is None:
            figures = self._add_in_torch(transition, cost, ended)
        else:
            figures = torch.zeros(NUM_FIGURES, len(ended), dtype=torch.float64)
            outcome = transition.outcome
            told = (transition.reward, outcome.wealth_before, outcome.wealth, cost)
            ends = (transition.terminated, transition.truncated, transition.restarted)
            blocks = (*told, *ends, self._kept, figures, self._totals)
            self._add(*(block.numpy() for block in blocks), self._root)
        named = dict(zip(FIGURES, figures.unbind(), strict=True))
        return named | {"length": named["length"].long()}, ended

    @property
    def averages(self) -> Averages:
        """What ended so far, read from the device."""
        return self._clock.averages(self._totals, int(self._kept[KEPT.length].sum()))

    def _add_in_torch(self, transition: Transition, cost: Tensor, ended: Tensor) -> Tensor:
        """Add it on any device: figures [6, N], in the order of their names."""
        outcome, counted = transition.outcome, ~transition.ignored
        before, wealth = outcome.wealth_before.double(), outcome.wealth.double()
        sums, (start, peak, drawdown) = self._kept[:NUM_SUMS], self._kept[NUM_SUMS:]  # views
        fresh = sums[KEPT.length] == 0
        start.copy_(torch.where(fresh, before, start))
        peak.copy_(torch.where(fresh, before, peak).maximum(wealth))
        drawdown.copy_(drawdown.masked_fill(fresh, 0.0).maximum(1.0 - wealth / peak))
        gain = (wealth - before) / before
        step = (transition.reward.double(), torch.ones_like(gain), gain, gain * gain, cost / before)
        sums += torch.where(counted, torch.stack(step), 0.0)
        figures = episode_figures(sums, start, wealth, drawdown, self._root)
        figures = torch.where(ended, figures, 0.0)
        counts = torch.stack([ended.sum(), (ended & ~figures[SHARPE].isnan()).sum()])
        self._totals += torch.cat([figures.nansum(1), counts])
        sums.masked_fill_(ended, 0.0)
        return figures


class SingleTally:
    """The same of one episode after another: steps are kept, and added up by the block."""

    def __init__(self, tape: MarketTape, costs: Sequence[str]) -> None:
        """For trades that are charged these costs."""
        self._told = ("reward", "wealth_before", "wealth", *costs)
        self._names: tuple[str, ...] = self._told
        self._steps: list[NDArray[Any]] = []
        self._kept, self._totals = np.zeros((len(KEPT), 1)), np.zeros(len(TOTAL))
        self._root = _root(tape)
        self._clock = _Clock()
        self._add_steps = import_module("fastsim.env.kernels.numba_tally").add_steps

    def begin(self) -> None:
        """An episode begins; the one under way is left."""
        self._add_up()
        self._clock.leave(int(self._kept[KEPT.length, 0]))
        self._kept[:NUM_SUMS] = 0.0

    def add(self, figures: NDArray[Any], names: tuple[str, ...]) -> None:
        """Add a step with figures [F] of these names, and more; they are kept for a while."""
        if len(self._steps) >= BLOCK:
            self._add_up()
        self._names = names
        self._steps.append(figures)

    def end(self) -> dict[str, float]:
        """What the episode came to, of which a step has just been added; it is over."""
        figures = self._add_up(over=True)
        named = dict(zip(FIGURES, figures, strict=True))
        return named | {"length": int(named["length"])}

    @property
    def averages(self) -> Averages:
        """What ended so far."""
        self._add_up()
        totals, under_way = torch.from_numpy(self._totals), int(self._kept[KEPT.length, 0])
        return self._clock.averages(totals, under_way)

    def _add_up(self, *, over: bool = False) -> list[float]:
        """Add the steps that are kept to the sums of their episode; returns figures if it ends."""
        figures = np.zeros((NUM_FIGURES, 1))
        if self._steps:
            told = np.concatenate(self._steps).reshape(len(self._steps), -1)
            self._steps.clear()
            told = told[:, [self._names.index(name) for name in self._told]]
            steps = np.column_stack([told[:, :3], told[:, 3:].sum(1)]).astype(np.float64)
            self._add_steps(steps, over, self._kept, figures, self._totals, self._root)
        return list(map(float, figures[:, 0]))


def episode_figures(
    sums: Tensor, start: Tensor, wealth: Tensor, drawdown: Tensor, root: float
) -> Tensor:
    """Figures [6, ...] of episodes by the sums [5, ...] of their steps; `root` annualises."""
    reward, length, simple, square, cost = sums
    mean = simple / length
    spread = square - simple * mean
    deviation = (spread.masked_fill(spread <= EQUAL * square, 0.0) / (length - 1.0)).sqrt()
    sharpe = (mean / deviation * root).masked_fill(length < 2, nan)
    return torch.stack([reward, length, wealth / start - 1.0, sharpe, drawdown, cost])


class _Clock:
    """Time since the first reset, and the steps of episodes that were left."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.left = 0

    def leave(self, steps: int) -> None:
        self.started = time.perf_counter() if self.started is None else self.started
        self.left += steps

    def averages(self, totals: Tensor, under_way: int) -> Averages:
        """Means by the totals [8]: of each figure, episodes, and those with a Sharpe ratio."""
        *sums, episodes, sharpes = totals.tolist()
        named = dict(zip(FIGURES, sums, strict=True))
        counts = dict.fromkeys(FIGURES, episodes) | {"sharpe": sharpes}
        means = {
            f"mean_{name}": total / counts[name] if counts[name] else nan
            for name, total in named.items()
        }
        steps = int(named["length"]) + self.left + under_way
        elapsed = 0.0 if self.started is None else time.perf_counter() - self.started
        return Averages(int(episodes), steps, steps / elapsed if steps else 0.0, **means)


def _root(tape: MarketTape) -> float:
    """Root of the bars in a year, by the stamps of the first world."""
    return sqrt(periods_per_year(tape.timestamps[: tape.bars_per_world]))
