"""Bars of one symbol that were kept, and the same fetched again: what is new, and what differs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.data.bars import Bars, FloatArray
from fastsim.data.checks import FIELDS, PRICES
from fastsim.data.compare import ALIKE, Difference, difference, differs
from fastsim.data.dates import show
from fastsim.errors import DataError

COMPARED = ("close", "adj_close", "open", "high", "low")
"""Prices in the order in which differences are looked for."""


class Merged(NamedTuple):
    """What kept and fetched rows come to."""

    rows: pl.DataFrame  # in place of those that were kept
    added: int  # bars that were not there before
    altered: bool  # whether the rows are others than were kept
    adjusted: str = ""  # which prices were multiplied by one number: they cannot be put together
    revised: tuple[str, ...] = ()  # what the same source has otherwise now, and the rows with it


def rows_of(
    bars: Bars, symbol: str, *, fields: tuple[str, ...], source: str, fetched: np.datetime64
) -> pl.DataFrame:
    """Rows of a store out of the bars of one symbol, from its first to its last price.

    Raises
    ------
    DataError
        A field is not in the bars.
    """
    for name in fields:
        if getattr(bars, name) is None:
            raise DataError(
                f"{source} gives no {name} of {symbol}, which the store keeps; leave that source "
                f"out, or make a store of other `fields`"
            )
    priced = np.flatnonzero(~np.isnan(bars.close[:, 0]))
    kept = slice(priced[0], priced[-1] + 1)
    stamps = bars.timestamps[kept].astype("datetime64[ns]")
    return pl.DataFrame(
        {
            "timestamp": stamps,
            "symbol": [symbol] * len(stamps),
            **{name: getattr(bars, name)[kept, 0].astype(np.float64) for name in fields},
            "halted": np.isnan(bars.close[kept, 0]),
            "source": [source] * len(stamps),
            "fetched": np.full_like(stamps, fetched),
        }
    )


def fields_of(bars: Bars) -> tuple[str, ...]:
    """What these bars have."""
    return tuple(name for name in FIELDS if getattr(bars, name) is not None)


def within(rows: pl.DataFrame, first: np.datetime64, stop: np.datetime64) -> NDArray[np.bool_]:
    """Which rows [R] are of bars that begin in [first, stop)."""
    stamps = rows["timestamp"].to_numpy()
    inside: NDArray[np.bool_] = (stamps >= first) & (stamps < stop)
    return inside


def merge(kept: pl.DataFrame, fetched: pl.DataFrame, tolerance: float) -> Merged:
    """Kept rows [R] of one symbol with those that were fetched [S], both sorted by time.

    What is fetched again from the same source has to be alike within rounding: where it is not, the
    rows that result have it as it is now, and `revised` tells of it. A change of volume is taken
    over and not told. What another source gave stays, and may differ by `tolerance`, relatively.

    Raises
    ------
    DataError
        No bar is in both, or another source's price differs by more.
    """
    stamps, again = (each["timestamp"].to_numpy() for each in (kept, fetched))
    common, ours, theirs = np.intersect1d(stamps, again, return_indices=True)
    if not len(common):
        raise DataError(
            f"none of its bars, {_span(again)}, is among those that are kept, {_span(stamps)}, so "
            f"that they cannot be compared"
        )
    own = (kept["source"] == fetched["source"][0]).to_numpy()  # [R]
    before, now = kept[ours], fetched[theirs]  # [K]
    _check_others(before.filter(~own[ours]), now.filter(~own[ours]), tolerance)
    adjusted, revised = _revised(before.filter(own[ours]), now.filter(own[ours]))
    gone = own & (stamps > again[0]) & (stamps < again[-1]) & ~np.isin(stamps, again)
    if gone.any():
        text = f"the bar of {show(stamps[gone][0])} was there before and is missing now"
        revised.append(f"{text}{_more(int(gone.sum()))}")
    anew = own[ours] & _changed(before, now)
    gone[ours[anew]] = True
    taken = ~np.isin(again, common)
    taken[theirs[anew]] = True
    rows = pl.concat([kept.filter(~gone), fetched.filter(taken)]).sort("timestamp")
    altered = bool(gone.any() or taken.any())
    return Merged(rows, len(again) - len(common), altered, adjusted, tuple(revised))


def _check_others(before: pl.DataFrame, now: pl.DataFrame, tolerance: float) -> None:
    """Raise DataError where prices [K] are not about what other sources gave."""
    for name in _compared(before):
        was, becomes = before[name].to_numpy(), now[name].to_numpy()
        found = difference(was, becomes, tolerance)
        if found is not None:
            raise DataError(
                f"{_told(name, before, was, becomes, found)}, by {before['source'][found.first]}: "
                f"that is more apart than a tolerance of {tolerance:g}"
            )


def _revised(before: pl.DataFrame, now: pl.DataFrame) -> tuple[str, list[str]]:
    """How prices [K] differ from what the same source gave: adjusted anew, and revised."""
    adjusted, revised = "", []
    for name in _compared(before):
        was, becomes = before[name].to_numpy(), now[name].to_numpy()
        found = difference(was, becomes)
        if found is not None:
            text = _told(name, before, was, becomes, found)
            revised.append(text)
            adjusted = adjusted or (text if found.factor is not None else "")
    return adjusted, revised


def _told(
    name: str, before: pl.DataFrame, was: FloatArray, now: FloatArray, found: Difference
) -> str:
    """What has become of a price, in words."""
    stamp = show(before["timestamp"].to_numpy()[found.first])
    if found.factor is not None:
        bars = f"{found.bars} of {len(was)} bars that are kept, from {stamp} on"
        return f"{name} is {found.factor:.6g} times what it was, at {bars}"
    text = f"{name} on {stamp} is {now[found.first]:.8g} and was {was[found.first]:.8g}"
    return f"{text}{_more(found.bars)}"


def _changed(before: pl.DataFrame, now: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows [K] have a price that is no longer alike, or another volume."""
    changed = np.zeros(len(before), dtype=bool)
    for name in FIELDS:
        if name in before.columns:
            most = ALIKE if name in PRICES else 0.0
            changed |= differs(before[name].to_numpy(), now[name].to_numpy(), most)
    return changed


def _compared(rows: pl.DataFrame) -> list[str]:
    return [name for name in COMPARED if name in rows.columns]


def _more(count: int) -> str:
    return f" ({count} such bars)" if count > 1 else ""


def _span(stamps: NDArray[np.datetime64]) -> str:
    return f"{show(stamps[0])} to {show(stamps[-1])}"
