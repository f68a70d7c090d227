"""An agent that trades bar by bar: its evaluation, order for order; after any stop the same."""

from dataclasses import replace

import numpy as np
import pytest
from papered import (
    CRASHES,
    Crash,
    assert_orders_are_replayed,
    assert_wealth_is_replayed,
    bars_of,
    crashing,
    paper,
    play,
    small_run,
    steps_of,
)

from fastsim.agent.agent import Agent
from fastsim.data.read import write_bars
from fastsim.data.source import DataConfig, read_source
from fastsim.errors import BrokerError, ConfigError, DataError
from fastsim.experiment.config import read_run
from fastsim.experiment.markets import load_markets
from fastsim.live.ledger import TABLES, Ledger
from fastsim.live.limits import LimitConfig
from fastsim.live.loop import Passed
from fastsim.live.opening import opened
from fastsim.live.reconcile import DifferenceError

START = "2011-09-01"
RUNS = {
    "weights": {"data": {"source": "tech4"}, "forecaster": "none"},
    "carried": {
        "data": {"source": "tech4"},
        "forecaster": "none",
        "env": {
            "initial_cash": 1e9,
            "costs": {"participation": 0.002},
            "orders": {"unfilled": "carry", "whole_shares": True},
        },
    },
    "closes": {
        "data": {"source": "tech4"},
        "forecaster": "none",
        "tape": {"fill": "close", "risk_free_rate": 0.02},
        "env": {"action": "signed", "max_gross": 1.5},
    },
    "tech4": {"data": {"source": "tech4"}, "forecaster": "fastsim-prior"},
    "us20": {"data": {"source": "us20"}, "forecaster": "fastsim-prior"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = small_run(folder, name, **RUNS[name])
        return made[name]

    return run


def content(state, *, apart=("notes", "run")):
    """All rows of a ledger but when they were written, and how often it was started."""
    ledger = Ledger.read(state)
    rows = {table: ledger.rows(table) for table in TABLES if table not in apart}
    ledger.close()
    return rows


def assert_trades_as_evaluated(run, state, bars=None):
    """Wealth and orders of a paper account of the test bars, or the first of them."""
    config, agent = read_run(run), Agent.load(run)
    tape = load_markets(config).test
    if bars is not None:
        tape = tape.between(slice(tape.first, tape.first + bars + 1))
    first, *_, last = bars_of(tape)
    play(paper(run, state, f"replay:{config.data.source}", start=first, end=last))
    ledger = Ledger.read(state)
    assert_wealth_is_replayed(ledger, tape, agent.policy, config.env)
    if config.env.orders.unfilled == "drop":
        assert_orders_are_replayed(ledger, tape, steps_of(tape, agent.policy, config.env))
    ledger.close()


@pytest.mark.long
@pytest.mark.parametrize("name", ["weights", "carried", "closes"])
def test_wealth_and_orders_are_those_of_its_evaluation(runs, name, tmp_path):
    assert_trades_as_evaluated(runs(name), tmp_path / "state", bars=40)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tech4", "us20"])
def test_wealth_and_orders_are_those_of_its_evaluation_at_every_test_bar(runs, name, tmp_path):
    assert_trades_as_evaluated(runs(name), tmp_path / "state")


@pytest.mark.long
def test_after_a_crash_at_any_step_the_ledger_is_the_same(runs, tmp_path):
    run, settings = runs("weights"), {"start": START, "end": "2011-09-09"}
    play(paper(run, tmp_path / "whole", "replay:tech4", **settings))
    whole = content(tmp_path / "whole")
    assert len(whole["decisions"]) == 6
    for number in range(CRASHES):
        state = tmp_path / f"crashed-{number}"
        config = paper(run, state, "replay:tech4", **settings)
        with crashing(number) as calls, pytest.raises(Crash):
            play(config)
        assert calls.made == number + 1
        play(config)
        assert content(state) == whole, number


def test_passes_one_by_one_are_the_same_as_one_after_the_other(runs, tmp_path):
    run = runs("weights")
    config = paper(run, tmp_path / "one", "replay:tech4", start=START, end="2011-09-09")
    play(paper(run, tmp_path / "whole", "replay:tech4", start=START, end="2011-09-09"))
    for _ in range(6):
        play(config, most=1)
    with opened(config) as loop:
        assert loop.once() is Passed.OVER
    assert content(tmp_path / "one") == content(tmp_path / "whole")


def test_an_order_that_is_not_known_any_more_or_of_somebody_else_stops_trading(runs, tmp_path):
    config = paper(runs("weights"), tmp_path / "state", "replay:tech4", start=START)
    play(config, most=3)
    before = content(tmp_path / "state")
    with opened(config) as loop:
        broker = loop._broker
        broker._tables.execute(
            "INSERT INTO orders "
            "VALUES (NULL, 'foreign', 'MSFT', 5, 0.5, 0, 0, 'open', 0, NULL, 0, '', 0)"
        )
        with pytest.raises(DifferenceError, match=r"the order of MSFT: none of ours in the ledger"):
            loop.once()
        broker.cancel("foreign", "MSFT")
        (book,) = broker._tables.execute("SELECT shares FROM bars ORDER BY bar DESC LIMIT 1")
        broker._tables.execute("UPDATE bars SET shares = '{\"MSFT\": 7.0}' WHERE shares = ?", book)
        with pytest.raises(DifferenceError) as stopped:
            loop.once()
        assert any(d[:2] == ("position", "MSFT") and d[3] == "7" for d in stopped.value.differences)
        broker._tables.execute("UPDATE bars SET shares = ? WHERE shares = '{\"MSFT\": 7.0}'", book)
        broker._tables.execute("DELETE FROM orders WHERE state = 'open'")
        with pytest.raises(BrokerError, match=r"simulated no longer knows its order \d+ of"):
            loop.once()
    assert content(tmp_path / "state") == before


def test_positions_of_the_broker_can_be_accepted(runs, tmp_path):
    config = paper(runs("weights"), tmp_path / "state", "replay:tech4", start=START)
    play(config, most=3)
    with opened(config) as loop:
        loop._broker._tables.execute("UPDATE bars SET shares = '{\"MSFT\": 7.0}'")
        with pytest.raises(DifferenceError, match="or --accept takes"):
            loop.once()
    with opened(replace(config, accept=True)) as loop:
        loop._reconciliation.check()
        held = loop._ledger.positions
        assert held["MSFT"] == 7.0 and held["GOOG"] == 0.0
    with opened(config) as loop:
        loop._reconciliation.check()


def test_limits_stop_orders_and_passes(runs, tmp_path):
    run, feed = runs("weights"), "replay:tech4"
    largest = paper(run, tmp_path / "a", feed, start=START, limits=LimitConfig(largest_order=2e5))
    play(largest, most=2)
    ledger = Ledger.read(tmp_path / "a")
    refused = [(each.bar, each.symbol) for each in ledger.refusals()]
    sent = [(bar, order.symbol) for bar, order in ledger.orders()]
    assert refused and sent and not set(refused) & set(sent)
    assert all(abs(order.shares * order.price) <= 2e5 for _, order in ledger.orders())
    gross = paper(run, tmp_path / "b", feed, start=START, limits=LimitConfig(gross=0.1))
    told = play(gross, most=3)
    ledger = Ledger.read(tmp_path / "b")
    assert ledger.orders() == [] and len(ledger.decisions()) == 3
    assert {each.limit for each in ledger.refusals()} == {"gross"} and "refused by gross" in told[0]
    equity = [each.equity for each in ledger.snapshots()]
    assert equity == [1e6] * 3  # nothing was traded


def faulty(name, bars, row):
    """Bars with a fault just before `row`."""
    close = bars.close.copy()
    if name == "NaN":
        close[row - 3, 1] = np.nan
        return replace(bars, close=close)
    if name == "unadjusted":
        return replace(bars, adj_close=None)
    if name == "revised":
        factor = np.where(np.arange(len(bars)) == row - 2, 1.01, 1.0)[:, None]
        names = ("open", "high", "low", "close", "adj_close")
        return replace(bars, **{each: factor * getattr(bars, each) for each in names})
    return bars.take(slice(row - 5, None))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NaN", r"has no close on|is not positive|missing"),
        ("unadjusted", "no adj_close"),
        ("revised", "data were revised"),
        ("short", "6 bars are too few|after the last decision"),
    ],
)
def test_bars_that_would_mislead_it_leave_the_ledger_and_the_account_as_they_were(
    runs, name, told, tmp_path
):
    run, state = runs("weights"), tmp_path / "state"
    bars = read_source(DataConfig(source="tech4"))
    row = int(np.searchsorted(bars.timestamps, np.datetime64("2011-09-08")))
    play(paper(run, state, "replay:tech4", start=START, end="2011-09-07"))
    before = content(state)
    write_bars(faulty(name, bars, row), tmp_path / "faulty.parquet")
    feed = f"replay:{tmp_path / 'faulty.parquet'}"
    with pytest.raises(DataError, match=told):
        play(paper(run, state, feed))
    assert content(state) == before
    play(paper(run, state, "replay:tech4", start=START, end="2011-09-08"))
    assert len(content(state)["decisions"]) == len(before["decisions"]) + 1


def test_what_cannot_be_is_refused_before_anything_is_written(runs, tmp_path):
    run, state = runs("weights"), tmp_path / "state"
    for settings, told in (
        ({"feed": "nowhere"}, "PaperConfig.feed must be"),
        ({"broker": "somebody"}, r"PaperConfig.feed = 'replay:tech4' is history"),
        ({"broker": "somebody", "feed": "yfinance"}, "somebody"),
        ({"live": True}, "needs a broker with real money"),
        ({"live": True, "broker": "alpaca", "feed": "yfinance"}, "needs every limit, and there"),
        ({"start": "2011-09-01", "feed": "yfinance"}, "PaperConfig.start is of a replay"),
        ({"cash": -1.0}, "PaperConfig.cash must be > 0"),
        ({"limits": LimitConfig, "cash": 1.0}, "PaperConfig.limits must be a LimitConfig"),
    ):
        given = {"agent": str(run), "feed": "replay:tech4", "state": str(state)} | settings
        with pytest.raises(ConfigError, match=told):
            play(
                paper(
                    run, state, given["feed"], **{k: v for k, v in settings.items() if k != "feed"}
                )
            )
        assert not (state / "ledger.sqlite").exists() or not Ledger.read(state).run
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="must be a folder"):
        paper(run, tmp_path / "file", "replay:tech4")
    with pytest.raises(DataError, match="has no bars from 2030"):
        play(paper(run, state, "replay:tech4", start="2030-01-01"))


def test_one_folder_is_of_one_agent_and_one_process(runs, tmp_path):
    state = tmp_path / "state"
    config = paper(runs("weights"), state, "replay:tech4", start=START)
    play(config, most=1)
    with pytest.raises(ConfigError, match="is another: choose another --state"):
        play(paper(runs("closes"), state, "replay:tech4", start=START))
    with opened(config), pytest.raises(ConfigError, match="another process trades here"):
        play(config)
