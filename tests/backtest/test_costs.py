"""Costs go by their names from the step to the summary, however many there are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.backtest import replay as replaying
from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.history import join
from fastsim.backtest.replay import replay_schedule
from fastsim.backtest.summary import summarize
from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.experiment.evaluate import Evaluation, headline
from fastsim.market.costs import CostConfig
from fastsim.market.tape import make_tape
from fastsim.stats.bootstrap import Interval

RULES = EnvConfig(costs=CostConfig(fee_bps=10.0))
BUILT_IN = ["commission", "spread", "impact", "borrow"]


def replayed(*, alone=True):
    """Equal weight, buy and hold and four assets alone over thirty bars."""
    tape = make_tape(sample_bars("tech4").take(slice(0, 160)))
    return replay_benchmarks(tape, RULES, alone=alone)


@pytest.fixture
def plain():
    return replayed()


@pytest.fixture
def extended(monkeypatch):
    """The same where the environment names one more part, twice the commission."""
    parts_of = replaying.cost_parts

    def with_duty(outcome):
        parts = parts_of(outcome)
        return {"stamp_duty": 2.0 * parts["commission"], **parts}

    monkeypatch.setattr(replaying, "cost_parts", with_duty)
    return replayed()


def test_a_replay_names_costs_as_the_environment_does_and_borrowing_last(plain):
    assert list(plain.costs) == BUILT_IN
    traded = plain.turnover * plain.wealth[:-1]
    assert plain.costs["commission"][0].tolist() == pytest.approx((1e-3 * traded[0]).tolist(), 1e-3)
    assert not plain.costs["borrow"].any()


def test_a_part_more_changes_no_other(plain, extended):
    assert list(extended.costs) == ["stamp_duty", *BUILT_IN]
    assert torch.equal(extended.costs["stamp_duty"], 2.0 * plain.costs["commission"])
    assert plain.costs["commission"].any()
    for name in BUILT_IN:
        assert torch.equal(extended.costs[name], plain.costs[name])
    torch.testing.assert_close(extended.cost, plain.cost + 2.0 * plain.costs["commission"])


def test_histories_are_joined_by_the_names_of_their_costs():
    extended = replayed(alone=False)
    turned = extended._replace(costs=dict(reversed(extended.costs.items())))
    joined = join(extended, turned)
    assert joined.names == 2 * extended.names
    assert list(joined.costs) == list(extended.costs)
    count = len(extended.names)
    for name, paid in joined.costs.items():
        assert torch.equal(paid[:, :count], extended.costs[name])
        assert torch.equal(paid[:, count:], extended.costs[name])
    assert torch.equal(joined.wealth, torch.cat([extended.wealth] * 2, dim=1))
    assert torch.equal(joined.weights, torch.cat([extended.weights] * 2, dim=1))


def test_histories_of_different_costs_are_not_joined(plain, extended):
    with pytest.raises(ConfigError, match=r"the same cost parts, got .*'stamp_duty'"):
        join(plain, extended)


def test_a_summary_adds_up_every_part(extended):
    summary = summarize(extended)
    assert list(summary.costs) == list(extended.costs)
    for name, paid in summary.costs.items():
        assert torch.equal(paid, extended.costs[name].sum(0))
    torch.testing.assert_close(summary.cost, extended.cost.sum(0))
    torch.testing.assert_close(summary.relative_cost, extended.cost.sum(0) / 1e6)


def test_a_headline_keeps_every_part_and_averages_it_over_single_assets(extended):
    summary = summarize(extended)
    evaluation = Evaluation("test", extended, summary, Interval(0, 0, 0, 0.95), (), Path())
    short, names = headline(evaluation)
    assert names == ("equal weight", "buy and hold", "single asset, mean")
    assert list(short.costs) == list(extended.costs)
    for name, paid in summary.costs.items():
        assert torch.equal(short.costs[name][:2], paid[:2])
        assert short.costs[name][2].item() == pytest.approx(paid[2:].mean().item())
    assert short.total_return.shape == short.cost.shape == (3,)


def test_who_is_ruined_holds_trades_and_pays_nothing_from_then_on():
    bars = sample_bars("tech4").take(slice(0, 160))
    factor = np.where(np.arange(160) < 145, 1.0, 4.0)[:, None]
    fields = ("open", "high", "low", "close", "adj_close")
    bars = replace(bars, **{name: factor * getattr(bars, name) for name in fields})
    tape = make_tape(bars)
    steps, ruin = tape.last - tape.first, 144 - tape.first
    schedule = torch.tensor([[-0.9, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0]]).repeat(steps, 1, 1)
    history = replay_schedule(tape, schedule, ("short", "long"), replace(RULES, action="signed"))
    paid = history.cost
    assert 0 < ruin < steps - 1 and (history.wealth[ruin + 1 :, 0] <= 0).all()
    for figure in (paid, history.turnover, history.weights.abs().sum(-1)):
        assert (figure[:ruin] > 0).all()
        assert not figure[ruin + 1 :, 0].any() and (figure[ruin + 1 :, 1] > 0).all()
