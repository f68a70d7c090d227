"""Bars as they would be without their season, and forecasts with it again.

Log returns are divided by the root of the variance that their kind of bar has against others, so
that the past looks the same to a forecaster at any hour; its forecast over h bars is multiplied by
the root of the mean variance of those. What is left between is the forecaster's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.data.bars import CLOSE
from fastsim.forecast.interface import LEAST_RATIO
from fastsim.forecast.returns import GapReturns, returns_with_gaps
from fastsim.forecast.season.clock import DAY, HOLE_S, Offsets, bar_length, local_time, offsets_of
from fastsim.forecast.season.profile import KINDS, LEAST_DAYS, factors, known_days

PRICES = slice(0, CLOSE + 1)
"""Open, high, low and close."""


class Divided(NamedTuple):
    """What a forecaster is shown, and what its forecast is multiplied by."""

    bars: Tensor  # [B, L, 6]  the last close as it is
    last: Tensor  # [B]  that close: the latest known
    growth: Tensor  # [B, H]  factor of the log return over 1 to H bars


class Season(nn.Module):
    """The season of volatility that contexts show, and that a profile knew before.

    Parameters
    ----------
    zone
        Whose clock hours are told by: that of the market's centre, so that they do not move when
        clocks change.
    before
        Variance [KINDS] of every kind of bar against the mean, fitted on other bars; None where
        nothing is known before.

    Raises
    ------
    ConfigError
        There is no such zone.
    """

    since: Tensor
    ahead: Tensor
    before: Tensor

    def __init__(self, zone: str = "UTC", before: Tensor | None = None) -> None:
        super().__init__()
        self.zone = zone
        for name, table in offsets_of(zone)._asdict().items():
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("before", torch.ones(KINDS) if before is None else before)

    def forward(self, bars: Tensor, timestamps: Tensor, horizon: int) -> Divided:
        """Divide `bars` [B, L, 6] at `timestamps` [B, L], seconds since 1970 UTC."""
        stamps = local_time(timestamps, Offsets(self.since, self.ahead))
        closes = bars[..., CLOSE].double()
        positions = torch.arange(closes.shape[1], device=closes.device)
        gaps = returns_with_gaps(closes, positions)
        whole = stamps.diff(dim=1) < HOLE_S  # [B, L - 1]
        known = gaps.known & whole
        season = factors(gaps.returns, known, stamps, horizon, self.before.double())
        steps = _steps(gaps, season.past)  # [B, L - 1]
        returns = torch.where(whole, gaps.returns * gaps.spanned.sqrt() / steps, 0.0)
        divided = rebuilt(bars.double(), gaps.last, returns, steps).to(bars)
        there = (bar_length(stamps) < DAY) & (known_days(stamps, known) >= LEAST_DAYS)
        return Divided(
            torch.where(there[:, None, None], divided, bars),
            gaps.last,
            torch.where(there[:, None], _growth(season.coming), 1.0),
        )


def multiplied(quantiles: Tensor, last: Tensor, growth: Tensor) -> Tensor:
    """Quantiles [B, H, Q] of the close whose log return from `last` [B] is `growth` [B, H] times.

    A quantile below LEAST_RATIO of the price has no log return of its own, and takes that of it.
    """
    start = last.double()[:, None, None]
    returns = (quantiles.double() / start).clamp_min(LEAST_RATIO).log()
    return (start * (returns * growth[..., None]).exp()).float()


def _growth(coming: Tensor) -> Tensor:
    """Root of the mean variance [B, H] of the next h bars."""
    bars = torch.arange(1, coming.shape[1] + 1, device=coming.device)
    return (coming.cumsum(1) / bars).sqrt()


def _steps(gaps: GapReturns, past: Tensor) -> Tensor:
    """Root of the mean variance [B, L - 1] of the bars that each return spans."""
    sums = torch.nn.functional.pad(past.cumsum(1), (1, 0))  # [B, L]
    place = torch.arange(1, sums.shape[1], device=past.device)
    spanned = gaps.spanned.clamp_min(1)
    before = (place - spanned.long()).clamp_min(0)
    return ((sums[:, 1:] - sums.gather(1, before)) / spanned).sqrt()


def rebuilt(bars: Tensor, last: Tensor, returns: Tensor, steps: Tensor) -> Tensor:
    """Bars [B, L, 6] whose closes have these log returns and end at `last` [B].

    Open, high and low keep their place about the close, in units of the bar's step.
    """
    path = nn.functional.pad(returns.cumsum(1), (1, 0))
    close = (path - path[:, -1:]).exp() * last[:, None]  # [B, L]
    steps = nn.functional.pad(steps, (1, 0), value=1.0)[..., None]
    prices = bars[..., PRICES]
    about = (prices / prices[..., -1:]).log() / steps  # 0 for the close itself
    return torch.cat([close[..., None] * about.exp(), bars[..., CLOSE + 1 :]], -1)
