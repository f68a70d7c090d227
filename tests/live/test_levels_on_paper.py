"""Agents that ask for stops and targets trade on paper as they do in a replay, order for order."""

import pytest
from futures import settings_of, write_futures
from papered import (
    assert_orders_are_replayed,
    assert_wealth_is_replayed,
    bars_of,
    paper,
    play,
    steps_of,
)
from swinging import swinging

from fastsim.agent.agent import Agent
from fastsim.errors import ConfigError
from fastsim.live.accounts import broker_of
from fastsim.live.candles import candles_of
from fastsim.live.ledger import Ledger
from fastsim.live.status import read_status

ASKED = {"action": "bracketed", "max_gross": 1.5, "orders": {"stop": 0.02, "target": 0.04}}


@pytest.mark.parametrize("fill", ["next_open", pytest.param("close", marks=pytest.mark.long)])
def test_stops_that_were_asked_for_are_met_on_paper_as_in_a_replay(fill, tmp_path):
    agent, markets = swinging(tmp_path / "agent", ASKED, tape={"fill": fill})
    tape = markets.test.between(slice(markets.test.first, markets.test.first + 31))
    first, *_, last = bars_of(tape)
    state = tmp_path / "state"
    play(paper(tmp_path / "agent", state, "replay:tech4", start=first, end=last))
    ledger = Ledger.read(state)
    assert_wealth_is_replayed(ledger, tape, agent.policy, agent.rules, "torch")
    steps = steps_of(tape, agent.policy, agent.rules)
    assert_orders_are_replayed(ledger, tape, steps)
    assert steps.outcome.exits.stopped.count_nonzero() > 5
    asked = {order.stop for _, order in ledger.orders()}
    assert len(asked) > 30 and 0.0 in asked
    held = set()
    for each in ledger.decisions():
        for symbol, bracket in each.why["brackets"].items():
            side = 1 if each.weights[symbol] > 0 else -1
            assert side * bracket["stop"] < side * bracket["target"]
            # Additions move the mean entry, and with it levels that a close may lie beyond already.
            if symbol not in held:
                assert side * bracket["stop"] < side * each.closes[symbol]
                assert side * each.closes[symbol] < side * bracket["target"]
        held = set(each.why["brackets"])
    ledger.close()
    trades = candles_of(read_status(state)).tables.trades
    assert len(trades.drop_nulls(["stop", "target"])) == len(trades)


@pytest.mark.parametrize("rules", [ASKED, {"action": "weights", "orders": {"trailing": 0.05}}])
def test_brokers_that_place_no_stops_are_refused_by_name(rules, tmp_path):
    swinging(tmp_path / "agent", rules)
    with pytest.raises(ConfigError, match="none are placed at broker 'alpaca'"):
        broker_of("alpaca", Agent.load(tmp_path / "agent"), tmp_path)


def test_futures_pay_funding_and_are_liquidated_on_paper_as_in_a_replay(tmp_path):
    write_futures(tmp_path)
    agent, markets = swinging(tmp_path / "agent", **settings_of(tmp_path, 40.0))
    tape = markets.test.between(slice(markets.test.first, markets.test.first + 31))
    first, *_, last = bars_of(tape)
    state, feed = tmp_path / "state", f"replay:{tmp_path / 'bars.parquet'}"
    play(paper(tmp_path / "agent", state, feed, start=first, end=last))
    ledger = Ledger.read(state)
    assert_wealth_is_replayed(ledger, tape, agent.policy, agent.rules, "torch")
    steps = steps_of(tape, agent.policy, agent.rules)
    assert_orders_are_replayed(ledger, tape, steps)
    settled = steps.outcome.settlement
    assert settled.liquidated.count_nonzero() > 3 and settled.funding.count_nonzero() > 20
    changes = [dict(zip(("bar", "symbol", "why"), row[2:4] + row[6:7], strict=True))
               for row in ledger.rows("changes")]  # fmt: skip
    assert {each["why"] for each in changes if each["symbol"]} == {
        "a stop, a target or a liquidation"
    }
    assert any(each["why"].startswith("funding") for each in changes if not each["symbol"])
    ledger.close()


def test_futures_are_refused_at_brokers_of_spot(tmp_path):
    write_futures(tmp_path)
    swinging(tmp_path / "agent", **settings_of(tmp_path, 10.0))
    with pytest.raises(ConfigError, match="is one of spot, which knows neither margin nor funding"):
        broker_of("ccxt:binance", Agent.load(tmp_path / "agent"), tmp_path)
