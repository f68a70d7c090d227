"""The ledger: what was decided, ordered and reported, in rows that are added and never changed.

It is written before an order is sent, so that whatever happens afterwards an order is known by its
id. `docs/paper.md` lists the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isnan, nan
from pathlib import Path
from typing import Any

from fastsim.errors import ConfigError
from fastsim.live.broker import Order, OrderReport, OrderState
from fastsim.live.files import Layout, open_tables, read_tables, transaction
from fastsim.live.records import Change, Decided, Refusal, Run, Snapshot, Unsettled

LEDGER = "ledger.sqlite"
_COLUMNS = {
    "run": "run_id TEXT NOT NULL, agent TEXT NOT NULL, digest TEXT NOT NULL, broker TEXT NOT NULL, "
    "live INTEGER NOT NULL, settings TEXT NOT NULL, version TEXT NOT NULL, at TEXT NOT NULL, "
    "only INTEGER NOT NULL UNIQUE CHECK (only = 1)",
    "decisions": "bar TEXT NOT NULL UNIQUE, state TEXT NOT NULL, weights TEXT NOT NULL, "
    "closes TEXT NOT NULL, why TEXT NOT NULL, at TEXT NOT NULL",
    "accounts": "bar TEXT NOT NULL UNIQUE, equity REAL NOT NULL, cash REAL NOT NULL, "
    "shares TEXT NOT NULL, open_orders TEXT NOT NULL, at TEXT NOT NULL",
    "orders": "client_id TEXT NOT NULL UNIQUE, bar TEXT NOT NULL REFERENCES decisions (bar), "
    "symbol TEXT NOT NULL, shares REAL NOT NULL, price REAL NOT NULL, weight REAL NOT NULL, "
    "stop REAL NOT NULL, target REAL NOT NULL, at TEXT NOT NULL",
    "reports": "client_id TEXT NOT NULL REFERENCES orders (client_id), broker_id TEXT NOT NULL, "
    "state TEXT NOT NULL, shares REAL NOT NULL, filled REAL NOT NULL, price REAL, "
    "fees TEXT NOT NULL, received REAL NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL",
    "changes": "change_id TEXT NOT NULL UNIQUE, bar TEXT NOT NULL, symbol TEXT NOT NULL, "
    "shares REAL NOT NULL, cash REAL NOT NULL, why TEXT NOT NULL, at TEXT NOT NULL",
    "refusals": "bar TEXT NOT NULL, risk_limit TEXT NOT NULL, symbol TEXT NOT NULL, "
    "why TEXT NOT NULL, at TEXT NOT NULL",
    "notes": "kind TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL",
}
"""Every table's columns, beside `number`, in which its rows are counted."""
TABLES = tuple(_COLUMNS)
_OVER = (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED)


def _made() -> str:
    parts = []
    for name, columns in _COLUMNS.items():
        parts.append(f"CREATE TABLE {name} (number INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
        parts += [
            f"CREATE TRIGGER {name}_{event.lower()} BEFORE {event} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, 'rows of the ledger are added and never changed'); END"
            for event in ("UPDATE", "DELETE")
        ]
    return ";;".join(parts)


LAYOUT = Layout("ledger", 0x66736C65, 2, _made())


class Ledger:
    """The rows of one folder. It is opened by one process to write, and by any to read."""

    def __init__(self, tables: sqlite3.Connection, path: Path) -> None:
        self._tables, self.path = tables, path
        self._orders: dict[str, tuple[str, Order]] = {}
        self._open: dict[str, None] = {}
        self._last: dict[str, OrderReport] = {}
        self._known: set[str] = set()
        self._held: dict[str, float] = defaultdict(float)
        self._recall()

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger of a folder, made if it is not there; CheckpointError if it is damaged."""
        return cls(open_tables(folder / LEDGER, LAYOUT), folder / LEDGER)

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The ledger of a folder, to be read; CheckpointError if there is none."""
        return cls(read_tables(folder / LEDGER, LAYOUT), folder / LEDGER)

    def close(self) -> None:
        """Let go of the file."""
        self._tables.close()

    @property
    def run(self) -> Run | None:
        """Who trades here; None before anybody does."""
        row = self._tables.execute(
            "SELECT run_id, agent, digest, broker, live, settings FROM run"
        ).fetchone()
        if row is None:
            return None
        run_id, agent, digest, broker, live, settings = row
        return Run(run_id, agent, digest, broker, bool(live), json.loads(settings))

    def begin(self, run: Run, version: str, changes: Sequence[Change] = ()) -> None:
        """Say who trades here from now on, and what the account holds already."""
        row = (*run[:4], int(run.live), _text(run.settings), version, now(), 1)
        with transaction(self._tables):
            self._add("run", row)
            for change in changes:
                self._add("changes", (*change, now()))
        for change in changes:
            self._learn(change)

    def check(self, run: Run) -> None:
        """Raise ConfigError unless it is the same agent at the same broker that goes on."""
        known = self.run
        assert known is not None
        if (run.broker, run.live) != (known.broker, known.live):
            raise ConfigError(
                f"{self.path.parent} is of {_account(known)}, not of {_account(run)}: choose "
                f"another --state"
            )
        if run.digest != known.digest:
            raise ConfigError(
                f"{self.path.parent} is of the agent {known.agent} as it was then, and "
                f"{run.agent} is another: choose another --state"
            )

    def last_decision(self) -> Decided | None:
        """The last whole decision."""
        rows = self.decisions(last=True)
        return rows[0] if rows else None

    def decisions(self, *, last: bool = False) -> list[Decided]:
        """All decisions in order, or the last alone."""
        order = "DESC LIMIT 1" if last else "ASC"
        rows = self._tables.execute(
            f"SELECT bar, state, weights, closes, why FROM decisions ORDER BY number {order}"
        )
        return [Decided(row[0], *map(json.loads, row[1:])) for row in rows]

    def record(
        self,
        decided: Decided,
        snapshot: Snapshot,
        orders: Sequence[Order],
        refusals: Sequence[Refusal],
    ) -> None:
        """A decision, the account it was made for, and what is about to be sent, as one."""
        at = now()
        with transaction(self._tables):
            self._add("decisions", (decided.bar, *map(_text, decided[1:]), at))
            self._add(
                "accounts",
                (*snapshot[:3], _text(snapshot.shares), _text(snapshot.open_orders), at),
            )
            for order in orders:
                self._add("orders", (order.client_id, decided.bar, *order[1:], at))
            for refusal in refusals:
                self._add("refusals", (*refusal, at))
        for order in orders:
            self._write(decided.bar, order)

    def report(self, reports: Sequence[OrderReport], changes: Sequence[Change] = ()) -> None:
        """What a broker says that is not known yet, as one."""
        reports = [each for each in reports if self._differs(each)]
        changes = [each for each in changes if each.change_id not in self._known]
        if not reports and not changes:
            return
        with transaction(self._tables):
            for report in reports:
                self._add("reports", (*_row(report), now()))
            for change in changes:
                self._add("changes", (*change, now()))
        for report in reports:
            self._hear(report)
        for change in changes:
            self._learn(change)

    def note(self, kind: str, text: str) -> None:
        """Something that happened."""
        self._add("notes", (kind, text, now()))

    def unsettled(self) -> list[Unsettled]:
        """Orders that are not known to be over, in the order in which they were written."""
        return [Unsettled(*self._orders[key], self._last.get(key)) for key in self._open]

    def orders(self) -> list[tuple[str, Order]]:
        """All orders as they were written, each with the bar it was decided on."""
        return list(self._orders.values())

    @property
    def reports(self) -> Mapping[str, OrderReport]:
        """The last report of each order that there is one of, by the order's id."""
        return self._last

    @property
    def positions(self) -> Mapping[str, float]:
        """Shares by symbol, by all that was reported."""
        return self._held

    def snapshots(self) -> list[Snapshot]:
        """The account at every decision."""
        return self._snapshots("ORDER BY number")

    def last_snapshot(self) -> Snapshot | None:
        """The account at the last decision."""
        rows = self._snapshots("ORDER BY number DESC LIMIT 1")
        return rows[0] if rows else None

    def equity_before(self, account: Snapshot) -> float:
        """At the last bar of a day before an account's, or at the first bar of the same day."""
        day = account.bar[:10]
        found = self._snapshots("WHERE substr(bar, 1, 10) < ? ORDER BY number DESC LIMIT 1", day)
        found += self._snapshots("WHERE substr(bar, 1, 10) = ? ORDER BY number LIMIT 1", day)
        return found[0].equity if found else account.equity

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """What limits kept from being sent again."""
        for refusal in refusals:
            self._add("refusals", (*refusal, now()))

    def refusals(self) -> list[Refusal]:
        """All refusals in order."""
        rows = self._tables.execute(
            "SELECT bar, risk_limit, symbol, why FROM refusals ORDER BY number"
        )
        return [Refusal(*row) for row in rows]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Everything in a table but when it was written."""
        assert table in TABLES
        cursor = self._tables.execute(f"SELECT * FROM {table} ORDER BY number")
        kept = [place for place, column in enumerate(cursor.description) if column[0] != "at"]
        return [tuple(row[place] for place in kept) for row in cursor]

    def _snapshots(self, which: str, *values: str) -> list[Snapshot]:
        rows = self._tables.execute(
            f"SELECT bar, equity, cash, shares, open_orders FROM accounts {which}", values
        )
        return [Snapshot(*row[:3], *map(json.loads, row[3:])) for row in rows]

    def _add(self, table: str, values: Sequence[Any]) -> None:
        marks = ", ".join("?" * (len(values) + 1))
        self._tables.execute(f"INSERT INTO {table} VALUES ({marks})", (None, *values))

    def _recall(self) -> None:
        """Read what orders, reports and changes come to."""
        rows = self._tables.execute(
            "SELECT bar, client_id, symbol, shares, price, weight, stop, target FROM orders "
            "ORDER BY number"
        )
        for bar, *order in rows:
            self._write(bar, Order(*order))
        rows = self._tables.execute(
            "SELECT reports.client_id, broker_id, orders.symbol, state, reports.shares, filled, "
            "reports.price, fees, received, reason FROM reports JOIN orders USING (client_id) "
            "ORDER BY reports.number"
        )
        for row in rows:
            self._hear(_report(row))
        rows = self._tables.execute(
            "SELECT change_id, bar, symbol, shares, cash, why FROM changes ORDER BY number"
        )
        for row in rows:
            self._learn(Change(*row))

    def _write(self, bar: str, order: Order) -> None:
        self._orders[order.client_id] = (bar, order)
        self._open[order.client_id] = None

    def _hear(self, report: OrderReport) -> None:
        before = self._last.get(report.client_id)
        self._held[report.symbol] += report.received - (0.0 if before is None else before.received)
        self._last[report.client_id] = report
        if report.state in _OVER:
            self._open.pop(report.client_id, None)

    def _learn(self, change: Change) -> None:
        self._known.add(change.change_id)
        if change.symbol:
            self._held[change.symbol] += change.shares

    def _differs(self, report: OrderReport) -> bool:
        before = self._last.get(report.client_id)
        return before is None or _row(before) != _row(report)


def _row(report: OrderReport) -> tuple[Any, ...]:
    """A report as a row of its table."""
    price = None if isnan(report.price) else report.price
    return (
        *(report.client_id, report.broker_id, str(report.state), report.shares, report.filled),
        *(price, _text(dict(report.fees)), report.received, report.reason),
    )


def _report(row: tuple[Any, ...]) -> OrderReport:
    client_id, broker_id, symbol, state, shares, filled, price, fees, received, reason = row
    return OrderReport(
        *(client_id, broker_id, symbol, OrderState(state), shares, filled),
        *(nan if price is None else price, json.loads(fees), received, reason),
    )


def now() -> str:
    """The time, UTC, to a microsecond."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _account(run: Run) -> str:
    return f"{'a real' if run.live else 'a paper'} account at {run.broker}"
