"""A strategy on signals trades on paper as it does in a replay, order for order."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from papered import (
    assert_orders_are_replayed,
    assert_wealth_is_replayed,
    bars_of,
    paper,
    play,
    steps_of,
)

from fastsim.agent.agent import Agent
from fastsim.agent.config import StrategyConfig
from fastsim.agent.make import make_agent
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.forecast.interface import Context
from fastsim.live.candles import candles_of
from fastsim.live.ledger import Ledger
from fastsim.live.status import read_status
from fastsim.live.status_page import write_page
from fastsim.market.tape import TapeConfig
from fastsim.progress import SILENT
from fastsim.signals.config import SignalConfig
from fastsim.signals.regimes import RegimeConfig

LONG = SignalConfig(
    context_length=64,
    horizon=5,
    regimes=RegimeConfig(volatility_window=10, history=40, trend_window=10, memory=16),
)
BOTH = replace(LONG, sides="both", hold=8)
FIRST, BARS = 250, 60


def agent_of(folder, signals, fill):
    action = "weights" if signals.sides == "long" else "signed"
    config = StrategyConfig(
        data=DataConfig(source="tech4"),
        tape=TapeConfig(fill=fill),
        env=EnvConfig(action=action),
        signals=signals,
    )
    make_agent(config, folder)
    return Agent.load(folder)


@pytest.mark.parametrize(
    ("signals", "fill"),
    [
        (BOTH, "next_open"),
        pytest.param(BOTH, "close", marks=pytest.mark.long),
        pytest.param(LONG, "next_open", marks=pytest.mark.long),
    ],
)
def test_a_strategy_on_paper_is_its_replay_order_for_order(signals, fill, tmp_path):
    agent, state = agent_of(tmp_path / "agent", signals, fill), tmp_path / "state"
    bars = sample_bars("tech4").take(slice(0, FIRST + BARS + 1))
    tape = agent.market_of(bars, tmp_path, progress=SILENT)
    tape = tape.between(slice(FIRST, len(bars)))
    first, *_, last = bars_of(tape)
    play(paper(tmp_path / "agent", state, "replay:tech4", start=first, end=last))
    steps, ledger = steps_of(tape, agent.decider, agent.rules), Ledger.read(state)
    assert_wealth_is_replayed(ledger, tape, agent.decider, agent.rules)
    assert_orders_are_replayed(ledger, tape, steps)
    holds = steps.actions[:, 0].isnan().any(-1).tolist()
    decisions = ledger.decisions()
    assert [each.why["holds"] for each in decisions[:-1]] == holds
    held = {each.bar for each in decisions if each.why["holds"]}
    assert len(held) > 5 and held.isdisjoint(bar for bar, _ in ledger.orders())
    ledger.close()
    tables = candles_of(read_status(state)).tables
    assert len(tables.signals) == len(agent.symbols) * (BARS + 1)
    known = tables.trades.drop_nulls(["stop", "confidence", "distance"])
    assert len(known) == len(tables.trades) > 3
    assert_fans_are_what_is_forecast(tables, agent, bars)
    write_page(read_status(state), tmp_path / "page.html")
    assert "forecast, 10% to 90%" in (tmp_path / "page.html").read_text()


def assert_fans_are_what_is_forecast(tables, agent, bars):
    """At the last decision, and where positions were decided on; prices as traded."""
    entered = set(tables.trades.select("decided", "symbol").rows())
    last = {(tables.bars["date"].max(), symbol) for symbol in agent.symbols}
    assert set(tables.fans.select("date", "symbol").unique().rows()) == entered | last
    window = bars.take(slice(-agent.spec.forecast.context_length, None))
    seconds = window.timestamps.astype("datetime64[s]").astype(int)
    context = Context(
        torch.from_numpy(window.table()).float().transpose(0, 1),
        torch.from_numpy(seconds).expand(len(bars.symbols), -1),
    )
    told = agent.forecaster.forecast(context, LONG.horizon)
    for row, symbol in enumerate(bars.symbols):
        fan = tables.fans.filter(pl.col("symbol") == symbol, pl.col("date") == max(last)[0])
        traded = bars.close[-1, row] / bars.adjusted("close")[-1, row]
        median = fan.filter(pl.col("level") == 0.5).sort("ahead")["price"].to_list()
        wanted = [bars.close[-1, row], *(traded * told.median[row].double()).tolist()]
        assert median == pytest.approx(wanted, rel=1e-5)
