"""How far a long computation is: said by whoever computes, shown by whoever listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Display


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
        self._console, self._stay = console, stay

    @property
    def console(self) -> Console:
        """Where bars are drawn."""
        return self._console or Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int, *, unit: str, done: int = 0) -> Iterator[Task]:
        """Draw a bar until the block ends."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
        )
        console = self.console
        hidden = not self._stay and not console.is_terminal
        with Display(*columns, console=console, transient=not self._stay, disable=hidden) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, completed=done, figures=""))

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(line, highlight=False, markup=False)


class _Bar:
    def __init__(self, bars: Display, task: TaskID) -> None:
        self.bars, self.name = bars, task
        self.figures: dict[str, str] = {}

    def advance(self, count: int = 1, /, **figures: str) -> None:
        self.figures |= figures
        self.bars.update(self.name, advance=count, figures=" ".join(self.figures.values()))


SILENT: Progress = Silent()
ON_STDERR: Progress = ProgressBars()
"""What library functions tell unless they are given another."""
