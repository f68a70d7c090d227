"""A simulated broker: an account with books of its own on disk, like an exchange somewhere else.

It has no market: it is told of bars, and fills orders within them as the environment does, at the
open of the next bar or at the close that they were decided on, at the costs that an agent was made
for. At that close nothing can be filled yet, as the bar that follows decides on what is paid for
holding: such fills are told with the next bar too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsim.agent.state import BrokerAccount
from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.data.compare import ALIKE
from fastsim.data.dates import iso_stamp, show
from fastsim.errors import ConfigError, DataError
from fastsim.live.broker import Order, OrderReport, OrderState
from fastsim.live.files import Layout, open_tables, transaction
from fastsim.live.records import Change

if TYPE_CHECKING:
    from fastsim.live.reference import Bar, Crossed, Filled, Wanted
    from fastsim.live.rules import MarketRules

ACCOUNT, SHADOW = "account.sqlite", "shadow.sqlite"
"""Files of an account in the folder of its ledger, and of one that another is held to."""
CURRENCY = "cash"
"""What its fees are taken in."""
LAYOUT = Layout(
    "simulated account",
    0x66737862,
    2,
    """CREATE TABLE account (rules TEXT NOT NULL, cash REAL NOT NULL, shares TEXT NOT NULL);;
    CREATE TABLE orders (number INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT UNIQUE,
        symbol TEXT, shares REAL, weight REAL, stop REAL, target REAL, state TEXT, filled REAL,
        price REAL, fee REAL, reason TEXT, met INTEGER);;
    CREATE INDEX standing ON orders (state);;
    CREATE TABLE bars (bar TEXT PRIMARY KEY, closes TEXT, books TEXT, cash REAL, shares TEXT,
        rests TEXT);;
    CREATE TABLE changes (change_id TEXT PRIMARY KEY, bar TEXT, symbol TEXT, shares REAL,
        cash REAL, why TEXT)""",
)
FORCED = "a stop, a target or a margin call"
_TINY = 1e-9
"""Of an order: what of it counts as nothing."""


class SimulatedBroker:
    """An account that lives in a file and trades by the rules of an agent's environment.

    Parameters
    ----------
    path
        Its file, made if it is not there.
    rules
        What it trades and how; the same in all the life of a file.
    opening
        What a new account begins with.

    Raises
    ------
    CheckpointError
        The file is another.
    ConfigError
        The account in it trades by other rules.
    """

    name = "simulated"
    live = False

    def __init__(self, path: Path, rules: MarketRules, opening: BrokerAccount) -> None:
        self._rules, self.path = rules, path
        self._tables = open_tables(path, LAYOUT)
        wanted = json.dumps(_as_kept(rules), sort_keys=True)
        row = self._tables.execute("SELECT rules, cash, shares FROM account").fetchone()
        if row is None:
            row = (wanted, opening.cash, json.dumps(dict(opening.shares)))
            self._tables.execute("INSERT INTO account VALUES (?, ?, ?)", row)
        if row[0] != wanted:
            raise ConfigError(f"{path}: an account of another agent; choose another --state")
        self._opening = BrokerAccount(cash=row[1], shares=json.loads(row[2]))

    def close(self) -> None:
        """Let go of the file."""
        self._tables.close()

    def account(self, symbols: Sequence[str]) -> BrokerAccount:
        """Cash, shares and what carried orders still lack, at the last bar."""
        last = self._last()
        if last is None:
            return self._opening
        _, _, _, cash, shares, rests = last
        return BrokerAccount(cash=cash, shares=json.loads(shares), open_orders=json.loads(rests))

    def prices(self, symbols: Sequence[str]) -> Mapping[str, float]:
        """Closes of the last bar."""
        last = self._last()
        return {} if last is None else json.loads(last[1])

    def tradable(self, symbol: str, shares: float, price: float) -> float:
        """All of it: what can be traded is found at the fill."""
        return shares

    def submit(self, orders: Sequence[Order]) -> tuple[OrderReport, ...]:
        """Take the orders of one bar, which replace what is open of earlier ones at the fill."""
        with transaction(self._tables):
            for order in orders:
                self._tables.execute(
                    "INSERT OR IGNORE INTO orders "
                    "VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, 0, NULL, 0, '', 0)",
                    (order.client_id, *order[1:3], *order[4:], OrderState.OPEN),
                )
        found = (self.find(order.client_id, order.symbol) for order in orders)
        return tuple(report for report in found if report is not None)

    def find(self, client_id: str, symbol: str) -> OrderReport | None:
        """The order of this id; None if it was never taken."""
        rows = self._reports("client_id = ?", client_id)
        return rows[0] if rows else None

    def open_orders(self, symbols: Sequence[str]) -> tuple[OrderReport, ...]:
        """Orders that wait for a bar, or that an earlier bar left open."""
        return tuple(self._reports("state = ?", OrderState.OPEN))

    def cancel(self, client_id: str, symbol: str) -> None:
        """Withdraw an order that no bar has met; a carried rest ends with the next orders."""
        self._tables.execute(
            "UPDATE orders SET state = ?, reason = 'withdrawn' "
            "WHERE client_id = ? AND state = ? AND met = 0",
            (OrderState.CANCELLED, client_id, OrderState.OPEN),
        )

    def changes(self, since: str) -> tuple[Change, ...]:
        """What came and went without an order, at this bar and later."""
        rows = self._tables.execute(
            "SELECT * FROM changes WHERE bar >= ? ORDER BY bar, rowid", (since,)
        )
        return tuple(Change(*row) for row in rows)

    def meet(self, bars: Bars) -> None:
        """Let all bars happen that come after the last it knows; those of orders fill them.

        Raises
        ------
        DataError
            Bars do not go on from the last one, or it has another close now.
        """
        make: type[Bar] = resolve_name("fastsim.live.reference:Bar")  # torch, where there is a bar

        last = self._last()
        if last is None:
            with transaction(self._tables):
                bar = make(self._rules, bars)
                self._write(bar, bar.begin(self._opening.cash, self._opening.shares))
            return
        for stop in range(self._row_of(bars, last) + 2, len(bars) + 1):
            with transaction(self._tables):
                self._cross(make(self._rules, bars.take(slice(None, stop))))

    def _row_of(self, bars: Bars, last: tuple[Any, ...]) -> int:
        """Where the last bar stands among these."""
        stamp, closes = iso_stamp(last[0], "bar"), json.loads(last[1])
        row = int(np.searchsorted(bars.timestamps, stamp))
        if row == len(bars) or bars.timestamps[row] != stamp:
            raise DataError(
                f"the simulated account stands at the bar of {last[0]}, which is not among these, "
                f"from {show(bars.timestamps[0])} to {show(bars.timestamps[-1])}: give all bars "
                f"from there on"
            )
        for symbol, close in closes.items():
            now = float(bars.close[row, bars.symbols.index(symbol)])
            if not abs(now / close - 1.0) <= ALIKE:
                raise DataError(
                    f"the close of {symbol} on {last[0]} is {now:.6g}, and was {close:.6g} when "
                    f"the simulated account met it: data were revised"
                )
        return row

    def _cross(self, bar: Bar) -> None:
        """Carry the account over one bar, with the orders that wait for it."""
        last = self._last()
        assert last is not None
        waiting, carried = self._standing(met=0), self._standing(met=1)
        wanted = self._wanted() if waiting else None
        crossed = bar.cross(json.loads(last[2]), wanted)
        for client_id, symbol, *_ in carried:
            if symbol in (wanted or {}):
                self._end(client_id, OrderState.CANCELLED, "replaced by new weights")
        for client_id, symbol, *so_far in waiting or carried:
            self._fill(client_id, so_far, crossed.filled[symbol], bool(waiting))
        self._write(bar, crossed.books)
        self._tell(show(bar.bars.timestamps[-1]), crossed)

    def _standing(self, *, met: int) -> list[tuple[Any, ...]]:
        """Orders that are open, and either wait for a bar or have met one."""
        return self._tables.execute(
            "SELECT client_id, symbol, filled, price, fee FROM orders "
            "WHERE state = ? AND met = ? ORDER BY number",
            (OrderState.OPEN, met),
        ).fetchall()

    def _wanted(self) -> dict[str, Wanted]:
        """By symbol, what the orders ask for that wait for a bar."""
        make: type[Wanted] = resolve_name("fastsim.live.reference:Wanted")
        rows = self._tables.execute(
            "SELECT symbol, weight, stop, target FROM orders WHERE state = ? AND met = 0",
            (OrderState.OPEN,),
        )
        return {symbol: make(*wanted) for symbol, *wanted in rows}

    def _fill(self, client_id: str, so_far: Sequence[Any], now: Filled, new: bool) -> None:
        """Write down what a bar made of an order."""
        filled, price, fee = so_far
        both = filled + now.shares
        paid = filled * (price or 0.0) + (now.shares * now.price if now.shares else 0.0)
        lacking = abs(now.wanted - now.shares) if new else abs(now.rest)
        whole = self._rules.env.orders.whole_shares
        enough = 1.0 if whole and new else _TINY * max(1.0, abs(now.wanted))
        state, reason = OrderState.FILLED, ""
        if now.rest:
            state = OrderState.OPEN
        elif lacking >= enough:
            state, reason = OrderState.CANCELLED, "the bar had no room for all of it"
        self._tables.execute(
            "UPDATE orders SET state = ?, filled = ?, price = ?, fee = ?, reason = ?, met = 1, "
            "shares = ? WHERE client_id = ?",
            (
                *(state, both, paid / both if both else None, fee + now.fee, reason),
                *(now.wanted if new else both + now.rest, client_id),
            ),
        )

    def _end(self, client_id: str, state: OrderState, reason: str) -> None:
        self._tables.execute(
            "UPDATE orders SET state = ?, reason = ? WHERE client_id = ?",
            (state, reason, client_id),
        )

    def _write(self, bar: Bar, books: Any) -> None:
        """The account at the close of a bar."""
        cash, shares, rests = bar.shares(books)
        closes = dict(zip(bar.bars.symbols, bar.bars.close[-1].tolist(), strict=True))
        texts = map(json.dumps, (closes, books))
        row = (show(bar.bars.timestamps[-1]), *texts, cash, json.dumps(shares), json.dumps(rests))
        self._tables.execute("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?)", row)

    def _tell(self, bar: str, crossed: Crossed) -> None:
        """What changed without an order."""
        futures = self._rules.env.perpetual.trades
        by_force = "a stop, a target or a liquidation" if futures else FORCED
        why = by_force if crossed.forced else "a dividend or a split"
        rows = [(f"{bar} {s}", bar, s, shares, 0.0, why) for s, shares in crossed.moved.items()]
        if crossed.cash:
            why = "funding" if futures else "interest, borrow fees"
            why += ", what was closed by force" * crossed.forced
            rows.append((f"{bar} {CURRENCY}", bar, "", 0.0, crossed.cash, why))
        self._tables.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _last(self) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._tables.execute(
            "SELECT * FROM bars ORDER BY bar DESC LIMIT 1"
        ).fetchone()
        return row

    def _reports(self, where: str, value: str) -> list[OrderReport]:
        rows = self._tables.execute(
            f"SELECT client_id, number, symbol, state, shares, filled, price, fee, reason "
            f"FROM orders WHERE {where} ORDER BY number",
            (value,),
        )
        return [
            OrderReport(
                *(row[0], str(row[1]), row[2], OrderState(row[3]), row[4], row[5]),
                *(nan if row[6] is None else row[6], {CURRENCY: row[7]}, row[5], row[8]),
            )
            for row in rows
        ]


def _as_kept(rules: MarketRules) -> dict[str, Any]:
    """The rules of an account; where files of funding and tiers lie is none of them."""
    tape = replace(rules.tape, funding=None, tiers=None)
    return to_mapping(replace(rules, tape=tape))


def equity_of(tables: sqlite3.Connection) -> dict[str, float]:
    """What a simulated account was worth at every bar that it was told of."""
    rows = tables.execute("SELECT bar, closes, cash, shares FROM bars ORDER BY bar")
    return {
        bar: cash + sum(n * json.loads(closes)[s] for s, n in json.loads(shares).items())
        for bar, closes, cash, shares in rows
    }


def prices_of(tables: sqlite3.Connection) -> dict[str, float]:
    """What a simulated account paid for a share, order by order, by their ids."""
    return dict(tables.execute("SELECT client_id, price FROM orders WHERE price IS NOT NULL"))
