"""Files that a person may have: each gives the bars it holds, or one line that says why not."""

import runpy
import shutil
import sys
from pathlib import Path

import ccxt
import numpy as np
import pandas as pd
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.config import load_yaml
from fastsim.data.checks import CheckConfig
from fastsim.data.read import read_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.vendors import fetch_ccxt
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.config import TrainConfig
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.stats.metrics import periods_per_year

SHORT = FeatureConfig(
    return_windows=(1,), momentum_window=3, momentum_skip=2, short_window=2, volatility_window=3
)
DATA = Path(__file__).parent / "data"
FIRST, LAST = "2021-03-01", "2021-03-10"
FIELDS = ("open", "high", "low", "volume")


def upwards(first, step, bars=8):
    return first + step * np.arange(bars)


AAPL = {"AAPL": upwards(120, 0.5)}
PAIR = {"AAPL": upwards(120, 1), "MSFT": upwards(230, 1)}

# file: (closes by symbol, first stamp, last stamp, first volumes)
READ = {
    "cr_line_ends.csv": (AAPL, FIRST, LAST, [1000]),
    "cr_after_header.csv": (AAPL, FIRST, LAST, [1000]),
    "crcrlf.csv": (AAPL, FIRST, LAST, [1000]),
    "header_nbsp.csv": (AAPL, FIRST, LAST, [1000]),
    "newline_in_last_cell.csv": (AAPL, FIRST, LAST, [1000]),
    "blanks_at_end.csv": (AAPL, FIRST, LAST, [1000]),
    "utf16_without_bom.csv": (AAPL, FIRST, LAST, [1000]),
    "semicolons.csv": (AAPL, FIRST, LAST, [1000]),
    "minutes_as_digits.csv": (AAPL, "2021-03-01T09:30", "2021-03-01T09:37", None),
    "zone_plus0530.parquet": ({"INFY": upwards(19, 1)}, FIRST, LAST, None),
    "zone_minus0330.parquet": ({"BCE": upwards(45, 1)}, FIRST, LAST, None),
    "zone_plus0545.parquet": ({"NTC": upwards(8, 1)}, FIRST, LAST, None),
    "two_levels.parquet": (PAIR, FIRST, LAST, [1120, 1230]),
    "two_levels.csv": (PAIR, FIRST, LAST, [1120, 1230]),
    "two_levels_one_symbol.csv": ({"AAPL": upwards(120, 1)}, FIRST, LAST, [1120]),
    "two_levels_low_open.parquet": (
        {"LOW": upwards(160, 1), "OPEN": upwards(18, 1)},
        FIRST,
        LAST,
        [1160, 1018],
    ),
    "flattened.csv": (PAIR, FIRST, LAST, [1120, 1230]),
    "resaved_by_pandas.csv": (
        {"AAPL": upwards(120, 0.5), "MSFT": upwards(230, 0.5)},
        FIRST,
        LAST,
        None,
    ),
    "index_level.parquet": (PAIR, FIRST, LAST, None),
    "wide_low_day.csv": (
        {"LOW": upwards(160, 0.5), "DAY": upwards(40, 0.5), "AAPL": upwards(120, 0.5)},
        FIRST,
        LAST,
        None,
    ),
    "wide_time.csv": (
        {"OPEN": upwards(18, 0.5), "TIME": upwards(25, 0.5), "HIGH": upwards(30, 0.5)},
        FIRST,
        LAST,
        None,
    ),
}


def told_by(arguments, capsys):
    """What the command line says on standard error, where it ends in one line and status 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert told.startswith("fastsim: ") and told.count("\n") == 1, told
    return told


@pytest.mark.parametrize("name", READ)
def test_a_file_of_another_system_gives_the_bars_that_it_holds(name, capfd):
    closes, first, last, volumes = READ[name]
    bars = read_bars(DATA / name)
    assert bars.symbols == tuple(closes)
    np.testing.assert_array_equal(bars.close, np.stack(list(closes.values()), axis=1))
    assert [str(bars.timestamps[row])[: len(first)] for row in (0, -1)] == [first, last]
    if volumes is None:
        assert bars.volume is None
    else:
        np.testing.assert_array_equal(bars.volume, np.array(volumes) + np.arange(8)[:, None])
        assert all(getattr(bars, field) is not None for field in FIELDS)
    main(["data", "check", str(DATA / name)])
    said = capfd.readouterr()
    assert f"8 bars of {len(closes)} symbols, {first[:10]} to {last[:10]}" in said.out
    assert ", ".join(closes) in said.out
    assert "panicked" not in said.err


@pytest.mark.parametrize("name", ["two_levels.parquet", "two_levels_low_open.parquet"])
def test_frames_of_two_levels_are_read_as_their_files(name):
    frame, wanted = pd.read_parquet(DATA / name), read_bars(DATA / name)
    for form in (frame, frame.swaplevel(axis=1), frame.rename_axis(columns=[None, None])):
        bars = read_bars(form)
        assert bars.symbols == wanted.symbols
        for field in ("close", *FIELDS):
            np.testing.assert_array_equal(getattr(bars, field), getattr(wanted, field))


@pytest.mark.parametrize("name", ["zone_plus0530", "zone_minus0330", "zone_plus0545"])
def test_zones_that_are_offsets_are_read_from_frames_too(name):
    wanted = read_bars(DATA / f"{name}.parquet")
    for frame in (
        pd.read_parquet(DATA / f"{name}.parquet"),
        pl.scan_parquet(DATA / f"{name}.parquet"),
    ):
        bars = read_bars(frame)
        np.testing.assert_array_equal(bars.timestamps, wanted.timestamps)
        np.testing.assert_array_equal(bars.close, wanted.close)


@pytest.mark.parametrize("where", ["cell", "header"])
def test_a_field_of_140_000_characters_is_read(where, tmp_path, monkeypatch):
    path = tmp_path / "long_field.csv"
    monkeypatch.setattr(sys, "argv", ["make_long_field.py", str(path)])
    runpy.run_path(str(DATA / "make_long_field.py"))
    if where == "header":
        path.write_text(path.read_text().replace("note", "n" * 140_000))
    bars = read_bars(path)
    assert bars.symbols == ("AAPL",)
    np.testing.assert_array_equal(bars.close[:, 0], upwards(121, 1))


# file: what the one line says
REFUSED = {
    "cr_in_last_row.csv": ("row 8", "carriage return"),
    "bom_only.csv": ("the file is empty",),
    "close_called_last.csv": ("no close column", "'Last'", "rename it to 'close'"),
    "date_out_of_range.parquet": ("not a date from 1678 to 2261",),
    "damaged.parquet": ("not readable as .parquet",),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_on_either_way(name, capfd):
    with pytest.raises(DataError) as caught:
        read_bars(DATA / name)
    told = told_by(["data", "check", DATA / name], capfd)
    trained = told_by(["train", "--data.source", DATA / name], capfd)
    for part in (str(DATA / name), *REFUSED[name]):
        assert part in str(caught.value)
        assert part in told
        assert part in trained
    assert "\n" not in str(caught.value)


def test_a_date_and_a_time_of_day_in_two_columns_are_one_stamp(capsys):
    path = DATA / "date_and_time.csv"
    hours = [f"2021-03-0{day}T{hour:02d}:30" for day in (1, 2) for hour in (9, 10, 11, 12)]
    bars = read_bars(path, symbols=["AAPL"])
    assert [str(stamp)[:16] for stamp in bars.timestamps] == hours
    np.testing.assert_array_equal(bars.close[:, 0], upwards(50.5, 1))
    with pytest.raises(DataError, match=r"symbols='AAPL' in DataConfig"):
        read_bars(path)
    assert "--data.symbols AAPL" in told_by(["data", "check", path], capsys)
    assert "--data.symbols AAPL" in told_by(["train", "--data.source", path], capsys)
    main(["data", "check", str(path), "--data.symbols", "AAPL"])
    assert "8 bars of 1 symbols, 2021-03-01 to 2021-03-02" in capsys.readouterr().out


def test_currencies_without_volume_are_traded_without_its_limits(capsys):
    path = DATA / "fx_without_volume.csv"
    with pytest.raises(DataError) as caught:
        read_bars(path)
    message = str(caught.value)
    assert "EURUSD has no volume at any of its 24 bars" in message
    assert "zero_volume='drop' in CheckConfig (ignore_volume=True in DataConfig)" in message
    by_checks = read_bars(path, checks=CheckConfig(zero_volume="drop"))
    by_config = load_bars(DataConfig(source=str(path), ignore_volume=True))
    repaired = load_bars(DataConfig(source=str(path), repair=True))
    for bars in (by_checks, by_config, repaired):
        assert bars.volume is None
        assert np.isfinite(bars.close).all() and len(bars) == 24
        tape = make_tape(bars, TapeConfig(features=SHORT))
        assert not tape.has_volume
        assert bool(tape.next["tradable"][:-1].all())
    assert [repair.problem for repair in repaired.repairs] == ["zero_volume"]
    assert "by --data.ignore-volume" in told_by(["data", "check", path], capsys)
    assert "by --data.ignore-volume" in told_by(["train", "--data.source", path], capsys)
    main(["data", "check", str(path), "--data.ignore-volume"])
    assert "24 bars of 1 symbols" in capsys.readouterr().out


def test_symbols_with_brackets_are_shown_as_they_are(capsys):
    main(["data", "check", str(DATA / "symbol_bracket.csv")])
    told = capsys.readouterr().out
    assert "AAPL, ES[/H5]" in told
    assert [line.split()[3] for line in told.splitlines() if "listings" in line] == ["ES[/H5]"]


def test_a_day_of_tokyo_stays_that_day():
    bars = read_bars(DATA / "tokyo.csv", start="2021-02-01")
    assert str(bars.timestamps[0])[:10] == "2021-02-01"
    assert bars.close[0, 0] == 105
    months = read_bars(DATA / "tokyo.csv").timestamps.astype("datetime64[M]")
    assert (months == np.datetime64("2021-02")).sum() == 7


def test_a_month_of_an_exchange_is_finished_when_it_is_over(monkeypatch):
    rows = pl.read_csv(DATA / "monthly_candles.csv").rows()
    monkeypatch.setattr(
        ccxt.binance,
        "fetch_ohlcv",
        lambda *_, since, **__: [list(row) for row in rows if row[0] >= since],
    )
    for clock, months in (("2021-07-31T12:00", 4), ("2021-08-01T00:00", 5)):
        now = int(np.datetime64(clock, "ms").astype(np.int64))
        monkeypatch.setattr(ccxt.binance, "milliseconds", lambda _, now=now: now)
        bars = fetch_ccxt(
            "binance", ["BTC/USDT"], start="2021-03-01", end="2021-12-31", timeframe="1M"
        )
        assert len(bars) == months
        assert str(bars.timestamps[-1])[:7] == f"2021-0{months + 2}"


def test_six_sessions_a_week_are_313_a_year():
    bars = read_bars(DATA / "six_sessions.csv")
    assert periods_per_year(bars.timestamps) == pytest.approx(365 * 6 / 7)


def test_minutes_without_a_gap_are_525_600_a_year():
    bars = read_bars(DATA / "minutes.csv")
    assert periods_per_year(bars.timestamps) == pytest.approx(525_600)


def test_names_and_dates_of_a_configuration_need_no_quotes(tmp_path, capsys, monkeypatch):
    symbols = load_yaml(TrainConfig, DATA / "config_symbols.yaml").data.symbols
    assert symbols == ("ON", "NO", "000001")
    dates = load_yaml(TrainConfig, DATA / "config_dates.yaml")
    assert (dates.validation_start, dates.test_start) == ("2018-01-01", "2020-01-01")
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "wide_low_day.csv", tmp_path / "bars.csv")
    told = told_by(["train", "--config", DATA / "config_symbols.yaml"], capsys)
    assert "no symbol 'ON' in the data" in told


def test_numbers_for_names_are_refused_with_a_remedy(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data:\n  symbols: [600519, ON]\n")
    with pytest.raises(
        ConfigError, match=r"data\.symbols must be text, got 600519: put it in quotes"
    ):
        load_yaml(TrainConfig, path)
    path.write_text("data:\n  symbols: ['600519', ON]\n")
    assert load_yaml(TrainConfig, path).data.symbols == ("600519", "ON")
