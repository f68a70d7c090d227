"""Long frames in and out, by the columns that users of Chronos know."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from forecasters import Counting

from fastsim.data.sample import sample_bars
from fastsim.errors import DataError, ForecastError
from fastsim.forecast.interface import Context
from fastsim.forecast.models.baselines import ewma_random_walk
from fastsim.forecast.predict import DECILES, predict_df

COLUMNS = ["item_id", "timestamp", "target_name", "predictions", *map(str, DECILES)]
BARS = sample_bars("tech4").take(slice(0, 300))


def long_frame(symbols=BARS.symbols):
    rows = [
        pd.DataFrame(
            {
                "item_id": symbol,
                "timestamp": BARS.timestamps,
                "target": BARS.close[:, BARS.symbols.index(symbol)],
            }
        )
        for symbol in symbols
    ]
    return pd.concat(rows, ignore_index=True)


@pytest.fixture
def frame():
    return long_frame(BARS.symbols[::-1])


def test_it_is_what_the_forecaster_says_of_each_series(frame):
    walk = ewma_random_walk()
    found = predict_df(walk, frame, 5)
    assert isinstance(found, pd.DataFrame) and list(found.columns) == COLUMNS
    assert list(found["item_id"].unique()) == list(BARS.symbols[::-1])  # as they came
    assert (found.groupby("item_id").size() == 5).all()
    close = torch.from_numpy(BARS.close.T.copy()).float()[..., None].expand(-1, -1, 6)
    stamps = torch.arange(len(BARS.timestamps)).expand(len(close), -1)
    told = walk.forecast(Context(close, stamps), 5)
    for symbol, rows in found.groupby("item_id", sort=False):
        place = BARS.symbols.index(symbol)
        np.testing.assert_allclose(rows["0.9"], told.at(0.9)[place], rtol=1e-6)
        np.testing.assert_allclose(rows["predictions"], told.median[place], rtol=1e-6)
        np.testing.assert_array_equal(rows["predictions"], rows["0.5"])
    later = sample_bars("tech4").timestamps[300:305]
    np.testing.assert_array_equal(found["timestamp"].to_numpy()[:5].astype(later.dtype), later)


def test_rows_in_any_order_and_either_kind_of_frame_are_the_same(frame):
    walk, wanted = ewma_random_walk(), predict_df(ewma_random_walk(), frame, 3)
    mixed = frame.sample(frac=1.0, random_state=0)
    again = predict_df(walk, mixed, 3).set_index(["item_id", "timestamp"]).sort_index()
    pd.testing.assert_frame_equal(again, wanted.set_index(["item_id", "timestamp"]).sort_index())
    polars = predict_df(walk, pl.DataFrame({name: frame[name].to_numpy() for name in frame}), 3)
    assert isinstance(polars, pl.DataFrame) and polars.columns == COLUMNS
    np.testing.assert_array_equal(polars["0.1"].to_numpy(), wanted["0.1"].to_numpy())
    lazy = pl.DataFrame({name: frame[name].to_numpy() for name in frame}).lazy()
    assert predict_df(walk, lazy, 3).equals(polars)


def test_series_of_several_calendars_and_lengths_go_together():
    walk = ewma_random_walk()
    hours = pd.date_range("2024-03-01", periods=90, freq="h")
    business = pd.bdate_range("2024-01-01", periods=60).delete(20)  # a holiday
    assert pd.infer_freq(business) is None
    price = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 200)))
    frame = pd.concat(
        [
            pd.DataFrame({"item_id": 7, "timestamp": hours, "target": price[:90]}),
            pd.DataFrame({"item_id": 3, "timestamp": business, "target": price[:59]}),
        ]
    )
    found = predict_df(walk, frame, 4)
    assert found["item_id"].tolist() == [7] * 4 + [3] * 4
    stamps = pd.DatetimeIndex(found["timestamp"])
    assert list(stamps[:4]) == list(pd.date_range(hours[-1], periods=5, freq="h")[1:])
    assert list(stamps[4:]) == list(pd.bdate_range(business[-1], periods=5)[1:])
    alone = predict_df(walk, frame[frame["item_id"] == 3], 4)
    np.testing.assert_allclose(alone["0.2"], found["0.2"][4:], rtol=1e-6)


def test_an_exchange_says_when_bars_come():
    pytest.importorskip("exchange_calendars")
    frame = long_frame(BARS.symbols[:1])
    found = predict_df(ewma_random_walk(), frame, 20, exchange="XNYS")
    later = sample_bars("tech4").timestamps[300:320]
    np.testing.assert_array_equal(found["timestamp"].to_numpy().astype(later.dtype), later)


def test_levels_are_those_that_were_asked_for_in_their_order(frame):
    found = predict_df(ewma_random_walk(), frame, 2, (0.975, 0.025))
    assert list(found.columns)[3:] == ["predictions", "0.975", "0.025"]
    assert (found["0.975"] > found["predictions"]).all()
    few = Counting(levels=(0.1, 0.9))
    assert (predict_df(few, frame, 2, (0.5,))["0.5"] > 0).all()


def test_columns_of_other_names_and_many_series_at_a_time(frame):
    counting = Counting()
    named = frame.rename(columns={"item_id": "coin", "timestamp": "when", "target": "price"})
    names = {"id_column": "coin", "timestamp_column": "when", "target": "price"}
    found = predict_df(counting, named, 2, **names, batch_size=3)
    assert list(found.columns)[:3] == ["coin", "when", "target_name"]
    assert set(found["target_name"]) == {"price"} and counting.asked == 4


def test_days_stay_days(frame):
    day = pl.DataFrame({name: frame[name].to_numpy() for name in frame})
    day = day.with_columns(pl.col("timestamp").cast(pl.Date))
    assert predict_df(ewma_random_walk(), day, 2)["timestamp"].dtype == pl.Date


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"columns": {"target": "tarjet"}}, DataError, "no column 'target'; .*did you mean 'tarj"),
        ({"horizon": 0}, ForecastError, "bars ahead, not 0"),
        ({"levels": (0.5, 0.5)}, ForecastError, "levels must increase"),
        ({"levels": (1.0,)}, ForecastError, "lie between 0 and 1"),
        ({"rows": slice(0, 2)}, ForecastError, "series '.*' has 2 known values where .* needs 3"),
        ({"value": -1.0}, DataError, "series '.*' has -1 on "),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(frame, change, error, message):
    frame = frame.iloc[change.get("rows", slice(None))].copy()
    frame = frame.rename(columns=change.get("columns", {}))
    if "value" in change:
        frame.loc[5, "target"] = change["value"]
    given = {name: change[name] for name in ("horizon", "levels") if name in change}
    with pytest.raises(error, match=message) as caught:
        predict_df(ewma_random_walk(), frame, **{"horizon": 3} | given)
    assert "\n" not in str(caught.value)
