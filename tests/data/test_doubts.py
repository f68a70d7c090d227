"""What looks wrong in bars and is left as it is: splits in the prices, hours that come twice."""

import logging

import numpy as np
import pandas as pd
import polars as pl
import pytest
from worlds import random_bars

from fastsim.cli import main
from fastsim.data.checks import CheckConfig
from fastsim.data.doubts import jumps_like_splits
from fastsim.data.read import read_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import DataError

DAYS = pd.bdate_range("2020-01-01", periods=120)
SPLIT = str(DAYS[60])[:10]


def closes(factor, *, spread=0.01, seed=3):
    """A random walk whose prices are `factor` times as high from the sixtieth bar on."""
    moves = np.random.default_rng(seed).normal(0, spread, len(DAYS))
    return 100 * np.exp(np.cumsum(moves)) * np.where(np.arange(len(DAYS)) < 60, 1.0, factor)


@pytest.mark.parametrize("factor", [2, 3, 4, 10, 20, 100])
@pytest.mark.parametrize("way", ["falls", "rises"])
@pytest.mark.parametrize("spread", [0.0, 0.005, 0.02])
def test_a_split_left_in_the_prices_is_told_with_its_factor_and_date(factor, way, spread):
    prices = closes(1 / factor if way == "falls" else factor, spread=spread)
    bars = read_bars(pd.DataFrame({"A": prices, "B": closes(1.0)}, index=DAYS))
    assert len(bars.doubts) == 1
    assert f"A {way} by a factor of {factor} on {SPLIT}, as in a split" in bars.doubts[0]


def test_a_split_that_the_adjusted_close_undoes_is_none():
    frame = pd.DataFrame({"date": DAYS, "symbol": "A", "close": closes(0.25)})
    assert read_bars(frame).doubts
    assert read_bars(frame.assign(adj_close=closes(1.0) / 4)).doubts == ()


def test_other_jumps_are_no_splits():
    spike = closes(1.0)
    spike[60] *= 2
    for prices in (closes(1.0), closes(0.7), closes(1.2), closes(1.0, spread=0.2), spike):
        assert read_bars(pd.DataFrame({"A": prices}, index=DAYS)).doubts == ()
    assert jumps_like_splits(random_bars(500, 5, seed=1)) == ()


def test_many_splits_are_few_lines():
    frame = pd.DataFrame({f"S{k}": closes(0.5, seed=k) for k in range(9)}, index=DAYS)
    assert len(read_bars(frame).doubts) == 6
    assert read_bars(frame).doubts[-1] == "4 more such jumps"


def test_doubts_are_told_wherever_bars_are_read(tmp_path, capsys, caplog):
    path = tmp_path / "bars.csv"
    pl.DataFrame({"date": DAYS.strftime("%Y-%m-%d").to_list(), "A": closes(0.5)}).write_csv(path)
    wanted = f"A falls by a factor of 2 on {SPLIT}"
    with caplog.at_level(logging.WARNING):
        read_bars(path)
        load_bars(DataConfig(source=str(path)))
    assert caplog.text.count(wanted) == 2
    main(["data", "check", str(path)])
    assert f"Warning: {wanted}" in capsys.readouterr().out


AUTUMN = {
    "hours of Europe": ("2021-10-31", [0, 60, 120, 120, 180, 240], "02:00"),
    "half hours of America": ("2021-11-07", [0, 30, 60, 90, 60, 90, 120], "01:00"),
    "minutes of America": ("2021-11-07", [*range(120), *range(60, 150)], "01:00"),
    "hours of Australia": ("2021-04-04", [60, 120, 120, 180, 240], "02:00"),
}


def at(day, minutes):
    return [str(np.datetime64(day, "m") + minute) for minute in minutes]


@pytest.mark.parametrize("name", AUTUMN)
def test_the_hour_that_comes_twice_in_autumn_is_named_with_and_without_repair(
    name, tmp_path, capsys
):
    day, minutes, hour = AUTUMN[name]
    frame = pl.DataFrame({"date": at(day, minutes), "ES": 100.0 + np.arange(len(minutes))})
    with pytest.raises(DataError) as caught:
        read_bars(frame)
    message = str(caught.value)
    assert f"the hour from {hour} comes twice" in message and "\n" not in message
    assert "give stamps in UTC, or with their offset" in message
    bars = read_bars(frame, checks=CheckConfig.repairing())
    assert len(bars) == len(set(minutes))
    assert f"ES on {day}: the hour from {hour} comes twice" in bars.doubts[0]
    frame.write_csv(tmp_path / "bars.csv")
    main(["data", "check", str(tmp_path / "bars.csv"), "--repair"])
    assert f"Warning: ES on {day}: the hour from {hour} comes twice" in capsys.readouterr().out


def test_stamps_with_their_offset_have_no_hour_twice():
    stamps = pd.date_range("2021-10-31", periods=6, freq="h", tz="Europe/Berlin")
    bars = read_bars(pd.DataFrame({"ES": np.arange(1.0, 7.0)}, index=stamps))
    assert len(bars) == 6 and bars.doubts == ()


@pytest.mark.parametrize(
    ("day", "minutes"),
    [
        ("2021-10-30", [60, 120, 120, 180]),  # a Saturday
        ("2021-07-04", [60, 120, 120, 180]),  # a Sunday of summer
        ("2021-10-31", [600, 660, 660, 720]),  # at noon
        ("2021-10-31", [0, 60, 60, 120, 120, 180]),  # two hours
    ],
)
def test_other_times_that_come_twice_are_duplicates(day, minutes):
    frame = pl.DataFrame({"date": at(day, minutes), "ES": 100.0 + np.arange(len(minutes))})
    with pytest.raises(DataError) as caught:
        read_bars(frame)
    assert "comes twice" not in str(caught.value)
    assert "duplicates='keep_last'" in str(caught.value)
    assert read_bars(frame, checks=CheckConfig.repairing()).doubts == ()
