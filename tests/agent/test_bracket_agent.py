"""An agent sees from its state how far its stops are, as from the environment's books."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from replayed import Written, closed_days, over
from swinging import swinging
from worlds import weekdays

from fastsim.agent.entries import remembered_entries, since_entries
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.backtest.replay import replay
from fastsim.config import from_mapping, to_mapping
from fastsim.data.bars import Bars
from fastsim.data.source import read_source
from fastsim.env.orders import OrderConfig

ORDERS = {
    "all": ({"stop": 0.03, "target": 0.05, "trailing": 0.025}, {}),
    "stop": ({"stop": 0.02}, {"fill": "close"}),
    "target": ({"target": 0.02}, {}),
    "asked": ({"stop": 0.02, "target": 0.05}, {}),
    "asked at closes": ({"stop": 0.02, "target": 0.05, "trailing": 0.04}, {"fill": "close"}),
}


def made(name, folder):
    """An agent by these rules, its bars, and the market of its test."""
    orders, tape = ORDERS[name]
    action = "bracketed" if name.startswith("asked") else "signed"
    env = {"action": action, "max_gross": 1.5, "orders": orders}
    agent, markets = swinging(folder, env, tape=tape)
    return agent, read_source(markets.config.data), markets.test


def as_read(state):
    return from_mapping(AgentState, json.loads(json.dumps(to_mapping(state))))


@pytest.mark.parametrize(
    "name", [*list(ORDERS)[:-1], pytest.param("asked at closes", marks=pytest.mark.long)]
)
def test_it_decides_bar_by_bar_as_the_books_would_have_it(name, tmp_path):
    agent, bars, tape = made(name, tmp_path)
    tape = tape.between(slice(tape.first, tape.first + 150))
    written = Written(agent.policy)
    history = replay(tape, written, ["agent"], agent.rules, backend="torch")
    closed, state, hits, levels = closed_days(bars), None, 0, {}
    assets, said = len(bars.symbols), torch.zeros(len(bars.symbols))
    for step, row in enumerate(range(tape.first, tape.last)):
        shown, wealth = written.seen[step].double().numpy(), float(history.wealth[step, 0])
        held = shown[:assets]
        hits += int(((held == 0) & (said.numpy() != 0)).sum())
        shares = dict(zip(bars.symbols, (held * wealth / bars.close[row]).tolist(), strict=True))
        account = BrokerAccount(cash=wealth * (1.0 - held.sum()), shares=shares)
        window = bars.take(slice(row + 1 - agent.bars_needed, row + 1))
        decision = agent.decide(window, account, state, now=over(window), closed=closed)
        found = [decision.why.observation[column] for column in agent.policy.spec.portfolio]
        np.testing.assert_allclose(found, shown, rtol=0.0, atol=2e-6, err_msg=str(row))
        if agent.spec.tape.fill == "close" and not agent.rules.orders.trailing:
            assert_levels_are_met(levels, decision.why.observation, bars, row)
        said, levels = written.answers_given[step][:assets].double(), decision.brackets
        wanted = said / max(float(said.abs().sum()) / 1.5, float(said.sum()), 1.0)
        weights = torch.tensor(list(decision.weights.values()), dtype=torch.float64)
        assert (weights - wanted).abs().max() <= 1e-6, row
        state = as_read(decision.state)
    assert hits > 5


def assert_levels_are_met(levels, observation, bars, row):
    """What was told at the close before is as far from this one as its agent sees it.

    But for impact, which an agent's orders leave out: it moves how much is added at which price.
    """
    growth = bars.adjusted("close")[row] / bars.adjusted("close")[row - 1]
    for symbol, level in levels.items():
        column = bars.symbols.index(symbol)
        away = observation[f"stop.{symbol}"]
        if away:
            told = level.stop / bars.close[row - 1, column]
            side = 1 if told < 1 else -1
            assert side * (1 - told / growth[column]) == pytest.approx(away, abs=5e-5), row


def bars_of(opens, closes):
    columns = {"open": opens, "high": closes, "low": closes, "close": closes}
    return Bars(
        symbols=("X",),
        timestamps=weekdays(len(closes)),
        **{name: np.array(values, float)[:, None] for name, values in columns.items()},
    )


@pytest.mark.parametrize("adjusted", [1.0, 0.5])
def test_entries_and_the_best_close_by_hand(adjusted):
    orders = OrderConfig(stop=0.1, trailing=0.1)
    bars = bars_of([100, 100, 104, 120, 110], [100, 102, 110, 115, 111])
    bars = replace(bars, adj_close=adjusted * bars.close)
    state = None
    shares = (0.0, 10.0, 20.0, 20.0, 5.0)  # held at each close
    wanted = (None, (100, 102), (102, 110), (102, 115), (102, 115))  # mean entry, best close
    for row, (number, levels) in enumerate(zip(shares, wanted, strict=True)):
        window, value = bars.take(slice(0, row + 1)), number * bars.close[row]
        since = since_entries(value, window, state, orders, at_open=True)
        entries = remembered_entries(since, value, ("X",))
        state = as_read(replace(AgentState.after(window, 1e6, state), entries=entries))
        if levels is None:
            assert not entries
            continue
        close = bars.close[row, 0]
        assert entries["X"].entry == pytest.approx(close / levels[0])
        assert entries["X"].best == pytest.approx(close / levels[1])


def test_bars_between_two_decisions_count_for_the_best_close():
    orders = OrderConfig(trailing=0.1)
    bars = bars_of([100, 100, 104, 120, 110], [100, 102, 130, 115, 111])
    first = AgentState.after(bars.take(slice(0, 1)), 1e6, None)
    value = 10.0 * bars.close[-1]
    since = since_entries(value, bars, first, orders, at_open=True)
    assert float(since.entry) == pytest.approx(111 / 100)
    assert float(since.best) == pytest.approx(111 / 130)
    turned = since_entries(-value, bars, first, orders, at_open=False)
    assert float(turned.best) == pytest.approx(111 / 100)  # a short one's is the lowest
