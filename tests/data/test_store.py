"""A store of bars holds what one fetch of everything gives, and says what its sources changed."""

import numpy as np
import polars as pl
import pytest
from stand_ins import (
    DAYS,
    ONE,
    altered,
    assert_equal,
    at,
    bars_at,
    files,
    made,
    of_vendor,
    scaled,
    stamps,
    update,
    usual,
)

from fastsim.adapters.sources import bars_of
from fastsim.data.source import DataConfig, read_source
from fastsim.data.store import Store, has_closed
from fastsim.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def vendors():
    usual()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "us"


def test_a_store_holds_every_bar_that_has_closed_and_none_that_has_not(folder):
    done = made(folder, now="2024-02-01T12:00")
    assert done.made
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-01-31"))
    assert ONE.asked == [(name, "2024-01-01", "2024-02-01") for name in ("KO", "PEP")]


@pytest.mark.parametrize("split", ["2024-01-08", "2024-02-16T22:00", "2024-03-02", "2024-03-29"])
def test_two_fetches_are_as_one_of_everything(folder, tmp_path, split):
    made(folder, now=split)
    update(folder, "2024-04-01")
    assert_equal(Store.open(folder).bars(), of_vendor(ONE, ("KO", "PEP"), "2024-03-29"))


def test_no_more_is_asked_for_than_what_is_missing_and_five_bars_to_compare(folder):
    made(folder, now="2024-02-01T12:00")  # Thursday; the last bar is Wednesday's
    ONE.asked.clear()
    update(folder, "2024-02-01T23:59")
    assert ONE.asked == []
    update(folder, "2024-02-02")
    assert ONE.asked == [(name, "2024-01-25", "2024-02-02") for name in ("KO", "PEP")]


def test_a_vendor_that_answers_nothing_new_leaves_every_byte(folder):
    made(folder, now="2024-04-01")
    before = files(folder)
    done = update(folder, "2024-04-09")
    assert [each.added for each in done.renewals] == [0, 0]
    assert not done.made and files(folder) == before


def test_symbols_are_listed_when_they_are_and_can_be_added_later(folder):
    ONE.serve(NEW=bars_at(DAYS[np.datetime64("2024-02-12") <= DAYS], 3))
    made(folder, now="2024-03-01")
    done = update(folder, "2024-03-08", symbols=("NEW", "KO"))
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP", "NEW"), "2024-03-07"))
    assert done.store.spec.symbols == ("KO", "PEP", "NEW")


def test_a_symbol_that_is_traded_no_more_is_kept(folder):
    ONE.serve(GONE=bars_at(DAYS[np.datetime64("2024-02-12") > DAYS], 3))
    made(folder, symbols=("KO", "GONE"))
    update(folder, "2024-03-01")
    bars = update(folder, "2024-03-20").store.bars()
    assert_equal(bars, of_vendor(ONE, ("KO", "GONE"), "2024-03-19"))


def test_an_earlier_start_fetches_what_lies_between_and_a_later_one_is_refused(folder):
    made(folder, now="2024-03-01", start="2024-02-01")
    ONE.asked.clear()
    done = update(folder, "2024-03-01", start="2024-01-01")
    assert ONE.asked == [(name, "2024-01-01", "2024-02-07") for name in ("KO", "PEP")]
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-29"))
    with pytest.raises(ConfigError, match="begins on 2024-01-01, and --start 2024-01-05 is later"):
        update(folder, "2024-03-01", start="2024-01-05")


def test_a_gap_among_the_last_bars_is_filled_and_one_further_back_on_request(folder):
    whole = {name: ONE.frames[name] for name in ("KO", "PEP")}
    missing = ["2024-01-09", "2024-01-10", "2024-02-28"]
    there = ~pl.col("date").dt.date().cast(pl.String).is_in(missing)
    ONE.serve(**{name: frame.filter(there) for name, frame in whole.items()})
    made(folder, now="2024-03-01")
    ONE.serve(**whole)
    held = update(folder, "2024-03-02").store.bars().timestamps
    assert [at(day) in held for day in missing] == [False, False, True]
    done = update(folder, "2024-03-02", since="2024-01-05")
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-03-01"))


def test_one_close_that_was_changed_is_named_and_taken_over_on_request_alone(folder):
    made(folder)
    close = ONE.frames["KO"].filter(pl.col("date") == np.datetime64("2024-01-30"))["close"][0]
    ONE.serve(KO=altered(ONE.frames["KO"], "2024-01-30", close=1.001, high=1.01))
    before = files(folder)
    was, now = f"{close:.8g}", f"{close * 1.001:.8g}"
    what = f"KO was revised by stand_ins:one: close on 2024-01-30 is {now} and was {was};"
    with pytest.raises(DataError, match=f"nothing is changed: {what} --accept-revisions"):
        update(folder, "2024-02-10")
    assert files(folder) == before
    done = update(folder, "2024-02-10", accept_revisions=True)
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09"))
    assert [each.what for each in done.store.manifest.events[-2:]] == [
        what.removesuffix(";"),
        f"KO was revised by stand_ins:one: high on 2024-01-30 is "
        f"{done.store.bars().high[21, 0]:.8g} and was {done.store.bars().high[21, 0] / 1.01:.8g}",
    ]


def test_every_symbol_that_is_refused_is_named(folder):
    made(folder)
    for name in ("KO", "PEP"):
        ONE.serve(**{name: altered(ONE.frames[name], "2024-01-31", low=0.99)})
    with pytest.raises(DataError, match=r"KO was revised .* low on .* \| PEP was revised .* low"):
        update(folder, "2024-02-10")


def test_a_bar_that_is_no_longer_there_is_a_revision(folder):
    made(folder)
    gone = pl.col("date") == np.datetime64("2024-01-30")
    ONE.serve(PEP=ONE.frames["PEP"].filter(~gone), KO=ONE.frames["KO"].filter(~gone))
    with pytest.raises(DataError, match="the bar of 2024-01-30 was there before and is missing"):
        update(folder, "2024-02-10")
    done = update(folder, "2024-02-10", accept_revisions=True)
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09"))


def test_a_volume_that_was_changed_is_taken_over(folder):
    made(folder)
    ONE.serve(KO=altered(ONE.frames["KO"], "2024-01-31", volume=1.1))
    done = update(folder, "2024-02-10")
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09"))


@pytest.mark.parametrize("until", [None, "2024-01-29"])
def test_prices_multiplied_by_one_number_are_named_and_fetched_anew_on_request(folder, until):
    """As after a split: of all bars that are kept, or of those before it where it came late."""
    made(folder)
    ONE.serve(KO=scaled(ONE.frames["KO"], 0.25, until))
    before = files(folder)
    wanted = "KO was adjusted anew by stand_ins:one: close is 0.25 times what it was"
    for options in ({}, {"accept_revisions": True}):
        with pytest.raises(DataError, match=f"{wanted}.*; --fresh KO fetches all of it anew"):
            update(folder, "2024-02-10", **options)
    assert files(folder) == before
    done = update(folder, "2024-02-10", fresh=("KO",))
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09"))
    event = "all 30 bars of KO were fetched from stand_ins:one anew, on request"
    assert done.store.manifest.events[-1].what == event


def test_adjusted_symbols_are_fetched_anew_by_themselves_where_that_was_said(folder):
    frame = ONE.frames["KO"].with_columns(adj_close=pl.col("close"))
    ONE.serve(KO=frame)
    made(folder, symbols=("KO",))
    day = pl.col("date") < np.datetime64("2024-02-02")  # ex a dividend of 0.4 %
    ONE.serve(
        KO=frame.with_columns(adj_close=pl.col("close") * pl.when(day).then(0.996).otherwise(1))
    )
    with pytest.raises(DataError, match=r"adj_close is 0.996 times what it was, at 5 of 5"):
        update(folder, "2024-02-10")
    done = update(folder, "2024-02-10", fresh_when_adjusted=True)
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO",), "2024-02-09"))
    assert "anew, as adj_close is 0.996 times" in done.store.manifest.events[-1].what


def test_a_fetch_of_everything_that_reaches_less_far_replaces_nothing(folder):
    made(folder)
    before = files(folder)
    ONE.serve(KO=bars_at(DAYS[5:], 1))
    with pytest.raises(
        DataError, match="begin on 2024-01-08, and those that are kept on 2024-01-01"
    ):
        update(folder, "2024-02-10", fresh=("KO",))
    assert files(folder) == before


def test_a_price_that_is_not_there_is_mended_or_refused_as_the_store_was_made(folder):
    crypto = stamps("2024-01-01", "2024-03-29")
    ONE.serve(BTC=bars_at(crypto, 4))
    both = {"symbols": ("KO", "BTC")}
    with pytest.raises(DataError, match=r"KO on 2024-01-06: no price .*repair=True"):
        made(folder, **both)
    assert not folder.exists()
    made(folder, **both, repair=True)
    update(folder, "2024-03-11")
    bars = read_source(DataConfig(source=f"store:{folder}"))
    assert len(bars) == 70 and np.isnan(bars.close[5, 0]) and bars.close[5, 1] > 0


def test_bars_a_day_into_a_year_are_checked_with_those_before_it(folder):
    days = stamps("2023-12-01", "2024-01-10", weekdays=True)
    ONE.serve(KO=bars_at(days, 1), PEP=bars_at(days, 2))
    made(folder, now="2024-01-01", start="2023-12-01")
    done = update(folder, "2024-01-02")
    assert len(done.store.manifest.parts) == 2
    ONE.asked.clear()
    done = update(folder, "2024-01-03")
    assert ONE.asked == [(name, "2023-12-26", "2024-01-03") for name in ("KO", "PEP")]
    assert_equal(done.store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-01-02"))


def test_hours_lie_in_files_of_a_month_and_the_hour_that_is_running_is_left_out(folder):
    hours = stamps("2024-01-30T00:00", "2024-03-02T00:00", "15m")
    ONE.serve(BTC=bars_at(hours, 4))
    options = {"symbols": ("BTC",), "interval": "15m", "start": "2024-01-30"}
    made(folder, now="2024-02-03T10:14:59", **options)
    assert str(Store.open(folder).bars().timestamps[-1])[:16] == "2024-02-03T09:45"
    store = update(folder, "2024-03-01T00:15").store
    assert [part[:7] for part in store.manifest.parts] == ["2024-01", "2024-02", "2024-03"]
    assert_equal(store.bars(), of_vendor(ONE, ("BTC",), "2024-03-01T00:00"))


def test_what_is_not_in_a_fetch_of_everything_is_no_longer_kept(folder):
    hours = stamps("2024-01-10T00:00", "2024-03-20T00:00", "30m")
    ONE.serve(BTC=bars_at(hours, 4))
    made(folder, now="2024-03-15", symbols=("BTC",), interval="30m", start="2024-01-10")
    february = pl.col("date").dt.month() == 2
    ONE.serve(BTC=ONE.frames["BTC"].filter(~february))
    store = update(folder, "2024-03-15", fresh=("BTC",)).store
    assert [part[:7] for part in store.manifest.parts] == ["2024-01", "2024-03"]
    assert_equal(store.bars(), of_vendor(ONE, ("BTC",), "2024-03-14T23:30"))


def test_bars_of_other_lengths_are_refused(folder):
    with pytest.raises(DataError, match=r"no bars are closer .* more than 1h"):
        made(folder, interval="1h")
    with pytest.raises(DataError, match="closer than 1wk"):
        made(folder, interval="1wk")
    made(folder)
    with pytest.raises(ConfigError, match="interval of a store cannot change: it has 1d, not 1h"):
        update(folder, "2024-02-10", interval="1h")


def test_stamps_of_other_time_zones_are_put_on_one_clock(folder):
    made(folder, symbols=("KO",))
    zone = ONE.frames["KO"]["date"].dt.replace_time_zone("Asia/Tokyo")
    ONE.serve(KO=ONE.frames["KO"].with_columns(date=zone))
    done = update(folder, "2024-02-10")
    assert [each.added for each in done.renewals] == [7] and len(done.store.bars()) == 30


@pytest.mark.parametrize(
    ("interval", "stamp", "over"),
    [
        ("1m", "2024-02-29T23:59", "2024-03-01T00:00"),
        ("90m", "2024-02-29T23:00", "2024-03-01T00:30"),
        ("1d", "2024-02-28", "2024-02-29"),
        ("1wk", "2024-02-26", "2024-03-04"),
        ("1mo", "2024-02-01", "2024-03-01"),
        ("1M", "2023-02-01", "2023-03-01"),
        ("3mo", "2023-12-01", "2024-03-01"),
        ("1y", "2024-01-01", "2025-01-01"),
    ],
)
def test_when_a_bar_is_over(interval, stamp, over):
    assert has_closed(at(stamp), interval, at(over))
    assert not has_closed(at(stamp), interval, at(over) - np.timedelta64(1, "ns"))


def test_the_last_bars_are_read_without_the_files_before_them(folder):
    days = stamps("2021-06-01", "2024-03-29", weekdays=True)
    ONE.serve(KO=bars_at(days, 1), PEP=bars_at(days, 2))
    store = made(folder, now="2024-03-20", start="2021-06-01").store
    wanted = store.bars()
    for part in store.manifest.parts[:2]:
        (folder / "bars" / part).unlink()
    for count in (1, 2, 20, 200):
        assert_equal(store.last(count), wanted.take(slice(-count, None)))
    assert store.last(20, ("PEP",)).symbols == ("PEP",)
    assert store.closes(store.last(2).timestamps[-1]) == at("2024-03-20")
    with pytest.raises(DataError, match=store.manifest.parts[1]):
        store.last(500)


def test_a_store_is_read_as_any_other_source(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    made("us")
    bars = Store.open("us").bars()
    assert (folder.parent / "stores" / "us" / "store.json").exists()
    for source in ("store:us", "store:stores/us", "stores/us", f"store:{folder.parent}/stores/us"):
        assert_equal(read_source(DataConfig(source=source)), bars)
    one = read_source(DataConfig(source="store:us", num_assets=1, start="2024-01-10"))
    assert one.symbols == ("KO",) and one.timestamps[0] == at("2024-01-10")
    assert read_source(DataConfig(source="store:us", symbols=("PEP",))).symbols == ("PEP",)
    with pytest.raises(DataError, match="there is no store of bars; `fastsim data update eu`"):
        read_source(DataConfig(source="store:eu"))


def test_a_market_of_a_store_is_as_new_as_the_store(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    made("us")
    sources = ("store:us", "store:stores/us", "stores/us")
    assert [len(bars_of(source)) for source in sources] == [23, 23, 23]
    update("us", "2024-02-10")
    assert [len(bars_of(source)) for source in sources] == [30, 30, 30]
