"""An agent as a strategy of NautilusTrader: it decides when the last asset's bar has arrived.

Orders to be filled at the next open are sized, and sent, when the first trade of every asset after
the decision has arrived, and sold before bought.
"""

from __future__ import annotations

import json
from datetime import date

import numpy as np
from nautilus_trader.model.data import Bar, TradeTick
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderDenied, OrderFilled, OrderRejected
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Currency
from nautilus_trader.trading.strategy import Strategy

from fastsim.adapters.nautilus.account import Holding, holding_at
from fastsim.adapters.nautilus.books import Books
from fastsim.adapters.nautilus.config import AgentStrategyConfig
from fastsim.adapters.nautilus.costs import require_played
from fastsim.adapters.nautilus.instruments import bar_types, instrument_ids
from fastsim.adapters.nautilus.received import FIELDS, Received
from fastsim.agent.agent import Agent
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.backtest.history import History
from fastsim.config import from_mapping, to_mapping
from fastsim.data.bars import FloatArray
from fastsim.data.dates import iso_stamp, show
from fastsim.data.read import read_bars
from fastsim.errors import ConfigError, DataError, one_line

STATE = "agent_state"
"""Under which name NautilusTrader keeps what the agent remembers."""


class AgentStrategy(Strategy):  # type: ignore[misc]
    """Decides by the bars that it has received, and trades to the weights that it wants.

    Parameters
    ----------
    config
        What the agent is, and when it trades.
    agent
        That agent, if it is loaded.

    Raises
    ------
    ConfigError
        A setting cannot be used, or the agent's bars are of no length that NautilusTrader has.
    CheckpointError, ForecastError
        The agent cannot be loaded.
    """

    def __init__(self, config: AgentStrategyConfig, agent: Agent | None = None) -> None:
        super().__init__(config)
        self.agent = Agent.load(config.agent) if agent is None else agent
        spec, symbols = self.agent.spec, self.agent.symbols
        require_played(spec)
        self._fill = spec.tape.fill if config.fill == "agent" else config.fill
        if self._fill not in ("next_open", "close"):
            raise ConfigError(
                f'AgentStrategyConfig.fill must be "next_open", "close" or "agent", got '
                f"{config.fill!r}"
            )
        if config.sized_at not in ("fill", "decision"):
            raise ConfigError(
                f'AgentStrategyConfig.sized_at must be "fill" or "decision", got '
                f"{config.sized_at!r}"
            )
        self._first_stamp = iso_stamp(config.start, "start") if config.start else None
        self._last_stamp = iso_stamp(config.end, "end") if config.end else None
        self._closed_days = frozenset(_day(text) for text in config.closed)
        seconds = spec.calendar.bar_seconds
        self._length = round(1e9 * seconds)  # nanoseconds
        self.instrument_ids = instrument_ids(symbols, config.venue)
        self._bar_types = bar_types(self.instrument_ids, seconds)
        self._symbols = dict(zip(self.instrument_ids, symbols, strict=True))
        self.received = Received(symbols, spec.fields, self.agent.bars_needed)
        self.books = Books(symbols, spec.env.costs)
        self._currency = Currency.from_str(config.currency)
        self.remembered: AgentState | None = None
        self.refused: list[str] = []
        self._decided_at: Holding | None = None
        self._wanted: FloatArray | None = None  # [A]  weights that wait for opens
        self._opens: dict[str, float] = {}

    def on_start(self) -> None:
        """Subscribe to what the agent decides by; read what came before."""
        for name in self.instrument_ids:
            if self.cache.instrument(name) is None:
                known = ", ".join(str(each.id) for each in self.cache.instruments()) or "none"
                raise ConfigError(f"there is no instrument {name}, which the agent trades: {known}")
        if self.config.history and not len(self.received):
            self.received.begin(read_bars(self.config.history, symbols=self.agent.symbols))
        for kind in self._bar_types:
            self.subscribe_bars(kind)
        if self._fill == "next_open":
            for name in self.instrument_ids:
                self.subscribe_trade_ticks(name)

    def on_save(self) -> dict[str, bytes]:
        """What the agent remembers, for NautilusTrader to keep."""
        if self.remembered is None:
            return {}
        return {STATE: json.dumps(to_mapping(self.remembered)).encode()}

    def on_load(self, state: dict[str, bytes]) -> None:
        """What it remembered before."""
        if STATE not in state:
            return
        try:
            self.remembered = from_mapping(AgentState, json.loads(state[STATE]))
        except (ValueError, TypeError) as error:
            raise DataError(f"{STATE} is no state of an agent ({one_line(error)})") from None

    def on_bar(self, bar: Bar) -> None:
        """Take a bar; with the last of its stamp, mark the account and decide."""
        stamp = np.datetime64(bar.ts_event - self._length, "ns")
        values = tuple(getattr(bar, name).as_double() for name in FIELDS)
        symbol = self._symbols[bar.bar_type.instrument_id]
        if self.received.add(symbol, stamp, values):
            self._closed_at(stamp)

    def on_trade_tick(self, tick: TradeTick) -> None:
        """Take the first trade after a decision as the open; with the last asset's, trade."""
        if self._wanted is None:
            return
        self._opens.setdefault(self._symbols[tick.instrument_id], tick.price.as_double())
        if len(self._opens) == len(self._symbols):
            opens = np.array([self._opens[symbol] for symbol in self.agent.symbols])
            self._trade(self._wanted, opens)
            self._wanted = None

    def on_order_filled(self, event: OrderFilled) -> None:
        """Write down what was traded and paid."""
        value = event.last_qty.as_double() * event.last_px.as_double()
        sign = 1.0 if event.order_side == OrderSide.BUY else -1.0
        self.books.fill(sign * value, event.commission.as_double())

    def on_order_denied(self, event: OrderDenied) -> None:
        """Tell of an order that NautilusTrader did not send."""
        self._refuse(event)

    def on_order_rejected(self, event: OrderRejected) -> None:
        """Tell of an order that the venue did not take."""
        self._refuse(event)

    def history(self, name: str = "agent") -> History:
        """What it was worth, held, traded and paid since its first decision."""
        return self.books.history(name)

    def holding(self, prices: FloatArray) -> Holding:
        """The account at prices [A]; errors as of `holding_at`."""
        venue = self.instrument_ids[0].venue
        account, positions = self.portfolio.account(venue), self.cache.positions_open(venue=venue)
        return holding_at(
            dict(zip(self.instrument_ids, prices.tolist(), strict=True)),
            account,
            positions,
            self._currency,
        )

    def _closed_at(self, stamp: np.datetime64) -> None:
        """All bars of a stamp are there."""
        if self._first_stamp is not None and stamp < self._first_stamp:
            return
        if len(self.received) < self.agent.bars_needed and self._first_stamp is None:
            return  # it warms up; where it was told to start, the agent says what is missing
        if self._wanted is not None:
            self._forget(stamp)
        holding = self.holding(self.received.closes)
        if self._last_stamp is None or stamp <= self._last_stamp:
            self.books.close(stamp, holding)
        if self._last_stamp is None or stamp < self._last_stamp:
            self._decide(holding)

    def _decide(self, holding: Holding) -> None:
        shares = dict(zip(self.agent.symbols, holding.shares.tolist(), strict=True))
        decision = self.agent.decide(
            self.received.bars(),
            BrokerAccount(cash=holding.cash, shares=shares),
            self.remembered,
            now=np.datetime64(self.clock.timestamp_ns(), "ns"),
            closed=self._closed_days,
        )
        self.remembered = decision.state
        if decision.holds:
            return
        self._decided_at = holding
        weights = np.array([decision.weights[symbol] for symbol in self.agent.symbols])
        if self._fill == "close":
            self._trade(weights, self.received.closes)
        else:
            self._wanted, self._opens = weights, {}

    def _forget(self, stamp: np.datetime64) -> None:
        """Opens did not come before the next close: the decision is past."""
        missing = [each for each in self.agent.symbols if each not in self._opens]
        self._tell(
            f"nothing was traded before the close of {show(stamp)}: there was no trade in "
            f"{', '.join(missing)}"
        )
        self._wanted = None

    def _refuse(self, event: OrderDenied | OrderRejected) -> None:
        order = self.cache.order(event.client_order_id)
        self._tell(f"an order was refused, {order.info()}: {event.reason}")

    def _tell(self, what: str) -> None:
        """Say, and remember, what did not come about."""
        self.refused.append(what)
        self.log.warning(what)

    def _trade(self, weights: FloatArray, prices: FloatArray) -> None:
        """Send orders that make weights [A] exact at these prices after fee and spread."""
        before = self.holding(prices)
        if not before.wealth > 0:
            raise DataError(f"the account is worth {before.wealth:,.2f}: nothing can be traded")
        self.books.trade(before)
        by = self._decided_at if self.config.sized_at == "decision" else before
        assert by is not None
        targets = by.shares_for(weights, self.agent.spec.env.costs)
        trades = [
            (self._quantized(name, target) - shares, name)
            for name, target, shares in zip(
                self.instrument_ids, targets.tolist(), before.shares.tolist(), strict=True
            )
        ]
        for shares, name in sorted(trades, key=lambda trade: trade[0] > 0):  # sells pay for buys
            self._send(name, shares)

    def _quantized(self, name: InstrumentId, shares: float) -> float:
        """Shares that an instrument can be held in, towards none."""
        unit: float = 10.0 ** self.cache.instrument(name).size_precision
        return float(np.trunc(shares * unit) / unit)

    def _send(self, name: InstrumentId, shares: float) -> None:
        instrument = self.cache.instrument(name)
        if round(abs(shares), instrument.size_precision) == 0.0:
            return
        order = self.order_factory.market(
            name,
            OrderSide.BUY if shares > 0 else OrderSide.SELL,
            instrument.make_qty(abs(shares)),
        )
        self.submit_order(order)


def _day(text: str) -> date:
    day: date = iso_stamp(text, "closed").astype("datetime64[D]").item()
    return day
