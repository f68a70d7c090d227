"""Files of tables that outlive a killed process, and a folder that one process works in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fastsim.errors import CheckpointError, ConfigError

LOCK = "lock.sqlite"
BUSY_SECONDS = 10.0
"""How long a reader or writer waits for another."""


class Layout(NamedTuple):
    """What a file of tables is."""

    what: str
    """As messages call it."""
    application: int
    """Its kind, 31 bits."""
    version: int
    """Of its tables."""
    tables: str
    """SQL that makes them."""


def open_tables(path: Path, layout: Layout) -> sqlite3.Connection:
    """A file of this layout, made if it is not there. Whatever was committed is on the disk.

    Raises
    ------
    CheckpointError
        It is a file of another kind or version, or damaged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        tables.execute("PRAGMA journal_mode = WAL")
        tables.execute("PRAGMA synchronous = FULL")
        _check(tables, path, layout, make=True)
    except sqlite3.Error as error:
        raise CheckpointError(f"{path}: no {layout.what} that can be used ({error})") from None
    return tables


def read_tables(path: Path, layout: Layout) -> sqlite3.Connection:
    """The same to be read only, while another process may write; CheckpointError if it is none."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no {layout.what} here")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        tables = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        _check(tables, path, layout, make=False)
    except sqlite3.Error as error:
        raise CheckpointError(f"{path}: no {layout.what} that can be read ({error})") from None
    return tables


def _check(tables: sqlite3.Connection, path: Path, layout: Layout, *, make: bool) -> None:
    """Make the tables where the file is new; CheckpointError unless it is what it has to be."""
    (kind,) = tables.execute("PRAGMA application_id").fetchone()
    (version,) = tables.execute("PRAGMA user_version").fetchone()
    (count,) = tables.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if make and (kind, version, count) == (0, 0, 0):
        with transaction(tables):
            for statement in layout.tables.split(";;"):
                tables.execute(statement)
            tables.execute(f"PRAGMA application_id = {layout.application}")
            tables.execute(f"PRAGMA user_version = {layout.version}")
        return
    if kind != layout.application:
        raise CheckpointError(f"{path}: no {layout.what}, but another file; choose another folder")
    if version != layout.version:
        raise CheckpointError(
            f"{path}: a {layout.what} of version {version}, and this fastsim reads version "
            f"{layout.version}: use the fastsim that wrote it, or another folder"
        )


@contextmanager
def transaction(tables: sqlite3.Connection) -> Iterator[None]:
    """All of what is written within, or nothing of it."""
    tables.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        tables.execute("ROLLBACK")
        raise
    tables.execute("COMMIT")


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder; the system lets go of it when this one dies.

    Where there is nothing in the folder in the end, it is as it was: not there, or empty.

    Raises
    ------
    ConfigError
        Another is at work there.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    fresh = not (folder / LOCK).exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = sqlite3.connect(folder / LOCK, timeout=0.0, isolation_level=None)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
            if not (folder / LOCK).exists():
                raise sqlite3.OperationalError("it was removed by who had it")
        except sqlite3.OperationalError:
            raise ConfigError(
                f"{folder}: another process trades here; end it first, or choose another --state"
            ) from None
        except sqlite3.Error as error:
            raise ConfigError(f"{folder / LOCK}: no lock of fastsim ({error})") from None
        try:
            yield
        finally:
            if fresh and all(each.name.startswith(LOCK) for each in folder.iterdir()):
                (folder / LOCK).unlink()  # while it is held, so that nobody else's is removed
    finally:
        lock.close()
        _remove_empty(made)


@contextmanager
def undone(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Where what is within fails, files of tables are taken away that were not there before.

    They have to be closed by then, and the folder has to be this process's.
    """
    fresh = [name for name in names if not (folder / name).exists()]
    try:
        yield
    except BaseException:
        for name in fresh:
            for part in ("", "-wal", "-shm"):
                (folder / f"{name}{part}").unlink(missing_ok=True)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to one that somebody has put something into."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
