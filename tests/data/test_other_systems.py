"""Tables as other programs, vendors and libraries write them: right bars, or one line of help."""

import bz2
import datetime as dt
import gzip
import io
import lzma
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.data.read import read_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import ConfigError, DataError

DAYS = [f"2021-03-{day:02d}" for day in (1, 2, 3, 4, 5, 8, 9, 10)]
OHLC = "{o},{h},{l},{c}"
NUMBERS = [
    {"o": 100 + i, "h": 101 + i, "l": 99 + i, "c": f"{100 + i}.5", "v": 1000 + i, "i": i, "d": day}
    | {"y": day[:4], "m": day[5:7], "k": day[8:], "s": 1614556800 + 86400 * i}
    for i, day in enumerate(DAYS)
]


def table(header, row, end="\n"):
    """A header and a row for each of the eight days."""
    return "".join(line + end for line in (header, *(row.format(**n) for n in NUMBERS)) if line)


def joined(header, row="{d},{o},{v}"):
    return table(header, row)


CLOSES = 100.5 + np.arange(8)
OPENS = 100.0 + np.arange(8)
PLAIN = table("date,A", "{d},{o}")
BARS = "{o},{h},{l},{c},{v}"

# name: (text or bytes, symbols, first closes, first stamp, further fields); X is the name given
READ = {
    "Stooq, ASCII": (
        table(
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
            "AAPL.US,D,{y}{m}{k},000000," + BARS + ",0",
        ),
        ("AAPL.US",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "Yahoo, with the adjusted close": (
        table("Date,Open,High,Low,Close,Adj Close,Volume", "{d}," + OHLC + ",50,{v}"),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "Yahoo's page": (
        table(
            "Date\tOpen\tHigh\tLow\tClose*\tAdj Close**\tVolume",
            "Mar {k}, {y}\t{o}\t{h}\t{l}\t{c}\t50\t1,00{i},000",
        ),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "MetaTrader 5": (
        table(
            "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>",
            "{y}.{m}.{k}\t09:30:00\t{o}\t{h}\t{l}\t{c}\t9\t{v}\t2",
        ),
        ("X",),
        CLOSES,
        "2021-03-01T09:30",
    ),
    "Binance, with names": (
        table("open_time,open,high,low,close,volume,close_time", "{s}000," + BARS + ",{s}999"),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "CryptoDataDownload": (
        table(
            "https://www.example.com\nunix,date,symbol,open,high,low,close",
            "{s},{d} 00:00:00,BTC/USD," + OHLC,
        ),
        ("BTC/USD",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "TradingView, seconds": (
        table("time,open,high,low,close,Volume,Volume MA", "{s}," + BARS + ",NaN"),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "TradingView, ISO": (
        table("time,open,high,low,close", "{d}T09:30:00-05:00," + OHLC),
        ("X",),
        CLOSES,
        "2021-03-01T14:30",
    ),
    "Nasdaq": (
        table("Date,Close/Last,Volume,Open,High,Low", "{m}/{k}/{y},${c},{v},${o},${h},${l}")
        + "03/15/2021,$108.5,1008,$108,$109,$107\n",
        ("X",),
        100.5 + np.arange(9),
        "2021-03-01T00:00",
    ),
    "investing.com": (
        table(
            '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"',
            '"Mar {k}, {y}","1,{c}0","1,{o}.00","1,{h}.00","1,{o}.00","4.5{i}M","0.60%"',
        ),
        ("X",),
        1000 + CLOSES,
        "2021-03-01T00:00",
    ),
    "European numbers and dates": (
        table("Date;Open;High;Low;Close;Volume", "{k}.{m}.{y};1.{o},0;1.{h},0;1.{o},0;1.{o},5;{v}"),
        ("X",),
        1000 + CLOSES,
        "2021-03-01T00:00",
    ),
    "a decimal comma in quotes": (
        table("date,A", '{d},"{o},25"'),
        ("A",),
        OPENS + 0.25,
        "2021-03-01T00:00",
    ),
    "Swiss thousands": (
        table("date;A", "{d};1'{o}.50"),
        ("A",),
        OPENS + 1000.5,
        "2021-03-01T00:00",
    ),
    "French thousands": (
        table("date;A", "{d};1\u202f{o},50"),
        ("A",),
        OPENS + 1000.5,
        "2021-03-01T00:00",
    ),
    "Bloomberg": (
        table("Dates,PX_LAST,PX_OPEN,PX_HIGH,PX_LOW,PX_VOLUME", "{d},{c},{o},{h},{l},{v}"),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "Dukascopy": (
        table("Local time,Open,High,Low,Close", "{k}.{m}.{y} 00:00:00.000 GMT+0100," + OHLC),
        ("X",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "HistData, with names": (
        table("date;open;high;low;close", "{y}{m}{k} 170000;{o};{h};{l};{c}"),
        ("X",),
        CLOSES,
        "2021-03-01T17:00",
    ),
    "quantmod": (
        table(
            '"","AAPL.Open","AAPL.High","AAPL.Low","AAPL.Close","AAPL.Volume","AAPL.Adjusted"',
            '"{d}",' + BARS + ",50",
        ),
        ("AAPL",),
        CLOSES,
        "2021-03-01T00:00",
    ),
    "Excel's first line": (
        "sep=;\n" + table("date;A", "{d};{o}"),
        ("A",),
        OPENS,
        "2021-03-01T00:00",
    ),
    "Excel's empty rows": (PLAIN + ",\n,\n", ("A",), OPENS, "2021-03-01T00:00"),
    "a separator at every end": (table("date,A,", "{d},{o},"), ("A",), OPENS, "2021-03-01T00:00"),
    "a separator at the end of rows": (
        table("date,A", "{d},{o},"),
        ("A",),
        OPENS,
        "2021-03-01T00:00",
    ),
    "comments above": ("# of somewhere\n# v1\n" + PLAIN, ("A",), OPENS, "2021-03-01T00:00"),
    "a header after a hash": ("#" + PLAIN, ("A",), OPENS, "2021-03-01T00:00"),
    "a title above": ("My closes\n\n" + PLAIN, ("A",), OPENS, "2021-03-01T00:00"),
    "blank lines between": (PLAIN.replace("\n", "\n\n"), ("A",), OPENS, "2021-03-01T00:00"),
    "blanks after commas": (PLAIN.replace(",", ", "), ("A",), OPENS, "2021-03-01T00:00"),
    "bars between cells": (PLAIN.replace(",", "|"), ("A",), OPENS, "2021-03-01T00:00"),
    "tabs between cells": (PLAIN.replace(",", "\t"), ("A",), OPENS, "2021-03-01T00:00"),
    "line ends of two systems": (
        PLAIN.replace("03,", "03,", 1).replace("\n", "\r\n", 3),
        ("A",),
        OPENS,
        "2021-03-01T00:00",
    ),
    "the end of file of DOS": (PLAIN + "\x1a", ("A",), OPENS, "2021-03-01T00:00"),
    "UTF-16 with a mark": (PLAIN.encode("utf-16"), ("A",), OPENS, "2021-03-01T00:00"),
    "UTF-16, the other way round": (PLAIN.encode("utf-16-be"), ("A",), OPENS, "2021-03-01T00:00"),
    "UTF-32 with a mark": (PLAIN.encode("utf-32"), ("A",), OPENS, "2021-03-01T00:00"),
    "gzip under another name": (gzip.compress(PLAIN.encode()), ("A",), OPENS, "2021-03-01T00:00"),
    "bzip2 under another name": (bz2.compress(PLAIN.encode()), ("A",), OPENS, "2021-03-01T00:00"),
    "xz under another name": (lzma.compress(PLAIN.encode()), ("A",), OPENS, "2021-03-01T00:00"),
    "blanks of no width in symbols": (
        table("date,sym\u200bbol,clo\u00adse", "{d}\u00a0,A\u200b,{o}\u202f"),
        ("A",),
        OPENS,
        "2021-03-01T00:00",
    ),
    "a newline in the header": (
        table('date,symbol,"close\n"', "{d},A,{o}"),
        ("A",),
        OPENS,
        "2021-03-01T00:00",
    ),
    "hours in digits": (
        table("timestamp,A", "20210301{k},{o}"),
        ("A",),
        OPENS,
        "2021-03-01T01:00",
    ),
    "seconds in digits": (
        table("timestamp,A", "{y}{m}{k}093015,{o}"),
        ("A",),
        OPENS,
        "2021-03-01T09:30",
    ),
    "milliseconds in digits": (
        table("timestamp,A", "{y}{m}{k}093015250,{o}"),
        ("A",),
        OPENS,
        "2021-03-01T09:30",
    ),
    "a date and a time in digits": (
        table("date,time,close", "{y}{m}{k},93000,{o}"),
        ("X",),
        OPENS,
        "2021-03-01T09:30",
    ),
    "times before and after noon": (
        table("Date,Time,Close", "{d},1:30 PM,{o}"),
        ("X",),
        OPENS,
        "2021-03-01T13:30",
    ),
    "days first, as no other order is possible": (
        table("date,A", "{k}/{m}/{y},{o}") + "15/03/2021,108\n",
        ("A",),
        100.0 + np.arange(9),
        "2021-03-01T00:00",
    ),
    "months first, as no other order is possible": (
        table("date,A", "{m}/{k}/{y},{o}") + "03/15/2021,108\n",
        ("A",),
        100.0 + np.arange(9),
        "2021-03-01T00:00",
    ),
    "names of months": (table("date,A", "{k}-Mar-21,{o}"), ("A",), OPENS, "2021-03-01T00:00"),
    "a day of the local clock before UTC's": (
        table("date,A", "{d}T08:00:00+09:00,{o}"),
        ("A",),
        OPENS,
        "2021-03-01T08:00",
    ),
    "tickers of digits": (table("date,600519", "{d},{o}"), ("600519",), OPENS, "2021-03-01T00:00"),
    "a ticker DATE": (table("date,DATE,A", "{d},{o},7"), ("DATE", "A"), OPENS, "2021-03-01T00:00"),
    "a ticker PX.LOW": (table("date,LOW.TO,A", "{d},{o},7"), ("LOW.TO", "A"), OPENS, DAYS[0]),
    "a ticker OPEN alone": (table("date,OPEN", "{d},{o}"), ("OPEN",), OPENS, DAYS[0]),
    "a ticker NET alone": (table("date,NET", "{d},{o}"), ("NET",), OPENS, DAYS[0]),
    "tickers OPEN and NET": (table("Date,OPEN,NET", "{d},{o},7"), ("OPEN", "NET"), OPENS, DAYS[0]),
    "tickers OPEN, HIGH and LOW": (
        table("date,OPEN,HIGH,LOW", "{d},{o},30,160"),
        ("OPEN", "HIGH", "LOW"),
        OPENS,
        DAYS[0],
    ),
    "FRED, with a dot before it lists": (
        table("observation_date,SP500,LATE", "{d},{o},.") + "2021-03-11,108,5\n",
        ("SP500", "LATE"),
        100.0 + np.arange(9),
        DAYS[0],
    ),
    "a price index": (table("date,index,A", "{d},{c},7"), ("index", "A"), CLOSES, DAYS[0]),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", READ)
def test_a_table_gives_the_bars_that_it_holds(name, tmp_path):
    content, symbols, closes, first = READ[name]
    path = tmp_path / "bars.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    bars = read_bars(path, symbols=["X"] if symbols == ("X",) else None)
    assert bars.symbols == symbols
    np.testing.assert_allclose(bars.close[:, 0], closes, rtol=1e-15)
    assert str(bars.timestamps[0]).startswith(first)


JOINERS = ["_", ".", " ", "|", "-", ":", "/", " - "]


@pytest.mark.parametrize("joiner", JOINERS)
@pytest.mark.parametrize("order", ["field first", "symbol first", "in brackets"])
@pytest.mark.parametrize("symbols", [("AAPL", "MSFT"), ("LOW", "OPEN"), ("BRK.B", "BTC-USD")])
def test_fields_joined_with_symbols_are_the_fields_of_symbols(joiner, order, symbols):
    columns = {}
    for place, symbol in enumerate(symbols):
        for shift, field in enumerate(("Adj Close", "Close", "High", "Open", "Low", "Volume")):
            name = f"{field}{joiner}{symbol}"
            name = f"{symbol}{joiner}{field}" if order == "symbol first" else name
            name = f"{field} ({symbol})" if order == "in brackets" else name
            high = {"High": 2.0, "Low": -2.0}.get(field, 0.0)
            columns[name] = 100.0 * (place + 1) + np.arange(8) + high + (shift == 5)
    bars = read_bars(pl.DataFrame({"date": DAYS, **columns}))
    assert bars.symbols == symbols
    for place in range(2):
        np.testing.assert_array_equal(bars.close[:, place], 100.0 * (place + 1) + np.arange(8))
    assert bars.high[0, 0] == 102 and bars.volume[0, 0] == 101 and bars.adj_close[0, 0] == 100


def levels(*names, **changes):
    columns = pd.MultiIndex.from_tuples([*names], names=changes.get("names"))
    index = pd.to_datetime(DAYS).rename(changes.get("index"))
    return pd.DataFrame(np.tile(OPENS[:, None], len(names)), index=index, columns=columns)


@pytest.mark.parametrize("index", ["Date", None])
@pytest.mark.parametrize("form", ["saved", "reset, then saved", "symbols first, then saved"])
def test_two_levels_of_any_order_survive_a_csv(index, form, tmp_path):
    frame = levels(
        ("Close", "600519"), ("Close", "LOW"), ("Open", "600519"), ("Open", "LOW"), index=index
    )
    frame = frame.swaplevel(axis=1) if form.startswith("symbols") else frame
    if form.startswith("reset"):
        frame = frame.rename_axis(index="Date").reset_index()
    frame.to_csv(tmp_path / "bars.csv")
    bars = read_bars(tmp_path / "bars.csv")
    assert bars.symbols == ("600519", "LOW")
    np.testing.assert_array_equal(bars.close[:, 0], OPENS)
    assert bars.open is not None and str(bars.timestamps[0])[:10] == DAYS[0]


def test_levels_that_could_both_be_fields_are_told_apart_by_their_names():
    names = [("Close", "CLOSE"), ("Close", "OPEN"), ("Open", "CLOSE"), ("Open", "OPEN")]
    assert read_bars(levels(*names, names=["Price", "Ticker"])).symbols == ("CLOSE", "OPEN")
    with pytest.raises(DataError, match="name the level of symbols 'Ticker'"):
        read_bars(levels(*names))


ZONES = ["Asia/Tokyo", "America/New_York", "Etc/GMT+5"]
OFFSETS = [
    dt.timedelta(hours=5, minutes=30),
    -dt.timedelta(hours=3, minutes=30),
    dt.timedelta(hours=13),
]


@pytest.mark.parametrize("zone", [*ZONES, *map(dt.timezone, OFFSETS)], ids=str)
def test_midnight_of_any_zone_is_its_day(zone):
    index = pd.to_datetime(DAYS).tz_localize(zone)
    for frame in (
        pd.DataFrame({"A": OPENS}, index=index),
        pd.DataFrame({"date": index, "A": OPENS}),
        pd.DataFrame({"date": index.map(str), "A": OPENS}),
    ):
        assert [str(stamp)[:16] for stamp in read_bars(frame).timestamps] == [
            f"{day}T00:00" for day in DAYS
        ]


def test_hours_of_a_zone_are_instants_in_utc():
    index = pd.date_range("2021-03-01", periods=8, freq="h", tz="Asia/Tokyo")
    bars = read_bars(pd.DataFrame({"A": OPENS}, index=index))
    assert str(bars.timestamps[0])[:16] == "2021-02-28T15:00"


@pytest.mark.parametrize(
    "left_over",
    [
        {"Unnamed: 0": range(8)},
        {"Unnamed: 0.1": range(8), "Unnamed: 0": range(8)},
        {"index": [3, 5, 8, 9, 11, 12, 13, 20]},
        {"level_0": range(8), "index": range(8)},
        {"__index_level_0__": [7, 3, 1, 0, 2, 5, 6, 4]},
        {"": range(8)},
        {"nothing": [None] * 8} | {"Unnamed: 3": [None] * 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("last", [False, True])
def test_what_pandas_left_over_is_no_symbol(left_over, last):
    left_over = {name: list(values) for name, values in left_over.items() if name != "nothing"}
    sound = {"date": DAYS, "A": OPENS}
    frame = pl.DataFrame({**sound, **left_over} if last else {**left_over, **sound})
    assert read_bars(frame).symbols == ("A",)


# name: (text or bytes, what the line says)
REFUSED = {
    "MetaTrader 4, no header": (table("", "{y}.{m}.{k},09:30," + BARS), "data, not a header"),
    "Kraken, no header": (table("", "{s}," + BARS), "not a header", "date,open,high,low,close"),
    "HistData, no header": (table("", "{y}{m}{k} 170000;{o};{h};{l};{c}"), "not a header"),
    "thousands or decimals": (table("date;A", "{d};1,{o}"), "'A', row 1", "'1,100'", "1234.5"),
    "days or months first": (table("date,A", "{k}/{m}/{y},{o}"), "row 1", "write 2020-01-31"),
    "two marks of decimals": (table("date;A;B", "{d};1,5;2.5"), "'A', row 1", "'1,5'"),
    "blanks between cells": (PLAIN.replace(",", " "), "one column", "commas, semicolons, tabs"),
    "a quote that never closes": (PLAIN + '2021-03-11,"5\n', "a quote is opened and never closed"),
    "a short row": (PLAIN.replace("2021-03-03,102", "2021-03-03"), "row 3 has 1 cells"),
    "a long row": (PLAIN.replace("2021-03-03,", "2021-03-03,1,"), "row 3", "more fields", "quotes"),
    "settlement prices": (
        table("Date,Open,High,Low,Settle,Volume", "{d}," + BARS),
        "no close column",
        "'Settle'",
        "rename it to 'close'",
    ),
    "a last price alone": (table("Date,Last", "{d},{o}"), "no close column", "rename it"),
    "last prices in capitals": (table("DATE,OPEN,LAST", "{d},{o},{c}"), "no close column"),
    "an open alone": (table("Date,Open", "{d},{o}"), "no close column"),
    "an open alone in capitals": (table("DATE,OPEN,SETTLE", "{d},{o},7"), "no close column"),
    "an open beside a last price": (table("date,OPEN,LAST", "{d},{o},7"), "no close column"),
    "bids and asks": (
        table("Date,BidOpen,BidClose", "{d},{o},{c}"),
        "no close column",
        "'BidClose'",
    ),
    "bids and asks apart": (table("Date,Bid Open,Ask Close", "{d},{o},{c}"), "no close column"),
    "joined names without closes": (
        table("date,Open_A,High_A,Low_A,Last_A", "{d}," + OHLC),
        "no close column",
        "'Close_AAPL'",
    ),
    "joined names beside another": (joined("date,Close_A,SPX"), "'Close_A'", "'SPX'", "rename"),
    "a ticker VOLUME": (joined("date,A,VOLUME"), "'VOLUME'", "name all that you want as"),
    "a ticker CLOSE": (joined("date,CLOSE,A"), "'CLOSE'", "name all that you want as"),
    "prices in a currency": (joined("date,open_usd,close_usd"), "'open_usd'", "name a currency"),
    "a column of hours": (table("date,hour,A", "{d},5,{o}"), "no close column", "'hour'"),
    "adjusted closes alone": (
        table("date,symbol,Adj Close", "{d},A,{o}"),
        "no close column",
        "if 'Adj Close' holds closes, rename it to 'close'",
    ),
    "three levels": ("x,y,y\na,A,B\nb,Close,Close\nDate,,\n2021-01-01,1,2\n", "3 levels"),
    "a web page": ("<!DOCTYPE html><html></html>", "a web page"),
    "JSON": ('{"error": "limit"}', "JSON"),
    "XML": ("<?xml version='1.0'?><a/>", "XML"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel workbook"),
    "zeros at the end": (PLAIN.encode() + b"\0\0", "bytes of zero", "UTF-8"),
    "a torn UTF-16": (PLAIN.encode("utf-16")[:-1], "not UTF-16 text"),
    "Latin-1": (PLAIN.replace("A", "Ä").encode("latin-1"), "not UTF-8", "byte 6", "as UTF-8"),
    "days of Excel": (table("date,A", "4425{i},{o}"), "'44250'", "as Excel counts them"),
    "an hour of 24": (
        table("t,A", "").replace("t", "time") + "202103012430,1\n202103010930,2\n",
        "'time'",
    ),
    "a rounded stamp": (table("time,A", "1.6146E+12,{o}"), "'1.6146E+12'"),
    "a zone by its letters": (table("date,A", "{d} 00:00:00 EST,{o}"), "EST", "not an ISO date"),
    "a time of day that is none": (
        table("date,time,close,symbol", "{d},noon,{o},A"),
        "'date' and 'time' both mean timestamp",
    ),
    "a time beside a time": (
        table("date,time,close,symbol", "{d} 09:30,10:30,{o},A"),
        "'date', row 1",
        "a time of day beside a column of times",
    ),
    "percentages": (table("date,A", "{d},5%"), "'A', row 1", "'5%'"),
    "words in a wide table": (table("date,A,currency", "{d},{o},USD"), "'currency', row 1"),
    "a nameless column": (
        table("date,A,Unnamed: 2", "{d},{o},x{i}"),
        "'Unnamed: 2'",
        "has no name",
    ),
    "a header twice but for blanks": (joined("date,A,A\u00a0"), "'A' appears twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_bars_can_be_made_of_is_one_line(name, tmp_path):
    content, *parts = REFUSED[name]
    path = tmp_path / "bars.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_bars(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message, message


@pytest.mark.parametrize("packed", ["zip", "xlsx"])
def test_an_archive_is_named_as_one(packed, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bars.csv" if packed == "zip" else "[Content_Types].xml", PLAIN)
    (tmp_path / "bars.csv").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="a zip archive or an Excel workbook"):
        read_bars(tmp_path / "bars.csv")


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv.gz", ".csv.bz2", ".csv.xz", ".CSV"])
def test_text_is_read_by_all_its_names(suffix, tmp_path):
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(
        suffix.split(".")[-1]
    )
    path = tmp_path / f"bars{suffix}"
    path.write_bytes(pack(PLAIN.encode()) if pack else PLAIN.encode())
    assert len(load_bars(DataConfig(source=str(path)))) == 8
    assert len(load_bars(DataConfig(source=path))) == 8


@pytest.mark.parametrize("symbols", [("CLOSE", "VOLUME", "A"), ("VOLUME", "CLOSE"), ("A", "CLOSE")])
def test_tickers_that_mean_fields_are_symbols_when_they_are_named(symbols, tmp_path, capsys):
    path = tmp_path / "bars.csv"
    path.write_text(table("date,CLOSE,VOLUME,A", "{d},{o},{v},{c}"))
    wanted = {"CLOSE": 100.0, "VOLUME": 1000.0, "A": 100.5}
    bars = read_bars(path, symbols=symbols)
    assert bars.symbols == symbols
    np.testing.assert_array_equal(bars.close[0], [wanted[symbol] for symbol in symbols])
    main(["data", "check", str(path), "--data.symbols", *symbols])
    assert ", ".join(symbols) in capsys.readouterr().out


def test_a_name_of_a_field_is_that_of_the_one_symbol_of_a_table_of_fields(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text(table("DATE,OPEN,HIGH,LOW,CLOSE", "{d}," + OHLC))
    bars = read_bars(path, symbols=["LOW"])
    assert bars.symbols == ("LOW",) and bars.high is not None
    np.testing.assert_array_equal(bars.close[:, 0], CLOSES)


@pytest.mark.parametrize("symbols", [(600519,), ("A", 5), (True,), 5, None, "AAPL", ((),)])
def test_symbols_that_are_no_text_are_refused(symbols):
    with pytest.raises(ConfigError, match=r"DataConfig\.symbols must be a tuple of names"):
        DataConfig(symbols=symbols)


@pytest.mark.parametrize("source", [5, None, True, ["us20"]])
def test_a_source_that_is_no_text_is_refused(source):
    with pytest.raises(ConfigError, match=r"DataConfig\.source must be text, got"):
        DataConfig(source=source)
