"""`fastsim data update`, and what stores hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsim.config import configuration
from fastsim.data.dates import iso_stamp, show
from fastsim.data.store import Store
from fastsim.data.update import Update, update_store
from fastsim.data.update_config import UpdateConfig
from fastsim.errors import DataError


@configuration(slots=False)
class UpdateCommand:
    """Bring a store of bars up to date, or make it."""

    store: tyro.conf.Positional[str]
    """Its name in the folder `stores`, or the path of its folder."""
    update: Annotated[UpdateConfig, tyro.conf.arg(name="")] = field(default_factory=UpdateConfig)
    now: str | None = None
    """The time, UTC, as 2025-01-31T21:30; by default that of the clock."""

    def __call__(self, console: Console) -> None:
        """Fetch, compare, write, say what was done."""
        now = None if self.now is None else iso_stamp(self.now, "--now")
        show_update(update_store(self.store, self.update, now=now), console)


def gathered(arguments: Sequence[str]) -> list[str]:
    """Arguments of which every option stands once, with all the values that it was given.

    `--source yfinance --source ccxt:kraken` is `--source yfinance ccxt:kraken`.
    """
    found: dict[str, list[str]] = {}
    option = ""
    for word in arguments:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            found.setdefault(option, []).extend([value] if value else [])
        else:
            found.setdefault(option, []).append(word)
    return [word for name, values in found.items() for word in (name, *values) if word]


def show_update(done: Update, console: Console) -> None:
    """A table of what came from whom, what else was done, and what the store holds now."""
    if done.renewals:
        table = Table("Symbol", "New bars", "Source", "Last bar")
        for each in done.renewals:
            last = show(each.rows["timestamp"].to_numpy()[-1])
            table.add_row(Text(each.symbol), f"{each.added:,}", Text(each.source), last)
        console.print(table)
    for renewal in done.renewals:
        for event in renewal.events:
            console.print(f"- {event}", highlight=False, markup=False, soft_wrap=True)
    if not any(renewal.altered for renewal in done.renewals):
        console.print("No new bars.", highlight=False)
    console.print(summary(done.store.folder), highlight=False, markup=False, soft_wrap=True)


def summary(folder: Path) -> str:
    """What the store in a folder holds, in a line."""
    try:
        store = Store.open(folder)
        stretches = store.stretches()
    except DataError as error:
        return f"{folder.name}: {error}"
    first = min(each.first for each in stretches)
    last = max(each.last for each in stretches)
    by_source = Counter[str]()
    for each in stretches:
        by_source[each.source] += each.bars
    sources = ", ".join(f"{count:,} by {source}" for source, count in by_source.most_common())
    return (
        f"{folder.name}: {len(store.spec.symbols)} symbols, {show(first)} to {show(last)}, "
        f"{store.spec.interval}; bars: {sources}; updated {store.manifest.updated} UTC"
    )
