"""Vendors that serve bars from frames, remember what they were asked, and fail as they are told."""

from __future__ import annotations

import numpy as np
import polars as pl

from fastsim.data.bars import Bars
from fastsim.data.read import bars_from_table
from fastsim.data.tables import load_table
from fastsim.data.update import update_store
from fastsim.data.update_config import UpdateConfig
from fastsim.data.vendors import Vendor


class StandIn:
    """A vendor's side: what it has, by its own names, and what is wrong with it."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.frames = {}  # name -> its rows
        self.asked = []  # (name, start, end)
        self.down = False
        self.last = None  # no later bar is known yet

    def serve(self, **frames):
        for name, frame in frames.items():
            self.frames[name] = frame.with_columns(pl.lit(name).alias("symbol"))

    def fetch(self, request):
        (name,) = request.symbols
        self.asked.append((name, request.start, request.end))
        if self.down:
            raise ConnectionError("no route to host")
        frame = self.frames[name]
        day = pl.col("date").dt.date().cast(pl.String)
        frame = frame.filter((day >= request.start) & (day <= request.end))
        return frame if self.last is None else frame.filter(pl.col("date") <= self.last)


ONE, TWO = StandIn(), StandIn()
one = Vendor(name="one", fetch=ONE.fetch)
two = Vendor(name="two", fetch=TWO.fetch)


def stamps(start, end, step="1D", *, weekdays=False):
    """From the first to the last, inclusive."""
    step = np.timedelta64(int(step[:-1]), step[-1])
    first, last = np.datetime64(start, "us"), np.datetime64(end, "us")
    every = np.arange(first, last + np.timedelta64(1, "us"), step)
    return every[np.is_busday(every.astype("datetime64[D]"))] if weekdays else every


def bars_at(dates, seed=0, price=100.0):
    """A walk at these stamps: the same bar at the same stamp, wherever they begin and end."""
    if not len(dates):
        return None
    keys = np.array(dates).astype("datetime64[s]").astype(np.int64) // 60
    draws = np.stack([np.random.default_rng([seed, key]).random(5) for key in keys.tolist()])
    close = price * (0.9 + 0.2 * draws[:, 0])
    open_ = close * (0.99 + 0.02 * draws[:, 1])
    return pl.DataFrame(
        {
            "date": dates,
            "open": open_,
            "high": np.maximum(open_, close) * (1 + 0.01 * draws[:, 2]),
            "low": np.minimum(open_, close) * (1 - 0.01 * draws[:, 3]),
            "close": close,
            "volume": np.round(1e6 * (1 + draws[:, 4])),
        }
    )


FIRST = {"symbols": ("KO", "PEP"), "source": ("stand_ins:one",), "start": "2024-01-01"}
DAYS = stamps("2024-01-01", "2024-03-29", weekdays=True)


def usual():
    """Both have nothing wrong, and the first has bars of two symbols."""
    for each in (ONE, TWO):
        each.reset()
    ONE.serve(KO=bars_at(DAYS, 1), PEP=bars_at(DAYS, 2))


def at(text):
    return np.datetime64(text, "ns")


def update(folder, now, **options):
    return update_store(folder, UpdateConfig(**options), now=at(now))


def made(folder, now="2024-02-01T12:00", **options):
    """A store by one fetch."""
    return update(folder, now, **{**FIRST, **options})


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal(bars: Bars, wanted: Bars):
    assert bars.symbols == wanted.symbols
    np.testing.assert_array_equal(bars.timestamps, wanted.timestamps)
    for name in ("open", "high", "low", "close", "volume", "adj_close"):
        mine, theirs = getattr(bars, name), getattr(wanted, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


def of_vendor(vendor, names, last, **options):
    """What a vendor has of these up to a bar, read in one go."""
    frame = pl.concat([vendor.frames[name] for name in names])
    table = load_table(frame.filter(pl.col("date") <= np.datetime64(last, "us")))
    return bars_from_table(table, symbols=names, **options)


def altered(frame, day, **factors):
    """A frame with numbers of one day multiplied."""
    there = pl.col("date").dt.date().cast(pl.String) == day
    return frame.with_columns(
        pl.when(there).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name, factor in factors.items()
    )


def scaled(frame, factor, until=None):
    """A frame with all prices multiplied, or those up to a day."""
    before = pl.lit(True) if until is None else pl.col("date").dt.date().cast(pl.String) <= until
    names = [name for name in ("open", "high", "low", "close") if name in frame.columns]
    return frame.with_columns(
        pl.when(before).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in names
    )
