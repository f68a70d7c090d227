"""The account that an agent trades in: simulated in the folder of its ledger, or at a broker."""

from __future__ import annotations

from pathlib import Path

from fastsim.agent.agent import Agent
from fastsim.agent.state import BrokerAccount
from fastsim.env.actions import ACTIONS
from fastsim.errors import ConfigError
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
        _require_spot(name, agent)
        return make_broker(name, agent.symbols, live=live)
    money = agent.spec.env.initial_cash if cash is None else cash
    return simulated(folder / ACCOUNT, agent, BrokerAccount(cash=money))


def _require_spot(name: str, agent: Agent) -> None:
    """Raise ConfigError for who asks for more than an order of so many shares."""
    if agent.rules.perpetual.trades:
        raise ConfigError(
            f"the agent trades perpetual futures, and broker {name!r} is one of spot, which knows "
            f"neither margin nor funding: use the broker simulated"
        )
    if agent.rules.orders.brackets or ACTIONS.find(agent.rules.action).brackets:
        raise ConfigError(
            f"the agent's positions have stops and targets, and none are placed at broker "
            f"{name!r}: use the broker simulated"
        )


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
