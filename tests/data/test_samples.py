"""The built-in data: what they hold, and that the packages they came from still say the same."""

import inspect
from importlib.resources import files

import numpy as np
import pytest

from fastsim.data.sample import SAMPLES, sample_bars
from fastsim.data.samples import make_samples
from fastsim.errors import DataError

ARRAYS = ("open", "high", "low", "close", "volume", "adj_close")


@pytest.mark.parametrize("name", SAMPLES)
def test_shipped_data_equal_what_the_source_packages_give(name):
    rebuilt, shipped = getattr(make_samples, name)(), sample_bars(name)
    assert rebuilt.symbols == shipped.symbols
    np.testing.assert_array_equal(rebuilt.timestamps, shipped.timestamps)
    for field in ARRAYS:
        wanted, got = getattr(rebuilt, field), getattr(shipped, field)
        assert (wanted is None) == (got is None)
        if wanted is not None:
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", SAMPLES)
def test_shipped_data_have_no_hole_and_needed_no_repair(name):
    bars = sample_bars(name)
    assert bars.repairs == ()
    assert np.isfinite(bars.close).all()


def test_us20_is_closes_of_twenty_stocks_from_2000_to_2022():
    bars = sample_bars("us20")
    assert bars.close.shape == (5785, 20)
    assert all(getattr(bars, field) is None for field in ARRAYS if field != "close")
    assert str(bars.timestamps[0])[:10] == "2000-01-03"
    assert str(bars.timestamps[-1])[:10] == "2022-12-28"


def test_tech4_begins_with_the_listing_of_google_at_known_prices():
    bars = sample_bars("tech4")
    assert bars.symbols == ("AAPL", "GOOG", "IBM", "MSFT")
    assert all(getattr(bars, field).shape == (2148, 4) for field in ARRAYS)
    assert str(bars.timestamps[0])[:10] == "2004-08-19"
    assert str(bars.timestamps[-1])[:10] == "2013-03-01"
    assert bars.close[0, 1] == pytest.approx(100.34, abs=0.1)


def test_an_unknown_sample_is_refused_with_the_names_there_are():
    with pytest.raises(DataError, match=r"'sp500'.*us20.*tech4"):
        sample_bars("sp500")


def test_both_files_together_stay_small():
    folder = files("fastsim.data") / "samples"
    assert sum(len((folder / f"{name}.parquet").read_bytes()) for name in SAMPLES) < 2_000_000


def test_the_notice_carries_licence_caution_and_origin():
    notice = (files("fastsim.data") / "samples" / "NOTICE.md").read_text()
    for part in (
        "Copyright (c) 2023-2026 The skfolio developers.",
        "EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE",
        "should not be relied upon as authoritative market data.",
        "Quandl WIKI Prices",
        "Survivors only",
    ):
        assert part in notice
    assert "NOTICE.md" in inspect.getsource(make_samples)
