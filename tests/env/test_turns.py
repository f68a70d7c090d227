"""Threads take turns at rows: each row once, whoever is awake, and the bits of one by itself."""

import multiprocessing
import os
from functools import partial

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels import compiled
from fastsim.env.kernels.compiled import Helpers, in_turns
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_turns import take_turns
from fastsim.market.tape import TapeConfig, make_tape

TAPE = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
ENVS = 8_000
"""Enough for several threads."""


@partial(jit, inline=False)
def count_block(start, stop, rows):
    for n in range(start, stop):
        rows[n] += 1


@partial(jit, inline=False)
def count_rows(turns, bell, job, size, count, rest):
    take_turns(count_block, turns, bell, job, size, count, rest)


def played(steps=20):
    env = PortfolioEnv(TAPE, ENVS, EnvConfig(episode=EpisodeConfig(horizon=7, staggered=True)))
    env.reset(3)
    action = torch.rand(ENVS, 3, generator=torch.Generator().manual_seed(1))
    return [env.step(action.roll(step, 0)) for step in range(steps)]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 31, 32, 33, 1000])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_every_row_is_stepped_once(count, number):
    rows = np.zeros(count + 1, np.int64)
    for _ in range(50):
        in_turns(count_rows, count, [(rows,)] * number)
    assert (rows[:-1] == 50).all()
    assert rows[-1] == 0


def test_any_number_of_threads_makes_the_same_bits(threads):
    threads(1)
    alone = played()
    for number in (2, 3, 4):
        threads(number)
        assert_same_bits(played(), alone)


def test_a_thread_that_sleeps_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(Helpers, "_help", lambda self: None)  # they end, and take no turn
    monkeypatch.setattr(compiled, "helpers", Helpers)
    rows = np.zeros(100, np.int64)
    in_turns(count_rows, 100, [(rows,)] * 3)
    assert (rows == 1).all()


def test_a_turn_that_was_taken_and_left_is_an_error_rather_than_a_wait(monkeypatch):
    monkeypatch.setattr(Helpers, "_help", lambda self: None)
    left = np.zeros(compiled.PLACES, np.int64)
    left[compiled.TAKEN] = 10
    with pytest.raises(RuntimeError, match="has ended"):
        Helpers(2).wait(left, 10)


def count_in_a_child(answers):
    rows = np.zeros(100, np.int64)
    for _ in range(20):
        in_turns(count_rows, 100, [(rows,)] * 3)
    answers.put((int(rows.min()), int(rows.max()), compiled.helpers.cache_info().misses))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads about
def test_a_forked_process_has_helpers_of_its_own():
    in_turns(count_rows, 100, [(np.zeros(100, np.int64),)] * 3)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=count_in_a_child, args=(answers,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == (20, 20, 1)
