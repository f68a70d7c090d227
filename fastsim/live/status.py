"""How a paper account stands, from its ledger alone: equity, positions, orders, slippage, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import copysign, isfinite
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fastsim.config import BPS
from fastsim.errors import ConfigError, DataError
from fastsim.live.broker import Order, OrderReport
from fastsim.live.files import read_tables
from fastsim.live.ledger import Ledger
from fastsim.live.records import Change, Decided, Refusal, Run, Snapshot
from fastsim.live.simulated import LAYOUT, SHADOW, equity_of, prices_of

CURVES = Path("curves") / "equity.parquet"
"""What `fastsim evaluate` leaves in the folder of a run."""
AGENT = "agent"
LEAST_VALUE = 0.005
"""Of a position that is shown, account currency: less is what rounding leaves of one."""
Equity = Mapping[str, float]
"""By bar."""


class Placed(NamedTuple):
    """An order, what has become of it, and what it cost against what it was held to."""

    bar: str
    order: Order
    report: OrderReport | None
    against_close: float | None  # basis points paid beyond the last close; less than 0 is better
    against_simulator: float | None  # beyond what the simulator would have paid

    @property
    def state(self) -> str:
        """In a word."""
        return "not answered" if self.report is None else str(self.report.state)


class Standing(NamedTuple):
    """Shares of one symbol, and what they are worth."""

    symbol: str
    shares: float
    close: float
    weight: float


class Status(NamedTuple):
    """All there is to say of a folder."""

    run: Run
    snapshots: Sequence[Snapshot]
    standings: Sequence[Standing]
    placed: Sequence[Placed]
    refusals: Sequence[Refusal]
    simulator: Equity  # of the same orders in the simulator; of a simulated account nothing
    backtest: Equity  # of the run's evaluation, as a multiple; nothing where there is none
    decisions: Sequence[Decided]
    changes: Sequence[Change]  # of shares, without an order

    @property
    def equity(self) -> Equity:
        """At each decision, account currency."""
        return {each.bar: each.equity for each in self.snapshots}


class Drift(NamedTuple):
    """How far an account is from something else that started with it, at the last common bar."""

    since: str
    bar: str
    account: float  # growth since then
    other: float

    @property
    def apart(self) -> float:
        """The account over the other, less 1."""
        return self.account / self.other - 1.0


def read_status(folder: Path) -> Status:
    """Read the ledger of a folder, while it may be written to.

    Raises
    ------
    CheckpointError
        There is none, or it is damaged.
    ConfigError
        Nothing has begun there.
    """
    ledger = Ledger.read(folder)
    try:
        run = ledger.run
        if run is None:
            raise ConfigError(f"{folder}: no run has begun here; `fastsim paper run` begins one")
        simulator, paid = _simulator(folder / SHADOW)
        last = ledger.last_decision()
        closes = {} if last is None else last.closes
        changes = [Change(*row[1:]) for row in ledger.rows("changes")]
        return Status(
            run=run,
            snapshots=ledger.snapshots(),
            standings=_standings(ledger, closes),
            placed=[_placed(bar, order, ledger, paid) for bar, order in ledger.orders()],
            refusals=ledger.refusals(),
            simulator=simulator,
            backtest=_backtest(Path(run.agent).parent / CURVES),
            decisions=ledger.decisions(),
            changes=[change for change in changes if change.symbol],
        )
    finally:
        ledger.close()


def drift(account: Equity, other: Equity) -> Drift | None:
    """How far apart both are since the first bar that both have; None with fewer than two."""
    common = [bar for bar in account if bar in other]
    if len(common) < 2:
        return None
    first, last = common[0], common[-1]
    return Drift(first, last, account[last] / account[first], other[last] / other[first])


def mean_slippage(placed: Sequence[Placed], name: str) -> float | None:
    """Basis points paid beyond `against_close` or `against_simulator`, weighted by value."""
    known = [each for each in placed if getattr(each, name) is not None]
    values = [abs(each.report.filled * each.report.price) for each in known if each.report]
    if not sum(values):
        return None
    paid = [getattr(each, name) * value for each, value in zip(known, values, strict=True)]
    return float(sum(paid) / sum(values))


def _standings(ledger: Ledger, closes: Mapping[str, float]) -> list[Standing]:
    """Positions as reported, at the closes of the last decision."""
    last = ledger.last_snapshot()
    equity = 0.0 if last is None else last.equity
    return [
        Standing(symbol, shares, closes[symbol], shares * closes[symbol] / equity)
        for symbol, shares in sorted(ledger.positions.items())
        if symbol in closes and abs(shares * closes[symbol]) >= LEAST_VALUE
    ]


def _placed(bar: str, order: Order, ledger: Ledger, paid: Mapping[str, float]) -> Placed:
    report = ledger.reports.get(order.client_id)
    if report is None or not report.filled or not isfinite(report.price):
        return Placed(bar, order, report, None, None)
    simulated = paid.get(order.client_id)
    beyond = None if simulated is None else _beyond(report, simulated)
    return Placed(bar, order, report, _beyond(report, order.price), beyond)


def _beyond(report: OrderReport, price: float) -> float:
    """Basis points that were paid beyond a price, or got below it."""
    return copysign(1.0, report.filled) * (report.price / price - 1.0) / BPS


def _simulator(path: Path) -> tuple[Equity, Mapping[str, float]]:
    """What a shadow was worth bar by bar, and paid order by order."""
    if not path.exists():
        return {}, {}
    tables = read_tables(path, LAYOUT)
    try:
        return equity_of(tables), prices_of(tables)
    finally:
        tables.close()


def _backtest(path: Path) -> Equity:
    """Wealth of the agent in its run's evaluation, by bar."""
    if not path.exists():
        return {}
    try:
        table = pl.read_parquet(path).filter(pl.col("strategy").cast(pl.String) == AGENT)
        stamps = table["date"].dt.strftime("%Y-%m-%dT%H:%M:%S")
        wealth = table["wealth"].to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: no curves of an evaluation ({error})") from None
    bars = (stamp.removesuffix("T00:00:00") for stamp in stamps)
    return dict(zip(bars, wealth, strict=True))
