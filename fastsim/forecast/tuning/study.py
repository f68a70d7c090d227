"""A study of Optuna's in a folder, which several processes may work on, and of which none is lost.

A trial whose process has died is noticed by its heartbeat and tried again by whoever comes next, as
the trial that it was. What a trial has learned is its objective's business to keep.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock

from fastsim.errors import CheckpointError, ConfigError, FastsimError
from fastsim.forecast.training.windows import seeded

try:
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError:
    raise ConfigError(
        "a search needs Optuna, which is not installed: pip install 'fastsim-rl[tune]'"
    ) from None

NAME = "tune"
DATABASE, LOCK = "study.db", "study.lock"
BEAT_S, GRACE_S = 5, 20
"""Seconds from one heartbeat to the next, and after which a silent trial counts as dead."""
POLL_S = 1.0
BUSY_S = 120
"""Seconds that the data base is waited for."""
ATTEMPTS = 5
"""Times that one trial is begun before it counts as failed: what kills its process is its own."""
RANDOM_SHARE = 4
"""One trial in so many is drawn at random before others guide the choice."""
IDENTITY, OWNER, REASON, VALUES = "identity", "owner", "reason", "values"
State = Literal["complete", "pruned", "failed", "running", "waiting"]
STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
Objective = Callable[[int, Trial], float]
"""Takes which trial it is, from 0, and the trial; gives the loss."""


class Attempt(NamedTuple):
    """A trial as it stands."""

    number: int
    """Which it is, from 0: one that is begun anew stays the same."""
    state: State
    loss: float | None
    """Of validation: the best of a whole fit, the last of a pruned one."""
    values: Mapping[str, Any]
    attempts: int
    """Times that it was begun."""
    reason: str
    """Why it failed."""


class Study:
    """The trials of a search.

    Parameters
    ----------
    folder
        Of the data base and of its lock.
    identity
        Of what is searched and by what it is judged: a study of another one is refused.
    seed
        Of what is proposed.
    prune
        Whether a trial may be given up by its reports.

    Raises
    ------
    CheckpointError
        The folder holds another search.
    """

    def __init__(self, folder: Path, identity: str, *, seed: int, prune: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lock, self.seed = FileLock(folder / LOCK), seed
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if prune else None
        with self.lock, _quiet():
            self.retry = RetryHeartbeatStaleTrialCallback(max_retry=ATTEMPTS - 1)
            self.storage = RDBStorage(
                f"sqlite:///{folder / DATABASE}",
                engine_kwargs={"connect_args": {"timeout": BUSY_S}},
                heartbeat_interval=BEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=self.retry,
            )
            self.study = optuna.create_study(
                study_name=NAME,
                storage=self.storage,
                pruner=pruner or optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            if self.study.user_attrs.setdefault(IDENTITY, identity) != identity:
                raise CheckpointError(
                    f"{folder}: a search of another model, of other bars, settings or another "
                    f"space: give those, or choose another folder"
                )
            self.study.set_user_attr(IDENTITY, identity)

    def work(self, objective: Objective, trials: int, ended: Callable[[], None]) -> None:
        """Try until so many trials have ended, whoever tries them.

        What raises a FastsimError has failed. Whatever else ends a trial raises here, and it is
        tried again by whoever works on the study next.

        Parameters
        ----------
        ended
            Called after each trial of one's own, while no other process begins one.
        """
        with _quiet():
            while True:
                with self.lock:
                    move = self._move(trials)
                    if move == "try":
                        self._try(objective, trials)
                        ended()
                        continue
                if move == "end":
                    return
                time.sleep(POLL_S)

    def _move(self, trials: int) -> Literal["try", "wait", "end"]:
        """What is to be done, as the study stands."""
        fail_stale_trials(self.study)
        found = self.study.get_trials(deepcopy=False)
        for trial in found:
            # Whoever begins a trial owns it before it lets go of the lock, which is ours.
            orphan = trial.user_attrs.get(OWNER) != trial.number
            if trial.state == TrialState.RUNNING and orphan:
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.retry(self.study, trial)
                return self._move(trials)
        states = [trial.state for trial in found]
        if len(_places(found)) < trials or TrialState.WAITING in states:
            return "try"
        return "wait" if TrialState.RUNNING in states else "end"

    def _try(self, objective: Objective, trials: int) -> None:
        """Begin a trial under the lock, go on without it, and come back under it."""
        own: list[Trial] = []

        def owned(trial: Trial) -> float:
            own.append(trial)
            self.storage.record_heartbeat(trial._trial_id)  # without one it would never be missed
            trial.set_user_attr(OWNER, trial.number)
            self.lock.release()
            try:
                return objective(self._place(trial.number), trial)
            except FastsimError as error:
                trial.set_user_attr(REASON, str(error))
                raise

        self.study.sampler = self._sampler(trials)
        try:
            self.study.optimize(owned, n_trials=1, catch=(FastsimError,))
        except BaseException as error:
            taken_over = bool(own) and not self._again(self._frozen(own[0].number))
            if not (taken_over and isinstance(error, Exception)):
                raise
        finally:
            if not self.lock.is_locked:
                self.lock.acquire()

    def _again(self, trial: FrozenTrial) -> bool:
        """Queue a trial that came to no end; False where another process has done so."""
        found = self.study.get_trials(deepcopy=False)
        if any(trial.number in self.retry.retry_history(each) for each in found):
            return False
        self.retry(self.study, trial)
        return True

    def _place(self, number: int) -> int:
        """Which trial it is that has this number: those begun anew are one."""
        found = self.study.get_trials(deepcopy=False)
        return _places(found)[_first(found[number])]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _sampler(self, trials: int) -> optuna.samplers.BaseSampler:
        """What proposes the next trial, by the seed, how many there were, and what came of them."""
        before = len(_places(self.study.get_trials(deepcopy=False)))
        seed = seeded(self.seed, "proposals", before).initial_seed() % 2**32
        random = max(4, trials // RANDOM_SHARE)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=random, constant_liar=True)

    def attempts(self) -> list[Attempt]:
        """Every trial as its last attempt stands, in the order in which they were begun first."""
        with _quiet():
            found = self.study.get_trials(deepcopy=False)
            latest, places = {_first(trial): trial for trial in found}, _places(found)
            counts = Counter(_first(trial) for trial in found if trial.state != TrialState.WAITING)
        return [
            Attempt(
                places[first],
                STATES[trial.state],
                _loss_of(trial),
                dict(trial.user_attrs.get(VALUES, {})),
                counts[first],
                trial.user_attrs.get(REASON, ""),
            )
            for first, trial in sorted(latest.items())
        ]


def pruned(step: int) -> optuna.TrialPruned:
    """What a fit that is given up after a step raises."""
    return optuna.TrialPruned(f"given up after step {step}")


def _loss_of(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def _places(found: Sequence[FrozenTrial]) -> dict[int, int]:
    """Which trial it is, from 0, by the number that it had first."""
    firsts = sorted({_first(trial) for trial in found})
    return {first: place for place, first in enumerate(firsts)}


def _first(trial: FrozenTrial) -> int:
    """The number that a trial had before it was begun anew."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna say nothing of trials that end and of what of it is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
