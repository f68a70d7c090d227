"""How far a long computation is: said by whoever computes, shown by whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Display

PERCENT = "%"
"""Unit of a task that says itself how much time is left."""
REDRAWN = 0.1
"""Seconds between two looks of a line."""


class Task(Protocol):
    """Something that takes a while."""

    def advance(self, count: int = 1, /, **figures: str) -> None:
        """So many more units are done; figures stay shown until others of their name come."""
        ...


class Progress(Protocol):
    """Who is told of tasks, one at a time, and of what has come out of them."""

    def task(
        self, name: str, total: int, *, unit: str, done: int = 0
    ) -> AbstractContextManager[Task]:
        """Begin a task of so many units, of which some are done already; it ends with the block."""
        ...

    def say(self, line: str) -> None:
        """Say one line."""
        ...


class Silent:
    """Tells nobody; its own task, too."""

    @contextmanager
    def task(self, name: str, total: int, *, unit: str, done: int = 0) -> Iterator[Task]:
        """Begin a task that nobody sees."""
        yield self

    def advance(self, count: int = 1, /, **figures: str) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


class ProgressBars:
    """A bar for each task on a console, standard error unless another is given.

    A console that is no terminal gets the line of a finished task, or nothing where bars do not
    stay.
    """

    def __init__(self, console: Console | None = None, *, stay: bool = True) -> None:
        self.console, self._stay = console or Console(stderr=True), stay

    @contextmanager
    def task(self, name: str, total: int, *, unit: str, done: int = 0) -> Iterator[Task]:
        """Draw a bar until the block ends."""
        columns = _whole_columns() if unit == PERCENT else _columns(unit)
        console = self.console
        hidden = not self._stay and not console.is_terminal
        with Display(*columns, console=console, transient=not self._stay, disable=hidden) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, completed=done, figures=""))

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(line, highlight=False, markup=False)


def _columns(unit: str) -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
    )


def _whole_columns() -> tuple[ProgressColumn, ...]:
    """In one column, so that a narrow terminal cuts off its end and never the share."""
    text = "{task.description} {task.completed} % {task.fields[figures]}"
    return TextColumn(text, markup=False), BarColumn(bar_width=20)


class _Bar:
    def __init__(self, bars: Display, task: TaskID) -> None:
        self.bars, self.name = bars, task
        self.figures: dict[str, str] = {}

    def advance(self, count: int = 1, /, **figures: str) -> None:
        self.figures |= figures
        self.bars.update(self.name, advance=count, figures=" ".join(self.figures.values()))


@dataclass
class _Kind:
    """Work of one kind: how much there is, how much is done, and what it took."""

    units: float = 0.0
    done: float = 0.0
    seconds: float = 0.0
    guess: float = 0.0
    """Seconds that a unit takes, as long as none is done."""

    @property
    def left(self) -> float:
        """Seconds that the rest takes."""
        each = self.seconds / self.done if self.done else self.guess
        return max(0.0, self.units - self.done) * each


class Whole:
    """One line for a computation of several kinds of work: its share, and the time that is left.

    It is told of tasks as any `Progress` is; those of one name are one kind of work. The share is
    that of time, by the speeds that were met so far, so that what is expected counts from the
    beginning. Nothing is drawn before there is work.

    Parameters
    ----------
    progress
        Who draws the line.
    name
        Of the whole.
    runs
        How often all that is expected is done.
    """

    def __init__(
        self,
        progress: Progress,
        name: str,
        *,
        runs: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._name, self._runs, self._clock = progress, name, runs, clock
        self._kinds: dict[str, _Kind] = {}
        self._inner: list[_Part] = []
        self._drawn = ExitStack()
        self._line: Task | None = None
        self._shown, self._figures = 0, dict[str, str]()
        self._begun = self._mark = self._looked = clock()

    def __enter__(self) -> Whole:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._line is not None and error is None:
            took = timedelta(seconds=round(self._clock() - self._begun))
            self._line.advance(100 - self._shown, **{"left": f"took {took}"} | self._figures)
        self._drawn.__exit__(kind, error, trace)

    def expect(self, name: str, units: float, *, seconds_each: float) -> None:
        """Count on work of this kind from now on, at a guess of what a unit takes.

        Whoever says so first is believed: what a part of the whole expects of itself is in it.
        """
        self._kinds.setdefault(name, _Kind(units * self._runs, guess=seconds_each))
        self._draw(at_once=True)

    @contextmanager
    def task(self, name: str, total: int, *, unit: str, done: int = 0) -> Iterator[Task]:
        """Begin a part; within another, its time is not the other's."""
        kind = self._kinds.setdefault(name, _Kind(total - done))
        self._pass_time()
        part = _Part(self, kind, f"{name} {{:,}}/{total:,} {unit}", done)
        self._inner.append(part)
        self._draw(at_once=True)
        try:
            yield part
        finally:
            self._pass_time()
            self._inner.remove(part)
            self._figures.pop("part", None)

    def say(self, line: str) -> None:
        """Say one line."""
        self._progress.say(line)

    @property
    def seconds(self) -> dict[str, float]:
        """What each kind of work has taken until its last event, parts within it left out."""
        return {name: kind.seconds for name, kind in self._kinds.items()}

    def advanced(self, **figures: str) -> None:
        """Take note that a part has gone on."""
        self._pass_time()
        self._figures |= figures
        self._draw()

    def _pass_time(self) -> None:
        """Time since the last event is that of the innermost part."""
        now = self._clock()
        if self._inner:
            self._inner[-1].kind.seconds += now - self._mark
        self._mark = now

    def _draw(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if self._line is None:
            task = self._progress.task(self._name, 100, unit=PERCENT)
            self._line = self._drawn.enter_context(task)
        elif now - self._looked < REDRAWN and not at_once:
            return
        self._looked = now
        left = sum(kind.left for kind in self._kinds.values())
        spent = sum(kind.seconds for kind in self._kinds.values())
        share = max(self._shown, min(99, int(100 * spent / max(spent + left, 1e-9))))
        if self._inner:
            self._figures["part"] = self._inner[-1].text
        told = {"left": f"{timedelta(seconds=round(left))} left"} | self._figures
        self._line.advance(share - self._shown, **told)
        self._shown = share


class _Part:
    """A task of a whole."""

    def __init__(self, whole: Whole, kind: _Kind, text: str, done: int) -> None:
        self.whole, self.kind, self._text, self._done = whole, kind, text, done

    @property
    def text(self) -> str:
        """How far it is itself."""
        return self._text.format(self._done)

    def advance(self, count: int = 1, /, **figures: str) -> None:
        self._done += count
        self.kind.done += count
        self.whole.advanced(**figures)


@contextmanager
def whole(progress: Progress, name: str) -> Iterator[Whole]:
    """The whole that this is a part of, or else a whole of its own."""
    if isinstance(progress, Whole):
        yield progress
        return
    with Whole(progress, name) as own:
        yield own


SILENT: Progress = Silent()
ON_STDERR: Progress = ProgressBars()
"""What library functions tell unless they are given another."""
