"""Bars that a decision is made by: checked, and laid out as the agent's training bars were."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import numpy as np

from fastsim.agent.artifact import AgentSpec
from fastsim.data.bars import PRICES, Bars
from fastsim.data.dates import show, utc_now
from fastsim.errors import DataError

FIELDS = (*PRICES[:3], "volume", "adj_close")
"""What bars may have beside closes."""


def fields_of(bars: Bars) -> tuple[str, ...]:
    """What these bars have beside closes."""
    return tuple(name for name in FIELDS if getattr(bars, name) is not None)


def checked_window(
    bars: Bars,
    symbols: tuple[str, ...],
    spec: AgentSpec,
    needed: int,
    *,
    now: np.datetime64 | None,
    closed: Collection[date] = (),
) -> Bars:
    """The last `needed` of these bars, its symbols in the agent's order.

    Raises
    ------
    DataError
        Bars are too few, missing, there twice, out of order, not closed `now` or no longer the
        last; or a symbol or field is missing or unknown, or a number in them is.
    """
    laid = laid_out(bars, symbols, spec)
    for symbol in bars.symbols:
        if symbol not in symbols:
            raise DataError(f"the agent does not know {symbol}: leave its bars out")
    if len(bars) < needed:
        raise DataError(f"{len(bars)} bars are too few: the agent looks back on {needed}")
    window = laid.take(slice(-needed, None))
    spec.calendar.check(window.timestamps, closed)
    spec.calendar.check_end(window.timestamps[-1], utc_now() if now is None else now, closed)
    for name in ("close", *spec.fields):
        _check_numbers(window, name)
    return window


def laid_out(bars: Bars, symbols: tuple[str, ...], spec: AgentSpec) -> Bars:
    """The agent's symbols of these bars, in its order.

    Raises
    ------
    DataError
        A symbol or field is missing, or closes are adjusted where they were not.
    """
    for symbol in symbols:
        if symbol not in bars.symbols:
            raise DataError(f"there are no bars of {symbol}, which the agent trades: add them")
    for name in spec.fields:
        if getattr(bars, name) is None:
            raise DataError(f"bars have no {name}, and those the agent learned from had: add it")
    if "adj_close" not in spec.fields and bars.adj_close is not None:
        raise DataError(
            "bars have an adj_close, and those the agent learned from had none: give closes that "
            "are adjusted, or not, as they were then"
        )
    return bars.take(slice(None), [bars.symbols.index(symbol) for symbol in symbols])


def _check_numbers(bars: Bars, name: str) -> None:
    """Raise DataError where a number of a field is missing."""
    known = np.isfinite(getattr(bars, name))
    if not known.all():
        row, column = np.argwhere(~known)[-1]
        raise DataError(
            f"{bars.symbols[column]} has no {name} on {show(bars.timestamps[row])}: the agent "
            f"cannot decide by bars with gaps; mend them"
        )
