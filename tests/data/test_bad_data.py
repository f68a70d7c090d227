"""Every wrong input is one line of error that names the culprit and what would work."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fastsim.data.bars import Bars
from fastsim.data.checks import CheckConfig, RawBars, check
from fastsim.data.read import read_bars, write_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.split import split_by_date, walk_forward
from fastsim.errors import ConfigError, DataError, FastsimError

LONG = """date,symbol,open,high,low,close,volume
2020-01-01,AAPL,10,11,9,10,100
2020-01-01,IBM,20,21,19,20,100
2020-01-02,AAPL,10,11,9,10.5,100
2020-01-02,IBM,20,21,19,20.5,100
2020-01-03,AAPL,10,11,9,10,100
2020-01-03,IBM,20,21,19,20,100
"""
WIDE = "date,AAPL,IBM\n2020-01-01,1,2\n2020-01-02,1,2\n2020-01-03,1,2\n"
AT = "2020-01-02,AAPL,10,11,9,10.5,100"


def test_the_sound_originals_are_accepted(tmp_path):
    for text in (LONG, WIDE):
        (tmp_path / "bars.csv").write_text(text)
        assert read_bars(tmp_path / "bars.csv").close.shape == (3, 2)


def assert_refused(error: FastsimError, *parts: str) -> None:
    message = str(error)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# name: (text of a CSV file, what the message must say)
CELLS = {
    "a price that is negative": (AT, "2020-01-02,AAPL,10,11,9,-1,100", "close is -1.0", "prices="),
    "a price that is zero": (AT, "2020-01-02,AAPL,0,11,9,10,100", "open is 0.0", "prices='halt'"),
    "a price that is infinite": (AT, "2020-01-02,AAPL,10,inf,9,10,100", "high is inf", "prices="),
    "high below low": (AT, "2020-01-02,AAPL,10,8,9,10,100", "high 8.0", "low 9.0", "prices="),
    "open above high": (AT, "2020-01-02,AAPL,12,11,9,10,100", "open 12.0", "prices="),
    "close below low": (AT, "2020-01-02,AAPL,10,11,9,8.5,100", "close 8.5", "prices="),
    "no close": (AT, "2020-01-02,AAPL,10,11,9,,100", "no close", "gaps='halt'"),
    "no price": (AT, "2020-01-02,AAPL,,,,,100", "no price", "gaps='halt'"),
    "a missing row": (AT + "\n", "", "no price", "gaps='halt'"),
    "no high": (AT, "2020-01-02,AAPL,10,NA,9,10,100", "no high", "gaps='halt'"),
    "zero volume": (AT, "2020-01-02,AAPL,10,11,9,10,0", "volume is 0", "zero_volume='halt'"),
    "no volume": (AT, "2020-01-02,AAPL,10,11,9,10,", "no volume", "zero_volume='halt'"),
    "negative volume": (AT, "2020-01-02,AAPL,10,11,9,10,-5", "volume is -5.0", "no option"),
    "infinite volume": (AT, "2020-01-02,AAPL,10,11,9,10,inf", "volume is inf", "no option"),
    "a duplicate": (AT, AT + "\n" + AT, "several rows", "duplicates='keep_last'"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_bad_cell_names_file_symbol_date_and_option(name, tmp_path):
    good, bad, *parts = CELLS[name]
    path = tmp_path / "bars.csv"
    path.write_text(LONG.replace(good, bad))
    with pytest.raises(DataError) as caught:
        read_bars(path)
    assert_refused(caught.value, str(path), "AAPL", "2020-01-02", *parts)


TEXTS = {
    "an empty file": ("", "empty"),
    "a file of blanks": (" \n\n", "empty"),
    "a header alone": ("date,AAPL\n", "no rows"),
    "a cut last line": (WIDE[:-3], "cut off", "2 of 3"),
    "a line that is too long": (WIDE + "2020-01-04,1,2,3\n", "more fields"),
    "a header twice": (WIDE.replace("IBM", "AAPL"), "'AAPL' appears twice"),
    "two close columns": (LONG.replace("open", "Price"), "'Price' and 'close' both mean close"),
    "no date column": (WIDE.replace("date", "when"), "no date column", "'when'"),
    "no close column": (LONG.replace("close", "clsoe"), "no close column", "'clsoe'"),
    "no symbol column": (LONG.replace("symbol", "who"), "no symbol column", "symbols="),
    "volume without close": (WIDE.replace("IBM", "Volume"), "'Volume'", "no close column"),
    "no price column": ("date\n2020-01-01\n2020-01-02\n", "no price columns"),
    "text for a price": (WIDE.replace("02,1", "02,abc"), "'AAPL', row 2", "'abc'", "number"),
    "a decimal comma": (LONG.replace("10.5", '"10,5"'), "'close', row 3", "'10,5'"),
    "a date that is none": (WIDE.replace("2020-01-02", "2020-02-30"), "row 2", "'2020-02-30'"),
    "a day-first date": (WIDE.replace("2020-01-02", "02/01/2020"), "row 2", "'02/01/2020'"),
    "a missing date": (WIDE.replace("2020-01-02", ""), "'date', row 2", "None"),
    "a date out of range": (WIDE.replace("2020-01-02", "9999-01-01"), "row 2", "1678 to 2261"),
    "some offsets": (WIDE.replace("01-02", "01-02T00:00:00Z"), "row 2", "has a UTC offset"),
    "small numbers for dates": (WIDE.replace("2020-01-0", "73000"), "'730001'", "milliseconds"),
    "mixed epoch units": (
        "timestamp,AAPL\n1577836800,1\n1577923200000,2\n",
        "row 2",
        "'1577923200000'",
        "same unit",
    ),
    "a fraction of a day": ("date,A\n43831.5,1\n43832.5,2\n", "row 1", "'43831.5'"),
    "a nameless symbol": (LONG.replace("02,IBM", "02, "), "'symbol', row 4", "not a symbol"),
    "one bar": ("date,AAPL\n2020-01-01,1\n", "1 bars of AAPL", "at least 2"),
    "a symbol without any price": (WIDE.replace(",2\n", ",\n"), "IBM", "no usable price"),
    "rows that go back": (
        WIDE + "2019-12-31,1,2\n",
        "AAPL on 2019-12-31",
        "after 2020-01-03",
        "unsorted='sort'",
    ),
    "newest first": (
        "date,A\n2020-01-03,1\n2020-01-02,1\n",
        "A on 2020-01-02",
        "unsorted='sort'",
    ),
    "a date twice": (WIDE + "2020-01-03,3,4\n", "AAPL on 2020-01-03", "duplicates='keep_last'"),
    "a line without prices": (WIDE.replace("02,1,2", "02,,"), "AAPL on 2020-01-02", "gaps='halt'"),
    "a flag that is none": (
        "date,symbol,close,halted\n2020-01-01,A,1,perhaps\n2020-01-02,A,1,0\n",
        "'halted', row 1",
        "'perhaps'",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_file_names_itself_and_the_place(name, tmp_path):
    text, *parts = TEXTS[name]
    path = tmp_path / "bars.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_bars(path)
    assert_refused(caught.value, str(path), *parts)


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.read_csv(WIDE.encode()).write_parquet(buffer)
    return buffer.getvalue()


FILES = {
    "missing.csv": (None, "no such file"),
    "cut.csv.gz": (gzip.compress(WIDE.encode() * 50)[:-20], "not readable"),
    "plain.csv.gz": (WIDE.encode(), "not readable", "gzip"),
    "latin.csv": (WIDE.replace("IBM", "Müller").encode("latin-1"), "not UTF-8", "byte 12"),
    "cut.parquet": (parquet()[:-30], "not readable as .parquet"),
    "text.parquet": (WIDE.encode(), "not readable as .parquet"),
    "bars.xlsx": (b"PK", "unknown file type", ".parquet"),
    "bars": (WIDE.encode(), "unknown file type", ".csv"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_unreadable_file_is_named(name, tmp_path):
    content, *parts = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_bars(tmp_path / name)
    assert_refused(caught.value, name, *parts)


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "bars.csv").mkdir()
    with pytest.raises(DataError) as caught:
        read_bars(tmp_path / "bars.csv")
    assert_refused(caught.value, "bars.csv", "directory")


DAYS = pd.date_range("2020-01-01", periods=3)
SOUND = pd.DataFrame({"AAPL": [1.0, 2, 3], "IBM": [4.0, 5, 6]}, index=DAYS)
TWICE = pd.DataFrame(np.ones((3, 2)), index=DAYS, columns=["AAPL", "AAPL"])
PAIRS = pd.MultiIndex.from_tuples([("AAPL", "x"), ("IBM", "y")])
MIXED = [pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-02")]
FRAMES = {
    "a list": ([1, 2], {}, "list", "polars frame or a pandas frame"),
    "a pandas series": (SOUND["AAPL"], {}, "Series"),
    "no dates at all": (SOUND.reset_index(drop=True), {}, "no date column", "'AAPL'"),
    "a column twice": (TWICE, {}, "'AAPL' appears twice"),
    "levels of unknown fields": (SOUND.set_axis(PAIRS, axis=1), {}, "('AAPL', 'x')"),
    "aware and naive stamps": (pd.DataFrame({"date": MIXED, "A": [1, 2]}), {}, "row 2", "offset"),
    "no rows": (SOUND.iloc[:0], {}, "no rows"),
    "no columns": (pl.DataFrame(), {}, "no columns"),
    "booleans for prices": (pl.DataFrame({"date": DAYS, "A": [True] * 3}), {}, "'A'", "Bool"),
    "lists for prices": (pl.DataFrame({"date": DAYS[:1], "A": [[1]]}), {}, "'A'", "List"),
    "times of day": (pl.DataFrame({"date": [pd.Timestamp(0).time()], "A": [1]}), {}, "Time"),
    "a symbol that is not there": (SOUND, {"symbols": ["APPL"]}, "'APPL'", "'AAPL'"),
    "a symbol asked for twice": (SOUND, {"symbols": ["IBM", "IBM"]}, "'IBM' appears twice"),
    "no symbol asked for": (SOUND, {"symbols": []}, "no symbols"),
    "a start that is no date": (SOUND, {"start": "January"}, "start", "'January'"),
    "an end that is no text": (SOUND, {"end": 2020}, "end", "2020"),
    "an end before the start": (
        SOUND,
        {"start": "2020-01-03", "end": "2020-01-01"},
        "2020-01-03",
        "2020-01-01",
    ),
    "a range without bars": (SOUND, {"start": "2021-01-01"}, "2021-01-01", "2020-01-03"),
    "a range of one bar": (SOUND, {"start": "2020-01-03"}, "1 bars"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_bad_frame_or_request_is_refused(name):
    source, request, *parts = FRAMES[name]
    with pytest.raises(DataError) as caught:
        read_bars(source, **request)
    assert_refused(caught.value, *parts)


def test_names_that_break_lines_do_not_break_the_message():
    frame = pl.DataFrame({"date": ["2020-01-01", "2020-01-02"], "A\nB": ["1", "x\ny"]})
    with pytest.raises(DataError) as caught:
        read_bars(frame)
    assert_refused(caught.value, "row 2")


def test_a_symbol_that_repairs_leave_without_a_price_is_refused():
    frame = SOUND.assign(IBM=[-1.0, -2.0, -3.0])
    with pytest.raises(DataError) as caught:
        read_bars(frame, checks=CheckConfig.repairing())
    assert_refused(caught.value, "IBM", "no usable price")


def test_listings_without_a_common_span_cannot_be_trimmed():
    frame = pd.DataFrame({"A": [1.0, 2, np.nan], "B": [np.nan, np.nan, 3.0]}, index=DAYS)
    with pytest.raises(DataError) as caught:
        read_bars(frame, checks=CheckConfig(listings="trim"))
    assert_refused(caught.value, "B starts on 2020-01-03", "A ends on 2020-01-02", "listings=")


def test_an_early_delisting_is_refused_when_asked():
    frame = SOUND.assign(IBM=[1.0, 2.0, np.nan])
    with pytest.raises(DataError) as caught:
        read_bars(frame, checks=CheckConfig(listings="error"))
    assert_refused(caught.value, "IBM on 2020-01-02", "last bar", "listings='mask'")


def test_many_problems_are_one_line_with_their_number():
    with pytest.raises(DataError) as caught:
        read_bars(SOUND * -1)
    assert_refused(caught.value, "AAPL on 2020-01-01", "6 such cases")


def test_raw_rows_without_closes_dates_or_symbols_are_refused():
    stamps = np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]")
    raw = RawBars(("A",), np.zeros(2, dtype=np.intp), stamps, {"close": np.ones(2)})
    for wrong, part in (
        (raw, "no date"),
        (raw._replace(symbols=()), "no symbols"),
        (raw._replace(fields={}), "no close"),
    ):
        with pytest.raises(DataError, match=part):
            check(wrong)


@pytest.mark.parametrize("field", ["duplicates", "unsorted", "gaps", "prices", "zero_volume"])
def test_an_unknown_choice_is_refused_with_those_there_are(field):
    with pytest.raises(ConfigError) as caught:
        CheckConfig(**{field: "ignore"})
    assert_refused(caught.value, f"CheckConfig.{field}", "'ignore'", "'error'")


CONFIGS = {
    "an unknown source": ({"source": "sp500"}, DataError, "'sp500'", "us20, tech4", "CSV"),
    "a missing file": ({"source": "no/such.csv"}, DataError, "no/such.csv", "no such file"),
    "an unknown symbol": ({"symbols": ("APPL",)}, DataError, "us20", "'APPL'", "'AAPL'"),
    "a range outside": ({"start": "2030-01-01"}, DataError, "us20", "2030-01-01", "2022-12-28"),
    "a start that is no date": ({"start": "soon"}, ConfigError, "start", "'soon'"),
    "an end before the start": (
        {"start": "2020-01-01", "end": "2010-01-01"},
        ConfigError,
        "2020-01-01",
        "2010-01-01",
    ),
    "symbols as one text": ({"symbols": "AAPL"}, ConfigError, "symbols", "'AAPL'"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_data_config_is_refused(name):
    settings, kind, *parts = CONFIGS[name]
    with pytest.raises(kind) as caught:
        load_bars(DataConfig(**settings))
    assert_refused(caught.value, *parts)


def test_bars_are_written_only_where_and_when_they_can_be_read_back(tmp_path):
    bars = read_bars(SOUND)
    (tmp_path / "file").write_text("")
    empty = Bars(symbols=("A",), timestamps=bars.timestamps, close=np.full((len(bars), 1), np.nan))
    for what, path, part in (
        (bars, tmp_path / "bars.csv", ".parquet"),
        (bars, tmp_path / "file" / "bars.parquet", "cannot be written"),
        (empty, tmp_path / "bars.parquet", "A has no price"),
    ):
        with pytest.raises(DataError) as caught:
            write_bars(what, path)
        assert_refused(caught.value, part)
    assert [Path(path).name for path in tmp_path.iterdir()] == ["file"]


CALENDAR = np.arange("2010-01-01", "2013-01-01", dtype="datetime64[D]").astype("datetime64[ns]")


@pytest.mark.parametrize(
    ("dates", "part"),
    [
        (("2012-01-01", "2011-01-01"), "must be before TrainConfig.test_start 2011-01-01"),
        (("2011-01-01", "2011-01-01"), "validation_start 2011-01-01"),
        (("2009-01-01", "2011-01-01"), "validation_start 2009-01-01 is outside"),
        (("2011-01-01", "2013-01-01"), "test_start 2013-01-01 is outside"),
        (("2010-01-02", "2011-01-01"), "train part has 1 bars"),
        (("2011-01-01", "2011-01-02"), "validation part has 1 bars"),
        (("2011-01-01", "2012-12-31"), "test part has 1 bars"),
        (("2011-13-01", "2012-12-31"), "validation_start must be an ISO date"),
    ],
)
def test_a_bad_split_is_refused(dates, part):
    with pytest.raises(DataError) as caught:
        split_by_date(CALENDAR, *dates)
    assert_refused(caught.value, part)


@pytest.mark.parametrize(
    ("years", "kind", "part"),
    [
        ({"train_years": 3, "test_years": 1}, DataError, "tests on 0 bars"),
        ({"train_years": 0, "test_years": 1}, ConfigError, "train_years"),
        ({"train_years": 1, "test_years": -1}, ConfigError, "test_years"),
        ({"train_years": 1, "test_years": 1, "step_years": 0.3}, ConfigError, "step_years"),
        ({"train_years": float("nan"), "test_years": 1}, ConfigError, "train_years"),
    ],
)
def test_bad_folds_are_refused(years, kind, part):
    with pytest.raises(kind) as caught:
        walk_forward(CALENDAR, **years)
    assert_refused(caught.value, part)


def test_a_calendar_that_goes_back_cannot_be_split():
    with pytest.raises(DataError, match="2010-01-01 follows 2010-01-02"):
        walk_forward(CALENDAR[[1, 0]], train_years=1, test_years=1)
