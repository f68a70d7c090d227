"""Writing a store: one at a time, and whole or not at all."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from fastsim.config import to_mapping, write_whole
from fastsim.data.store import FORMAT, MANIFEST, PARTS, Manifest, is_store, name_of, period_in
from fastsim.errors import DataError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let nobody else update the store in `folder`, which is made where there is none.

    The lock is the process's: it ends with it, however it ends. Where no store was made, nothing
    is left.

    Raises
    ------
    DataError
        Another process is updating it, other things lie there, or nothing can be written there.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / LOCK)
    except BlockingIOError:
        raise DataError(
            f"store {folder}: another update of it is running; wait for its end"
        ) from None
    except OSError as error:
        raise DataError(f"store {folder}: cannot be written: {error.strerror}") from None
    try:
        _require_own(folder)
        yield
    finally:
        if not is_store(folder):
            _remove(folder, made)
        os.close(lock)


def write_store(folder: Path, manifest: Manifest, rows: Mapping[str, pl.DataFrame]) -> Manifest:
    """Write the rows of these periods in place of what they held, then `store.json`; tidy up.

    Parameters
    ----------
    manifest
        What `store.json` is to say; its files are those from before.
    rows
        By period, all that its file is to hold; without any, there is no file of it.

    Raises
    ------
    DataError
        A file cannot be written: the store is as it was.
    """
    kept = {period_in(part): part for part in manifest.parts}
    try:
        for period, frame in rows.items():
            kept.pop(period, None)
            if len(frame):
                kept[period] = _write_part(folder, period, frame)
        parts = tuple(kept[period] for period in sorted(kept))
        replaced = tuple(part for part in manifest.parts if part not in parts)
        written = Manifest(
            spec=manifest.spec,
            updated=manifest.updated,
            parts=parts,
            replaced=replaced,
            events=manifest.events,
        )
        text = json.dumps({"format": FORMAT, **to_mapping(written)}, indent=2, ensure_ascii=False)
        write_whole(folder / MANIFEST, text.encode())
    except OSError as error:
        raise DataError(f"store {folder}: cannot be written: {error.strerror}") from None
    _tidy(folder, {*parts, *replaced})
    return written


def _write_part(folder: Path, period: str, frame: pl.DataFrame) -> str:
    """Write the file of a period, and say what it is called."""
    buffer = io.BytesIO()
    frame.sort("timestamp", "symbol").write_parquet(buffer, compression="zstd")
    name = name_of(period, buffer.getvalue())
    write_whole(folder / PARTS / name, buffer.getvalue())
    return name


def _tidy(folder: Path, kept: set[str]) -> None:
    """Remove files of earlier states, and what killed updates have left."""
    left = [path for path in (folder / PARTS).iterdir() if path.name not in kept]
    for path in (*left, *folder.glob(f".{MANIFEST}.*.partial")):
        path.unlink(missing_ok=True)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock; BlockingIOError where another holds it."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock  # and not of a file that another has removed meanwhile
        except OSError:
            os.close(lock)
            raise
        os.close(lock)


def _require_own(folder: Path) -> None:
    """Raise DataError where things lie in `folder` that are no store's."""
    if is_store(folder):
        return
    for path in folder.iterdir():
        if path.name not in (LOCK, PARTS) and not path.name.startswith(f".{MANIFEST}."):
            raise DataError(
                f"store {folder}: {path.name} lies there and no store; name a folder of its own"
            )


def _remove(folder: Path, made: list[Path]) -> None:
    """Remove what an update that made no store has left, and folders that it made."""
    (folder / LOCK).unlink(missing_ok=True)
    for path in (folder / PARTS, *made):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
