"""The simulated account is the environment's: the same wealth, whatever the rules; taken once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.agent.state import BrokerAccount
from fastsim.backtest.replay import replay_schedule
from fastsim.data.dates import show
from fastsim.env.actions import ACTIONS
from fastsim.env.config import EnvConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.errors import CheckpointError, ConfigError, DataError
from fastsim.live.broker import Order, OrderState
from fastsim.live.files import open_tables
from fastsim.live.ledger import LAYOUT, LEDGER
from fastsim.live.records import client_id_of
from fastsim.live.rules import MarketRules
from fastsim.live.simulated import SimulatedBroker, equity_of
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

FIRST, CASH = 10, 1e6
DEAR = CostConfig(fee_bps=5, half_spread_bps=3, impact=2.0, participation=0.02)
RULES = {
    "weights": EnvConfig(costs=DEAR),
    "carry": EnvConfig(
        costs=replace(DEAR, participation=1e-3), orders=OrderConfig(unfilled="carry")
    ),
    "whole": EnvConfig(costs=DEAR, orders=OrderConfig(whole_shares=True)),
    "by share": EnvConfig(costs=replace(DEAR, fee_per_share=0.01, minimum_fee=2.0)),
    "signed": EnvConfig(action="signed", max_gross=1.5, costs=replace(DEAR, half_spread_bps=20)),
    "margin": EnvConfig(
        action="signed", max_gross=3.0, costs=DEAR, orders=OrderConfig(maintenance_margin=0.3)
    ),
    "stops": EnvConfig(action="signed", orders=OrderConfig(stop=0.02, target=0.03, trailing=0.02)),
}
TAPE = TapeConfig(features=SHORT_FEATURES, risk_free_rate=0.03, borrow_bps_per_year={"S1": 400.0})


def schedule(env, bars, seed=0):
    """Weights of every bar [T, A], of which every fifth holds."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(bars.symbols)), len(bars)) * rng.random((len(bars), 1))
    if env.action == "signed":
        signed = torch.from_numpy(3.0 * rng.choice([-1.0, 1.0], weights.shape) * weights)
        weights = ACTIONS.find("signed").weights(signed, env.max_gross, None).numpy()
    weights[::5] = np.nan
    return weights


def orders_of(bars, row, weights):
    bar = show(bars.timestamps[row])
    return [
        Order(client_id_of("run", bar, s), s, 0.0, bars.close[row, n], float(weights[n]))
        for n, s in enumerate(bars.symbols)
    ]


def broker_of(path, env, tape=TAPE, symbols=("S0", "S1", "S2", "S3"), cash=CASH):
    rules = MarketRules(symbols=symbols, env=env, tape=tape)
    return SimulatedBroker(path, rules, BrokerAccount(cash=cash))


def wealth_of(broker, bars, row):
    account = broker.account(bars.symbols)
    shares = [account.shares.get(symbol, 0.0) for symbol in bars.symbols]
    return account.cash + float(np.dot(shares, bars.close[row]))


@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize("name", RULES)
def test_wealth_is_that_of_the_environment_bar_by_bar(name, fill, tmp_path):
    env, bars = RULES[name], random_bars(60, seed=3, adjusted=True)
    tape = replace(TAPE, fill=fill)
    market = make_tape(bars, tape, dtype=torch.float64).between(slice(FIRST, None))
    weights = schedule(env, bars)
    asked = torch.from_numpy(weights[market.first : market.last])[:, None]
    history = replay_schedule(market, asked, ["it"], env)
    broker = broker_of(tmp_path / "account.sqlite", env, tape)
    cash, held = CASH, dict.fromkeys(bars.symbols, 0.0)
    for row in range(market.first, market.last + 1):
        broker.meet(bars.take(slice(0, row + 1)))
        wealth = float(history.wealth[row - market.first, 0])
        assert wealth_of(broker, bars, row) == pytest.approx(wealth, rel=1e-12), row
        if np.isfinite(weights[row]).all():
            broker.submit(orders_of(bars, row, weights[row]))
    reports = broker._reports("state != ?", "none")
    assert len(reports) > 100
    for report in reports:  # fills and what changed without one are the whole of it
        held[report.symbol] += report.received
        cash -= report.fees["cash"] + (report.filled * report.price if report.filled else 0.0)
    for change in broker.changes(""):
        cash += change.cash
        if change.symbol:
            held[change.symbol] += change.shares
    account = broker.account(bars.symbols)
    assert account.cash == pytest.approx(cash, abs=1e-6)
    for symbol in bars.symbols:
        assert account.shares.get(symbol, 0.0) == pytest.approx(held[symbol], abs=1e-8)
    states = {report.state for report in reports}
    assert OrderState.FILLED in states and (name != "carry" or OrderState.OPEN in states)


def test_an_order_of_one_asset_by_hand(tmp_path):
    bars = random_bars(30, assets=1, volume=False)
    costs = CostConfig(fee_bps=10, half_spread_bps=20, impact=0, participation=1.0)
    broker = broker_of(
        tmp_path / "a", EnvConfig(costs=costs), TapeConfig(features=SHORT_FEATURES), ("S0",)
    )
    broker.meet(bars.take(slice(0, 20)))
    (order,) = orders_of(bars, 19, [0.5])
    (taken,) = broker.submit([order])
    assert taken.state == OrderState.OPEN and taken.filled == 0.0 and taken.broker_id == "1"
    broker.meet(bars.take(slice(0, 21)))
    report, opened = broker.find(order.client_id, "S0"), bars.open[20, 0]
    assert report.state == OrderState.FILLED
    assert report.price == pytest.approx(opened * 1.002)
    bought = report.filled * opened  # u = (V - c u) / 2 with c = 1.002 * 1.001 - 1
    assert bought == pytest.approx(0.5e6 / (1 + 0.5 * (1.002 * 1.001 - 1)))
    assert report.fees["cash"] == pytest.approx(1e-3 * 1.002 * bought)
    account = broker.account(["S0"])
    assert account.cash == pytest.approx(CASH - report.filled * report.price - report.fees["cash"])
    assert account.shares["S0"] == pytest.approx(report.filled)


def test_an_order_is_taken_once_and_kept_on_disk(tmp_path):
    bars, env = random_bars(40), RULES["weights"]
    broker = broker_of(tmp_path / "a", env)
    broker.meet(bars.take(slice(0, 20)))
    orders = orders_of(bars, 19, [0.1, 0.2, 0.3, 0.4])
    first = broker.submit(orders[:2])
    again = broker_of(tmp_path / "a", env, cash=1.0)  # what is on disk holds
    assert again.submit(orders)[:2] == first
    assert len(again.open_orders(bars.symbols)) == 4
    assert again.find("unknown", "S0") is None
    again.meet(bars.take(slice(0, 21)))
    wealth = wealth_of(again, bars, 20)
    filled = again.find(orders[0].client_id, "S0").filled
    again.meet(bars.take(slice(0, 21)))  # the same bar is met once
    assert again.submit(orders)[0].filled == filled > 0.0
    again.meet(bars.take(slice(0, 22)))
    assert wealth_of(again, bars, 20) != wealth_of(again, bars, 21)
    assert wealth == pytest.approx(CASH, rel=0.1)


def test_assets_without_an_order_are_left_alone(tmp_path):
    bars = random_bars(40)
    broker = broker_of(tmp_path / "a", RULES["weights"])
    broker.meet(bars.take(slice(0, 20)))
    broker.submit(orders_of(bars, 19, [0.1, 0.2, 0.3, 0.4]))
    broker.meet(bars.take(slice(0, 21)))
    before = broker.account(bars.symbols).shares
    broker.submit(orders_of(bars, 20, [0.4, 0.0, 0.0, 0.0])[:2])
    broker.meet(bars.take(slice(0, 22)))
    after = broker.account(bars.symbols).shares
    assert after["S0"] > before["S0"] and "S1" not in after
    assert {s: after[s] for s in ("S2", "S3")} == pytest.approx(
        {s: before[s] for s in ("S2", "S3")}
    )


def test_orders_can_be_withdrawn_before_a_bar(tmp_path):
    bars = random_bars(40)
    broker = broker_of(tmp_path / "a", RULES["weights"])
    broker.meet(bars.take(slice(0, 20)))
    orders = orders_of(bars, 19, [0.1, 0.2, 0.3, 0.4])
    broker.submit(orders)
    for order in orders:
        broker.cancel(order.client_id, order.symbol)
    broker.meet(bars.take(slice(0, 21)))
    assert not broker.account(bars.symbols).shares
    assert broker.find(orders[0].client_id, "S0").state == OrderState.CANCELLED


def test_what_would_mislead_it_is_refused(tmp_path):
    bars, env = random_bars(60), RULES["weights"]
    broker = broker_of(tmp_path / "a", env)
    with pytest.raises(DataError, match="bars are too few"):
        broker.meet(bars.take(slice(0, 4)))
    broker.meet(bars.take(slice(0, 20)))
    account = broker.account(bars.symbols)
    with pytest.raises(DataError, match="which is not among these"):
        broker.meet(bars.take(slice(21, 40)))
    changed = bars.close.copy()
    changed[19, 2] *= 1.01
    with pytest.raises(DataError, match=r"the close of S2 on .* data were revised"):
        broker.meet(replace(bars, close=changed))
    assert broker.account(bars.symbols) == account and len(equity_of(broker._tables)) == 1
    with pytest.raises(ConfigError, match="an account of another agent"):
        broker_of(tmp_path / "a", RULES["whole"])
    with pytest.raises(ConfigError, match="by which its trades move prices"):
        broker_of(tmp_path / "b", EnvConfig(impact=ImpactConfig(transient=0.1)))
    open_tables(tmp_path / LEDGER, LAYOUT).close()
    with pytest.raises(CheckpointError, match="no simulated account, but another file"):
        broker_of(tmp_path / LEDGER, env)
