"""What episodes come to: return, length, Sharpe ratio, drawdown and cost, each and on average."""

from __future__ import annotations

import time
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.core import Transition
from fastsim.market.tape import MarketTape
from fastsim.stats.metrics import periods_per_year

FIGURES = ("return", "length", "total_return", "sharpe", "drawdown", "cost")
"""Of an episode: the sum of its rewards; its steps; the growth of its wealth, a fraction; mean over
standard deviation of its simple returns, annualised, as `fastsim.stats.metrics.sharpe_ratio`; the
largest loss from a high, a fraction; the costs of its trades, as fractions of wealth, added up."""
EQUAL = 1e-12
"""A share of the squares that is rounding: returns that vary by less are all the same."""


class Averages(NamedTuple):
    """Episodes that ended so far; means are NaN before the first of them."""

    episodes: int
    steps: int
    """Those of episodes that were left unfinished included."""
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
    """Adds up the steps of N episodes on their device; nothing is read from a GPU."""

    def __init__(self, num_envs: int, tape: MarketTape) -> None:
        numbers = torch.zeros(9, num_envs, device=tape.device, dtype=torch.float64)
        # Rewards, steps, simple returns, their squares and shares of cost; one step's; the rest.
        self._sums, self._levels = numbers[:5], numbers[5:]
        self._step = torch.zeros_like(self._sums)
        self._start, self._wealth, self._peak, self._drawdown = self._levels
        self._ended = _Ended(tape)

    def begin(self, wealth: Tensor, rows: Tensor | None = None) -> None:
        """Episodes begin with this wealth [N], everywhere or in these rows [N] (bool)."""
        rows = torch.ones_like(self._start, dtype=torch.bool) if rows is None else rows
        self._ended.leave(torch.where(rows, self._sums[1], 0.0).sum())
        self._sums.masked_fill_(rows, 0.0)
        self._restart(wealth)

    def add(
        self, transition: Transition, cost: Tensor, peak: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add a step; returns what the episodes came to that it ended, and which [N] these are.

        Parameters
        ----------
        cost
            Of its trades [N].
        peak
            Highest wealth [N] of the episodes that are under way after the step: where one begins,
            its wealth.
        """
        ended = transition.terminated | transition.truncated
        counted, wealth, step = ~transition.ignored, transition.outcome.wealth, self._step
        step[0], step[1] = transition.reward, 1.0
        torch.sub(wealth, self._wealth, out=step[2]).div_(self._wealth)
        torch.mul(step[2], step[2], out=step[3])
        torch.div(cost, self._wealth, out=step[4])
        self._sums.addcmul_(step, counted.to(step))
        self._wealth.copy_(wealth)
        torch.maximum(self._peak, self._wealth, out=self._peak)
        torch.maximum(self._drawdown, 1.0 - self._wealth / self._peak, out=self._drawdown)
        figures = self._figures(ended)
        self._sums.masked_fill_(ended, 0.0)
        self._restart(peak)
        named = dict(zip(FIGURES, figures, strict=True))
        return named | {"length": named["length"].long()}, ended

    @property
    def averages(self) -> Averages:
        """What ended so far, read from the device."""
        return self._ended.averages(float(self._sums[1].sum()))

    def _figures(self, ended: Tensor) -> Tensor:
        """Figures [6, N] of the episodes that ended, and 0 elsewhere."""
        if not ended.is_cuda and not bool(ended.any()):
            return self._sums.new_zeros(len(FIGURES), len(ended))
        figures = self._ended.figures(self._sums, self._start, self._wealth, self._drawdown)
        figures = torch.where(ended, figures, 0.0)
        self._ended.add(figures, ended.sum())
        return figures

    def _restart(self, wealth: Tensor) -> None:
        """Where no step has been added, an episode begins with this wealth [N]."""
        fresh = self._sums[1] == 0
        self._levels[:3] = torch.where(fresh, wealth, self._levels[:3])
        self._drawdown.masked_fill_(fresh, 0.0)


class SingleTally:
    """The same of one episode after another, in Python's numbers: quicker for a single row."""

    def __init__(self, tape: MarketTape) -> None:
        self._ended = _Ended(tape)
        self._sums, self._start, self._wealth, self._peak, self._drawdown = [0.0] * 5, *[nan] * 4

    def begin(self, wealth: float) -> None:
        """An episode begins with this wealth."""
        self._ended.leave(torch.tensor(self._sums[1]))
        self._sums, self._drawdown = [0.0] * 5, 0.0
        self._start = self._wealth = self._peak = wealth

    def add(self, reward: float, wealth: float, cost: float) -> None:
        """Add a step."""
        gain = (wealth - self._wealth) / self._wealth
        sums = self._sums
        sums[0] += reward
        sums[1] += 1.0
        sums[2] += gain
        sums[3] += gain * gain
        sums[4] += cost / self._wealth
        self._wealth, self._peak = wealth, max(self._peak, wealth)
        self._drawdown = max(self._drawdown, 1.0 - wealth / self._peak)

    def end(self) -> dict[str, float]:
        """What the episode came to; it is over."""
        sums, *levels = (
            torch.tensor(numbers, dtype=torch.float64)
            for numbers in (self._sums, [self._start], [self._wealth], [self._drawdown])
        )
        figures = self._ended.figures(sums[:, None], *levels)
        self._ended.add(figures, torch.tensor(1))
        self._sums = [0.0] * 5
        named = dict(zip(FIGURES, figures[:, 0].tolist(), strict=True))
        return named | {"length": int(named["length"])}

    @property
    def averages(self) -> Averages:
        """What ended so far."""
        return self._ended.averages(self._sums[1])


class _Ended:
    """What ended episodes came to, all together."""

    def __init__(self, tape: MarketTape) -> None:
        options = {"device": tape.device, "dtype": torch.float64}
        self._root = periods_per_year(tape.timestamps[: tape.bars_per_world]) ** 0.5
        self._totals = torch.zeros(len(FIGURES), **options)  # type: ignore[call-overload]
        self._episodes, self._sharpes, self._left = torch.zeros(3, **options)  # type: ignore[call-overload]
        self._begun: float | None = None

    def leave(self, steps: Tensor) -> None:
        """An episode is left after so many steps; the clock runs from the first on."""
        self._begun = time.perf_counter() if self._begun is None else self._begun
        self._left += steps

    def figures(self, sums: Tensor, start: Tensor, wealth: Tensor, drawdown: Tensor) -> Tensor:
        """Figures [6, N] of episodes by the sums [5, N] of their steps."""
        reward, length, simple, square, cost = sums
        mean = simple / length
        spread = square - simple * mean
        deviation = (spread.masked_fill(spread <= EQUAL * square, 0.0) / (length - 1.0)).sqrt()
        sharpe = (mean / deviation * self._root).masked_fill(length < 2, nan)
        return torch.stack([reward, length, wealth / start - 1.0, sharpe, drawdown, cost])

    def add(self, figures: Tensor, count: Tensor) -> None:
        """Add the figures [6, N] of so many episodes; those of others are 0."""
        self._totals += figures.nansum(1)
        self._episodes += count
        self._sharpes += count - figures[FIGURES.index("sharpe")].isnan().sum()

    def averages(self, under_way: float) -> Averages:
        """Means over the episodes; `under_way` counts the steps of those that have not ended."""
        *totals, episodes, sharpes, left = torch.cat(
            [self._totals, torch.stack([self._episodes, self._sharpes, self._left])]
        ).tolist()
        named = dict(zip(FIGURES, totals, strict=True))
        counts = dict.fromkeys(FIGURES, episodes) | {"sharpe": sharpes}
        steps = int(named["length"] + left + under_way)
        elapsed = 0.0 if self._begun is None else time.perf_counter() - self._begun
        means = {
            f"mean_{name}": named[name] / counts[name] if counts[name] else nan for name in named
        }
        rate = steps / elapsed if steps else 0.0
        return Averages(int(episodes), steps, rate, **means)
