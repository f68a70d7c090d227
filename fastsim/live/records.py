"""What stands in the ledger, row by row. Shares and money are as brokers tell them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastsim.live.broker import Order, OrderReport


class Run(NamedTuple):
    """Who trades where: what may not change in a folder."""

    run_id: str
    agent: str  # its folder
    digest: str  # of what it is
    broker: str
    live: bool
    settings: Mapping[str, Any]  # symbols, bars_needed, calendar


class Change(NamedTuple):
    """A change of an account that no order made: a dividend, a split, interest, a stop."""

    change_id: str
    bar: str
    symbol: str  # empty for cash alone
    shares: float
    cash: float
    why: str


class Snapshot(NamedTuple):
    """The account at the close of a bar, before its orders."""

    bar: str
    equity: float
    cash: float
    shares: Mapping[str, float]
    open_orders: Mapping[str, float]


class Decided(NamedTuple):
    """A decision as it is kept."""

    bar: str
    state: Mapping[str, Any]  # of the agent, after it
    weights: Mapping[str, float]
    closes: Mapping[str, float]
    why: Mapping[str, Any]


class Refusal(NamedTuple):
    """What a limit kept from being sent."""

    bar: str
    limit: str
    symbol: str  # empty where it was all of them
    why: str


class Unsettled(NamedTuple):
    """An order that is not known to be over."""

    bar: str
    order: Order
    report: OrderReport | None  # the last; None if nothing has been heard of it


def client_id_of(run_id: str, bar: str, symbol: str) -> str:
    """The id of the one order that a run can give for a bar and a symbol: 32 letters and digits."""
    digest = hashlib.sha256(f"{run_id}\n{bar}\n{symbol}".encode()).hexdigest()
    return f"fs{digest[:30]}"
