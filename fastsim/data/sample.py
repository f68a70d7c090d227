"""Market data that come with fastsim, for trying it out; sources stand in samples/NOTICE.md."""

from __future__ import annotations

import io
from importlib.resources import files

import polars as pl

from fastsim.data.bars import Bars
from fastsim.data.read import bars_from_table
from fastsim.data.tables import Table
from fastsim.errors import DataError

SAMPLES = {
    "us20": (
        "20 US stocks, daily adjusted closes, 2000-01-03 to 2022-12-28, no volume. Survivors "
        "chosen with hindsight: results are optimistic. For examples and tests, not for trading."
    ),
    "tech4": (
        "AAPL, GOOG, IBM, MSFT, daily open, high, low, close, volume and adjusted close, "
        "2004-08-19 to 2013-03-01. Winners chosen with hindsight: results are optimistic."
    ),
}
"""What each built-in data set holds and what to beware of."""

SPLITS = {"us20": ("2014-01-01", "2017-01-01")}
"""First days of validation and test of those that have usual ones."""


def sample_table(name: str) -> Table:
    """Load the table of a built-in data set, one of `SAMPLES`; DataError for an unknown name."""
    if name not in SAMPLES:
        raise DataError(f"no built-in data named {name!r}: use one of {', '.join(SAMPLES)}")
    content = (files("fastsim.data") / "samples" / f"{name}.parquet").read_bytes()
    return Table(pl.read_parquet(io.BytesIO(content)), f"sample {name}")


def sample_bars(name: str) -> Bars:
    """Load a built-in data set, one of `SAMPLES`; DataError for an unknown name."""
    return bars_from_table(sample_table(name))
