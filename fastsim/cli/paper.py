"""`fastsim paper`: an agent that trades on paper, or for money."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from fastsim.cli.files import require_place
from fastsim.config import configuration
from fastsim.errors import BrokerError, DataError
from fastsim.live.loop import Loop, Passed
from fastsim.live.opening import PaperConfig, opened
from fastsim.live.reconcile import DifferenceError
from fastsim.live.status import read_status
from fastsim.live.status_page import show_status, write_page

DIFFERS = 3
"""Exit status where the broker and the ledger differ."""


@configuration(slots=False)
class RunCommand(PaperConfig):
    """Let an agent trade at every bar that closes; what was stopped at any moment goes on."""

    agent: tyro.conf.Positional[str]
    """Folder of a run, or of its agent."""
    once: bool = False
    """One pass, as for cron: decide if a bar has closed since, and end."""

    def __call__(self, console: Console) -> None:
        """Pass after pass, until there are no more bars, or for ever."""

        def tell(line: str) -> None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        try:
            with opened(self, tell) as loop:
                self._pass_on(loop, tell)
        except DifferenceError as difference:
            show_differences(difference, console)
            print(f"fastsim: {difference}", file=sys.stderr)
            raise SystemExit(DIFFERS) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on") from None

    def _pass_on(self, loop: Loop, tell: Callable[[str], None]) -> None:
        """What a broker or a vendor fails at is tried again, if there has been a pass before."""
        worked = False
        while True:
            try:
                passed = loop.once()
            except DifferenceError:
                raise
            except (BrokerError, DataError) as error:
                if self.once or loop.ends or not worked:
                    raise
                print(f"fastsim: {error}", file=sys.stderr, flush=True)
                passed = Passed.WAITING
            else:
                worked = True
            if passed is Passed.OVER:
                tell("there are no more bars")
            if passed is Passed.WAITING and self.once:
                tell("no bar has closed since the last decision")
            if self.once or passed is Passed.OVER:
                return
            if passed is Passed.WAITING:
                loop.wait()


@configuration(slots=False)
class StatusCommand:
    """Say how a paper account stands: equity, positions, orders, slippage and drift."""

    state: tyro.conf.Positional[Path]
    """Folder of the ledger."""
    out: Path | None = None
    """The page; by default status.html in that folder."""

    def __call__(self, console: Console) -> None:
        """Read, show, write the page."""
        out = self.out or self.state / "status.html"
        require_place("--out", out, ".html")
        status = read_status(self.state)
        show_status(status, console)
        write_page(status, out)
        console.print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


PaperAction = (
    Annotated[RunCommand, tyro.conf.subcommand("run", prefix_name=False)]
    | Annotated[StatusCommand, tyro.conf.subcommand("status", prefix_name=False)]
)


@configuration(slots=False)
class PaperCommand:
    """Trade on paper, and see how it went."""

    action: Annotated[PaperAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


def show_differences(error: DifferenceError, console: Console) -> None:
    """A table of what the ledger and the broker say otherwise."""
    table = Table("", "Symbol", "Ledger", "Broker", title="Trading has stopped")
    for difference in error.differences:
        table.add_row(*difference)
    console.print(table)
