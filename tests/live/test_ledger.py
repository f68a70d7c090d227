"""The ledger: rows are added and never changed, and what is committed is there after a kill."""

import multiprocessing
import os
import signal
import sqlite3
from math import nan

import pytest

from fastsim.errors import CheckpointError, ConfigError
from fastsim.live.broker import Order, OrderReport, OrderState
from fastsim.live.files import only_process
from fastsim.live.ledger import LEDGER, TABLES, Ledger
from fastsim.live.records import Change, Decided, Refusal, Run, Snapshot, client_id_of

RUN = Run("run", "runs/a/agent", "digest", "simulated", False, {"symbols": ["KO", "PEP"]})


def order(symbol="KO", shares=10.0, bar="2024-01-02"):
    return Order(client_id_of("run", bar, symbol), symbol, shares, 50.0, 0.1)


def report(given, state=OrderState.OPEN, filled=0.0, price=nan, received=None, **fees):
    received = filled if received is None else received
    return OrderReport(
        given.client_id, "7", given.symbol, state, given.shares, filled, price, fees, received
    )


def decided(bar="2024-01-02"):
    return Decided(bar, {"peak_wealth": 1.0}, {"KO": 0.1}, {"KO": 50.0}, {"bounds": []})


def snapshot(bar="2024-01-02"):
    return Snapshot(bar, 1000.0, 1000.0, {}, {})


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger.open(tmp_path)
    ledger.begin(RUN, "0.1.0")
    yield ledger
    ledger.close()


def test_rows_are_never_changed_or_removed(ledger, tmp_path):
    ledger.record(decided(), snapshot(), [order()], [Refusal("2024-01-02", "gross", "", "why")])
    ledger.report([report(order())], [Change("1", "2024-01-02", "KO", 1.0, 0.0, "a split")])
    ledger.note("start", "text")
    other = sqlite3.connect(tmp_path / LEDGER)
    for table in TABLES:
        for statement in (f"UPDATE {table} SET at = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="added and never changed"):
                other.execute(statement)
        assert len(ledger.rows(table)) == 1


def test_an_order_is_written_once(ledger):
    ledger.record(decided(), snapshot(), [order()], [])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.record(decided("2024-01-03"), snapshot("2024-01-03"), [order()], [])
    assert [each.bar for each in ledger.decisions()] == ["2024-01-02"]  # nothing of it was kept


def test_positions_are_what_was_received_and_what_changed(ledger, tmp_path):
    ko, pep = order(), order("PEP", -4.0)
    ledger.record(decided(), snapshot(), [ko, pep], [])
    assert [each.order for each in ledger.unsettled()] == [ko, pep]
    ledger.report([report(ko, filled=4.0, price=50.0, received=3.9, KO=0.1)])
    ledger.report([report(pep, OrderState.REJECTED)])
    assert ledger.positions == {"KO": 3.9, "PEP": 0.0}
    assert [each.order for each in ledger.unsettled()] == [ko]
    filled = report(ko, OrderState.FILLED, 10.0, 50.5, 9.9, KO=0.1)
    split = Change("split", "2024-01-03", "KO", 9.9, 0.0, "a split")
    ledger.report([filled], [split, Change("interest", "2024-01-03", "", 0.0, 2.5, "interest")])
    ledger.report([filled], [split])  # is known
    assert ledger.positions == {"KO": pytest.approx(19.8), "PEP": 0.0}
    assert ledger.unsettled() == [] and len(ledger.rows("reports")) == 3
    again = Ledger.read(tmp_path)
    assert again.positions == ledger.positions and again.reports == ledger.reports
    assert again.reports[ko.client_id].fees == {"KO": 0.1}


def test_ids_are_those_of_run_bar_and_symbol():
    ids = {client_id_of(*each) for each in (("a", "b", "c"), ("x", "b", "c"), ("a", "bc", ""))}
    assert len(ids) == 3 and all(len(each) == 32 and each.isalnum() for each in ids)
    assert client_id_of("a", "b", "c") in ids


def test_another_agent_or_account_is_refused(ledger):
    ledger.check(RUN)
    with pytest.raises(ConfigError, match="a paper account at simulated, not of a real account"):
        ledger.check(RUN._replace(live=True))
    with pytest.raises(ConfigError, match="is another: choose another --state"):
        ledger.check(RUN._replace(digest="changed"))


def test_files_that_are_no_ledger_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no ledger here"):
        Ledger.read(tmp_path)
    (tmp_path / LEDGER).write_text("no tables at all, but long enough to look at, is it not?")
    for opened in (Ledger.open, Ledger.read):
        with pytest.raises(CheckpointError, match="no ledger that can be"):
            opened(tmp_path)
    (tmp_path / LEDGER).unlink()
    Ledger.open(tmp_path).close()
    with sqlite3.connect(tmp_path / LEDGER) as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(CheckpointError, match="a ledger of version 9"):
        Ledger.open(tmp_path)


def hold(folder, ready):
    with only_process(folder):
        ready.set()
        signal.pause()


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(ConfigError, match="another process trades here"), only_process(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with only_process(tmp_path):
        pass
