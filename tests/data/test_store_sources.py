"""Who is asked for the bars of a store, and what becomes of a second one's."""

import numpy as np
import polars as pl
import pytest
from stand_ins import (
    DAYS,
    ONE,
    TWO,
    altered,
    assert_equal,
    at,
    bars_at,
    files,
    made,
    of_vendor,
    scaled,
    update,
    usual,
)

from fastsim.data.store import Store
from fastsim.errors import ConfigError, DataError

BOTH = ("stand_ins:one", "stand_ins:two")


@pytest.fixture(autouse=True)
def vendors():
    usual()
    TWO.serve(**ONE.frames)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "us"


def test_a_second_source_is_asked_where_the_first_fails_and_every_stretch_says_whose_it_is(
    folder, caplog
):
    made(folder, source=BOTH)
    assert TWO.asked == []
    ONE.down = True
    update(folder, "2024-02-10")
    assert caplog.messages[0].startswith("KO is from stand_ins:two, since data vendor 'stand_ins:o")
    ONE.down = False
    store = update(folder, "2024-03-01").store
    assert_equal(store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-29"))
    spans = [("one", "2024-01-01", "2024-01-31"), ("two", "2024-02-01", "2024-02-09")]
    spans += [("one", "2024-02-12", "2024-02-29")]
    assert [(each.symbol, each.source, each.first, each.last) for each in store.stretches()] == [
        (symbol, f"stand_ins:{source}", at(first), at(last))
        for symbol in ("KO", "PEP")
        for source, first, last in spans
    ]
    assert [each.fetched for each in store.stretches()[:2]] == [
        (at("2024-02-01T12:00"),) * 2,
        (at("2024-02-10"),) * 2,
    ]


def test_one_symbol_alone_may_come_from_the_second(folder):
    del ONE.frames["PEP"]
    store = made(folder, source=BOTH).store
    assert [each.source for each in store.stretches()] == list(BOTH)


@pytest.mark.parametrize(("factor", "taken"), [(1.0019, True), (1.0021, False), (0.5, False)])
def test_what_differs_from_the_first_by_more_than_the_tolerance_is_refused(folder, factor, taken):
    made(folder, source=BOTH)
    kept = Store.open(folder).bars()
    before = files(folder)
    TWO.serve(**{name: scaled(frame, factor) for name, frame in TWO.frames.items()})
    ONE.down = True
    if taken:
        bars = update(folder, "2024-02-10").store.bars()
        assert_equal(bars.take(slice(len(kept))), kept)
        new = of_vendor(TWO, ("KO", "PEP"), "2024-02-09").close[len(kept) :]
        np.testing.assert_array_equal(bars.close[len(kept) :], new)
        ONE.down = False  # its bars are compared with those of the other, and stay apart
        assert len(update(folder, "2024-02-13").store.bars()) == len(bars) + 1
        return
    wanted = rf"KO cannot be had: .*one.*no route to host; .*two: close is {factor} times what it "
    with pytest.raises(DataError, match=f"{wanted}was.*by .*one.*tolerance of 0.002"):
        update(folder, "2024-02-10", accept_revisions=True, fresh_when_adjusted=True)
    assert files(folder) == before
    assert update(folder, "2024-02-10", tolerance=0.6).renewals[0].added == 7


def test_one_price_of_the_second_beyond_the_tolerance_is_named(folder):
    made(folder, source=BOTH)
    ONE.down = True
    TWO.serve(PEP=altered(TWO.frames["PEP"], "2024-01-29", high=1.01))
    with pytest.raises(
        DataError, match=r"PEP cannot be had.*two: high on 2024-01-29 is .* and was"
    ):
        update(folder, "2024-02-10")


def test_a_source_may_call_a_symbol_otherwise(folder):
    TWO.serve(**{"PEP=X/USD": TWO.frames.pop("PEP")})
    store = made(folder, source=BOTH, names=("PEP=PEP=X/USD@stand_ins:two",)).store
    assert store.spec.names == {"stand_ins:two": {"PEP": "PEP=X/USD"}}
    ONE.down = True
    update(folder, "2024-02-10")
    assert [asked[0] for asked in TWO.asked] == ["KO", "PEP=X/USD"]
    assert_equal(Store.open(folder).bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09"))
    for wrong in ("PEP", "PEP=", "PEPSI=X@stand_ins:two", "PEP=X@stand_ins:three"):
        with pytest.raises(ConfigError, match=f"--names {wrong}: write SYMBOL=NAME@SOURCE"):
            update(folder, "2024-02-10", names=(wrong,))


def test_a_second_source_has_to_have_what_is_kept_and_what_else_it_has_is_left_out(folder):
    made(folder, source=BOTH)
    ONE.down = True
    whole = TWO.frames["KO"]
    TWO.serve(KO=whole.drop("volume"))
    with pytest.raises(DataError, match="two gives no volume of KO, which the store keeps"):
        update(folder, "2024-02-10")
    TWO.serve(KO=whole.with_columns(adj_close=pl.col("close") * 0.9))
    assert update(folder, "2024-02-10").store.bars().adj_close is None


def test_fields_may_be_chosen_where_a_store_is_made(folder):
    ONE.serve(KO=ONE.frames["KO"].with_columns(volume=0.0), PEP=ONE.frames["PEP"])
    bars = made(folder, fields=("open",)).store.bars()
    assert bars.volume is None and bars.high is None and bars.open is not None
    with pytest.raises(ConfigError, match=r"fields of a store cannot change: it has .*open.*close"):
        update(folder, "2024-02-10", fields=("volume",))
    with pytest.raises(ConfigError, match=r"fields must be of open, .* got 'price'"):
        made(folder.parent / "other", fields=("price",))


def test_sources_may_be_files_and_functions_and_change(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_both = pl.concat(ONE.frames.values())
    of_both.filter(pl.col("date") < pl.datetime(2024, 2, 1)).write_csv("bars.csv")
    store = made(folder, source=("bars.csv",)).store
    assert store.spec.sources == (str(tmp_path / "bars.csv"),)
    of_both.filter(pl.col("date") < pl.datetime(2024, 2, 8)).write_csv("bars.csv")
    monkeypatch.chdir("/")
    update(folder, "2024-04-01")
    store = update(folder, "2024-04-01", source=("stand_ins:one",)).store
    assert_equal(store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-03-29"))
    assert store.manifest.events[-1].what.startswith("sources is ('stand_ins:one',) and was")


def test_sources_of_which_none_has_the_bars_that_are_kept_are_refused(folder):
    made(folder)
    ONE.serve(KO=bars_at(DAYS[np.datetime64("2024-02-01") < DAYS], 1))
    with pytest.raises(DataError, match=r"none of its bars, 2024-02-02 to .* is among those"):
        update(folder, "2024-02-10")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"symbols": ()}, "to make it, say --symbols"),
        ({"source": ()}, "to make it, say --source"),
        ({"start": None}, "to make it, say --start"),
        ({"start": "yesterday"}, "start must be an ISO date"),
        ({"symbols": ("KO", "KO")}, "symbols name 'KO' twice"),
        ({"interval": "daily"}, "interval must be a count and one of .* got 'daily'"),
        ({"overlap": 1}, "overlap must be >= 2"),
        ({"tolerance": -1.0}, "tolerance must be >= 0"),
        ({"symbols": ("NOPE",)}, "NOPE cannot be had: .*stand_ins:one.* failed for NOPE"),
        ({"source": ("nowhere",)}, "KO cannot be had: unknown data source 'nowhere'"),
        ({"source": ("no.module:x",)}, "no.module cannot be imported"),
        ({"start": "2024-02-01"}, "KO cannot be had: .*: 1 bars of KO: at least 2"),
        ({"start": "2024-01-31"}, "1 bars of KO, PEP: at least 2"),
        ({"start": "2025-01-31"}, "start 2025-01-31 is after end 2024-02-01"),
    ],
)
def test_what_makes_no_store_leaves_nothing(tmp_path, options, error):
    with pytest.raises((ConfigError, DataError), match=error):
        made(tmp_path / "deep" / "us", **options)
    assert list(tmp_path.iterdir()) == []
