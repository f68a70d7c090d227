"""A replay tells how far it is: every bar in the end, and seldom enough not to be slowed."""

from contextlib import contextmanager

import pytest
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.replay import TOLD_TIMES
from fastsim.market.tape import TapeConfig, make_tape


class Heard:
    """Keeps what it is told."""

    def __init__(self):
        self.tasks, self.advances = [], []

    @contextmanager
    def task(self, name, total, *, unit, done=0):
        self.tasks.append((name, total, unit))
        yield self

    def advance(self, count=1, /, **figures):
        self.advances.append(count)


@pytest.mark.parametrize("steps", [1, 7, TOLD_TIMES + 3, 3 * TOLD_TIMES])
def test_every_bar_is_told_of_in_few_words(steps):
    heard = Heard()
    tape = make_tape(
        random_bars(steps + SHORT_FEATURES.warmup + 1, 2), TapeConfig(features=SHORT_FEATURES)
    )
    replay_benchmarks(tape, alone=False, progress=heard)
    assert heard.tasks == [("replay", steps, "bars")]
    assert sum(heard.advances) == steps
    assert len(heard.advances) <= 2 * TOLD_TIMES
