"""What an agent has to know of an account, and what it remembers from decision to decision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastsim.config import configuration, from_mapping, require_between, to_mapping, write_whole
from fastsim.data.bars import Bars
from fastsim.data.compare import difference
from fastsim.data.dates import iso_stamp, show
from fastsim.errors import ConfigError, DataError, one_line

FORMAT = 1
REMEMBERED = 32
"""Bars whose closes are remembered, to tell at the next decision what has changed in them."""


@configuration
class BrokerAccount:
    """An account at the close of the last bar, as a broker tells it."""

    cash: float
    """Account currency. Of perpetual futures, what is left when positions are counted at their
    full value, and often below 0: see `on_margin`."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """By symbol, short if negative; none of those that are not named."""
    open_orders: Mapping[str, float] = field(default_factory=dict)
    """Shares by symbol that earlier orders still lack, negative to sell."""

    def __post_init__(self) -> None:
        _require_number("cash", self.cash)
        for name in ("shares", "open_orders"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise ConfigError(f"{name} must map symbols to numbers, got {given!r}")
            for symbol, number in given.items():
                _require_number(f"{name} of {symbol}", number)

    @classmethod
    def on_margin(
        cls, balance: float, shares: Mapping[str, float], entry_prices: Mapping[str, float]
    ) -> BrokerAccount:
        """An account of perpetual futures, as an exchange tells it.

        Parameters
        ----------
        balance
            Of the wallet, without what open positions have gained.
        shares
            Size of each position by symbol, negative if short.
        entry_prices
            Mean price of each.

        Raises
        ------
        ConfigError
            A position has no entry price, or one is no number.
        """
        for symbol, size in shares.items():
            if size and symbol not in entry_prices:
                raise ConfigError(f"entry_prices must have that of the position in {symbol}")
            _require_number(f"shares of {symbol}", size)
        for symbol, price in entry_prices.items():
            _require_number(f"entry_prices of {symbol}", price)
        _require_number("balance", balance)
        owed = sum(size * entry_prices[symbol] for symbol, size in shares.items() if size)
        return cls(cash=balance - owed, shares=shares)


@configuration
class Position:
    """A position that a strategy has entered, and what ends it. Prices are adjusted ones."""

    side: int
    """1 long, -1 short."""
    stop: float | None
    target: float | None
    distance: float
    """From the entry to the stop, a fraction."""
    bars: int
    """Closes since it was decided on."""
    close: float
    """That of the last bar, by which levels are told where prices are adjusted anew."""

    def __post_init__(self) -> None:
        if self.side not in (-1, 1):
            raise ConfigError(f"Position.side must be 1 or -1, got {self.side!r}")
        require_between(self, "distance", 0)
        require_between(self, "bars", 0)
        require_between(self, "close", 0, open_low=True)
        for name in ("stop", "target"):
            if getattr(self, name) is not None:
                _require_number(f"Position.{name}", getattr(self, name))


@configuration
class Entry:
    """How a position stands to its entry, where stops and targets are the environment's."""

    value: float
    """Of what is held at the last close, signed, account currency."""
    entry: float
    """That close over the mean price at which it was entered."""
    best: float | None = None
    """That close over the best since; None where nothing trails."""
    stop: float | None = None
    """Distance of its stop, a part of the entry; None where all have that of the rules."""
    target: float | None = None
    """Likewise of its target."""

    def __post_init__(self) -> None:
        _require_number("Entry.value", self.value)
        require_between(self, "entry", 0, open_low=True)
        for name in ("best", "stop", "target"):
            if getattr(self, name) is not None:
                require_between(self, name, 0, open_low=True)


@configuration
class Asked:
    """How far the stop and the target of a position are to be that is opened or added to."""

    stop: float = 0.0
    """Part of the entry; 0 asks for none, here and below."""
    target: float = 0.0

    def __post_init__(self) -> None:
        require_between(self, "stop", 0)
        require_between(self, "target", 0)


@configuration
class AgentState:
    """What an agent remembers: one JSON object."""

    initial_wealth: float
    """At its first decision, account currency."""
    peak_wealth: float
    """The highest at any decision since."""
    timestamps: tuple[str, ...]
    """Of the last bars it decided by, UTC."""
    closes: Mapping[str, tuple[float, ...]]
    """Of these bars by symbol."""
    decisions: int = 1
    """How many it has made."""
    positions: Mapping[str, Position] = field(default_factory=dict)
    """What a strategy has entered, by symbol."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    """What is held, by symbol, where the environment has stops, targets or liquidations."""
    asked: Mapping[str, Asked] = field(default_factory=dict)
    """What its last action asked for beside weights, by symbol."""

    def __post_init__(self) -> None:
        for name in ("initial_wealth", "peak_wealth"):
            _require_number(name, getattr(self, name))
            if not getattr(self, name) > 0:
                raise ConfigError(f"AgentState.{name} must be above 0, got {getattr(self, name)}")
        if not self.timestamps:
            raise ConfigError("AgentState.timestamps must not be empty")
        for symbol, closes in self.closes.items():
            if len(closes) != len(self.timestamps):
                raise ConfigError(
                    f"AgentState.closes of {symbol} must be {len(self.timestamps)}, one for each "
                    f"timestamp, got {len(closes)}"
                )

    @classmethod
    def after(cls, bars: Bars, wealth: float, before: AgentState | None) -> AgentState:
        """What is to be remembered of a decision by these bars, at this wealth."""
        kept = slice(-REMEMBERED, None)
        return cls(
            initial_wealth=wealth if before is None else before.initial_wealth,
            peak_wealth=wealth if before is None else max(wealth, before.peak_wealth),
            timestamps=tuple(show(stamp) for stamp in bars.timestamps[kept]),
            closes={
                symbol: tuple(bars.close[kept, column].tolist())
                for column, symbol in enumerate(bars.symbols)
            },
            decisions=1 if before is None else before.decisions + 1,
        )

    @property
    def last(self) -> np.datetime64:
        """The last bar that it decided by."""
        return iso_stamp(self.timestamps[-1], "timestamps")

    def check(self, bars: Bars) -> None:
        """Raise DataError, naming the first difference, unless these bars go on from those known.

        They may begin later, have to hold all bars that are known from there on, with the closes
        that they had, and end after the last of them.
        """
        if set(self.closes) != set(bars.symbols):
            raise DataError("the state is of an agent that trades other symbols: give its own")
        known = np.array([iso_stamp(text, "timestamps") for text in self.timestamps])
        last = known[-1]
        if bars.timestamps[-1] <= last:
            raise DataError(
                f"it has decided by the bar of {show(last)} already, and these bars end on "
                f"{show(bars.timestamps[-1])}: wait for the next"
            )
        known = known[known >= bars.timestamps[0]]
        if not len(known):
            raise DataError(
                f"these bars begin on {show(bars.timestamps[0])}, after the last decision, by the "
                f"bar of {show(last)}: give all bars from there on"
            )
        rows = np.searchsorted(bars.timestamps, known)
        for row, stamp in zip(rows, known, strict=True):
            if bars.timestamps[row] != stamp:
                raise DataError(f"the bar of {show(stamp)} was there before and is missing now")
        added = [stamp for stamp in bars.timestamps[rows[0] : rows[-1] + 1] if stamp not in known]
        if added:
            raise DataError(f"the bar of {show(added[0])} was not there before: data were revised")
        for column, symbol in enumerate(bars.symbols):
            before = np.array(self.closes[symbol])[-len(known) :]
            _check_closes(symbol, known, before, bars.close[rows, column])

    def save(self, path: Path) -> None:
        """Write it as JSON, in one piece."""
        text = json.dumps({"format": FORMAT, **to_mapping(self)}, indent=2)
        write_whole(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> AgentState:
        """Read what `save` wrote; DataError if it is not that."""
        try:
            mapping = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: no state of an agent ({one_line(error)})") from None
        found = mapping.pop("format", None) if isinstance(mapping, dict) else None
        if found != FORMAT:
            raise DataError(f"{path}: no state of format {FORMAT}, but of {found!r}")
        try:
            return from_mapping(cls, mapping)
        except (ConfigError, TypeError) as error:
            raise DataError(f"{path}: {one_line(error)}") from None


def _check_closes(
    symbol: str,
    stamps: NDArray[np.datetime64],
    before: NDArray[np.float64],
    now: NDArray[np.float64],
) -> None:
    """Raise DataError where closes [K] are no longer what they were."""
    found = difference(before, now)
    if found is None:
        return
    if found.factor is not None and found.bars == len(now):
        raise DataError(
            f"closes of {symbol} are {found.factor:.6g} times what they were at the last decision: "
            f"they were adjusted anew, for a split or a dividend; adjust shares held and the state "
            f"alike"
        )
    first = found.first
    raise DataError(
        f"the close of {symbol} on {show(stamps[first])} is {now[first]:.6g} and was "
        f"{before[first]:.6g} at the last decision: data were revised, or adjusted otherwise"
    )


def _require_number(name: str, given: object) -> None:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not (number and isfinite(given)):  # type: ignore[arg-type]
        raise ConfigError(f"{name} must be a finite number, got {given!r}")
