"""Candles of a paper account: positions by hand, bars as they were and as they are kept."""

from math import nan

import pytest
from papered import paper, play, small_run

from fastsim.data.sample import sample_bars
from fastsim.live.broker import Order, OrderReport, OrderState
from fastsim.live.candles import candles_of
from fastsim.live.ledger import Ledger
from fastsim.live.positions import ADJUSTED, position_table
from fastsim.live.records import Change, Decided, Run, Snapshot
from fastsim.live.status import Placed, Status, read_status
from fastsim.live.status_page import write_page

BARS = ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05")
CLOSES = (50.0, 52.0, 54.0, 53.0)


def decided(bar, close, **signals):
    closes = {"KO": close}
    return Decided(bar, {}, {"KO": 0.5}, closes, {"signals": signals, "holds": False})


def filled(bar, shares, price):
    order = Order(bar, "KO", shares, price, 0.5)
    report = OrderReport(bar, "1", "KO", OrderState.FILLED, shares, shares, price, {}, shares)
    return Placed(bar, order, report, 0.0, None)


def status_of(placed, changes=(), signals=None):
    signals = signals or {}
    return Status(
        run=Run("r", "agent", "d", "simulated", False, {"feed": "yfinance"}),
        snapshots=[Snapshot(bar, 10_000.0, 0.0, {}, {}) for bar in BARS],
        standings=[],
        placed=placed,
        refusals=[],
        simulator={},
        backtest={},
        decisions=[
            decided(bar, close, **signals.get(bar, {}))
            for bar, close in zip(BARS, CLOSES, strict=True)
        ],
        changes=changes,
    )


def rows_of(status, *names):
    table = position_table(status)
    table = table.with_columns(table["entered"].dt.strftime("%d"), table["left"].dt.strftime("%d"))
    return table.select(names).rows()


WAY = ("side", "entered", "left", "bars", "entry_price", "exit_price", "reason")


def test_a_position_grows_is_turned_and_is_open_at_the_end():
    placed = [filled(BARS[0], 100, 51.0), filled(BARS[1], 100, 53.0), filled(BARS[2], -250, 54.0)]
    status = status_of(placed)
    assert rows_of(status, *WAY) == [
        ("long", "03", "05", 2, 52.0, 54.0, "weights"),
        ("short", "05", "05", 1, 54.0, 53.0, "open"),
    ]
    numbers = rows_of(status, "weight", "simple_return", "stop", "confidence")
    assert numbers == [(0.51, 54 / 52 - 1, None, None), (-0.27, pytest.approx(1 / 54), None, None)]


def test_part_of_a_position_that_is_sold_ends_nothing():
    placed = [filled(BARS[0], 100, 51.0), filled(BARS[1], -40, 53.0), filled(BARS[2], -60, 54.0)]
    assert rows_of(status_of(placed), *WAY) == [("long", "03", "05", 2, 51.0, 54.0, "weights")]


def test_a_split_changes_no_value_and_what_was_there_before_is_no_short():
    split = [Change("1", BARS[1], "KO", 100.0, 0.0, ADJUSTED)]
    placed = [filled(BARS[0], 100, 51.0), filled(BARS[2], -200, 26.0)]
    found = rows_of(status_of(placed, split), *WAY)
    assert found == [("long", "03", "05", 2, 25.5, 26.0, "weights")]
    opening = [Change("opening KO", "", "KO", 100.0, 0.0, "held at the start")]
    found = rows_of(status_of([filled(BARS[2], -100, 54.0)], opening), *WAY)
    assert found == [("long", "03", "05", 2, 50.0, 54.0, "weights")]


def test_a_stop_ends_it_within_its_bar_and_says_so():
    signal = {"direction": "long", "confidence": 0.7, "regime": "calm", "stop": 45, "target": 60}
    stopped = [Change("1", BARS[2], "KO", -100.0, 0.0, "a stop, a target or a margin call")]
    status = status_of(
        [filled(BARS[0], 100, 51.0)], stopped, {BARS[0]: {"KO": signal}, BARS[1]: {"KO": signal}}
    )
    assert rows_of(status, *WAY) == [
        ("long", "03", "04", 2, 51.0, 54.0, "a stop, a target or a margin call")
    ]
    known = rows_of(status, "stop", "target", "confidence", "regime", "distance")
    assert known == [(45.0, 60.0, 0.7, "calm", pytest.approx(0.1))]
    said = candles_of(status).tables.signals
    assert said["direction"].to_list() == [1, 1] and said["confidence"].to_list() == [0.7, 0.7]


def test_an_order_that_nothing_came_of_is_no_position():
    order = Order("a", "KO", 5.0, 50.0, 0.5)
    report = OrderReport("a", "1", "KO", OrderState.REJECTED, 5.0, 0.0, nan, {}, 0.0, "no")
    placed = [Placed(BARS[0], order, report, None, None), Placed(BARS[1], order, None, None, None)]
    assert position_table(status_of(placed)).is_empty()
    assert "Closes of the ledger" in candles_of(status_of(placed)).note


def test_bars_of_a_history_are_drawn_and_else_what_the_ledger_has(tmp_path):
    run = small_run(tmp_path, "run", data={"source": "tech4"}, forecaster="none")
    play(paper(run, tmp_path / "state", "replay:tech4", start="2011-09-01", end="2011-09-15"))
    status = read_status(tmp_path / "state")
    found, bars = candles_of(status), sample_bars("tech4")
    table = found.tables.bars
    assert found.note == "Bars of replay:tech4." and len(table) == 4 * len(status.decisions)
    rows = [str(stamp)[:10] in status.equity for stamp in bars.timestamps]
    for column, symbol in enumerate(bars.symbols):
        highs = table.filter(table["symbol"] == symbol)["high"].to_list()
        assert highs == bars.high[rows, column].tolist()
    ledger = Ledger.read(tmp_path / "state")
    held = {symbol for symbol, shares in ledger.positions.items() if shares}
    ledger.close()
    trades = found.tables.trades
    assert set(trades.filter(trades["reason"] == "open")["symbol"]) == held
    write_page(status, tmp_path / "page.html")
    assert 'showCandles("candles"' in (tmp_path / "page.html").read_text()
    first = status.decisions[0]
    closes = {symbol: 1.01 * close for symbol, close in first.closes.items()}
    revised = [first._replace(closes=closes), *status.decisions[1:]]
    gone = status.run._replace(settings={"feed": "replay:gone.parquet"})
    for other in (status._replace(decisions=revised), status._replace(run=gone)):
        found = candles_of(other)
        assert "Closes of the ledger" in found.note
        assert found.tables.bars["open"].is_null().all()
        assert found.tables.bars["close"].to_list()[0] == other.decisions[0].closes["AAPL"]
