"""Which bars a backtest is of, and which it looks back on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsim.agent.agent import Agent
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_stamp, show
from fastsim.errors import DataError


class Span(NamedTuple):
    """Bars of a backtest, with those before it that the first decision looks back on."""

    bars: Bars
    start: str  # ISO stamp of the first decision
    end: str  # ISO stamp of the last close
    closed: tuple[str, ...]  # ISO dates of days on which no bar begins


def span_of(agent: Agent, bars: Bars, start: str | None, end: str | None) -> Span:
    """The part of some bars from `start` to `end`, both included, and what the agent needs before.

    Without a start it is as early as the agent can decide; without an end, the last bar.

    Raises
    ------
    DataError
        A symbol is missing, no date is one, or bars are too few.
    """
    for symbol in agent.symbols:
        if symbol not in bars.symbols:
            raise DataError(f"there are no bars of {symbol}, which the agent trades: add them")
    needed, stamps = agent.bars_needed, bars.timestamps
    first = needed - 1 if start is None else int(np.searchsorted(stamps, _stamp(start, "start")))
    last = len(bars) if end is None else int(np.searchsorted(stamps, _after(end), "left"))
    if first < needed - 1:
        raise DataError(
            f"{first} bars before {start} are too few: the agent looks back on {needed}, that of "
            f"its first decision included; add earlier ones, or start at "
            f"{show(stamps[needed - 1]) if len(bars) >= needed else 'a later date'}"
        )
    if last - first < 2:
        raise DataError(
            f"a backtest is from one close to another, and there are {max(0, last - first)} bars "
            f"from {start or 'the first decision on'} to {end or 'their end'} after the "
            f"{needed - 1} that the agent looks back on: give more"
        )
    columns = [bars.symbols.index(symbol) for symbol in agent.symbols]
    part = bars.take(slice(first + 1 - needed, last), columns)
    return Span(
        bars=part,
        start=str(stamps[first]),
        end=str(part.timestamps[-1]),
        closed=_days_without(part.timestamps),
    )


def _stamp(text: str, name: str) -> np.datetime64:
    return iso_stamp(text, name)


def _after(text: str) -> np.datetime64:
    """The moment after everything that an ISO date or stamp includes."""
    length = np.timedelta64(1, "D") if len(text) == len("2020-01-31") else np.timedelta64(1, "ns")
    return iso_stamp(text, "end") + length


def _days_without(timestamps: np.ndarray) -> tuple[str, ...]:
    """Days between the first and the last of these on which none is."""
    days = timestamps.astype("datetime64[D]")
    every = np.arange(days[0], days[-1])
    return tuple(every[~np.isin(every, days)].astype(str).tolist())
