"""A fused replay is that of the reference, for whoever decides, block by block."""

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import configs, soaring_tape, tapes
from torch import Tensor, nn
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest import replay as replaying
from fastsim.backtest.benchmarks import Benchmarks, benchmark_names
from fastsim.backtest.replay import Schedule, replay
from fastsim.backtest.steps import BarByBar, Compiled, make_runners
from fastsim.backtest.strategies import ExponentiatedGradient
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.impact import ImpactConfig
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec

TAPE = make_tape(random_bars(120, 5, seed=1, holes=True), TapeConfig(features=SHORT_FEATURES))


class Turn(NamedTuple):
    bars: Tensor  # [n]  decisions so far


@dataclass(frozen=True)
class Wandering(Decider):
    """A user's own: remembers, looks at its portfolio, and holds now and then."""

    def begin(self, tape, rows):
        return Turn(torch.zeros(rows, dtype=torch.int64))

    def decide(self, tape, seen, memory):
        wanted = torch.sin(memory.bars[:, None] + 3.0 * seen.portfolio[:, : tape.num_assets])
        wanted[memory.bars % 5 == 4] = torch.nan
        return wanted.abs() / tape.num_assets, Turn(memory.bars + 1)


def wild_policy(tape, rules, seed, dtype=torch.float32):
    """A policy that trades a lot, and by what it holds."""
    policy = new_policy(make_spec(tape, rules, PolicyConfig(hidden=16)), tape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    columns = len(policy.spec.portfolio)
    policy.portfolio_moments.update(0.3 * torch.randn(50, columns, generator=generator))
    with torch.no_grad():
        policy.actor.weight *= 30.0
    return policy.to(dtype)


def schedule(tape, rows, seed):
    """Random weights of any sign, rows that hold, and what is no number."""
    shape = (tape.last - tape.first, rows, tape.num_assets)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=tape.dtype)
    weights[2::7, 0], weights[3, -1, 0] = torch.nan, torch.inf
    return Schedule(weights=weights)


def both(tape, who, names, rules, **options):
    """The fused replay and that of the reference."""
    return [replay(tape, who, names, rules, backend=way, **options) for way in ("auto", "torch")]


def assert_same_history(found, wanted, tolerance):
    assert found.names == wanted.names
    start = wanted.wealth[0]
    near = torch.testing.assert_close
    near(found.wealth / start, wanted.wealth / start, rtol=tolerance, atol=tolerance)
    least = max(10 * tolerance, 2 * torch.finfo(found.weights.dtype).eps)  # of cash, a rest
    near(found.weights, wanted.weights, rtol=least, atol=least)
    near(found.alone.weights, wanted.alone.weights, rtol=least, atol=least)
    near(found.turnover, wanted.turnover, rtol=10 * tolerance, atol=10 * tolerance)
    assert list(found.costs) == list(wanted.costs)
    assert list(found.refused) == list(wanted.refused)
    for name, paid in found.costs.items():
        near(paid / start, wanted.costs[name] / start, rtol=1e-5, atol=10 * tolerance)
    for name, value in found.refused.items():
        near(value, wanted.refused[name], rtol=1e-5, atol=10 * tolerance)


def market(draw_from, dtype):
    """A tape that may have delistings and bans, too."""
    bars = random_bars(
        draw_from(st.integers(30, 90)), draw_from(st.integers(3, 18)), draw_from(st.integers(0, 9)),
        opens=draw_from(st.booleans()), volume=draw_from(st.booleans()),
        holes=draw_from(st.booleans()),
    )  # fmt: skip
    if draw_from(st.booleans()):
        for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
            if prices is not None:
                prices[20:, 0] = np.nan
    settings_ = TapeConfig(
        features=SHORT_FEATURES,
        risk_free_rate=draw_from(st.sampled_from([0.0, 0.05])),
        delisting_haircut=draw_from(st.sampled_from([None, 0.0, 0.5])),
        hard_to_borrow=draw_from(st.sampled_from([(), ("S1",)])),
    )
    return make_tape(bars, settings_, dtype=dtype)


@pytest.mark.long
@settings(max_examples=25)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_a_policys_replay_is_that_of_the_reference(data, dtype):
    tape, rules = market(data.draw, dtype), data.draw(configs())
    rules = replace(rules, orders=replace(rules.orders, whole_shares=False))  # they jump
    policy = wild_policy(tape, rules, data.draw(st.integers(0, 9)), dtype)
    assert_same_history(*both(tape, policy, ["agent"], rules), 1e-6)


@pytest.mark.long
@settings(max_examples=25)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_a_schedules_replay_is_that_of_the_reference(data, dtype):
    tape, rules = market(data.draw, dtype), data.draw(configs())
    rows = data.draw(st.integers(1, 4))
    who = schedule(tape, rows, data.draw(st.integers(0, 9)))
    names = [f"{row}" for row in range(rows)]
    assert_same_history(*both(tape, who, names, rules), 1e-9)


@settings(max_examples=25)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_the_benchmarks_replay_is_that_of_the_reference(data, dtype, carried):
    tape, rules = market(data.draw, dtype), data.draw(configs())
    rules = replace(rules, action="weights", max_gross=1.0)
    if carried:
        rules = replace(rules, orders=replace(rules.orders, unfilled="carry"))
    options = {"alone": range(tape.num_assets)}
    names = benchmark_names(tape.symbols)
    assert_same_history(*both(tape, Benchmarks(), names, rules, **options), 1e-6)


@settings(max_examples=10)
@given(tapes(torch.float32), configs())
def test_anybodys_replay_is_that_of_the_reference(tape, rules):
    assert_same_history(*both(tape, Wandering(), ["a", "b"], rules), 1e-6)


def test_a_mixed_company_keeps_its_order():
    rules = EnvConfig(action="weights")
    company = [
        Wandering(),
        wild_policy(TAPE, rules, 3),
        ExponentiatedGradient(),
        Schedule(weights=schedule(TAPE, 2, 5).weights[:, 1:]),
    ]
    tape = replace(TAPE, first=40)  # by then all are listed
    company[3] = Schedule(weights=schedule(tape, 1, 5).weights)
    names = ["own", "policy", "classic", "schedule"]
    together, reference = both(tape, company, names, rules)
    assert_same_history(together, reference, 1e-6)
    for column, (who, name) in enumerate(zip(company, names, strict=True)):
        single = replay(tape, who, [name], rules)
        torch.testing.assert_close(
            single.wealth[:, 0], together.wealth[:, column], rtol=1e-12, atol=0
        )


def test_who_is_ruined_is_so_at_the_same_bar_whoever_decides():
    tape = soaring_tape()
    rules = EnvConfig(action="signed", max_gross=4.0)
    bears = -2.0 * torch.ones(tape.last - tape.first, 2, 3).double()
    bears[:, 1] = 0.2
    found, wanted = both(tape, Schedule(weights=bears), ["bear", "bull"], rules)
    assert (wanted.wealth[-1, 0] <= 0) and (wanted.wealth[-1, 1] > 0)
    assert torch.equal(found.wealth <= 0, wanted.wealth <= 0)
    assert_same_history(found, wanted, 1e-12)


@pytest.mark.long
@pytest.mark.parametrize("impact", [ImpactConfig(), ImpactConfig(transient=2.0, permanent=0.5)])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_of_any_size_are_the_same_to_the_bit(monkeypatch, block, impact):
    rules = EnvConfig(action="logits", impact=impact)
    plain = replace(rules, action="weights")
    cases = [
        (wild_policy(TAPE, rules, 1), ["agent"], rules, ()),
        (schedule(TAPE, 3, 2), ["a", "b", "c"], plain, ()),
        (Benchmarks(), benchmark_names(TAPE.symbols), plain, range(5)),
        (Wandering(), ["own"], plain, ()),
    ]
    whole = [replay(TAPE, *case[:3], alone=case[3]) for case in cases]
    monkeypatch.setattr(replaying, "MOST_BARS", block)
    for case, wanted in zip(cases, whole, strict=True):
        found = replay(TAPE, *case[:3], alone=case[3])
        for one, other in zip(found, wanted, strict=True):
            numbers = one.values() if isinstance(one, dict) else [one]
            others = other.values() if isinstance(other, dict) else [other]
            for number, same in zip(numbers, others, strict=True):
                assert not isinstance(number, Tensor) or torch.equal(number, same)
        assert torch.equal(found.alone.weights, wanted.alone.weights)


def test_threads_share_the_portfolios_and_change_no_bit(threads):
    tape = make_tape(random_bars(300, 8, seed=3), TapeConfig(features=SHORT_FEATURES))
    rules, ends = EnvConfig(), []
    for number in (1, 3):
        threads(number)
        ends.append(replay(tape, Benchmarks(), benchmark_names(tape.symbols), rules).wealth)
    assert torch.equal(*ends)


def test_who_can_say_ahead_is_compiled_and_a_class_that_decides_otherwise_is_asked():
    class Bold(FlatPolicy):
        def act(self, tape, observation):
            return -super().act(tape, observation)

    class Late(Schedule):
        def decide(self, tape, seen, memory):
            return torch.zeros_like(self.weights[0]), memory

    rules = EnvConfig(action="logits", episode=replaying.WHOLE_TAPE)
    plain = wild_policy(TAPE, rules, 2)
    bold = Bold(plain.spec)
    bold.load_state_dict(plain.state_dict())
    deeper = wild_policy(TAPE, rules, 2)
    deeper.actor = nn.Sequential(deeper.actor, nn.Tanh())
    for who, kind in ((plain, Compiled), (bold, BarByBar), (deeper, BarByBar)):
        seats = replaying._seats(TAPE, who, 1, rules)
        (runner,) = make_runners(TAPE, seats, rules, fused=True)
        assert type(runner) is kind
        assert_same_history(*both(TAPE, who, ["agent"], rules), 1e-6)
    flipped, straight = (replay(TAPE, who, ["agent"], rules).wealth for who in (bold, plain))
    assert not torch.equal(flipped, straight)
    late = Late(weights=schedule(TAPE, 1, 0).weights)
    assert replay(TAPE, late, ["late"], EnvConfig()).turnover.abs().max() == 0


def test_rules_that_no_kernel_knows_are_stepped_by_the_reference_and_named(caplog):
    rules = EnvConfig(columns=("strangers:STEPS_LEFT",))
    who = schedule(TAPE, 2, 0)
    with caplog.at_level(logging.INFO):
        found = replay(TAPE, who, ["a", "b"], rules)
    assert any("strangers:STEPS_LEFT" in message for message in caplog.messages)
    assert_same_history(found, replay(TAPE, who, ["a", "b"], replace(rules, columns=())), 1e-12)


def test_books_are_kept_in_float64_whatever_the_market_is():
    bars = random_bars(120, 5, seed=1, holes=True)
    exact = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    rounded = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    weights = schedule(exact, 1, 1).weights
    coarse = replay(rounded, Schedule(weights=weights.float()), ["a"], EnvConfig())
    cast = rounded.to("cpu", torch.float64)
    fine = replay(cast, Schedule(weights=weights.float().double()), ["a"], EnvConfig())
    assert coarse.wealth.dtype == torch.float64 and coarse.weights.dtype == torch.float32
    torch.testing.assert_close(coarse.wealth, fine.wealth, rtol=1e-12, atol=0)


MEMORY = """
import re, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from worlds import SHORT_FEATURES, random_bars
from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.market.tape import TapeConfig, make_tape

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

tape = make_tape(random_bars(6000, 60), TapeConfig(features=SHORT_FEATURES))
replay_benchmarks(tape.between(slice(0, 200)))
before = peak()
history = replay_benchmarks(tape)
print(peak() - before)
print(history.weights.numel() / 2 * 62 * 8 / 2**20)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux tells it")
def test_a_replay_holds_no_table_of_every_row_bar_and_asset(request):
    code = MEMORY.format(tests=str(request.config.rootpath / "tests"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, table = map(float, done.stdout.split())
    assert grown < 0.8 * table
