"""Six regimes of an asset: how much it moves, in thirds of its past, and whether it gets anywhere.

Volatility is the deviation of the last log returns, ranked among its own values before; a third of
the ranks is low, a third middle, a third high. An asset trends where the efficiency ratio of
Kaufman (1995), the distance gone over the length of the way, |r_n| / sum |r_1|, is large, and else
it ranges.

Both change often where they lie near a bound. With a margin a regime is left only once the bound is
passed by that much. What such a rule remembers would reach back without end, so it looks at the
last `memory` bars alone, and begins them without a margin: whoever keeps `bars_needed` bars finds
what all of history finds.

Volatility persists, a trend does not: on the built-in tech4 the mean absolute return of the next
bar is 1.1, 1.2 and 1.7 % after low, middle and high volatility, and the efficiency ratio 20 bars
later is the same after a trend as after none. A position that depends on the trend's regime has to
earn what it is worth elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.signals.trailing import (
    carried_forward,
    log_returns,
    rank_among_previous,
    trailing_deviation,
    trailing_mean,
)

VOLATILITIES = ("low", "middle", "high")
TRENDS = ("ranging", "trending")
REGIMES = tuple(f"{volatility} {trend}" for volatility in VOLATILITIES for trend in TRENDS)
"""Names of the six, by number."""
CUTS = (1 / 3, 2 / 3)
"""Ranks between low, middle and high."""


@configuration
class RegimeConfig:
    """What tells regimes apart. Windows are in bars."""

    volatility_window: int = 21
    """Returns that a deviation is of."""
    history: int = 252
    """Deviations before it among which it is ranked."""
    trend_window: int = 20
    trending: float = 0.25
    """Efficiency ratio from which on an asset trends."""
    volatility_margin: float = 0.05
    """Rank by which a bound must be passed before the volatility is another; 0 for none."""
    trend_margin: float = 0.05
    """The same of the efficiency ratio."""
    memory: int = 64
    """Bars that the margins look back on."""

    def __post_init__(self) -> None:
        for name in ("volatility_window", "history", "trend_window"):
            require_between(self, name, 2, 1e5)
        require_between(self, "trending", 0, 1)
        require_between(self, "volatility_margin", 0, 1 / 6)
        require_between(self, "trend_margin", 0, 0.5)
        require_between(self, "memory", 1, 1e5)

    @property
    def bars_needed(self) -> int:
        """Bars up to and including the present one that a regime is made of."""
        ranked = self.volatility_window + self.history + 1
        return max(ranked, self.trend_window + 1) + self.memory - 1


class Regimes(NamedTuple):
    """Of every asset at every close."""

    number: Tensor  # [T, A]  int64, place in `REGIMES`; -1 where there is too little history
    volatility: Tensor  # [T, A]  int64, place in `VOLATILITIES`, or -1
    trending: Tensor  # [T, A]  bool
    rank: Tensor  # [T, A]  of the deviation among those before, in [0, 1]; NaN if unknown
    efficiency: Tensor  # [T, A]  in [0, 1]; NaN if unknown

    def shares(self) -> Tensor:
        """Share of each regime [6] of the bars and assets where it is known; NaN if nowhere."""
        known = self.number[self.number >= 0]
        return torch.bincount(known, minlength=len(REGIMES)) / known.numel()

    def changes(self) -> Tensor:
        """Share [] of bars, of those where this one's and the last one's are known, that differ."""
        now, before = self.number[1:], self.number[:-1]
        both = (now >= 0) & (before >= 0)
        return (now != before)[both].double().mean()


def find_regimes(close: Tensor, config: RegimeConfig | None = None) -> Regimes:
    """Regimes at every bar from closes [T, A] up to it; NaN where an asset did not trade."""
    config = config or RegimeConfig()
    rank = volatility_rank(close, config.volatility_window, config.history)
    efficiency = efficiency_ratio(close, config.trend_window)
    known = rank.isfinite() & efficiency.isfinite()
    volatility = _settled(rank, CUTS, config.volatility_margin, config.memory)
    trending = _settled(efficiency, (config.trending,), config.trend_margin, config.memory) == 1
    number = len(TRENDS) * volatility + trending.long()
    return Regimes(
        number=torch.where(known, number, -1),
        volatility=torch.where(rank.isfinite(), volatility, -1),
        trending=trending & efficiency.isfinite(),
        rank=rank,
        efficiency=efficiency,
    )


def volatility_rank(close: Tensor, window: int = 21, history: int = 252) -> Tensor:
    """Rank [T, A], in [0, 1], of the deviation of the last `window` log returns of closes [T, A].

    Among the `history` deviations before it; NaN where they are not complete.
    """
    returns = log_returns(close.double())
    return rank_among_previous(trailing_deviation(returns, window), history)


def efficiency_ratio(close: Tensor, window: int = 20) -> Tensor:
    """Kaufman's |r_n| / sum |r_1| [T, A] over `window` bars of closes [T, A], in log returns.

    Bars without a close stand still. 0 where nothing moved, NaN where there are too few bars.
    """
    carried = carried_forward(close.double())
    distance = log_returns(carried, window).abs()
    way = trailing_mean(log_returns(carried).abs(), window) * window
    ratio = torch.where(way > 0, distance / way, 0.0).clamp_max(1.0)
    return torch.where(distance.isfinite() & close.isfinite(), ratio, torch.nan)


def _settled(values: Tensor, cuts: tuple[float, ...], margin: float, memory: int) -> Tensor:
    """Between which cuts values [T, A] lie, int64, left for another only by more than the margin.

    A bar maps what was held onto the nearest of what is possible there: it clamps it between the
    place of the value less the margin and the place of the value and the margin. A bar whose value
    is missing has that of the last one.
    """
    values = carried_forward(values)
    known = values.isfinite()
    begun, low, high = (_place(values + by, cuts) for by in (0.0, -margin, margin))
    # Before the first value there is nothing to hold, so that one is taken as it is.
    first = known & ~_earlier(known, 1, False)
    low = torch.where(first, begun, low).masked_fill(~known, 0)
    high = torch.where(first, begun, high).masked_fill(~known, len(cuts))
    held = _earlier(begun, memory - 1, 0)  # without a margin, when the memory begins
    return held.clamp(*_composed(low, high, memory - 1, len(cuts)))


def _place(values: Tensor, cuts: tuple[float, ...]) -> Tensor:
    """Number of cuts [T, A] that values reach."""
    reached = [(values >= cut).long() for cut in cuts]
    return torch.stack(reached).sum(0)


def _composed(low: Tensor, high: Tensor, bars: int, most: int) -> tuple[Tensor, Tensor]:
    """The clamps of the last `bars` bars [T, A], one after the other, as one clamp.

    Clamping to [a, b] and then to [c, d] is clamping to [clamp(a, c, d), clamp(b, c, d)], so
    windows are put together from halves, by the digits of `bars`.
    """
    done, length = 0, 1
    whole = torch.zeros_like(low), torch.full_like(high, most)  # of no bar
    part = low, high  # of `length` bars
    while bars:
        if bars & 1:
            whole = _after(part, done, whole, most)
            done += length
        part = _after(part, length, part, most)
        length, bars = 2 * length, bars >> 1
    return whole


def _after(
    first: tuple[Tensor, Tensor], by: int, then: tuple[Tensor, Tensor], most: int
) -> tuple[Tensor, Tensor]:
    """The clamp that stood `by` bars earlier, and one after it, as one."""
    low, high = _earlier(first[0], by, 0), _earlier(first[1], by, most)
    return low.clamp(*then), high.clamp(*then)


def _earlier(values: Tensor, by: int, filling: int) -> Tensor:
    """What stood `by` bars earlier [T, A], `filling` before the first."""
    moved = torch.full_like(values, filling)
    moved[by:] = values[: max(len(values) - by, 0)]
    return moved
