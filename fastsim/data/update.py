"""Bringing a store of bars up to date: what is missing is fetched, and what overlaps compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fastsim.data.dates import show, show_day, utc_now
from fastsim.data.intervals import closing_times
from fastsim.data.merge import within
from fastsim.data.read import bars_from_table
from fastsim.data.renewal import Renewal, Renewing
from fastsim.data.store import (
    Event,
    Manifest,
    Store,
    StoreSpec,
    is_store,
    period_in,
    period_of,
    store_folder,
    table_of,
)
from fastsim.data.store_files import locked, write_store
from fastsim.data.update_config import UpdateConfig, changed_spec, first_spec
from fastsim.errors import DataError


class Update(NamedTuple):
    """What an update did."""

    store: Store  # as it is now
    renewals: tuple[Renewal, ...]
    made: bool  # whether there was no store before


def update_store(
    name: str | Path, config: UpdateConfig | None = None, *, now: np.datetime64 | None = None
) -> Update:
    """Fetch what a store lacks up to the last bar that has closed; make it where there is none.

    The last bars that are kept are fetched again and compared. All is written at once, or nothing.

    Parameters
    ----------
    name
        Its folder, or its name in `stores/`.
    now
        The time, UTC, if it is not now.

    Raises
    ------
    ConfigError
        A new store lacks symbols, sources or a start; settings contradict those of the store.
    DataError
        No source gives a symbol; kept prices were revised or adjusted anew; another source's
        differ by more than the tolerance; another update is running; or as `read_bars`.
    """
    config, folder = config or UpdateConfig(), store_folder(name)
    moment = utc_now() if now is None else now
    with locked(folder):
        store = Store.open(folder) if is_store(folder) else None
        spec = first_spec(config) if store is None else changed_spec(store.spec, config)
        kept = store if store is not None and store.manifest.parts else None
        work = Renewing(spec=spec, config=config, now=moment, store=kept, fields=spec.fields)
        renewals = _renewals(work)
        spec = replace(spec, fields=work.fields)
        if store is not None and spec == store.spec and not any(each.altered for each in renewals):
            return Update(store, renewals, made=False)
        rows = _rows_by_period(store, spec, renewals)
        _check(rows, spec, folder)
        manifest = _manifest(store, spec, renewals, show(moment))
        written = write_store(folder, manifest, rows)
    return Update(Store(folder=folder, manifest=written), renewals, made=store is None)


def _renewals(work: Renewing) -> tuple[Renewal, ...]:
    """What becomes of all days that have to be fetched; DataError if any of it is refused."""
    kept = _kept(work)
    done = []
    for symbol in work.spec.symbols:
        rows = None if kept is None else kept.filter(pl.col("symbol") == symbol).sort("timestamp")
        if symbol in work.config.fresh:
            done.append(work.whole(symbol, work.spec.sources, " anew, on request"))
        elif rows is None or not len(rows):
            done.append(work.whole(symbol, work.spec.sources))
        else:
            found = (work.some(symbol, rows, *days) for days in _missing(work, rows))
            done += [each for each in found if each is not None]
    if work.refused:
        raise DataError(f"nothing is changed: {' | '.join(work.refused)}")
    return tuple(done)


def _kept(work: Renewing) -> pl.DataFrame | None:
    """Rows that are there already, as many as the update has to look at."""
    if work.store is None:
        return None
    if work.config.since is not None or work.spec.start < work.store.spec.start:
        return work.store.rows()
    return work.store.tail(work.config.overlap)


def _missing(work: Renewing, rows: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Days, the first and the last, that have to be fetched of a symbol of which there are rows."""
    assert work.store is not None
    stamps, since = rows["timestamp"].to_numpy(), work.config.since
    overlap = min(work.config.overlap, len(stamps))
    if work.spec.start < work.store.spec.start:
        yield work.spec.start, show_day(stamps[overlap - 1])
    recent = show_day(stamps[-overlap])
    if since is not None:
        yield max(work.spec.start, min(since, recent)), work.last_day
    elif _may_have_closed(work, stamps[-1]):
        yield recent, work.last_day


def _may_have_closed(work: Renewing, last: np.datetime64) -> bool:
    """Whether a bar that follows this one may be over."""
    following = closing_times(np.array([last]), work.spec.interval)
    over = closing_times(following, work.spec.interval)
    return bool(over[0] <= work.now) and show_day(following[0]) <= work.last_day


def _rows_by_period(
    store: Store | None, spec: StoreSpec, renewals: tuple[Renewal, ...]
) -> dict[str, pl.DataFrame]:
    """What every file is to hold that is to be written anew."""
    known = {} if store is None else {period_in(name): name for name in store.manifest.parts}
    rows: dict[str, pl.DataFrame] = {}
    for renewal in (each for each in renewals if each.altered):
        first, stop = period_of(np.array([renewal.first, renewal.stop]), spec.interval)
        of_row = period_of(renewal.rows["timestamp"].to_numpy(), spec.interval)
        new = {str(each): renewal.rows.filter(of_row == each) for each in np.unique(of_row)}
        for period in {*new, *(each for each in known if first <= each <= stop)}:
            if period not in rows and period in known:
                assert store is not None
                rows[period] = store.part(known[period])
            before = [_without(rows[period], renewal)] if period in rows else []
            rows[period] = pl.concat([*before, *([new[period]] if period in new else [])])
    return rows


def _without(rows: pl.DataFrame, renewal: Renewal) -> pl.DataFrame:
    """Rows but for those that are replaced."""
    of_it = (rows["symbol"] == renewal.symbol).to_numpy()
    return rows.filter(~(of_it & within(rows, renewal.first, renewal.stop)))


def _check(rows: dict[str, pl.DataFrame], spec: StoreSpec, folder: Path) -> None:
    """Raise DataError where rows of several symbols are no bars together."""
    if rows:
        together = pl.concat(list(rows.values()))
        bars_from_table(table_of(together, spec, folder), checks=spec.checks)


def _manifest(
    store: Store | None, spec: StoreSpec, renewals: tuple[Renewal, ...], at: str
) -> Manifest:
    """What `store.json` is to say."""
    told = [text for renewal in renewals for text in renewal.events]
    if store is not None:
        told += [f"{name} is {now} and was {was}" for name, was, now in _settings(store.spec, spec)]
    return Manifest(
        spec=spec,
        updated=at,
        parts=() if store is None else store.manifest.parts,
        events=(
            *(() if store is None else store.manifest.events),
            *(Event(at=at, what=text) for text in told),
        ),
    )


def _settings(before: StoreSpec, now: StoreSpec) -> Iterator[tuple[str, object, object]]:
    """What was changed in what a store is to hold."""
    for entry in fields(StoreSpec):
        was, becomes = getattr(before, entry.name), getattr(now, entry.name)
        if was != becomes:
            yield entry.name, was, becomes
