"""Candles of one symbol at a time: plain data that plotly knows, and all of it there."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
from test_results import table as one_row

from fastsim.backtest import candles
from fastsim.backtest.candles import CandleTables, candle_view, candles_html
from fastsim.backtest.results import BARS, FANS, SIGNALS
from fastsim.backtest.trades import TRADES

DAYS = np.datetime64("2020-01-01", "ns") + np.arange(300) * np.timedelta64(1, "D")


def bars(*symbols, closes_alone=False):
    generator = np.random.default_rng(0)
    rows = len(DAYS) * len(symbols)
    close = np.exp(generator.normal(4, 0.1, rows))
    lacking = pl.Series([None] * rows, dtype=pl.Float64)
    values = {"date": np.repeat(DAYS, len(symbols)), "symbol": list(symbols) * len(DAYS)}
    for name, factor in (("open", 1.01), ("high", 1.03), ("low", 0.98), ("close", 1.0)):
        values[name] = lacking if closes_alone and name != "close" else factor * close
    return pl.DataFrame([pl.Series(n, values[n]).cast(k) for n, k in BARS.items()])


def trades(*rows):
    """Of (symbol, side, decided, left, gain, stop)."""
    names = ("symbol", "side", "decided", "left", "simple_return", "stop")
    values = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    values |= {"entered": [row[2] + 1 for row in rows], "reason": ["time"] * len(rows)}
    values |= {"entry_price": [50.0] * len(rows), "exit_price": [51.0] * len(rows)}
    values |= {"weight": [0.5] * len(rows), "bars": [row[3] - row[2] for row in rows]}
    for name in ("decided", "entered", "left"):
        values[name] = DAYS[np.array(values[name], dtype=int)]
    empty = [None] * len(rows)
    return pl.DataFrame([pl.Series(n, values.get(n, empty)).cast(k) for n, k in TRADES.items()])


def fan(symbol, place, horizon=3):
    rows = [
        (DAYS[place], symbol, ahead, level, 50.0 + ahead * level)
        for ahead in range(horizon + 1)
        for level in (0.1, 0.25, 0.5, 0.75, 0.9)
    ]
    values = {"date": np.array([row[0] for row in rows])}
    values |= {n: [row[k] for row in rows] for k, n in enumerate(FANS) if k}
    return pl.DataFrame([pl.Series(n, values[n]).cast(k) for n, k in FANS.items()])


TRADED = trades(
    ("A", "long", 3, 8, 0.02, 48.0),
    ("B", "short", 250, 260, -0.01, 52.0),
    ("A", "long", 280, 290, -0.03, None),
)


def drawn(view, symbol):
    """The traces of a symbol as plotly's own package takes them, by name."""
    found = {}
    for trace in view.symbols[symbol]["traces"]:
        x = view.dates[: view.bars] if trace["x"] == "all" else trace["x"]
        x = [place if place is None or isinstance(place, str) else view.dates[place] for place in x]
        assert len(x) == len(trace["y"])
        found[trace["name"]] = go.Figure([trace | {"x": x}], view.layout).data[0]
    return found


def test_every_trade_of_a_symbol_is_drawn_with_its_levels_and_of_no_other():
    view = candle_view(CandleTables(bars("A", "B"), TRADED))
    one, two = drawn(view, "A"), drawn(view, "B")
    assert list(one["enter long"].x) == ["2020-01-05", "2020-10-08"]
    assert list(one["leave"].x) == ["2020-01-09", "2020-10-17"]
    assert list(one["won"].x) == ["2020-01-05", "2020-01-09", None]
    assert list(one["lost"].x) == ["2020-10-08", "2020-10-17", None]
    assert one["stop"].y[:2].tolist() == [48.0, 48.0] and "target" not in one
    assert list(two["enter short"].x) == ["2020-09-08"] and "enter long" not in two
    assert [len(prices) for prices in view.symbols["A"]["bars"]] == [300] * 4


def test_a_fan_reaches_beyond_the_last_bar_and_its_bands_enclose_the_median():
    view = candle_view(CandleTables(bars("A"), TRADED.head(1), fans=fan("A", 299)))
    assert view.bars == 300 and view.dates[300:] == ["2020-10-27", "2020-10-28", "2020-10-29"]
    shown = drawn(view, "A")
    median = shown["forecast, median"]
    assert list(median.x) == ["2020-10-26", *view.dates[300:], None]
    np.testing.assert_allclose(median.y[:4], [50, 50.5, 51, 51.5])
    band = shown["forecast, 10% to 90%"]
    assert band.fill == "toself"
    np.testing.assert_allclose(band.y[:8], [50, 50.1, 50.2, 50.3, 52.7, 51.8, 50.9, 50], rtol=1e-6)


def test_what_was_held_and_what_signals_said_stand_below_on_axes_of_their_own():
    weights = pl.DataFrame({"date": DAYS, "symbol": ["A"] * 300, "weight": np.linspace(0, 1, 300)})
    signals = one_row(SIGNALS).with_columns(
        pl.lit("A").alias("symbol"), pl.Series("date", DAYS[9:10])
    )
    view = candle_view(CandleTables(bars("A"), TRADED, weights, signals))
    shown = drawn(view, "A")
    np.testing.assert_allclose(shown["weight"].y, np.linspace(0, 1, 300), rtol=1e-6)
    assert shown["signal"].y[9] == pytest.approx(0.2)  # 2 x 0.6 - 1, long
    assert np.isnan(shown["signal"].y).sum() == 299
    assert (shown["weight"].yaxis, shown["signal"].yaxis) == ("y2", "y3")
    assert set(view.layout) >= {"yaxis", "yaxis2", "yaxis3"}


def test_data_of_closes_alone_is_a_line():
    view = candle_view(CandleTables(bars("A", closes_alone=True), TRADED.head(0)))
    assert len(view.symbols["A"]["bars"]) == 1 and view.symbols["A"]["traces"] == []


def test_long_and_wide_data_is_cut_to_what_a_page_can_hold(monkeypatch):
    monkeypatch.setattr(candles, "MAX_SYMBOLS", 2)
    monkeypatch.setattr(candles, "MAX_CANDLES", 300)
    view = candle_view(CandleTables(bars("C", "A", "B"), TRADED))
    assert list(view.symbols) == ["A", "B"] and view.left_out == 1
    assert view.bars == 150 and view.dates[-1] == "2020-10-26"
    assert list(drawn(view, "A")["enter long"].x) == ["2020-10-08"]  # the other began before


def test_names_cannot_leave_the_script_or_the_drop_down():
    evil = "</script><b>'\"&"
    view = candle_view(CandleTables(bars(evil), TRADED.head(0)))
    text = candles_html("candles", view)
    assert text.count("</script>") == 1 and text.rstrip().endswith("</script>")
    assert "<b>" not in text
    value = re.search(r'<option value="([^"]*)">', text)[1]
    assert value == "&lt;/script&gt;&lt;b&gt;&#x27;&quot;&amp;"
    data, _ = json.JSONDecoder().raw_decode(text.split('showCandles("candles", ')[1])
    assert list(data["symbols"]) == [evil]
