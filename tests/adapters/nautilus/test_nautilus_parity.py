"""NautilusTrader plays a run's test bars as fastsim replays them, decision by decision."""

import numpy as np
import pytest
import torch
from nautilus_runs import played, require_nautilus, run_of

from fastsim.agent.config import StrategyConfig
from fastsim.agent.make import agent_of
from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.history import join
from fastsim.backtest.replay import replay
from fastsim.backtest.summary import summarize
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.orders import OrderConfig
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig
from fastsim.signals.config import SignalConfig
from fastsim.signals.regimes import RegimeConfig

nautilus = require_nautilus()

FRACTIONS, WHOLE = 2e-6, 5e-4
"""What wealth may differ by, relatively, at any close."""


def apart(history, replay):
    """The largest relative difference of wealth at any close."""
    np.testing.assert_array_equal(history.timestamps, replay.timestamps)
    assert len(replay.timestamps) > 400
    return float((history.wealth / replay.wealth - 1.0).abs().max())


@pytest.mark.parametrize("name", ["open", "close", "signed"])
def test_fractions_come_to_the_same_wealth(name):
    history, replay = played(name), run_of(name).replay
    assert apart(history, replay) <= FRACTIONS
    assert replay.turnover.sum() > 1.0 and replay.wealth.std() > 1e4
    torch.testing.assert_close(history.weights, replay.weights.double(), rtol=0.0, atol=2e-5)
    torch.testing.assert_close(history.turnover, replay.turnover.double(), rtol=0.0, atol=2e-5)
    for part, paid in replay.costs.items():
        assert float(history.costs[part].sum()) == pytest.approx(float(paid.sum()), rel=1e-4), part


def test_shorts_and_leverage_were_among_it():
    weights = run_of("signed").replay.weights[..., :-1]
    assert (weights < -0.2).any() and (weights.abs().sum(-1) > 1.4).any()


@pytest.mark.parametrize("name", ["open", "close"])
def test_whole_shares_come_close_to_it(name):
    history = played(name, whole_shares=True)
    assert 0.0 < apart(history, run_of(name).replay) <= WHOLE


def test_sales_pay_for_purchases_in_a_cash_account():
    margin, cash = (played("open", whole_shares=True, account=each) for each in ("margin", "cash"))
    torch.testing.assert_close(cash.wealth, margin.wealth, rtol=1e-6, atol=0.0)


def test_the_node_plays_what_the_engine_does(tmp_path):
    run = run_of("open")
    config = nautilus.node_config(run.folder, run.bars, tmp_path / "catalog", **run.span)
    history = nautilus.run_node(type(config).parse(config.json()))
    assert apart(history, run.replay) <= FRACTIONS
    torch.testing.assert_close(history.wealth, played("open").wealth, rtol=0.0, atol=0.0)


def test_the_node_fills_at_closes_too(tmp_path):
    run, rules = run_of("close"), nautilus.VenueRules(whole_shares=True)
    config = nautilus.node_config(
        run.folder, run.bars, tmp_path / "catalog", **run.span, rules=rules
    )
    assert 0.0 < apart(nautilus.run_node(config), run.replay) <= WHOLE


def test_figures_are_fastsims():
    history, replay = played("open"), run_of("open").replay
    scale = {"periods_per_year": replay.steps_per_year}
    assert history.steps_per_year == replay.steps_per_year
    found, wanted = summarize(history, **scale), summarize(replay, **scale)
    for name in ("total_return", "sharpe_ratio", "max_drawdown", "turnover"):
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(wanted, name).double(), rtol=1e-4, atol=1e-6
        )


def test_its_history_stands_beside_benchmarks():
    run = run_of("open")
    others = replay_benchmarks(run.tape, run.env, others=("agent",))
    both = join(played("open"), others)
    assert both.names == ("agent", *others.names)


def test_orders_sized_at_the_decision_miss_by_the_gap():
    history = played("open", sized_at="decision")
    assert 1e-5 < apart(history, run_of("open").replay) < 1e-2


def test_every_decision_is_the_agents_by_bars_that_have_arrived(monkeypatch):
    run = run_of("open")
    decide, seen = run.agent.decide, []

    def spy(bars, account, state, *, now, closed):
        seen.append((bars, now, state))
        return decide(bars, account, state, now=now, closed=closed)

    monkeypatch.setattr(run.agent, "decide", spy)
    stamps = run.replay.timestamps[:40]
    nautilus.backtest(run.agent, run.bars, start=str(stamps[0]), end=str(stamps[-1]))
    assert len(seen) == len(stamps) - 1
    closes = run.bars.adjusted("close")
    for (bars, now, state), stamp in zip(seen, stamps, strict=False):
        row = int(np.searchsorted(run.bars.timestamps, stamp))
        assert bars.timestamps[-1] == stamp and len(bars) == run.agent.bars_needed
        assert now == stamp + np.timedelta64(1, "D")
        wanted = closes[row + 1 - len(bars) : row + 1]
        np.testing.assert_allclose(bars.close, wanted, rtol=1e-10)
        assert (state is None) == (stamp == stamps[0])


@pytest.mark.parametrize(
    ("fill", "whole"), [("next_open", False), ("close", False), ("close", True)]
)
def test_a_strategy_on_signals_is_played_as_it_is_replayed(fill, whole, tmp_path):
    config = StrategyConfig(
        data=DataConfig(source="tech4"),
        tape=TapeConfig(fill=fill),
        env=EnvConfig(
            action="signed",
            costs=CostConfig(fee_bps=5.0, half_spread_bps=2.0, impact=0.0, borrow_bps_per_year=0.0),
            orders=OrderConfig(whole_shares=whole),
        ),
        signals=SignalConfig(
            context_length=64,
            horizon=5,
            sides="both",
            hold=8,
            regimes=RegimeConfig(volatility_window=10, history=40, trend_window=10, memory=16),
        ),
    )
    agent, bars = agent_of(config), sample_bars("tech4")
    tape = agent.market_of(bars, tmp_path).between(slice(700, 801))
    wanted = replay(tape, agent.decider, ["agent"], agent.rules)
    history = nautilus.backtest(
        agent, bars, start=str(wanted.timestamps[0]), end=str(wanted.timestamps[-1])
    )
    np.testing.assert_array_equal(history.timestamps, wanted.timestamps)
    off = float((history.wealth / wanted.wealth - 1.0).abs().max())
    assert off <= (WHOLE if whole else FRACTIONS) and (off > 1e-5) == whole
    assert float(history.turnover.sum()) > 2.0 and (history.turnover == 0.0).sum() > 10
