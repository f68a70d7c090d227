"""Small agents of both built-in sets, and paper accounts of them on replayed history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastsim.config import from_mapping
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.train import train
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
