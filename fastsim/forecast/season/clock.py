"""When bars are, in the time of a market: local time, kinds of bars, and stamps of bars to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import torch
from torch import Tensor

from fastsim.errors import ConfigError

MINUTE, HOUR, DAY, WEEK = 60, 3_600, 86_400, 604_800  # seconds
FIRST_YEAR, LAST_YEAR = 1970, 2070
HOURS_OF_DAY, HOURS_OF_WEEK = 24, 168
AFTER_NIGHT, AFTER_WEEKEND, GAPS = 0, 1, 2
"""Bars that follow a pause have kinds of their own."""
NIGHT_S, WEEKEND_S = 4 * HOUR, 36 * HOUR
"""From how long a pause is a night's, and a weekend's; what is shorter is a bar like others."""
HOLE_S = 5 * DAY
"""A pause as long as this is a hole in the data: nothing is learnt from the return over it."""


class Offsets(NamedTuple):
    """Seconds that a zone's clock is ahead of UTC, from each of Z instants on."""

    since: Tensor  # [Z]  int64, seconds since 1970 UTC, increasing
    ahead: Tensor  # [Z]  int64


def offsets_of(zone: str) -> Offsets:
    """A zone of the IANA database, such as "America/New_York", as a table of its changes.

    Raises
    ------
    ConfigError
        There is no such zone.
    """
    try:
        clock = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f'there is no time zone {zone!r}: name one such as "UTC" or "America/New_York"'
        ) from None

    def ahead(instant: int) -> int:
        told = datetime.fromtimestamp(instant, UTC).astimezone(clock).utcoffset()
        assert told is not None
        return round(told / timedelta(seconds=1))

    first, last = (
        int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (FIRST_YEAR, LAST_YEAR)
    )
    since, told = [first], [ahead(first)]
    for day in range(first, last, DAY):
        if ahead(day + DAY) == told[-1]:
            continue
        low, high = day, day + DAY  # the clock changes once within this day
        while high - low > MINUTE:
            middle = (low + high) // 2
            low, high = (middle, high) if ahead(middle) == told[-1] else (low, middle)
        since.append(high - high % MINUTE)
        told.append(ahead(day + DAY))
    return Offsets(torch.tensor(since), torch.tensor(told))


def local_time(timestamps: Tensor, offsets: Offsets) -> Tensor:
    """What a clock of the zone shows at these instants, in seconds, of the same shape."""
    place = torch.bucketize(timestamps.contiguous(), offsets.since, right=True) - 1
    return timestamps + offsets.ahead[place.clamp_min(0)]


def bar_length(stamps: Tensor) -> Tensor:
    """Seconds [B] from bar to bar, the median over each row of `stamps` [B, L]."""
    return stamps.diff(dim=1).median(dim=1).values


def bars_to_come(stamps: Tensor, first: Tensor, horizon: int) -> Tensor:
    """Stamps [B, H] of the next bars after those of `stamps` [B, L], increasing, in local time.

    The last week comes again, and where less than a week is known, the last day; else bars follow
    each other as the last two do.

    Parameters
    ----------
    first
        Since when bars are known [B]; what lies before is padding.
    """
    last = stamps[:, -1:]  # [B, 1]
    step = (last - stamps[:, -2:-1]).clamp_min(1)
    period = torch.where(first[:, None] <= last - DAY, DAY, step)
    period = torch.where(first[:, None] <= last - WEEK, WEEK, period)  # [B, 1]
    before = (stamps <= last - period).sum(1, keepdim=True) - 1  # the bar that the last one repeats
    bars = stamps.shape[1] - 1 - before  # of a period
    ahead = torch.arange(horizon, device=stamps.device)  # [H]
    place = before + 1 + ahead % bars
    return stamps.gather(1, place) + period * (1 + ahead // bars)


def kinds_of_bars(stamps: Tensor) -> Tensor:
    """The kind of each bar [B, L - 1] of stamps [B, L] but the first, in local time.

    It is the hour of the week, of which there are HOURS_OF_WEEK, or one of GAPS after those where
    a pause lies before it.
    """
    pause = stamps.diff(dim=1)
    # 1970 began on a Thursday: hours count from there.
    hour = stamps[:, 1:] // HOUR % HOURS_OF_WEEK
    after = torch.where(pause < WEEKEND_S, AFTER_NIGHT, AFTER_WEEKEND) + HOURS_OF_WEEK
    return torch.where(pause < NIGHT_S, hour, after)


def of_the_day(kinds: Tensor) -> Tensor:
    """The same kinds with the hour of the day in place of that of the week; pauses follow."""
    return torch.where(
        kinds < HOURS_OF_WEEK, kinds % HOURS_OF_DAY, kinds - HOURS_OF_WEEK + HOURS_OF_DAY
    )
