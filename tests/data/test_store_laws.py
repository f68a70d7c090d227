"""Whatever updates there were, a store holds what one fetch of everything gives."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import ONE, TWO, assert_equal, bars_at, of_vendor, stamps, usual

from fastsim.data.store import Store
from fastsim.data.update import update_store
from fastsim.data.update_config import UpdateConfig

NAMES = ("A", "B", "C")
DAYS = stamps("2023-11-20", "2024-02-20", weekdays=True)
HOURS = stamps("2023-12-30T00:00", "2024-01-02T12:00", "30m")


@st.composite
def histories(draw):
    """Bars, when each symbol is listed and left, and what is updated when."""
    interval, stamps_of = draw(st.sampled_from([("1d", DAYS), ("30m", HOURS)]))
    last = len(stamps_of)
    spans = [(draw(st.integers(0, last // 4)), draw(st.integers(last // 2, last))) for _ in NAMES]
    times = sorted(draw(st.lists(st.integers(last // 3, last), min_size=1, max_size=4)))
    steps = [
        {
            "now": time,
            "symbols": draw(st.sets(st.sampled_from(NAMES), min_size=1)),
            "start": draw(st.integers(0, last // 4)),
            "down": draw(st.booleans()),
            "overlap": draw(st.integers(2, 9)),
            "since": draw(st.booleans()),
        }
        for time in times
    ]
    return interval, stamps_of, spans, steps


@given(histories())
def test_any_sequence_of_updates_is_one_fetch_of_everything(history):
    interval, times, spans, steps = history
    usual()
    for place, (name, (first, stop)) in enumerate(zip(NAMES, spans, strict=True)):
        for vendor in (ONE, TWO):
            vendor.serve(**{name: bars_at(times[first:stop], place)})
    length = np.timedelta64(1, "D") if interval == "1d" else np.timedelta64(30, "m")
    with tempfile.TemporaryDirectory() as folder:
        symbols, start = [], None
        for step in steps:
            ONE.down = step["down"]
            now = times[step["now"] - 1] + length  # when that bar closes
            given_start = str(times[step["start"]])[:10]
            start = given_start if start is None else min(start, given_start)
            symbols += sorted(step["symbols"] - set(symbols))
            update_store(
                Path(folder) / "us",
                UpdateConfig(
                    symbols=tuple(sorted(step["symbols"])),
                    source=("stand_ins:one", "stand_ins:two"),
                    start=start,
                    interval=interval,
                    overlap=step["overlap"],
                    since=str(times[step["now"] // 2])[:10] if step["since"] else None,
                ),
                now=now.astype("datetime64[ns]"),
            )
        store = Store.open(Path(folder) / "us")
        wanted = of_vendor(ONE, symbols, now - length, start=start)
        assert_equal(store.bars(), wanted)
        alone = of_vendor(ONE, symbols[:1], now - length, start=start)
        for count in (2, 7, 100):
            last = store.last(count, tuple(symbols[:1]))
            assert_equal(last, alone.take(slice(-count, None)))
        rows = store.rows()
        assert rows.select("symbol", "timestamp").is_unique().all()
        assert sum(each.bars for each in store.stretches()) == len(rows)
        assert rows.filter(pl.col("halted")).is_empty()
