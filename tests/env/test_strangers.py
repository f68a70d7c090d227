"""What is added from outside has its right money on every backend, or is refused by its name."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch
from strangers import DUTY, HALF, LEVY_TABLE, TAX, TaxedReward
from worlds import FREE, SHORT_FEATURES, random_bars

import fastsim  # registers the environments
from fastsim.adapters.build import build_env
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.files import save_history
from fastsim.backtest.summary import summarize
from fastsim.config import from_mapping
from fastsim.env.actions import ActionMode
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.info import figure_names
from fastsim.env.portfolio_columns import PortfolioColumn
from fastsim.env.reward import Reward
from fastsim.errors import ConfigError, DataError
from fastsim.market.block import Column
from fastsim.market.costs import RESERVED, Cost, CostConfig
from fastsim.market.tape import TapeConfig, make_tape

assert fastsim
ROWS, ASSETS, HORIZON = 3, 4, 9
BACKENDS = ("torch", "auto", "numba", "triton")
CHEAP = {name: getattr(FREE, name) for name in ("fee_bps", "half_spread_bps", "impact")}
CHEAP |= {"participation": FREE.participation}


@dataclass(frozen=True)
class Stranger:
    """Rules that name it, what a refusal says, and a step's money by hand."""

    rules: Mapping[str, Any]
    named: str
    check: Callable[..., None]
    tables: tuple[str, ...] = ()


def duty(env, before, action, step):
    bought = step.outcome.trade.clamp_min(0.0).sum(-1)
    near(step.outcome.cost["stamp_duty"], DUTY * bought)
    assert (step.outcome.cost["stamp_duty"] > 0).any()
    paid_for(step, action)


def levy(env, before, action, step):
    rate = torch.from_numpy(LEVY_TABLE.table(BARS))[before.episode.bar]
    near(step.outcome.cost["levy"], (rate * step.outcome.trade.abs()).sum(-1))
    assert (step.outcome.cost["levy"] > 0).all()
    paid_for(step, action)


def paid_for(step, action):
    """What the new cost takes, the account has not; and weights are exact after it."""
    outcome = step.outcome
    spent = sum(outcome.cost.values())
    near(outcome.wealth_traded, outcome.wealth_at_fill - spent)
    near(outcome.holdings, action * outcome.wealth_traded[:, None])
    near(outcome.total_cost, spent)


def calm(env, before, action, step):
    change = (step.outcome.turnover - before.memory.turnover).abs()
    near(step.reward, growth_of(step) - change)
    assert (change > 0).all()


def taxed(env, before, action, step):
    gain = step.outcome.wealth / step.outcome.wealth_before - 1.0
    near(step.reward, growth_of(step) - TAX * gain.clamp_min(0.0))


def half(env, before, action, step):
    near(step.outcome.holdings, HALF * action * step.outcome.wealth_traded[:, None])


def steps_left(env, before, action, step):
    state = env.state
    column = env.observation_names.index("steps_left")
    shown = env.columns(step.observation)[:, column]
    near(shown, (state.episode.end - state.episode.bar).double() / 100.0)
    assert (shown > 0).any()


def growth_of(step):
    return (step.outcome.wealth / step.outcome.wealth_before).log()


def near(found, wanted):
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-6)


BARS = random_bars(60, ASSETS, seed=1)
STRANGERS = {
    "cost": Stranger({"costs": {**CHEAP, "also": ("strangers:STAMP_DUTY",)}}, "stamp_duty", duty),
    "reward": Stranger({"reward": {"kind": "strangers:CALM"}}, "reward.kind", calm),
    "action mode": Stranger({"action": "strangers:HALF_INVESTED"}, "action", half),
    "column": Stranger({"columns": ("strangers:STEPS_LEFT",)}, "steps_left", steps_left),
    "table": Stranger(
        {"costs": {**CHEAP, "also": ("strangers:LEVY",)}},
        "table levy_rate",
        levy,
        ("strangers:LEVY_TABLE",),
    ),
    "setting": Stranger({"reward": TaxedReward(kind="strangers:TAXED")}, "reward.tax", taxed),
}


def make(stranger, backend):
    rules = dict(stranger.rules)
    reward = rules.pop("reward", {})
    tape = TapeConfig(features=SHORT_FEATURES, tables=stranger.tables)
    if isinstance(reward, TaxedReward):  # a class of its own is given in Python alone
        config = EnvConfig(reward=reward, episode=EpisodeConfig(horizon=HORIZON))
        return build_env(ROWS, BARS, tape=tape, config=config, backend=backend)
    rules |= {"reward": reward, "episode": {"horizon": HORIZON, "random_start": False}}
    return build_env(ROWS, BARS, tape=tape, backend=backend, **rules)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_a_stranger_adds_has_its_right_money_or_is_refused_by_name(kind, backend, caplog):
    stranger = STRANGERS[kind]
    if backend in ("numba", "triton"):
        with pytest.raises(
            ConfigError, match=f'backend "{backend}" does not cover .*{stranger.named}'
        ):
            make(stranger, backend)
        return
    with caplog.at_level(logging.INFO):
        env = make(stranger, backend)
    assert env.stepper.name == "torch"
    if backend == "auto":
        assert len(caplog.messages) == 1 and stranger.named in caplog.messages[0]
    generator = torch.Generator().manual_seed(0)
    env.reset(0)
    for _ in range(HORIZON - 1):
        before = env.state
        action = torch.rand(ROWS, ASSETS, generator=generator) / ASSETS
        stranger.check(env, before, action, env.step(action))


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_reward_may_remember_nothing(autoreset):
    rules = {"reward": {"kind": "strangers:NOTHING_TO_REMEMBER"}, "episode": {"horizon": 3}}
    tape = TapeConfig(features=SHORT_FEATURES)
    env = build_env(ROWS, BARS, tape=tape, autoreset=autoreset, **rules)
    plain = build_env(ROWS, BARS, tape=tape, autoreset=autoreset, episode={"horizon": 3})
    assert env.stepper.name == "torch" and plain.stepper.name == "numba"
    env.reset(0), plain.reset(0)
    for _ in range(8):
        action = torch.full((ROWS, ASSETS), 0.2)
        near(env.step(action).reward, plain.step(action).reward)


def test_a_replay_keeps_a_strangers_cost_beside_the_others(tmp_path):
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    costs = from_mapping(CostConfig, {**CHEAP, "also": ["strangers:STAMP_DUTY"]})
    history = replay_benchmarks(tape, EnvConfig(costs=costs))
    assert list(history.costs) == ["commission", "spread", "impact", "stamp_duty", "borrow"]
    near(history.costs["stamp_duty"][0, 0], torch.tensor(1e6 * DUTY / (1 + DUTY)))
    assert torch.equal(summarize(history).costs["stamp_duty"], history.costs["stamp_duty"].sum(0))
    save_history(history, tmp_path)
    assert "stamp_duty" in pl.read_parquet(tmp_path / "costs.parquet").columns


def test_every_adapter_tells_a_strangers_cost():
    rules = {"costs": {**CHEAP, "also": ["strangers:STAMP_DUTY"]}, "episode": {"horizon": 5}}
    rules |= {"tape": {"features": SHORT_FEATURES}}
    expected = pytest.approx(1e6 * DUTY / (1 + DUTY), rel=1e-4)
    equal = np.full(ASSETS, 1.0 / ASSETS, dtype=np.float32)
    many = gymnasium.make_vec("fastsim/Portfolio-v0", num_envs=2, market=BARS, **rules)
    many.reset(seed=0)
    assert many.step(np.stack([equal, equal]))[-1]["cost"].tolist() == [expected, expected]
    zoo = SharedMarketParallelEnv(2, market=BARS, impact={}, **rules)
    zoo.reset(seed=0)
    infos = zoo.step(dict.fromkeys(zoo.agents, equal))[-1]
    assert [info["cost"] for info in infos.values()] == [expected, expected]


@pytest.mark.parametrize("kind", ["cost", "table"])
def test_margin_calls_reckon_with_a_strangers_cost(kind):
    stranger = STRANGERS[kind]
    rules = {**stranger.rules, "orders": {"maintenance_margin": 0.52}, "action": "signed"}
    tape = TapeConfig(features=SHORT_FEATURES, tables=stranger.tables)
    env = build_env(ROWS, BARS, tape=tape, max_gross=1.9, episode={"horizon": 20}, **rules)
    env.reset(0)
    called = torch.zeros(ROWS, dtype=torch.bool)
    for side in 5 * (1.9, -1.9):
        outcome = env.step(torch.full((ROWS, ASSETS), side / ASSETS)).outcome
        sold = outcome.margin_call.trade.any(-1)
        called |= sold
        paid = sum(outcome.margin_call.cost.values())
        assert (paid[sold] >= 0).all() and not paid[~sold].any()
    assert called.any()


def test_gymnasium_names_a_strangers_records_and_tells_its_cost():
    env = gymnasium.make(
        "fastsim/Portfolio-v0",
        market=BARS,
        costs={**CHEAP, "also": ["strangers:STAMP_DUTY"]},
        reward={"kind": "strangers:CALM"},
        columns=["strangers:STEPS_LEFT"],
        tape={"features": SHORT_FEATURES},
        episode={"horizon": HORIZON},
    ).unwrapped
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.full(ASSETS, 1.0 / ASSETS, dtype=np.float32))
    assert info["cost"] == pytest.approx(1e6 * DUTY / (1 + DUTY), rel=1e-4)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"costs": {"also": ["strangers:NOT_THERE"]}}, r"CostConfig\.also .*has no 'NOT_THERE'"),
        ({"costs": {"also": ["strangers:CALM"]}}, r"CostConfig\.also .*is not a cost"),
        ({"costs": {"also": ["spread"]}}, "charges 'spread' twice"),
        ({"costs": {"also": ["test_strangers:BORROW"]}}, "a cost cannot be called 'borrow'"),
        ({"reward": {"kind": "nowhere.at.all:X"}}, r"RewardConfig\.kind .*cannot be imported"),
        ({"action": "logit"}, r"EnvConfig\.action .*no action mode is called 'logit'"),
        ({"columns": ["drawdown"]}, "shows 'drawdown' twice"),
        (
            {"columns": "strangers:STEPS_LEFT"},
            r"EnvConfig\.columns must be a list of values, got 's",
        ),
        ({"costs": {"also": "spread"}}, r"EnvConfig\.costs\.also must be a list of values, got 's"),
        ({"columns": ["strangers:NOTHING"]}, r"EnvConfig\.columns .*has no 'NOTHING'"),
        (
            {"tape": {"features": SHORT_FEATURES, "tables": ["price"]}},
            "TapeConfig.tables names 'price'",
        ),
    ],
)
def test_what_cannot_be_found_is_named_in_one_line(rules, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_env(
            1, BARS, **{"tape": {"features": SHORT_FEATURES}, "episode": {"horizon": 5}} | rules
        )
    assert "\n" not in str(caught.value)


def table_of(values):
    return Column(name="odd", volatility="stays", closing="next", table=values)


FAILING = table_of(lambda bars: bars.no_such_field)
SHORT = table_of(lambda bars: bars.close[1:])
HOLED = table_of(lambda bars: np.where(bars.close > bars.close[3, 0], np.nan, 1.0))
WORDS = table_of(lambda bars: np.full(bars.close.shape, "dear"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FAILING", "the table 'test_strangers:FAILING' fails: AttributeError"),
        ("SHORT", r"must be finite numbers .* \(60, 4\), got \(59, 4\) and 0"),
        ("HOLED", r"got \(60, 4\) and [1-9]\d* that are not finite"),
        ("WORDS", "fails: ValueError: could not convert"),
    ],
)
def test_a_table_that_cannot_be_is_named_in_one_line(name, message):
    config = TapeConfig(features=SHORT_FEATURES, tables=(f"test_strangers:{name}",))
    with pytest.raises(DataError, match=message) as caught:
        make_tape(BARS, config)
    assert "\n" not in str(caught.value)


def test_no_cost_takes_the_name_of_another_figure():
    assert set(figure_names(())) <= set(RESERVED)


BORROW = Cost(name="borrow", charge=lambda orders: orders.notional)
WIDE = Cost(name="wide", charge=lambda orders: orders.size)
FLAT = ActionMode(name="flat", weights=lambda action, max_gross, masked: action[:, 0])
COLUMN = Reward(
    name="upright", measure=lambda growth, memory, config: (growth.log_growth[:, None], memory)
)
NARROW = PortfolioColumn(name="narrow", of="asset", values=lambda now: now.wealth)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"costs": {"also": ["test_strangers:WIDE"]}}, r"cost 'wide' .* \(2,\), got \(2, 4\)"),
        ({"action": "test_strangers:FLAT"}, r"action mode 'flat' .* \(2, 4\), got \(2,\)"),
        (
            {"reward": {"kind": "test_strangers:COLUMN"}},
            r"reward 'upright' .* \(2,\), got \(2, 1\)",
        ),
        ({"columns": ["test_strangers:NARROW"]}, r"column 'narrow' .* \(2, 4\), got \(2,\)"),
    ],
)
def test_a_function_that_returns_another_shape_is_named(rules, message):
    tape = TapeConfig(features=SHORT_FEATURES)
    env = build_env(2, BARS, episode={"horizon": 5}, tape=tape, **rules)
    with pytest.raises(ConfigError, match=message):
        env.reset(0), env.step(torch.zeros(2, ASSETS))
