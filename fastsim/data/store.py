"""A store of bars: a folder that is kept up to date, and read as any other source.

`store.json` says what the store is and which files of `bars/` are its own; a file is named by the
time that its bars are of and by what it holds. An update writes files beside those that there are,
and then `store.json` in one piece: whatever ends it, the store is as it was or whole, and who reads
while it is updated reads what was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.config import configuration, from_mapping
from fastsim.data.bars import Bars
from fastsim.data.checks import FIELDS, CheckConfig
from fastsim.data.dates import iso_date
from fastsim.data.intervals import closing_times, shortest
from fastsim.data.read import bars_from_table
from fastsim.data.tables import Table
from fastsim.errors import ConfigError, DataError, one_line

FORMAT = 1
PREFIX = "store:"
FOLDER = Path("stores")
"""Where stores lie that are named by a word."""
MANIFEST, PARTS = "store.json", "bars"
LONG = np.timedelta64(1, "h")
"""Bars from this length on lie in files of a year, and shorter ones in files of a month."""


@configuration
class StoreSpec:
    """What a store is to hold."""

    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    """Who is asked for bars: the first, and where it fails the next."""
    start: str
    """ISO date of the first bar."""
    interval: str
    """Length of a bar, as the sources write it."""
    fields: tuple[str, ...] = ()
    """What is kept of a bar; none means all that the first answer has."""
    repair: bool = False
    """Mend what can be mended, here and where the store is read, as `CheckConfig.repairing`."""
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By source, what it calls symbols that it knows by another name."""

    def __post_init__(self) -> None:
        iso_date(self.start, "start")
        shortest(self.interval)
        for name in self.fields:
            if name not in FIELDS:
                raise ConfigError(f"fields must be of {', '.join(FIELDS)}, got {name!r}")
        for name in ("symbols", "sources"):
            given = getattr(self, name)
            twice = [each for place, each in enumerate(given) if each in given[:place]]
            if twice:
                raise ConfigError(f"{name} name {twice[0]!r} twice: name it once")

    @property
    def checks(self) -> CheckConfig:
        """What becomes of problems in its bars."""
        return CheckConfig.repairing() if self.repair else CheckConfig()


@configuration
class Event:
    """What was done to a store beyond adding bars."""

    at: str
    """When, UTC."""
    what: str
    """In one line."""


@configuration
class Manifest:
    """What `store.json` holds."""

    spec: StoreSpec
    updated: str
    """When it was last changed, UTC."""
    parts: tuple[str, ...]
    """Its files, oldest bars first."""
    replaced: tuple[str, ...] = ()
    """Files that these replaced, which are removed by the next update."""
    events: tuple[Event, ...] = ()


class Stretch(NamedTuple):
    """Bars of one symbol that follow one another and came from one source."""

    symbol: str
    source: str
    first: np.datetime64
    last: np.datetime64
    bars: int
    fetched: tuple[np.datetime64, np.datetime64]  # the earliest and the latest of them, UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A store as it was when it was opened. Its rows are long: one for each bar and symbol.

    Columns: `timestamp` (naive, UTC), `symbol`, the fields, `halted`, and of each row `source` and
    `fetched`, who gave it and when.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, name: str | Path) -> Store:
        """The store of this name, or in this folder.

        Raises
        ------
        DataError
            There is none, or `store.json` is damaged.
        """
        folder, text = store_folder(name), os.fspath(name).removeprefix(PREFIX)
        path = folder / MANIFEST
        try:
            mapping = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{folder}: there is no store of bars; `fastsim data update {text}` makes one"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: damaged ({one_line(error)}); make the store anew") from None
        found = mapping.pop("format", None) if isinstance(mapping, dict) else None
        if found != FORMAT:
            raise DataError(f"{path}: no store of format {FORMAT}, but of {found!r}")
        try:
            return cls(folder=folder, manifest=from_mapping(Manifest, mapping))
        except (ConfigError, DataError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); make the store anew") from None

    @property
    def spec(self) -> StoreSpec:
        """What it holds."""
        return self.manifest.spec

    def table(self) -> Table:
        """All of its rows as a table that bars are made of, by symbol in its order, then time."""
        return table_of(self.rows(), self.spec, self.folder)

    def bars(self) -> Bars:
        """All of its bars, checked.

        Raises
        ------
        DataError
            A file is missing or damaged; or as `read_bars`.
        """
        return bars_from_table(self.table(), checks=self.spec.checks)

    def last(self, count: int, symbols: tuple[str, ...] = ()) -> Bars:
        """The last `count` bars, or all where there are fewer; reads no more files than it takes.

        Raises
        ------
        DataError
            As `bars`; or a symbol, of all or of those that are named, has no bar among them.
        """
        chosen = symbols or self.spec.symbols
        read: list[pl.DataFrame] = []
        stamps = 0
        for part in reversed(self.manifest.parts):
            rows = self.part(part).filter(pl.col("symbol").is_in(chosen))
            read.insert(0, rows)
            stamps += rows["timestamp"].n_unique()  # no stamp lies in two files
            if stamps > count:
                break
        table = table_of(self._joined(read), self.spec, self.folder)
        bars = bars_from_table(table, checks=self.spec.checks, symbols=chosen)
        return bars.take(slice(-count, None))

    def closes(self, stamp: np.datetime64) -> np.datetime64:
        """When the bar that begins at `stamp` is over, UTC."""
        over: np.datetime64 = closing_times(np.array([stamp]), self.spec.interval)[0]
        return over

    def stretches(self) -> tuple[Stretch, ...]:
        """Whose bars these are, and when they were fetched: by symbol, oldest first."""
        rows = in_order(self.rows(), self.spec)
        found = (
            rows.with_columns(pl.struct("symbol", "source").rle_id().alias("stretch"))
            .group_by("stretch", maintain_order=True)
            .agg(
                *(pl.col(name).first() for name in ("symbol", "source")),
                first=pl.col("timestamp").min(),
                last=pl.col("timestamp").max(),
                bars=pl.len(),
                earliest=pl.col("fetched").min(),
                latest=pl.col("fetched").max(),
            )
        )
        stamps = {name: found[name].to_numpy() for name in ("first", "last", "earliest", "latest")}
        return tuple(
            Stretch(
                row["symbol"],
                row["source"],
                stamps["first"][place],
                stamps["last"][place],
                row["bars"],
                (stamps["earliest"][place], stamps["latest"][place]),
            )
            for place, row in enumerate(found.iter_rows(named=True))
        )

    def rows(self) -> pl.DataFrame:
        """All rows, in no order; DataError where a file is missing or damaged."""
        return self._joined([self.part(part) for part in self.manifest.parts])

    def rows_of(self, symbol: str) -> pl.DataFrame:
        """All rows of a symbol, oldest first, be there any or none."""
        return self.rows().filter(pl.col("symbol") == symbol).sort("timestamp")

    def tail(self, count: int) -> pl.DataFrame:
        """Rows of the last files, as many as hold the last `count` bars of every symbol."""
        read: list[pl.DataFrame] = []
        lacking = dict.fromkeys(self.spec.symbols, count)
        for part in reversed(self.manifest.parts):
            rows = self.part(part)
            read.insert(0, rows)
            for symbol, found in rows.group_by("symbol").len().iter_rows():
                lacking[symbol] = lacking.get(symbol, 0) - found
            if max(lacking.values(), default=0) <= 0:
                break
        return self._joined(read)

    def part(self, name: str) -> pl.DataFrame:
        """The rows of one file; DataError where it is missing or damaged."""
        path = self.folder / PARTS / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}, and it belongs to the store; make the store anew"
            ) from None
        if name != name_of(period_in(name), content):
            raise DataError(f"{path}: damaged, not what was written; make the store anew")
        return pl.read_parquet(io.BytesIO(content))

    def _joined(self, parts: list[pl.DataFrame]) -> pl.DataFrame:
        if not any(map(len, parts)):
            raise DataError(f"store {self.folder}: it holds no bars of these symbols; update it")
        return pl.concat(parts)


def table_of(rows: pl.DataFrame, spec: StoreSpec, folder: Path) -> Table:
    """Rows of a store as a table that bars are made of."""
    return Table(in_order(rows, spec).drop("source", "fetched"), f"store {folder}")


def in_order(rows: pl.DataFrame, spec: StoreSpec) -> pl.DataFrame:
    """Rows of a store by symbol, in the order of the store, then by time."""
    place = {symbol: place for place, symbol in enumerate(spec.symbols)}
    order = pl.col("symbol").replace_strict(place, return_dtype=pl.Int64)
    return rows.sort(order, "timestamp")


def store_folder(name: str | Path) -> Path:
    """The folder of a store: that of this path, or for a word the one in `stores/`.

    A word is a path too where a store lies there.
    """
    text = os.fspath(name).removeprefix(PREFIX)
    path = Path(text).expanduser()
    if not text:
        raise DataError("a store has a name, or is the path of its folder; got neither")
    word = path.name == text and not text.startswith(".")
    return FOLDER / path if word and not is_store(path) else path


def is_store_name(source: str) -> bool:
    """Whether a source of bars is a store: "store:NAME", or the path of its folder."""
    return source.startswith(PREFIX) or is_store(Path(source))


def is_store(path: Path) -> bool:
    """Whether a store lies in this folder."""
    return (path / MANIFEST).is_file()


def manifest_of(name: str | Path) -> Path:
    """The file of a store that changes with every update."""
    return store_folder(name) / MANIFEST


def known_stores() -> tuple[Path, ...]:
    """The folders of all stores in `stores/`."""
    return tuple(sorted(path.parent for path in FOLDER.glob(f"*/{MANIFEST}")))


def has_closed(stamp: np.datetime64, interval: str, now: np.datetime64) -> bool:
    """Whether the bar that begins at `stamp` is over by `now`, UTC."""
    return bool(closing_times(np.array([stamp]), interval)[0] <= now)


def period_of(stamps: NDArray[np.datetime64], interval: str) -> NDArray[np.str_]:
    """Year or month [R], by whose name the file is called that each bar lies in."""
    unit = "M" if shortest(interval) < LONG else "Y"
    return stamps.astype(f"datetime64[{unit}]").astype(str)


def name_of(period: str, content: bytes) -> str:
    """What the file of a period is called that holds this."""
    return f"{period}-{_digest(content)}.parquet"


def period_in(name: str) -> str:
    """Of which period a file of this name is."""
    return name.rpartition("-")[0]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
