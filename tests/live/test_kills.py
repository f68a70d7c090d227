"""A process that trades, killed at random moments: the same ledger, no order twice, none lost."""

import multiprocessing
import os
import random
import signal
import sqlite3

import pytest
from papered import paper, play, small_run
from test_loop import content

from fastsim.live.ledger import LEDGER
from fastsim.live.simulated import ACCOUNT

KILLS = 50
LATEST = 0.4
"""Seconds after the first pass of a process within which it is killed."""


def work(config, begun):
    """Trade until the history is over; tell once it has decided on something."""
    play(config, most=1)
    begun.set()
    play(config)


def rows(path, query):
    with sqlite3.connect(path) as tables:
        return tables.execute(query).fetchall()


@pytest.mark.long
def test_fifty_kills_leave_the_ledger_of_a_run_that_was_never_stopped(tmp_path):
    run = small_run(tmp_path, "run", data={"source": "tech4"}, forecaster="none")
    config = paper(run, tmp_path / "killed", "replay:tech4", start="2006-01-03")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["papered", "fastsim.live.reference"])
    moments, kills = random.Random(7), 0
    while kills < KILLS:
        begun = context.Event()
        process = context.Process(target=work, args=(config, begun))
        process.start()
        assert begun.wait(120)
        process.join(moments.uniform(0.0, LATEST))
        assert process.is_alive(), f"the history was over after {kills} kills: make it longer"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    play(config, most=3)
    bars = len(content(tmp_path / "killed")["decisions"])
    assert bars > KILLS
    play(paper(run, tmp_path / "whole", "replay:tech4", start="2006-01-03"), most=bars)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    query = (
        "SELECT client_id, symbol, state, shares, filled, price, fee FROM orders ORDER BY number"
    )
    there = rows(tmp_path / "killed" / ACCOUNT, query)
    assert there == rows(tmp_path / "whole" / ACCOUNT, query)  # as the exchange has it
    ours = rows(tmp_path / "killed" / LEDGER, "SELECT client_id FROM orders ORDER BY number")
    assert [row[:1] for row in there] == ours and len(set(ours)) == len(ours) > 4 * KILLS
    starts = rows(tmp_path / "killed" / LEDGER, "SELECT text FROM notes WHERE kind = 'start'")
    assert len(starts) > KILLS
