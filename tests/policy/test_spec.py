"""What a policy was made for, and that every market is held against it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.replay import replay
from fastsim.config import from_mapping, to_mapping
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.learn.league import play_match
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.snapshot import Snapshot
from fastsim.learn.trainer import Trainer
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, PolicySpec, make_spec
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

BARS = random_bars(80, 3, seed=1)
CONFIG = TapeConfig(features=SHORT_FEATURES)
TAPE = make_tape(BARS, CONFIG)
RULES = EnvConfig(action="signed", max_gross=1.5, episode=EpisodeConfig(horizon=10))
SIZE = PolicyConfig(hidden=8)
SPEC = make_spec(TAPE, RULES, SIZE, forecaster="fastsim-prior")


def with_gaps(hours):
    start = TAPE.timestamps[0]
    steps = np.arange(len(TAPE)) * np.timedelta64(round(hours * 60), "m")
    return replace(TAPE, timestamps=start + steps)


def test_a_spec_says_what_a_market_and_its_rules_are():
    assert SPEC.symbols == TAPE.symbols and SPEC.features == TAPE.feature_names
    env = PortfolioEnv(TAPE, 1, replace(RULES, observation="index"))
    assert SPEC.portfolio == env.observation_names
    assert (SPEC.action, SPEC.max_gross, SPEC.action_width) == ("signed", 1.5, 3)
    assert make_spec(TAPE, EnvConfig(action="logits"), SIZE).action_width == 4
    assert (SPEC.fill, SPEC.bar_seconds, SPEC.bars_per_year) == (TAPE.fill, 86400.0, 252.0)
    assert SPEC.costs == asdict(RULES.costs) and SPEC.costs["half_spread_bps"] == 2.0
    assert SPEC.forecaster == "fastsim-prior" and not SPEC.pooled
    assert make_spec(TAPE, replace(RULES, randomize=DRAWN), SIZE).pooled


DRAWN = RandomizeConfig(assets=(1, 2))


def test_a_spec_goes_through_json_and_back():
    assert from_mapping(PolicySpec, json.loads(json.dumps(to_mapping(SPEC)))) == SPEC
    worlds = replace(SPEC, bar_seconds=None, bars_per_year=None)
    assert from_mapping(PolicySpec, json.loads(json.dumps(to_mapping(worlds)))) == worlds


def renamed(*symbols):
    return replace(TAPE, symbols=symbols)


MISFITS = {
    "assets": (renamed("A", "B", "C"), {}, "the assets S0, S1, S2; this market has A, B, C:"),
    "order": (make_tape(BARS.take(slice(None), [1, 0, 2]), CONFIG), {}, "the assets S0, S1, S2;"),
    "fewer": (make_tape(BARS.take(slice(None), [0, 1]), CONFIG), {}, "this market has S0, S1:"),
    "features": (
        TAPE.with_features({"signal": torch.zeros(80, 3)}),
        {},
        "the features scaled.*volume.*; this market has scaled.*, signal:",
    ),
    "columns": (
        TAPE,
        {"impact": ImpactConfig(transient=1.0), "players": 2},
        r"portfolio columns \.\.\., log_growth \(6\); .* log_growth, displacement\.S0, .* \(9\):",
    ),
    "orders": (TAPE, {"orders": OrderConfig(unfilled="carry")}, "this market has .*order.S2"),
    "slots": (TAPE, {"randomize": DRAWN}, "this market has weight.slot0, "),
    "action": (TAPE, {"action": "logits", "max_gross": 1.0}, "action = 'signed'; .* 'logits':"),
    "leverage": (TAPE, {"max_gross": 1.0}, r"max_gross = 1\.5; this market has 1\.0:"),
    "fill": (replace(TAPE, fill="close"), {}, "fill = 'next_open'; this market has 'close':"),
    "hours": (with_gaps(1), {}, "bars of 1 day; this market has 1 hour:"),
    "minutes": (with_gaps(0.5), {}, "bars of 1 day; this market has 30 minutes:"),
    "weeks": (with_gaps(7 * 24), {}, "bars of 1 day; this market has 7 days:"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_market_of_another_kind_is_refused_in_one_line_that_names_the_difference(name):
    tape, changes, words = MISFITS[name]
    rules = replace(RULES, **changes)
    with pytest.raises(ConfigError, match=f"the policy was made for .*{words}") as caught:
        SPEC.check(tape, rules)
    assert "\n" not in str(caught.value)
    assert "train a policy for this one" in str(caught.value)


def test_whoever_lets_a_policy_play_is_told():
    policy = new_policy(SPEC, TAPE, seed=0)
    other = renamed("A", "B", "C")
    for who in (policy, Snapshot(policy)):
        with pytest.raises(ConfigError, match="the assets S0, S1, S2; this market has A, B, C"):
            replay(other, who, ["it"], RULES)
        with pytest.raises(ConfigError, match="the assets S0, S1, S2; this market has A, B, C"):
            play_match(other, [who, who], RULES)


def test_long_lists_are_told_from_where_they_part():
    many = tuple(f"asset{number}" for number in range(500))
    others = (*many[:320], "stranger", *many[321:])
    wide = replace(SPEC, symbols=many)
    tape = replace(TAPE, symbols=others)
    with pytest.raises(ConfigError) as caught:
        wide.check(tape, RULES)
    told = str(caught.value)
    assert "..., asset319, asset320, " in told and "..., asset319, stranger, " in told
    assert len(told) < 500


@pytest.mark.parametrize("changes", [
    {"costs": CostConfig(fee_bps=30.0)},
    {"initial_cash": 5.0},
    {"episode": EpisodeConfig(horizon=3)},
    {"players": 2},
    {"randomize": RandomizeConfig(volatility=(0.5, 2.0))},
])  # fmt: skip
def test_costs_cash_and_episodes_may_differ(changes):
    SPEC.check(TAPE, replace(RULES, **changes))


def test_other_years_of_the_same_market_are_the_same_market():
    SPEC.check(TAPE.between(slice(40, 60)), RULES)
    SPEC.check(make_tape(random_bars(200, 3, seed=9), CONFIG), RULES)
    months = np.arange("2000-01", "2006-09", dtype="datetime64[M]").astype("datetime64[ns]")
    monthly = make_spec(replace(TAPE, timestamps=months), RULES, SIZE)
    assert monthly.bars_per_year == 12.0
    short = TAPE.timestamps[0] + np.arange(len(TAPE)) * np.timedelta64(28, "D")
    monthly.check(replace(TAPE, timestamps=short), RULES)


def test_the_calendar_of_simulated_worlds_is_not_compared():
    worlds = make_worlds(Garch(assets=3), 4, 80, seed=1, config=CONFIG)
    assert worlds.worlds == 4
    spec = make_spec(worlds, RULES, SIZE)
    assert spec.bar_seconds is None and spec.bars_per_year is None
    hourly = replace(with_gaps(1), symbols=worlds.symbols, fill=worlds.fill)
    spec.check(hourly, RULES)
    make_spec(hourly, RULES, SIZE).check(worlds, RULES)


def test_a_policy_of_drawn_assets_acts_where_every_asset_has_its_own_slot():
    drawn = replace(RULES, randomize=DRAWN)
    spec = make_spec(TAPE, drawn, SIZE)
    assert spec.portfolio[:4] == ("weight.slot0", "weight.slot1", "weight.slot2", "weight.cash")
    for rules in (drawn, RULES, replace(RULES, randomize=RandomizeConfig(assets=(3, 3)))):
        spec.check(TAPE, rules)
    with pytest.raises(ConfigError, match="the assets"):
        spec.check(renamed("A", "B", "C"), RULES)


def test_a_policy_needs_no_tape_and_learns_its_moments_from_one():
    policy = FlatPolicy(SPEC)
    assert policy.market_moments.count == 0
    policy.fit_moments(TAPE)
    rows = TAPE.known.features[TAPE.first : TAPE.last + 1].flatten(1).double()
    torch.testing.assert_close(policy.market_moments.mean, rows.mean(0))
    torch.testing.assert_close(policy.market_moments.std, rows.std(0, unbiased=False))


def test_weights_come_from_the_seed_and_leave_other_random_numbers_alone():
    before = torch.get_rng_state()
    one, same, other = (new_policy(SPEC, TAPE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    assert not torch.equal(one.actor.weight, other.actor.weight)


def test_a_trainer_goes_on_in_the_market_it_began_in_alone(tmp_path):
    def trainer(tape=TAPE, **changes):
        collect = CollectConfig(num_envs=4, rollout_steps=4)
        return Trainer(tape, replace(RULES, **changes), PPOConfig(), SIZE, collect, iterations=2)

    trainer().save(tmp_path / "latest.pt")
    trainer().load(tmp_path / "latest.pt")
    with pytest.raises(ConfigError, match="fill = 'next_open'; this market has 'close'"):
        trainer(make_tape(BARS, replace(CONFIG, fill="close"))).load(tmp_path / "latest.pt")


def test_empty_lists_are_refused():
    with pytest.raises(ConfigError, match=r"PolicySpec\.symbols must not be empty"):
        replace(SPEC, symbols=())
