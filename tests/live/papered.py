"""Small agents of both built-in sets, and paper accounts of them on replayed history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastsim.backtest.replay import WHOLE_TAPE, replay
from fastsim.backtest.steps import Place, make_runners
from fastsim.config import from_mapping
from fastsim.data.dates import show
from fastsim.env.decide import Seat
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.train import train
from fastsim.live.broker import OrderState
from fastsim.live.ledger import Ledger
from fastsim.live.loop import Passed
from fastsim.live.opening import PaperConfig, opened
from fastsim.live.simulated import SimulatedBroker

SMALL = {
    "total_steps": 4096,
    "evaluations": 1,
    "collect": {"num_envs": 64, "rollout_steps": 16},
    "policy": {"hidden": 16, "initial_std": 1.0},
}
RUN = "one-run"
"""The id of every paper account here, so that ledgers can be compared."""


def small_run(folder: Path, name: str, **settings) -> Path:
    """A run of a few steps."""
    given = SMALL | settings | {"runs_dir": str(folder), "name": name}
    return train(from_mapping(TrainConfig, given))


def paper(run: Path, state: Path, feed: str, **settings) -> PaperConfig:
    return PaperConfig(agent=str(run), feed=feed, state=str(state), **settings)


def play(config: PaperConfig, most: int | None = None) -> list[str]:
    """Pass after pass until the history is over, or so many bars are decided on; what was told."""
    told: list[str] = []
    with opened(config, told.append, run_id=RUN) as loop:
        decided = 0
        while decided != most and loop.once() is Passed.DECIDED:
            decided += 1
    return told


def steps_of(tape, decider, rules):
    """What the reference environment makes of a decider, step by step."""
    config = replace(rules, episode=WHOLE_TAPE)
    (runner,) = make_runners(
        tape, [Place((0,), Seat(decider, tape, config, rows=1))], config, fused=False
    )
    return runner.run(slice(tape.first, tape.last), lambda bars: None)


def assert_wealth_is_replayed(ledger, tape, decider, rules, backend="auto"):
    """An account at every bar of a tape is worth what the replay's is."""
    wealth = replay(tape, decider, ["agent"], rules, backend=backend).wealth[:, 0]
    equity = torch.tensor([each.equity for each in ledger.snapshots()], dtype=torch.float64)
    assert [each.bar for each in ledger.snapshots()] == bars_of(tape)
    torch.testing.assert_close(equity, wealth, rtol=1e-6, atol=0.0)


def assert_orders_are_replayed(ledger, tape, steps):
    """Every order traded what its step did, and every trade of a step has one order."""
    bars, column = bars_of(tape), {symbol: n for n, symbol in enumerate(tape.symbols)}
    trade = steps.outcome.trade[:, 0]  # [B, A] at prices of fills
    price = tape.next["price"][tape.first : tape.last].double()
    orders = ledger.orders()
    assert max(Counter((bar, order.symbol) for bar, order in orders).values()) == 1
    found = torch.zeros_like(trade)
    for bar, order in orders:
        report, row = ledger.reports[order.client_id], bars.index(bar)
        if row == len(trade):
            assert report.state == OrderState.OPEN  # the bar that fills it is not there yet
            continue
        assert report.state == OrderState.FILLED
        found[row, column[order.symbol]] = report.filled * price[row, column[order.symbol]]
    apart = (found - trade).abs().amax(-1)
    assert (apart <= 2e-6 * steps.outcome.wealth_before[:, 0]).all()
    assert (trade != 0).any(-1).sum() > 5


def bars_of(tape):
    """Bars of a replay as a ledger writes them, from the first to the last."""
    return [show(stamp) for stamp in tape.timestamps[tape.first : tape.last + 1]]


class Crash(BaseException):
    """A process that ends where it stands."""


class Calls:
    """How many calls have been made."""

    made = 0


PLACES = (
    *((Ledger, name) for name in ("record", "report", "begin", "note")),
    *((SimulatedBroker, name) for name in ("submit", "meet", "find", "_cross")),
)
"""Whatever writes, or asks a broker."""
CRASHES = 60


@contextmanager
def crashing(number: int) -> Iterator[Calls]:
    """Crash right before or right after a call that writes: at the moment of this number."""
    calls, kept = Calls(), [(owner, name, getattr(owner, name)) for owner, name in PLACES]

    def tick() -> None:
        calls.made += 1
        if calls.made == number + 1:
            raise Crash

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            tick()
            result = method(*given, **named)
            tick()
            return result

        return call

    for owner, name, method in kept:
        setattr(owner, name, wrapped(method))
    try:
        yield calls
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)
