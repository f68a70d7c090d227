"""Agents of perpetual futures decide on an account held on margin, as in their replay."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from futures import RATE, settings_of, write_futures
from replayed import Written, over
from swinging import swinging

from fastsim.agent.agent import Agent
from fastsim.agent.entries import since_entries
from fastsim.agent.state import AgentState, BrokerAccount, Entry
from fastsim.backtest.replay import replay
from fastsim.cli import main
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig, margin_by
from fastsim.errors import ConfigError

LEVERAGE = 40.0


@pytest.fixture
def made(tmp_path):
    """An agent that is liquidated now and then, its bars, and the market of its test."""
    bars = write_futures(tmp_path)
    _, markets = swinging(tmp_path / "agent", **settings_of(tmp_path, LEVERAGE))
    (tmp_path / "tiers.json").unlink()  # the agent has its own
    return Agent.load(tmp_path / "agent"), bars, markets.test


def test_it_decides_bar_by_bar_as_the_books_would_have_it(made):
    agent, bars, tape = made
    tape = tape.between(slice(tape.first, tape.first + 60))
    written = Written(agent.policy)
    history = replay(tape, written, ["agent"], agent.rules, backend="torch")
    state, lost = None, 0
    for step, row in enumerate(range(tape.first, tape.last)):
        held = written.seen[step].double().numpy()[:2]
        wealth = float(history.wealth[step, 0])
        shares = dict(zip(bars.symbols, (held * wealth / bars.close[row]).tolist(), strict=True))
        account = BrokerAccount(cash=wealth * (1.0 - held.sum()), shares=shares)
        window = bars.take(slice(row + 1 - agent.bars_needed, row + 1))
        decision = agent.decide(window, account, state, now=over(window))
        found = [decision.why.observation[column] for column in agent.policy.spec.portfolio]
        np.testing.assert_allclose(found, written.seen[step], rtol=0.0, atol=2e-6)
        said = written.answers_given[step].double()
        wanted = said / max(float(said.abs().sum()) / 2.0, 1.0)
        weights = torch.tensor(list(decision.weights.values()), dtype=torch.float64)
        assert (weights - wanted).abs().max() <= 1e-6, row
        lost += sum(symbol not in decision.state.entries for symbol in bars.symbols)
        state = decision.state
    assert lost > 5


def test_orders_and_liquidations_of_a_first_decision_by_hand(made):
    agent, bars, _ = made
    agent = Agent(
        replace(agent.spec, env=replace(agent.rules, costs=replace(agent.rules.costs, fee_bps=0.0,
                                                                   half_spread_bps=0.0))),
        agent.who, None,
    )  # fmt: skip
    window = bars.take(slice(-agent.bars_needed, None))
    decision = agent.decide(window, BrokerAccount(cash=1e4), now=over(window))
    for column, (symbol, weight) in enumerate(decision.weights.items()):
        close, side = bars.close[-1, column], np.sign(weight)
        assert decision.orders[symbol] == pytest.approx(1e4 * weight / close)
        # wallet balance EP / leverage for one coin: LP = (EP / leverage - side EP) / (rate - side)
        line = (close / LEVERAGE - side * close) / (RATE - side)
        assert decision.brackets[symbol].liquidation == pytest.approx(line)
        assert decision.brackets[symbol].stop is None


def test_what_a_gap_has_gone_beyond_is_lost_and_entered_anew():
    margin = margin_by(None, ("X",), PerpetualConfig(leverage=10, maintenance_rate=0.01))
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(2) * np.timedelta64(1, "D")
    for start, entry in ((85.0, 85.0), (95.0, 100.0)):  # 10 % of the entry is its margin
        prices = {"open": [[100.0], [start]], "close": [[100.0], [90.0]]}
        bars = Bars(
            symbols=("X",), timestamps=stamps, **{n: np.array(p) for n, p in prices.items()}
        )
        before = AgentState.after(bars.take(slice(0, 1)), 1e4, None)
        before = replace(before, entries={"X": Entry(value=1000.0, entry=1.0)})
        since = since_entries(
            np.array([450.0]), bars, before, OrderConfig(), at_open=True, margin=margin
        )
        assert float(since.entry) == pytest.approx(90.0 / entry)


def test_an_account_as_an_exchange_tells_it():
    account = BrokerAccount.on_margin(1000.0, {"BTC": -0.5, "ETH": 0.0}, {"BTC": 100.0})
    gained = -0.5 * (90.0 - 100.0)  # of a short whose price has fallen to 90
    assert account.cash + account.shares["BTC"] * 90.0 == pytest.approx(1000.0 + gained)
    with pytest.raises(ConfigError, match="entry_prices must have that of the position in BTC"):
        BrokerAccount.on_margin(1000.0, {"BTC": 1.0}, {})


def test_the_command_takes_such_an_account_and_tells_where_it_ends(made, tmp_path, capsys):
    agent, bars, _ = made
    write_bars(bars.take(slice(-agent.bars_needed, None)), tmp_path / "now.parquet")
    told = {"balance": 5e3, "shares": {"BTC/USDT": 2.0}, "entry_prices": {"BTC/USDT": 90.0}}
    (tmp_path / "account.json").write_text(json.dumps(told))
    names = (tmp_path / "agent", tmp_path / "now.parquet", "--json")
    now = str(over(bars))
    main(["decide", *map(str, names), "--account", str(tmp_path / "account.json"), "--now", now])
    found = json.loads(capsys.readouterr().out)
    equity = 5e3 + 2.0 * (bars.close[-1, 0] - 90.0)
    seen = found["observation"]["weight.BTC/USDT"]
    assert seen == pytest.approx(2.0 * bars.close[-1, 0] / equity)
    assert set(found["brackets"]["BTC/USDT"]) == {"stop", "target", "liquidation"}
