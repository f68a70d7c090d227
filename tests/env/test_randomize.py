"""Costs, impact and volatility drawn for every episode, and nothing else changed."""

import pytest
import torch
from worlds import FREE, SHORT_FEATURES, assert_same_bits, leaves, random_bars

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.config import from_mapping, to_mapping
from fastsim.env.config import EnvConfig
from fastsim.env.core import meet
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig, undisturbed
from fastsim.env.randomize import RandomizeConfig, draw
from fastsim.errors import ConfigError
from fastsim.market.conditions import conditions_at
from fastsim.market.costs import CostConfig, total
from fastsim.market.tape import TapeConfig, make_tape

TAPE = make_tape(
    random_bars(60, 3, seed=3), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64
)
COSTS = RandomizeConfig(
    fee_bps=(0.0, 20.0),
    half_spread_bps=(1.0, 10.0),
    impact=(0.5, 2.0),
    participation=(0.01, 0.1),
    borrow_bps_per_year=(10.0, 500.0),
)
UNITS = {
    "fee": ("fee_bps", 1e-4),
    "half_spread": ("half_spread_bps", 1e-4),
    "impact": ("impact", 1.0),
    "participation": ("participation", 1.0),
    "borrow": ("borrow_bps_per_year", 1e-4),
}


def make(randomize, rows=64, horizon=8, **settings):
    options = {"backend": settings.pop("backend", "torch"), "seed": settings.pop("seed", 0)}
    first_env = settings.pop("first_env", 0)
    config = EnvConfig(randomize=randomize, episode=EpisodeConfig(horizon=horizon), **settings)
    return PortfolioEnv(TAPE, rows, config, first_env=first_env, **options)


def script(steps=12, rows=64, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, rows, 3, generator=generator, dtype=torch.float64) / 3


def play(env, actions):
    return [env.step(action) for action in actions]


def frictions_of(env):
    return meet(env.params, env.state)[1]


def test_draws_stay_in_their_ranges_and_reach_near_both_ends():
    friction = frictions_of(make(COSTS, rows=2000))
    for column, (name, unit) in UNITS.items():
        low, high = getattr(COSTS, name)
        share = (getattr(friction, column) / unit - low) / (high - low)
        assert 0 <= share.min() < 0.01, name
        assert 0.99 < share.max() <= 1, name
        assert share.mean() == pytest.approx(0.5, abs=0.03)


def test_logarithms_are_uniform_when_asked():
    config = RandomizeConfig(impact=(0.01, 1.0), spacing="log")
    drawn = frictions_of(make(config, rows=4000)).impact
    assert 0.01 <= drawn.min() < drawn.max() <= 1.0
    assert (drawn < 0.1).double().mean() == pytest.approx(0.5, abs=0.03)


def test_every_environment_and_episode_draws_anew_and_each_cost_apart():
    env = make(COSTS)
    first = torch.stack(leaves(frictions_of(env)))
    env.reset()
    second = torch.stack(leaves(frictions_of(env)))
    assert len(first[0].unique()) == len(first[0])
    assert (first != second).all()
    assert torch.corrcoef(torch.cat([first, second])).fill_diagonal_(0).abs().max() < 0.5


def test_what_was_drawn_lasts_its_episode_and_changes_with_the_next():
    env = make(COSTS, horizon=4)
    env.reset(0)
    drawn = []
    for action in script(5):
        drawn.append(frictions_of(env).fee)
        env.step(action)
    assert all(torch.equal(fee, drawn[0]) for fee in drawn)
    assert (frictions_of(env).fee != drawn[0]).all()


def test_draws_repeat_under_a_seed_and_differ_under_another():
    everything = RandomizeConfig(fee_bps=(0, 20), volatility=(0.5, 2.0), price_impact=(0.5, 2.0))
    rules = {"impact": ImpactConfig(transient=0.5, permanent=0.2)}
    one, same, other = (play(make(everything, seed=s, **rules), script()) for s in (5, 5, 6))
    assert_same_bits(one, same)
    assert not torch.equal(one[0].reward, other[0].reward)


def test_an_environment_alone_equals_its_row_in_the_batch():
    both = RandomizeConfig(fee_bps=(0, 20), volatility=(0.5, 2.0))
    batch = play(make(both), script())
    alone = play(make(both, rows=1, first_env=7), script()[:, 7:8])
    for many, one in zip(batch, alone, strict=True):
        torch.testing.assert_close(one.reward, many.reward[7:8], rtol=1e-12, atol=0)


def test_the_drawn_costs_are_paid():
    env = make(RandomizeConfig(fee_bps=(0.0, 100.0)), costs=FREE)
    fee = frictions_of(env).fee
    outcome = env.step(script()[0]).outcome
    torch.testing.assert_close(total(outcome.cost), fee * outcome.trade.abs().sum(-1))


def test_ranges_of_one_point_equal_the_costs_given_outright():
    costs = CostConfig(fee_bps=7.0, half_spread_bps=3.0, impact=0.5)
    point = RandomizeConfig(fee_bps=(7.0, 7.0), half_spread_bps=(3.0, 3.0), impact=(0.5, 0.5))
    for one, other in zip(
        play(make(point), script()),
        play(make(RandomizeConfig(), costs=costs), script()),
        strict=True,
    ):
        torch.testing.assert_close(one.outcome.wealth, other.outcome.wealth, rtol=1e-12, atol=0)


def test_nothing_drawn_is_the_market_and_the_costs_as_they_were_bit_for_bit():
    env = make(RandomizeConfig(), impact=ImpactConfig(transient=1.0))
    world, state = env.params, env.state
    market, friction = meet(world, state)
    assert_same_bits(market, conditions_at(TAPE, state.episode.bar))
    assert all(one is other for one, other in zip(friction, world.friction, strict=True))
    known, bar = TAPE.known, state.episode.bar
    still = undisturbed(world.config.impact, known.impact_sigma[bar], known.dollar_volume[bar])
    assert_same_bits(state.displacement, still)


def test_a_factor_of_one_changes_nothing_beyond_rounding():
    one = RandomizeConfig(volatility=(1.0, 1.0), price_impact=(1.0, 1.0))
    impact = ImpactConfig(transient=0.5, permanent=0.2)
    runs = (play(make(config, impact=impact), script()) for config in (one, RandomizeConfig()))
    for scaled, plain in zip(*runs, strict=True):
        torch.testing.assert_close(scaled.outcome.wealth, plain.outcome.wealth, rtol=1e-12, atol=0)


def test_log_returns_are_those_of_the_tape_times_the_factor():
    config = RandomizeConfig(volatility=(0.25, 4.0), spacing="log")
    env = make(config, costs=FREE)
    factor = draw(config, "volatility", env.state.key, env.state.episode.number)
    bar = env.state.episode.bar
    all_in = torch.eye(3, dtype=torch.float64)[0].expand(64, 3)
    outcome = env.step(all_in).outcome
    grown = (outcome.wealth / outcome.wealth_at_fill).log()
    torch.testing.assert_close(grown, factor * TAPE.next["r_after"][bar, 0].log1p())
    gap = meet(env.params, env.state)[0].r_before.log1p()
    torch.testing.assert_close(gap, factor[:, None] * TAPE.next["r_before"][bar + 1].log1p())


def test_the_market_that_rewards_are_measured_against_scales_too():
    config = RandomizeConfig(volatility=(2.0, 2.0))
    env = make(config)
    market, _ = meet(env.params, env.state)
    total = (1.0 + market.r_before) * (1.0 + market.r_after) - 1.0
    torch.testing.assert_close(market.market_return, total.mean(-1))
    plain, _ = meet(make(RandomizeConfig()).params, env.state)
    torch.testing.assert_close(market.impact_scale, 2.0 * plain.impact_scale)


@pytest.mark.parametrize("name", ["price_impact", "volatility"])
def test_displacements_scale_with_impact_and_volatility(name):
    impact = ImpactConfig(transient=1.0)
    config = RandomizeConfig(**{name: (0.5, 2.0)})
    env, plain = make(config, impact=impact), make(RandomizeConfig(), impact=impact)
    factor = draw(config, name, env.state.key, env.state.episode.number)[:, None]
    ratio = env.state.displacement.rate / plain.state.displacement.rate
    torch.testing.assert_close(ratio, factor.expand_as(ratio))


def test_players_of_a_market_meet_what_was_drawn_for_it():
    everything = RandomizeConfig(fee_bps=(0, 20), volatility=(0.5, 2.0), price_impact=(0.5, 2.0))
    env = make(everything, players=4, impact=ImpactConfig(transient=0.5))
    market, friction = meet(env.params, env.state)
    for values in (friction.fee, market.r_after[:, 0]):
        assert (values.view(-1, 4) == values.view(-1, 4)[:, :1]).all()
    assert len(friction.fee.unique()) == 16


def test_a_backtest_is_of_the_market_as_it_is():
    drawn = EnvConfig(randomize=RandomizeConfig(fee_bps=(50, 100), volatility=(2.0, 3.0)))
    plain = replay_benchmarks(TAPE)
    assert_same_bits(replay_benchmarks(TAPE, drawn).wealth, plain.wealth)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"fee_bps": (1.0,)}, "fee_bps"),
        ({"fee_bps": (2.0, 1.0)}, "fee_bps"),
        ({"fee_bps": (0.0, 1e9)}, "fee_bps"),
        ({"participation": (0.0, 1.0)}, "participation"),
        ({"volatility": (0.0, 1.0)}, "volatility"),
        ({"price_impact": (-1.0, 1.0)}, "price_impact"),
        ({"volatility": (1.0, float("nan"))}, "volatility"),
        ({"impact": (0.0, 1.0), "spacing": "log"}, "impact"),
        ({"spacing": "cubic"}, "spacing"),
    ],
)
def test_ranges_that_make_no_sense_are_errors(settings, named):
    with pytest.raises(ConfigError, match=named):
        RandomizeConfig(**settings)


def test_ranges_survive_a_configuration_file():
    config = EnvConfig(randomize=COSTS)
    assert from_mapping(EnvConfig, to_mapping(config)) == config
