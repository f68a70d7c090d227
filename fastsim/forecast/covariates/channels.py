"""What networks may read beside returns, by name.

Covariates of the calendar are known of the bars to come as well as of those that were; those of the
market, ranges, volume and other columns of its bars, of the past alone. Each is a number or a few a
bar, of order one, and 0 where the return of the bar is unknown. None looks at a later bar, but for
the volatility of the whole past that prices and ranges count against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.data.bars import AMOUNT, CLOSE, HIGH, LOW, OPEN, VOLUME
from fastsim.errors import ConfigError, did_you_mean
from fastsim.forecast.covariates.calendar import hour, month_end, session, weekday
from fastsim.forecast.covariates.ranges import garman_klass, parkinson, yang_zhang
from fastsim.forecast.returns import GapReturns
from fastsim.forecast.season.clock import Offsets, bars_to_come, local_time, offsets_of

LIMIT = 3.0
"""Of volatilities and volumes in log units."""
PRICE_LIMIT = 15.0
"""Of prices about the close, in units of a bar's volatility."""
HALF_LIFE = 64
"""Of the mean that volume and traded value count against, in bars."""
TINY = 1e-30


class Read(NamedTuple):
    """What a covariate of the market is made of."""

    bars: Tensor  # [B, L, 6]  float64
    square: Tensor  # [B, L]  squared log return, 0 where unknown
    scale: Tensor  # [B, 1]  trailing volatility of a bar


class Covariate(NamedTuple):
    """Some numbers a bar."""

    width: int
    of_past: Callable[[Read], Tensor] | None = None  # [B, L]
    of_calendar: Callable[[Tensor], Tensor] | None = None  # of stamps [B, T], [B, T, width]

    @property
    def is_ahead(self) -> bool:
        """Whether it is known of bars to come."""
        return self.of_calendar is not None


def _size(estimate: Callable[[Tensor], Tensor]) -> Covariate:
    """Log of a bar's volatility by its range; by its return where there is no range."""

    def read(seen: Read) -> Tensor:
        variance = estimate(seen.bars)
        there = variance.isfinite() & (variance >= 0)
        ratio = torch.where(there, variance, seen.square) / seen.scale.square()
        return 0.5 * ratio.clamp(math.exp(-2.0 * LIMIT), math.exp(2.0 * LIMIT)).log()

    return Covariate(1, of_past=read)


def _trade(column: int) -> Covariate:
    """Log of how much is traded, against the trailing mean up to the bar."""

    def read(seen: Read) -> Tensor:
        traded = seen.bars[..., column]
        known = traded.isfinite() & (traded > 0)
        age = torch.ones_like(traded).cumsum(1) - traded.shape[1]
        weight = torch.exp2(age / HALF_LIFE) * known
        traded = torch.where(known, traded, 1.0)
        mean = (traded * weight).cumsum(1) / weight.cumsum(1).clamp_min(TINY)
        ratio = (traded / mean.clamp_min(TINY)).log()
        return torch.where(known, ratio.clamp(-LIMIT, LIMIT), 0.0)

    return Covariate(1, of_past=read)


def _price(column: int) -> Covariate:
    """Log of another price of the bar over its close, in units of volatility."""

    def read(seen: Read) -> Tensor:
        about = (seen.bars[..., column] / seen.bars[..., CLOSE]).log() / seen.scale
        known = about.isfinite()
        return torch.where(known, about.clamp(-PRICE_LIMIT, PRICE_LIMIT), 0.0)

    return Covariate(1, of_past=read)


COVARIATES = {
    "hour": Covariate(4, of_calendar=hour),
    "weekday": Covariate(4, of_calendar=weekday),
    "month-end": Covariate(1, of_calendar=month_end),
    "session": Covariate(2, of_calendar=session),
    "parkinson": _size(parkinson),
    "garman-klass": _size(garman_klass),
    "yang-zhang": _size(yang_zhang),
    "open": _price(OPEN),
    "high": _price(HIGH),
    "low": _price(LOW),
    "volume": _trade(VOLUME),
    "amount": _trade(AMOUNT),
}
"""By name; the last five are the columns of bars beside the close."""


def check_covariates(names: tuple[str, ...], zone: str, where: str) -> None:
    """Raise ConfigError, which names the field, unless these are different covariates."""
    for name in names:
        if name not in COVARIATES:
            raise ConfigError(
                f"{where} must be of {', '.join(COVARIATES)}, got {name!r}"
                f"{did_you_mean(name, COVARIATES)}"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"{where} must be named once each, got {', '.join(names)}")
    offsets_of(zone)


def named_covariates(text: str) -> tuple[str, ...]:
    """Names from `hour,weekday,parkinson`; none from an empty text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class Beside(NamedTuple):
    """What stands beside returns."""

    past: Tensor  # [B, L - 1, C]  of the bars that returns are of
    ahead: Tensor | None  # [B, K, F]  of those to come, a mean for each control point of a curve


class Covariates(nn.Module):
    """Covariates of bars and of those to come, by the clock of a zone.

    Parameters
    ----------
    names
        Keys of COVARIATES.
    zone
        Whose clock tells hours, weekdays, sessions and ends of months.
    """

    since: Tensor
    ahead: Tensor

    def __init__(self, names: tuple[str, ...], zone: str) -> None:
        super().__init__()
        self.names = names
        for name, table in offsets_of(zone)._asdict().items():
            self.register_buffer(name, table, persistent=False)

    @property
    def past_width(self) -> int:
        """Numbers of each bar that was."""
        return sum(COVARIATES[name].width for name in self.names)

    @property
    def ahead_width(self) -> int:
        """Numbers of each bar to come."""
        return sum(COVARIATES[name].width for name in self.names if COVARIATES[name].is_ahead)

    def forward(
        self, bars: Tensor, timestamps: Tensor, gaps: GapReturns, scale: Tensor, curve: Tensor
    ) -> Beside:
        """Read `bars` [B, L, 6] at `timestamps` [B, L] with what was made of their closes.

        Parameters
        ----------
        scale
            Trailing volatility of a bar [B].
        curve
            Weights [H, K] of K control points at the next H bars.
        """
        stamps = local_time(timestamps, Offsets(self.since, self.ahead))
        square = functional.pad(gaps.returns.double().square(), (1, 0))
        seen = Read(bars.double(), square, scale.double()[:, None])
        known = gaps.known[..., None]  # [B, L - 1, 1]
        past, coming = [], []
        first = stamps.gather(1, 1 + gaps.known.to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)
        ahead = torch.cat([stamps[:, -1:], bars_to_come(stamps, first, curve.shape[0])], 1)
        for name in self.names:
            each = COVARIATES[name]
            if each.of_past is not None:
                past.append(each.of_past(seen)[..., None])
            if each.of_calendar is not None:
                past.append(each.of_calendar(stamps))
                coming.append(each.of_calendar(ahead)[:, 1:])
        whole = torch.where(known, torch.cat(past, -1)[:, 1:].float(), 0.0)
        if not coming:
            return Beside(whole, None)
        weight = (curve.float() / curve.float().sum(0)).T  # [K, H]
        return Beside(whole, weight @ torch.cat(coming, -1).float())
