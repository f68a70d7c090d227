"""Reading laws: the form, the file type and the library of a table change nothing."""

import gzip
import os
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from worlds import random_bars

from fastsim.data.bars import (
    AMOUNT,
    BAR_FIELDS,
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    VOLUME,
    Bars,
    Repair,
)
from fastsim.data.checks import CheckConfig
from fastsim.data.dates import rows_between, show_span
from fastsim.data.read import read_bars, write_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.split import Fold, split_by_date, walk_forward
from fastsim.errors import DataError
from fastsim.market.tape import make_tape
from fastsim.stats.years import years_between

DAYS = pd.bdate_range("2019-12-30", periods=8)
ARRAYS = ("open", "high", "low", "close", "volume", "adj_close")


def market(symbols=("MSFT", "AAPL", "IBM"), late=0, early=0) -> pd.DataFrame:
    """Long pandas frame of sound bars; the first symbol lists late, the last delists early."""
    rng = np.random.default_rng(7)
    frames = []
    for place, symbol in enumerate(symbols):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS))))
        open_ = close * np.exp(rng.normal(0, 0.01, len(DAYS)))
        frame = pd.DataFrame(
            {
                "date": DAYS,
                "symbol": symbol,
                "open": open_,
                "high": np.maximum(open_, close) * 1.01,
                "low": np.minimum(open_, close) * 0.99,
                "close": close,
                "volume": rng.integers(1, 1000, len(DAYS)).astype(float),
                "adj_close": close * 0.9,
            }
        )
        first = late if place == 0 else 0
        last = len(DAYS) - (early if place == len(symbols) - 1 else 0)
        frames.append(frame.iloc[first:last])
    return pd.concat(frames, ignore_index=True)


def closes(frame: pd.DataFrame) -> pd.DataFrame:
    symbols = frame["symbol"].unique()
    return frame.pivot(index="date", columns="symbol", values="close")[symbols]


def to_polars(frame: pd.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


def assert_same(left: Bars, right: Bars, fields=ARRAYS) -> None:
    assert left.symbols == right.symbols
    np.testing.assert_array_equal(left.timestamps, right.timestamps)
    for name in fields:
        a, b = getattr(left, name), getattr(right, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_bars_hold_exactly_the_numbers_of_the_source():
    frame = market()
    bars = read_bars(frame)
    assert bars.symbols == ("MSFT", "AAPL", "IBM")
    np.testing.assert_array_equal(bars.timestamps, DAYS.to_numpy().astype("datetime64[ns]"))
    for name in ARRAYS:
        wanted = frame.pivot(index="date", columns="symbol", values=name)[list(bars.symbols)]
        np.testing.assert_array_equal(getattr(bars, name), wanted.to_numpy(), err_msg=name)
    assert bars.repairs == ()


@pytest.mark.parametrize("listing", [{}, {"late": 2, "early": 3}], ids=["together", "apart"])
def test_long_and_wide_give_the_same_closes(listing):
    frame = market(**listing)
    long = read_bars(frame[["date", "symbol", "close"]])
    assert_same(long, read_bars(closes(frame)))
    assert_same(long, read_bars(closes(frame).reset_index()))
    assert long.repairs == read_bars(closes(frame)).repairs


@pytest.mark.parametrize("form", ["long", "wide"])
def test_every_file_type_and_frame_library_gives_the_same_bars(form, tmp_path):
    frame = market(late=2, early=1) if form == "long" else closes(market(late=2)).reset_index()
    wanted = read_bars(frame)
    polars = to_polars(frame)
    frame.to_csv(tmp_path / "bars.csv", index=False)
    frame.to_csv(tmp_path / "indexed.csv.gz")
    polars.write_parquet(tmp_path / "bars.parquet")
    for source in (polars, polars.lazy(), *sorted(tmp_path.iterdir())):
        assert_same(wanted, read_bars(source))
    assert_same(wanted, read_bars(str(tmp_path / "bars.csv")))


def test_the_order_of_rows_across_symbols_does_not_matter():
    frame = market()
    by_date = frame.sort_values("date", kind="stable")
    assert_same(read_bars(frame), read_bars(by_date))


def test_pandas_index_may_hold_dates_and_symbols():
    frame = market()
    wanted = read_bars(frame)
    assert_same(wanted, read_bars(frame.set_index("date")))
    assert_same(wanted, read_bars(frame.set_index(["date", "symbol"])))
    nameless = frame.set_index(["date", "symbol"]).rename_axis([None, None])
    assert_same(wanted, read_bars(nameless))
    assert_same(read_bars(closes(frame)), read_bars(closes(frame).rename_axis(None)))


@pytest.mark.parametrize("first", ["field", "symbol"])
def test_pandas_columns_may_have_two_levels_in_either_order(first):
    frame = market(late=3)
    wide = frame.pivot(index="date", columns="symbol")
    wide = wide if first == "field" else wide.swaplevel(axis=1)
    assert_same(
        read_bars(frame, symbols=["AAPL", "MSFT", "IBM"]),
        read_bars(wide, symbols=["AAPL", "MSFT", "IBM"]),
    )


@pytest.mark.parametrize(
    "renamed",
    [
        {"date": "Date", "symbol": "Ticker", "adj_close": "Adj Close", "close": "Close"},
        {"date": "timestamp", "symbol": "asset", "adj_close": "adjusted_close", "volume": "Vol"},
        {"date": "DATETIME", "symbol": "SYMBOL", "adj_close": "Adj. Close", "open": "OPEN"},
        {"date": "time", "symbol": "instrument", "adj_close": "adjClose"},
    ],
)
def test_common_spellings_of_headers_are_understood(renamed):
    frame = market()
    assert_same(read_bars(frame), read_bars(frame.rename(columns=renamed)))


def test_tickers_that_look_like_fields_are_symbols_in_a_wide_table():
    wide = closes(market(symbols=("OPEN", "LOW", "IBM")))
    assert read_bars(wide).symbols == ("OPEN", "LOW", "IBM")


def test_a_table_of_one_symbol_needs_its_name_only():
    frame = market(symbols=("AAPL",))
    nameless = frame.drop(columns="symbol")
    assert_same(read_bars(frame), read_bars(nameless, symbols=["AAPL"]))
    assert_same(read_bars(frame), read_bars(nameless, symbols="AAPL"))


def test_numbers_as_text_and_words_for_missing_are_read(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text("date,A,B\n2020-01-01, 1.5 ,NA\n2020-01-02,2e0,nan\n2020-01-03,3,4\n\n")
    bars = read_bars(path)
    np.testing.assert_array_equal(bars.close, [[1.5, np.nan], [2, np.nan], [3, 4]])
    assert bars.repairs == (Repair("listings", "B", 2, np.datetime64("2020-01-01", "ns")),)


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_bytes(b"\xef\xbb\xbfdate,A\r\n2020-01-01,1\r\n2020-01-02,2\r\n")
    assert read_bars(path).symbols == ("A",)


def test_stamps_with_an_offset_are_converted_to_utc_whatever_their_form():
    local = pd.date_range("2020-03-07 16:00", periods=3, tz="America/New_York")
    wanted = np.array(
        ["2020-03-07T21:00", "2020-03-08T20:00", "2020-03-09T20:00"], dtype="datetime64[ns]"
    )
    text = ["2020-03-07T16:00:00-05:00", "2020-03-08 20:00:00Z", "2020-03-09 16:00:00.0-0400"]
    forms = [
        pd.DataFrame({"A": [1.0, 2, 3]}, index=local),
        pd.DataFrame({"date": local, "A": [1.0, 2, 3]}),
        pd.DataFrame({"date": list(local.to_pydatetime()), "A": [1.0, 2, 3]}, dtype=object),
        pl.DataFrame({"date": text, "A": [1.0, 2, 3]}),
        pl.DataFrame({"date": pl.Series(wanted), "A": [1.0, 2, 3]}).with_columns(
            pl.col("date").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
        ),
    ]
    for frame in forms:
        np.testing.assert_array_equal(read_bars(frame).timestamps, wanted)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_naive_stamps_are_utc_wherever_the_machine_stands(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        bars = read_bars(pl.DataFrame({"date": ["2020-01-01 09:30", "2020/01/02"], "A": [1, 2]}))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert [str(stamp)[:16] for stamp in bars.timestamps] == [
        "2020-01-01T09:30",
        "2020-01-02T00:00",
    ]
    assert "TZ" not in os.environ or os.environ["TZ"] != zone


@pytest.mark.parametrize("per_second", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("as_text", [False, True])
def test_epoch_numbers_tell_their_unit_by_their_size(per_second, as_text):
    days = [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2)]
    stamps = pl.Series([int(day.timestamp()) * per_second for day in days])
    frame = pl.DataFrame(
        {"timestamp": stamps.cast(pl.String) if as_text else stamps, "A": [1.0, 2]}
    )
    wanted = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")
    np.testing.assert_array_equal(read_bars(frame).timestamps, wanted)


def test_compact_dates_are_dates():
    bars = read_bars(pl.DataFrame({"date": [20200131, 20200203], "A": [1.0, 2]}))
    assert str(bars.timestamps[1])[:10] == "2020-02-03"


def test_start_and_end_are_inclusive_days_and_symbols_keep_the_order_given():
    frame = market()
    frame["date"] += pd.Timedelta("20h")
    bars = read_bars(frame, start="2020-01-01", end="2020-01-03", symbols=["IBM", "MSFT"])
    assert [str(stamp)[:10] for stamp in bars.timestamps] == [
        "2020-01-01",
        "2020-01-02",
        "2020-01-03",
    ]
    assert_same(bars, read_bars(frame).take(slice(2, 5), [2, 0]))


def test_symbols_of_other_calendars_leave_no_trace_once_left_out():
    stocks = pd.DataFrame({"AAPL": [1.0, 2, 3]}, index=pd.to_datetime(DAYS[2:5]))
    crypto = pd.DataFrame({"BTC": range(1, 8)}, index=pd.date_range("2019-12-30", periods=7))
    wide = crypto.join(stocks)
    assert len(read_bars(wide, symbols=["AAPL"])) == 3


def test_written_bars_are_read_back_equal(tmp_path):
    frame = market(late=2, early=3)
    frame.loc[(frame["symbol"] == "AAPL") & (frame["date"] == DAYS[3]), list(ARRAYS)] = np.nan
    bars = read_bars(frame, checks=CheckConfig.repairing())
    write_bars(bars, tmp_path / "deep" / "bars.parquet")
    assert np.isnan(bars.close[3, 1])
    again = read_bars(tmp_path / "deep" / "bars.parquet")
    assert_same(bars, again)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bars.parquet"]


def test_a_calendar_without_any_listing_survives_the_round_trip(tmp_path):
    bars = read_bars(market(late=2)).take(slice(0, 8), [0])
    assert np.isnan(bars.close[:2]).all()
    write_bars(bars, tmp_path / "bars.parquet")
    assert_same(bars, read_bars(tmp_path / "bars.parquet"))


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "bars.parquet"
    bars = read_bars(market())
    write_bars(bars, path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_bars(bars.take(slice(0, 3)), path)
    assert_same(bars, read_bars(path))
    assert list(tmp_path.iterdir()) == [path]


def test_late_listings_are_masked_refused_or_trimmed_as_asked():
    frame = market(late=2, early=3)
    masked = read_bars(frame)
    assert np.isnan(masked.close).sum() == 5
    assert masked.repairs == (
        Repair("listings", "MSFT", 2, np.datetime64(DAYS[0], "ns")),
        Repair("listings", "IBM", 3, np.datetime64(DAYS[5], "ns")),
    )
    trimmed = read_bars(frame, checks=CheckConfig(listings="trim"))
    assert_same(trimmed, masked.take(slice(2, 5)))
    assert {(repair.symbol, repair.cells) for repair in trimmed.repairs} == {
        ("MSFT", 3),
        ("AAPL", 5),
        ("IBM", 2),
    }
    with pytest.raises(DataError, match=r"MSFT on 2020-01-01: is its first bar.*'mask'"):
        read_bars(frame, checks=CheckConfig(listings="error"))


def broken(**cells) -> pd.DataFrame:
    """Sound bars but for these fields of AAPL on its fourth day."""
    frame = market()
    row = frame.index[(frame["symbol"] == "AAPL") & (frame["date"] == DAYS[3])]
    for name, value in cells.items():
        frame.loc[row, name] = value
    return frame


@pytest.mark.parametrize(
    ("problem", "cells"),
    [
        ("gaps", {"close": np.nan}),
        ("gaps", {"open": np.nan, "adj_close": np.nan}),
        ("prices", {"close": -1.0}),
        ("prices", {"high": np.inf}),
        ("prices", {"high": 1.0}),
        ("prices", {"open": 1e6}),
        ("zero_volume", {"volume": 0.0}),
        ("zero_volume", {"volume": np.nan}),
    ],
)
def test_a_halted_cell_loses_all_its_prices_nothing_else_and_is_counted(problem, cells):
    sound, mended = read_bars(market()), read_bars(broken(**cells), checks=CheckConfig.repairing())
    assert mended.repairs == (Repair(problem, "AAPL", 1, np.datetime64(DAYS[3], "ns")),)
    for name in ("open", "high", "low", "close", "adj_close"):
        wanted = getattr(sound, name).copy()
        wanted[3, 1] = np.nan
        np.testing.assert_array_equal(getattr(mended, name), wanted)


def test_zero_volume_may_be_allowed_and_a_missing_one_then_is_zero_and_counted():
    allow = CheckConfig(zero_volume="allow")
    assert read_bars(broken(volume=0.0), checks=allow).repairs == ()
    bars = read_bars(broken(volume=np.nan), checks=allow)
    assert bars.volume[3, 1] == 0
    assert bars.repairs == (Repair("zero_volume", "AAPL", 1, np.datetime64(DAYS[3], "ns")),)


def test_of_duplicates_the_last_is_kept_and_the_others_counted():
    frame = market()
    again = frame.iloc[[9, 9]].assign(close=[frame["low"][9], frame["high"][9]])
    both = pd.concat([frame, again], ignore_index=True)
    bars = read_bars(both, checks=CheckConfig(duplicates="keep_last", unsorted="sort"))
    assert bars.close[1, 1] == frame["high"][9]
    assert Repair("duplicates", "AAPL", 2, np.datetime64(DAYS[1], "ns")) in bars.repairs


def test_newest_first_is_sorted_when_asked_and_counted():
    frame = market()
    bars = read_bars(frame.iloc[::-1], checks=CheckConfig(unsorted="sort"))
    assert_same(read_bars(frame, symbols=["IBM", "AAPL", "MSFT"]), bars)
    assert [(repair.problem, repair.cells) for repair in bars.repairs] == [("unsorted", 7)] * 3


def test_open_and_close_may_leave_the_range_by_rounding_only():
    frame = broken()
    row = frame.index[(frame["symbol"] == "AAPL") & (frame["date"] == DAYS[3])]
    frame.loc[row, "close"] = frame.loc[row, "high"] * (1 + 1e-7)
    read_bars(frame)
    frame.loc[row, "close"] = frame.loc[row, "high"] * (1 + 1e-5)
    with pytest.raises(DataError, match="AAPL on 2020-01-02"):
        read_bars(frame)


def test_rows_marked_halted_need_no_price():
    frame = broken(close=np.nan).assign(halted=False)
    frame.loc[frame["close"].isna(), "halted"] = True
    bars = read_bars(frame)
    assert np.isnan(bars.open[3, 1])
    assert bars.repairs == ()


def test_data_config_reads_files_and_samples_alike(tmp_path):
    path = tmp_path / "bars.csv.gz"
    with gzip.open(path, "wt") as file:
        market().to_csv(file, index=False)
    config = DataConfig(source=str(path), symbols=("IBM",), start="2020-01-01")
    assert_same(load_bars(config), read_bars(path, symbols=["IBM"], start="2020-01-01"))
    bars = load_bars(DataConfig(symbols=("KO", "AAPL"), start="2010-01-01", end="2010-12-31"))
    assert bars.symbols == ("KO", "AAPL")
    assert len(bars) == 252


def test_data_config_repairs_when_asked(tmp_path):
    path = tmp_path / "bars.csv"
    broken(close=-1.0).to_csv(path, index=False)
    assert len(load_bars(DataConfig(source=str(path), repair=True)).repairs) == 1
    with pytest.raises(DataError, match="repair=True"):
        load_bars(DataConfig(source=str(path)))


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_table_of_bars_holds_its_fields_where_their_names_say(adjusted):
    bars = random_bars(200, 3, adjusted=adjusted)
    table = bars.table()
    assert table.shape == (200, 3, len(BAR_FIELDS))
    for position, name in ((OPEN, "open"), (HIGH, "high"), (LOW, "low"), (CLOSE, "close")):
        np.testing.assert_array_equal(table[..., position], bars.adjusted(name))
        assert BAR_FIELDS[position] == name
    np.testing.assert_array_equal(table[..., VOLUME], bars.volume)
    np.testing.assert_array_equal(table[..., AMOUNT], bars.dollar_volume)
    np.testing.assert_array_equal(make_tape(bars).known.bars, table.astype(np.float32))
    bare = random_bars(30, 3, opens=False, volume=False).table()
    assert np.isnan(bare[..., [OPEN, HIGH, LOW, VOLUME, AMOUNT]]).all()
    assert np.isfinite(bare[..., CLOSE]).all()


def test_days_of_a_calendar_include_both_ends_and_all_hours():
    hours = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[h]").astype("datetime64[ns]")
    assert rows_between(hours, None, None) == slice(0, 72)
    assert rows_between(hours, "2020-01-02", "2020-01-02") == slice(24, 48)
    assert rows_between(hours, "2019-01-01", "2030-01-01") == slice(0, 72)
    with pytest.raises(DataError, match="end must be an ISO date such as '2020-01-31', got '2020'"):
        rows_between(hours, None, "2020")
    with pytest.raises(DataError, match="start 2020-01-03 is after end 2020-01-02"):
        rows_between(hours, "2020-01-03", "2020-01-02")
    assert show_span(hours) == "2020-01-01 to 2020-01-03"


def test_a_bar_of_daily_data_is_a_365th_of_a_year():
    days = np.arange("2020-01-01", "2021-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    bars = Bars(symbols=("A",), timestamps=days, close=np.ones((len(days), 1)))
    assert bars.years_per_bar == pytest.approx(1 / 365, rel=1e-15)
    np.testing.assert_allclose(years_between(days), 1 / 365, rtol=1e-15)


CALENDAR = np.arange("2010-01-04", "2016-01-01", dtype="datetime64[D]").astype("datetime64[ns]")


def test_a_split_covers_every_bar_once_and_cuts_at_the_dates():
    split = split_by_date(CALENDAR, "2013-01-01", "2014-06-30")
    assert split.train.start == 0
    assert split.train.stop == split.validation.start
    assert split.validation.stop == split.test.start
    assert split.test.stop == len(CALENDAR)
    assert CALENDAR[split.validation.start] == np.datetime64("2013-01-01")
    assert CALENDAR[split.test.start] == np.datetime64("2014-06-30")


def test_walk_forward_tests_follow_their_training_and_cover_the_rest_once():
    folds = walk_forward(CALENDAR, train_years=2, test_years=1)
    assert [str(CALENDAR[fold.test.start])[:10] for fold in folds] == [
        "2012-01-04",
        "2013-01-04",
        "2014-01-04",
        "2015-01-04",
    ]
    assert all(fold.train.stop == fold.test.start for fold in folds)
    assert [fold.train.start for fold in folds][:2] == [0, 365]
    covered = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
    np.testing.assert_array_equal(covered, np.arange(folds[0].test.start, len(CALENDAR)))


def test_anchored_folds_train_from_the_first_bar_and_steps_may_be_half_years():
    folds = walk_forward(CALENDAR, train_years=2, test_years=1, step_years=0.5, anchored=True)
    assert all(fold.train.start == 0 for fold in folds)
    assert str(CALENDAR[folds[1].test.start])[:10] == "2012-07-04"
    assert folds[-1] == Fold(slice(0, folds[-1].test.start), folds[-1].test)
    assert folds[-1].test.stop == len(CALENDAR)
