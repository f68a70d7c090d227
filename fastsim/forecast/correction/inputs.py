"""What a correction of volatility is linear in: measured volatilities, the calendar, and volume."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.data.bars import VOLUME
from fastsim.forecast.covariates.calendar import hour, month_end, session, weekday
from fastsim.forecast.covariates.ranges import garman_klass, parkinson
from fastsim.forecast.interface import Context, Forecast
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.season.clock import bars_to_come

HALF_LIVES = (1, 2, 4, 8, 16, 32, 64, 128)
VOLUME_HALF_LIVES = ((4, 64), (16, 128))
LIMIT = 3.0
"""Of what volatilities and volumes say, in log units."""
TINY = 1e-30


def inputs_of(context: Context, told: Forecast, local: Tensor) -> Tensor:
    """Inputs [B, F] of a correction; order one, the first of them 1.

    Volatilities count against the forecast's own of the next bar: squared returns, and the ranges
    of Parkinson (1980) and of Garman and Klass (1980), each weighed by eight half-lives. A bar
    without a range has its squared return in its place.

    Parameters
    ----------
    context
        Bars without their season [B, L, 6].
    told
        What is to be corrected, from these bars.
    local
        When bars are, by the market's clock [B, L].
    """
    close = context.close.double()
    gaps = returns_with_gaps(close, torch.arange(close.shape[1], device=close.device))
    square = gaps.returns.square()
    own = told.dispersion(gaps.last).double().clamp_min(TINY)  # [B, H]
    bars = context.bars.double()
    ranges = (estimate(bars)[:, 1:] for estimate in (parkinson, garman_klass))
    measured = [square, *(_or(each, square) for each in ranges)]
    level = own[:, :1].log()
    volatilities = [0.5 * (_decayed(each, gaps.known) + TINY).log() - level for each in measured]
    shape = (own / own[:, :1]).log()
    columns = [
        torch.ones_like(level),
        *volatilities,
        *(shape[:, min(h, shape.shape[1]) - 1, None] for h in (5, 21)),
        gaps.returns[:, -1:].abs() / own[:, :1],
        _volume(context.bars[..., VOLUME].double()),
    ]
    limited = (
        torch.cat(columns, 1).nan_to_num(nan=0.0, posinf=LIMIT, neginf=-LIMIT).clamp(-LIMIT, LIMIT)
    )
    return torch.cat([limited, calendar(local)], 1)


def calendar(local: Tensor) -> Tensor:
    """When the next bar is [B, 11]: waves of the day and the week, pauses, and the month's end."""
    coming = torch.cat([local[:, -1:], bars_to_come(local, local[:, 0], 1)], 1)  # [B, 2]
    told = (reading(coming)[:, -1] for reading in (hour, weekday, session, month_end))
    return torch.cat(tuple(told), 1)


def _or(values: Tensor, instead: Tensor) -> Tensor:
    return torch.where(values.isfinite() & (values >= 0), values, instead)


def _decayed(values: Tensor, known: Tensor) -> Tensor:
    """Weighed means [B, M] of what is known of `values` [B, L - 1], by half-lives."""
    age = torch.arange(values.shape[1], device=values.device).flip(0).double()
    half = torch.tensor(HALF_LIVES, device=values.device)
    weight = torch.exp2(-age[:, None] / half)  # [L - 1, M]
    return (values * known) @ weight / (known.double() @ weight).clamp_min(TINY)


def _volume(volume: Tensor) -> Tensor:
    """How much more is traded of late [B, 2], in logarithms; 0 where there is no volume."""
    known = volume.isfinite() & (volume > 0)
    traded = torch.where(known, volume, 0.0)
    age = torch.arange(volume.shape[1], device=volume.device).flip(0).double()
    columns = []
    for short, long in VOLUME_HALF_LIVES:
        means = []
        for half in (short, long):
            weight = torch.exp2(-age / half) * known
            means.append((traded * weight).sum(1) / weight.sum(1).clamp_min(TINY))
        columns.append(((means[0] + TINY) / (means[1] + TINY)).log())
    return torch.stack(columns, 1)
