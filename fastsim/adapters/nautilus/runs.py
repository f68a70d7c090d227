"""Backtests by NautilusTrader: its engine on bars in memory, its node on a catalogue."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pandas as pd
from nautilus_trader.backtest.config import (
    BacktestDataConfig,
    BacktestEngineConfig,
    BacktestRunConfig,
    BacktestVenueConfig,
    ImportableFeeModelConfig,
)
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.node import BacktestNode
from nautilus_trader.config import ImportableStrategyConfig, LoggingConfig
from nautilus_trader.model.data import Bar, TradeTick
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Currency, Money

from fastsim.adapters.nautilus.config import AgentStrategyConfig
from fastsim.adapters.nautilus.costs import Friction, FrictionConfig, left_out, require_played
from fastsim.adapters.nautilus.data import make_bars, make_opens, write_catalog
from fastsim.adapters.nautilus.instruments import Fill, VenueRules, bar_types, make_instruments
from fastsim.adapters.nautilus.span import Span, span_of
from fastsim.adapters.nautilus.strategy import AgentStrategy
from fastsim.agent.agent import Agent
from fastsim.backtest.history import History
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError

log = logging.getLogger(__name__)

_QUIET = LoggingConfig(bypass_logging=True)


def backtest(
    agent: Agent,
    bars: Bars,
    *,
    start: str | None = None,
    end: str | None = None,
    rules: VenueRules | None = None,
    name: str = "agent",
) -> History:
    """Let NautilusTrader's engine play an agent over bars, by fastsim's measures.

    The account begins with the cash that the agent's episodes did, pays its fee and half spread,
    and nothing else: what is left out is logged.

    Parameters
    ----------
    bars
        Of the agent's symbols and maybe others, from `agent.bars_needed` - 1 before the first
        decision on. Days without any bar were closed.
    start, end
        ISO date or stamp of the first bar to decide by, and of the last to be marked at.
    rules
        How orders are filled.
    name
        The agent's in the history.

    Raises
    ------
    ConfigError
        NautilusTrader has no such bars or instruments, or the agent's stops or futures are not
        played there.
    DataError
        Bars cannot be used, by it or by the agent.
    """
    rules = settled(agent, rules)
    span = span_of(agent, bars, start, end)
    seconds = agent.spec.calendar.bar_seconds
    instruments = make_instruments(span.bars, rules)
    data = [*make_bars(span.bars, instruments, seconds)]
    if rules.fill == "next_open":
        data += make_opens(span.bars, instruments)
    strategy = AgentStrategy(_strategy_config(agent, "", span, rules), agent)
    engine = BacktestEngine(BacktestEngineConfig(logging=_QUIET, run_analysis=False))
    try:
        _add_venue(engine, agent, rules)
        for instrument in instruments:
            engine.add_instrument(instrument)
        engine.add_data([each for of_one in data for each in of_one])
        engine.add_strategy(strategy)
        _tell_left_out(agent)
        with its_warnings():
            engine.run()
        return _judged(strategy, name, bars)
    finally:
        engine.dispose()


def node_config(
    agent: Path | str,
    bars: Bars,
    catalog: Path,
    *,
    start: str | None = None,
    end: str | None = None,
    rules: VenueRules | None = None,
) -> BacktestRunConfig:
    """Write bars into a new catalogue, and say how `BacktestNode` plays an agent over them.

    What is returned names everything by path and can be kept as JSON (`config.json()`).

    Parameters
    ----------
    agent
        The agent's folder, or its run's.
    catalog
        The catalogue's folder; it must not be there yet.
    bars, start, end, rules
        As for `backtest`.

    Raises
    ------
    ConfigError, DataError
        As `backtest`, and where the catalogue is there already.
    """
    loaded = Agent.load(agent)
    rules = settled(loaded, rules)
    venue = _venue_config(loaded, rules)  # it may be none: before anything is written
    span = span_of(loaded, bars, start, end)
    seconds = loaded.spec.calendar.bar_seconds
    instruments = write_catalog(span.bars, catalog, rules, seconds=seconds)
    ids = tuple(each.id for each in instruments)
    kinds = [str(each) for each in bar_types(ids, seconds)]
    path = str(catalog.resolve())
    data = [BacktestDataConfig(catalog_path=path, data_cls=Bar, bar_types=kinds)]
    if rules.fill == "next_open":
        names = [str(each) for each in ids]
        data.append(BacktestDataConfig(catalog_path=path, data_cls=TradeTick, instrument_ids=names))
    config = _strategy_config(loaded, str(Path(agent).resolve()), span, rules)
    strategy = ImportableStrategyConfig(
        strategy_path=AgentStrategy.fully_qualified_name(),
        config_path=AgentStrategyConfig.fully_qualified_name(),
        config=config.json_primitives(),
    )
    _tell_left_out(loaded)
    return BacktestRunConfig(
        engine=BacktestEngineConfig(strategies=[strategy], logging=_QUIET, run_analysis=False),
        venues=[venue],
        data=data,
        raise_exception=True,
        dispose_on_completion=False,
    )


def run_node(config: BacktestRunConfig, name: str = "agent") -> History:
    """Let `BacktestNode` play what `node_config` says.

    Raises
    ------
    DataError
        Bars cannot be used by the agent.
    """
    node = BacktestNode([config])
    try:
        with its_warnings():
            node.run()
        (strategy,) = node.get_engine(config.id).trader.strategies()
        return _judged(strategy, name)
    finally:
        node.dispose()


@contextmanager
def its_warnings() -> Iterator[None]:
    """Without warnings of what pandas will do otherwise, which are about NautilusTrader's code."""
    coming = getattr(pd.errors, "Pandas4Warning", None)
    with warnings.catch_warnings():
        if coming is not None:
            warnings.simplefilter("ignore", coming)
        yield


def _judged(strategy: AgentStrategy, name: str, bars: Bars | None = None) -> History:
    """The strategy's history; what did not come about is told."""
    if strategy.refused:
        log.warning("%d times: %s", len(strategy.refused), strategy.refused[0])
    calendar = None if bars is None else bars.timestamps
    return strategy.history(name)._replace(calendar=calendar)


def settled(agent: Agent, rules: VenueRules | None = None) -> VenueRules:
    """Rules of a venue, with what they leave to the agent as it trades."""
    require_played(agent.spec)
    rules = rules or VenueRules()
    whole = agent.spec.env.orders.whole_shares if rules.whole_shares is None else rules.whole_shares
    if rules.fill == "agent":
        fill: Fill = "close" if agent.spec.tape.fill == "close" else "next_open"
        rules = replace(rules, fill=fill)
    return replace(rules, whole_shares=whole)


def _strategy_config(
    agent: Agent, folder: str, span: Span, rules: VenueRules
) -> AgentStrategyConfig:
    return AgentStrategyConfig(
        agent=folder,
        venue=rules.venue,
        currency=rules.currency,
        fill=rules.fill,
        sized_at=rules.sized_at,
        start=span.start,
        end=span.end,
        closed=span.closed,
    )


def _friction(agent: Agent) -> FrictionConfig:
    costs = agent.spec.env.costs
    return FrictionConfig(fee_bps=costs.fee_bps, half_spread_bps=costs.half_spread_bps)


def _add_venue(engine: BacktestEngine, agent: Agent, rules: VenueRules) -> None:
    """Bars move the market where orders are filled at closes, and trades where at opens."""
    currency = Currency.from_str(rules.currency)
    at_open = rules.fill == "next_open"
    engine.add_venue(
        venue=Venue(rules.venue),
        oms_type=OmsType.NETTING,
        account_type=AccountType[rules.account.upper()],
        base_currency=currency,
        starting_balances=[Money(agent.spec.env.initial_cash, currency)],
        default_leverage=Decimal(1),
        fee_model=Friction(_friction(agent)),
        bar_execution=not at_open,
        trade_execution=at_open,
        use_message_queue=False,  # or a cash account denies buys: sells have not settled
    )


def _venue_config(agent: Agent, rules: VenueRules) -> BacktestVenueConfig:
    if rules.account == "cash":
        raise ConfigError(
            'account = "cash" is for `backtest` alone: a node sends orders through a queue, by '
            'which buys are denied as sells have not settled; use "margin"'
        )
    at_open = rules.fill == "next_open"
    return BacktestVenueConfig(
        name=rules.venue,
        oms_type="NETTING",
        account_type=rules.account.upper(),
        base_currency=rules.currency,
        starting_balances=[f"{agent.spec.env.initial_cash:.2f} {rules.currency}"],
        fee_model=ImportableFeeModelConfig(
            fee_model_path=f"{Friction.__module__}:{Friction.__qualname__}",
            config_path=FrictionConfig.fully_qualified_name(),
            config=_friction(agent).json_primitives(),
        ),
        bar_execution=not at_open,
        trade_execution=at_open,
    )


def _tell_left_out(agent: Agent) -> None:
    names = left_out(agent.spec)
    if names:
        log.warning("NautilusTrader leaves out what the agent had of %s", ", ".join(names))
