"""`fastsim decide`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from datetime import date
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from fastsim.agent.agent import Agent
from fastsim.agent.decision import Decision
from fastsim.agent.levels import Bracket
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.who import Signal
from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.config import configuration, from_mapping
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, iso_stamp, show, show_day
from fastsim.errors import ConfigError, DataError, one_line

MOST = 8
"""Columns of the observation that are shown: those furthest from 0."""


@configuration(slots=False)
class DecideCommand:
    """Say what a trained agent would hold by the last of these bars, and what to trade for it."""

    agent: tyro.conf.Positional[Path]
    """Folder of a run, or of its agent."""
    source: tyro.conf.Positional[str]
    """Bars up to the last that has closed: a CSV or Parquet file, a sample, or store:NAME."""
    account: Path | None = None
    """JSON of what is held: {"cash": 1000, "shares": {"KO": 10}, "open_orders": {"KO": 5}}; of
    perpetual futures {"balance": 1000, "shares": {"BTC": -0.1}, "entry_prices": {"BTC": 60000}}."""
    cash: float | None = None
    """Instead of an account: so much cash, and nothing else."""
    state: Path | None = None
    """JSON that the agent remembers by: read if it is there, written anew with every decision."""
    now: str | None = None
    """The time, UTC, as 2025-01-31T21:30; by default that of the clock."""
    closed: tuple[str, ...] = ()
    """Days on which the market was closed, beyond those that it is always closed on."""
    json: bool = False
    """One JSON object instead of a table."""
    reading: HowToRead = field(default_factory=Reading)

    def __call__(self, console: Console) -> None:
        """Decide, show, remember."""
        require_place("--state", self.state)
        account = self._account()
        state = AgentState.load(self.state) if self.state and self.state.exists() else None
        agent = Agent.load(self.agent)
        bars = self.reading.bars(self.source)
        closed = [_day(text) for text in self.closed]
        now = None if self.now is None else iso_stamp(self.now, "--now")
        decision = agent.decide(bars, account, state, now=now, closed=closed)
        if self.json:
            print(json.dumps(as_json(decision), indent=2))
        else:
            show_decision(decision, bars, account, console)
        if self.state is not None:
            decision.state.save(self.state)

    def _account(self) -> BrokerAccount:
        if (self.account is None) == (self.cash is None):
            raise ConfigError("say what is held: either --account FILE, or --cash AMOUNT")
        if self.account is None:
            assert self.cash is not None
            return BrokerAccount(cash=self.cash)
        try:
            given = json.loads(self.account.read_bytes())
            if not isinstance(given, dict):
                raise ConfigError('it must be an object such as {"cash": 1000, "shares": {}}')
            if "balance" in given:
                return from_mapping(MarginAccount, given).account
            return from_mapping(BrokerAccount, given)
        except OSError as error:
            raise DataError(f"--account {self.account}: {error.strerror}") from None
        except (ValueError, TypeError, ConfigError) as error:
            raise DataError(f"--account {self.account}: {one_line(error)}") from None


@configuration
class MarginAccount:
    """An account of perpetual futures in a file."""

    balance: float
    shares: Mapping[str, float] = field(default_factory=dict)
    entry_prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def account(self) -> BrokerAccount:
        """As agents take it."""
        return BrokerAccount.on_margin(self.balance, self.shares, self.entry_prices)


def as_json(decision: Decision) -> dict[str, object]:
    """A decision as plain values."""
    return {
        "timestamp": show(decision.timestamp),
        "weights": dict(decision.weights),
        "orders": dict(decision.orders),
        "forecast": dict(decision.why.forecast),
        "observation": dict(decision.why.observation),
        "bounds": list(decision.why.bounds),
        "holds": decision.holds,
        "signals": {name: signal._asdict() for name, signal in decision.why.signals.items()},
        "brackets": {name: bracket._asdict() for name, bracket in decision.brackets.items()},
    }


def show_decision(decision: Decision, bars: Bars, account: BrokerAccount, console: Console) -> None:
    """A table of weights and orders, and the columns that say most."""
    table = Table("Symbol", "Close", "Shares held", "Target weight", "Shares to trade")
    prices = dict(zip(bars.symbols, bars.close[-1].tolist(), strict=True))
    for symbol, weight in decision.weights.items():
        table.add_row(
            symbol,
            f"{prices[symbol]:,.4f}",
            f"{account.shares.get(symbol, 0.0):,.4f}",
            f"{weight:.2%}",
            f"{decision.orders[symbol]:+,.4f}",
        )
    table.add_row("cash", "", "", f"{1.0 - sum(decision.weights.values()):.2%}", "")
    table.title = f"Decided on the bar of {show(decision.timestamp)}"
    console.print(table)
    seen = decision.why.observation
    for name in sorted(seen, key=lambda name: -abs(seen[name]))[:MOST]:
        console.print(f"- {name} = {seen[name]:.3f}", highlight=False, markup=False)
    for symbol, signal in decision.why.signals.items():
        console.print(f"- {_in_words(symbol, signal)}", highlight=False, markup=False)
    for symbol, bracket in decision.brackets.items():
        console.print(f"- {symbol}: {_levels(bracket)}", highlight=False, markup=False)
    for bound in decision.why.bounds:
        console.print(f"- {bound}", highlight=False, markup=False)


def _in_words(symbol: str, signal: Signal) -> str:
    """One line of what was read of an asset and is held of it."""
    sure = (
        "nothing forecast" if signal.confidence is None else f"confidence {signal.confidence:.3f}"
    )
    regime = signal.regime or "regime unknown"
    said = [f"{symbol}: signal {signal.direction}", sure, regime, f"held {signal.held}"]
    return ", ".join([*said, *filter(None, [_levels(Bracket(signal.stop, signal.target))])])


def _levels(bracket: Bracket) -> str:
    """Where a position is to be closed."""
    levels = bracket._asdict().items()
    return ", ".join(f"{name} {price:,.4f}" for name, price in levels if price is not None)


def _day(text: str) -> date:
    return date.fromisoformat(show_day(iso_date(text, "--closed")))
