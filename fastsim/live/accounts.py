"""The account that an agent trades in: simulated in the folder of its ledger, or at a broker."""

from __future__ import annotations

from pathlib import Path

from fastsim.agent.agent import Agent
from fastsim.agent.state import BrokerAccount
from fastsim.live.broker import Broker
from fastsim.live.brokers import make_broker
from fastsim.live.records import Change
from fastsim.live.rules import MarketRules
from fastsim.live.simulated import ACCOUNT, SimulatedBroker


def broker_of(
    name: str, agent: Agent, folder: Path, *, live: bool = False, cash: float | None = None
) -> Broker:
    """Who is named: "simulated", or as `fastsim.live.brokers.make_broker`, and its errors.

    Parameters
    ----------
    folder
        Of the ledger, where a simulated account lies.
    cash
        What a simulated account begins with; what the agent learned with if it is not given.
    """
    if name != SimulatedBroker.name:
        return make_broker(name, agent.symbols, live=live)
    money = agent.spec.env.initial_cash if cash is None else cash
    return simulated(folder / ACCOUNT, agent, BrokerAccount(cash=money))


def simulated(path: Path, agent: Agent, opening: BrokerAccount) -> SimulatedBroker:
    """A simulated account by the rules that an agent was made for; errors as `SimulatedBroker`."""
    rules = MarketRules(symbols=agent.symbols, env=agent.spec.env, tape=agent.spec.tape)
    return SimulatedBroker(path, rules, opening)


def own_of(broker: Broker, agent: Agent) -> BrokerAccount:
    """What of an account is in the agent's symbols, and its cash."""
    account = broker.account(agent.symbols)
    return BrokerAccount(
        cash=account.cash, shares={s: n for s, n in account.shares.items() if s in agent.symbols}
    )


def opening_of(broker: Broker, agent: Agent) -> list[Change]:
    """What an account holds before its first order, as changes."""
    return [
        Change(f"opening {symbol}", "", symbol, shares, 0.0, "held at the start")
        for symbol, shares in own_of(broker, agent).shares.items()
        if shares
    ]
