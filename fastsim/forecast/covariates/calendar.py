"""When bars are, as numbers that a network or a line can go by: known of bars to come as well.

Stamps are seconds of local time, by the clock of a market.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from fastsim.forecast.season.clock import DAY, HOURS_OF_WEEK, WEEK, kinds_of_bars

MONTH_END_DAYS = 2
DAYS_OF_400_YEARS = 146_097


def hour(stamps: Tensor) -> Tensor:
    """Two waves of the day [B, T, 4] at stamps [B, T]."""
    return _waves(stamps, DAY)


def weekday(stamps: Tensor) -> Tensor:
    """Two waves of the week [B, T, 4] at stamps [B, T]."""
    return _waves(stamps, WEEK)


def month_end(stamps: Tensor) -> Tensor:
    """Whether bars lie in the last days of a month [B, T, 1]."""
    return ends_month(stamps)[..., None].double()


def session(stamps: Tensor) -> Tensor:
    """Whether bars follow a night's pause, or a weekend's [B, T, 2]; the first follows none."""
    kind = functional.pad(kinds_of_bars(stamps), (1, 0))
    return torch.stack([kind == HOURS_OF_WEEK, kind == HOURS_OF_WEEK + 1], -1).double()


def ends_month(stamps: Tensor) -> Tensor:
    """Whether stamps lie in the last MONTH_END_DAYS days of a month, of the same shape."""
    days = stamps // DAY
    return _month(days) != _month(days + MONTH_END_DAYS)


def _waves(stamps: Tensor, period: int) -> Tensor:
    place = stamps % period / period
    turns = [
        turn(2.0 * math.pi * count * place) for count in (1, 2) for turn in (torch.sin, torch.cos)
    ]
    return torch.stack(turns, -1).double()


def _month(days: Tensor) -> Tensor:
    """Months since March of year 0 of days since 1970, by the proleptic Gregorian calendar."""
    since = days + 719_468  # from 1 March of year 0
    era = since // DAYS_OF_400_YEARS
    day = since - era * DAYS_OF_400_YEARS
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    return (era * 400 + year) * 12 + (5 * of_year + 2) // 153
