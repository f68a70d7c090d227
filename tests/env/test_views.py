"""Agents who see another market than the tape, of other assets or volatility, and learn from it."""

import copy
from dataclasses import replace

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from planted import RULES as PLANTED
from planted import planted_tape
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

import fastsim
from fastsim.adapters.gym_env import PortfolioGymEnv
from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import take
from fastsim.env.observe import View, features_at
from fastsim.env.players import Noise
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.experiment.replays import play
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.tape import build_forecast_tape
from fastsim.learn.league import LeagueConfig, LeagueEnv, train_league
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import make_batch, ppo_losses
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.snapshot import Snapshot
from fastsim.learn.trainer import Trainer
from fastsim.market.block import Block
from fastsim.market.tape import KnownTables, MarketTape, TapeConfig, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec

ASSETS, HORIZON = 4, 8
CONFIG = TapeConfig(features=SHORT_FEATURES)
BARS = random_bars(80, ASSETS, seed=5, holes=True, adjusted=True)
TAPE = make_tape(BARS, CONFIG, dtype=torch.float64)
MARKET = make_tape(BARS, CONFIG)
SUBSETS = RandomizeConfig(assets=(1, 3))
BOTH = RandomizeConfig(assets=(1, 3), volatility=(0.5, 2.0))
EPISODE = EpisodeConfig(horizon=HORIZON)
PPO = PPOConfig(minibatches=2, epochs=2)
COLLECT = CollectConfig(num_envs=16, rollout_steps=24)


def scaled(bars, factor):
    """The same bars with every log return times `factor`, and the same volume."""
    prices = {
        name: getattr(bars, name) ** factor
        for name in ("open", "high", "low", "close", "adj_close")
        if getattr(bars, name) is not None
    }
    return replace(bars, **prices)


def make(randomize, tape=TAPE, rows=32, **settings):
    return PortfolioEnv(
        tape, rows, EnvConfig(randomize=randomize, episode=EPISODE, **settings), seed=1
    )


def point(factor):
    return RandomizeConfig(volatility=(factor, factor))


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("observation", ["flat", "window"])
def test_what_is_seen_is_what_bars_of_that_volatility_show(factor, observation):
    rules = {"observation": observation, "window_length": 6}
    drawn = make(point(factor), **rules)
    tape = make_tape(scaled(BARS, factor), CONFIG, dtype=torch.float64)
    whole = make(RandomizeConfig(), tape=tape, **rules)
    seen, expected = drawn.columns(drawn.reset(0)), whole.columns(whole.reset(0))
    torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-7)
    plain = make(RandomizeConfig(), **rules)
    assert (seen - plain.columns(plain.reset(0))).abs().max() > 0.05


def test_only_the_log_of_volatility_rises():
    rising = TAPE.rising
    assert rising == ("log_volatility_4",)
    louder = make_tape(scaled(BARS, 2.0), CONFIG, dtype=torch.float64)
    change = (louder.known.features - TAPE.known.features).abs().amax((0, 1))
    changed = {
        name for name, d in zip(TAPE.feature_names, change.tolist(), strict=True) if d > 0.01
    }
    assert changed == set(rising)


def test_an_episode_at_twice_the_volatility_is_one_on_bars_of_twice_the_log_returns():
    bars = random_bars(80, ASSETS, seed=5, volume=False)
    drawn = make(point(2.0), tape=make_tape(bars, CONFIG, dtype=torch.float64))
    louder = make_tape(scaled(bars, 2.0), CONFIG, dtype=torch.float64)
    whole = make(RandomizeConfig(), tape=louder)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2 * HORIZON):
        action = torch.rand(32, ASSETS, generator=generator, dtype=torch.float64)
        one, other = drawn.step(action), whole.step(action)
        torch.testing.assert_close(one.outcome.wealth, other.outcome.wealth, rtol=1e-9, atol=0)
        seen, expected = drawn.columns(one.observation), whole.columns(other.observation)
        torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-7)


def test_forecasts_in_units_of_volatility_stay_as_they_are(tmp_path):
    quiet = make_tape(random_bars(80, ASSETS, seed=5), CONFIG)
    louder = make_tape(scaled(random_bars(80, ASSETS, seed=5), 2.0), CONFIG)
    one, other = (
        build_forecast_tape(
            tape, trailing_random_walk(20), tmp_path, horizons=(1, 5), context_length=30
        ).features(tape)
        for tape in (quiet, louder)
    )
    assert quiet.with_features(one).rising == quiet.rising
    for name, values in one.items():
        torch.testing.assert_close(values, other[name], rtol=1e-3, atol=1e-4, msg=name)
    assert one["scaled_forecast_dispersion_5"].abs().max() > 0.5


def test_features_at_the_limit_stay_within_it():
    view = View(torch.empty(1, 0, dtype=torch.int64), torch.tensor([100.0]))
    bar = torch.tensor([40])
    column = TAPE.feature_names.index("log_volatility_4")
    loud = replace(TAPE, known=TAPE.known._replace(features=TAPE.known.features + 9.0))
    before = loud.known.features[bar].clone()
    seen = features_at(loud, bar, view)
    assert seen.max() == 10.0 and (seen[..., column] == 10.0).any()
    assert torch.equal(loud.known.features[bar], before)


def make_policy(tape, env, seed=0):
    spec = make_spec(tape, env.config, PolicyConfig(hidden=8))
    assert spec.pooled
    return new_policy(spec, tape, seed=seed).double()


def test_which_number_an_asset_has_on_the_tape_is_nothing_to_a_policy():
    order = torch.tensor([2, 0, 3, 1])  # asset `order[i]` becomes asset i
    shuffled = make_tape(BARS.take(slice(None), order.tolist()), CONFIG, dtype=torch.float64)
    env = make(BOTH)
    policy, other = make_policy(TAPE, env), make_policy(shuffled, env)
    seen = env.reset(0)
    inverse = order.argsort()
    slots = torch.where(seen.view.slots >= 0, inverse[seen.view.slots.clamp_min(0)], -1)
    moved = seen._replace(view=seen.view._replace(slots=slots))
    torch.testing.assert_close(policy.act(TAPE, seen), other.act(shuffled, moved))
    assert not torch.allclose(policy.act(TAPE, seen), policy.act(TAPE, moved))


def test_pooled_features_mean_the_same_in_every_slot():
    env = make(SUBSETS)
    policy = make_policy(TAPE, env)
    view = View(torch.tensor([[0, 3, 2, 1], [3, 2, 1, 0]]), torch.ones(2).double())
    rows = features_at(TAPE, torch.tensor([40, 40]), view)
    scaled_rows = policy.standardized(rows).view(2, ASSETS, -1)
    for asset in range(ASSETS):
        here, there = (slots.tolist().index(asset) for slots in view.slots)
        assert torch.equal(scaled_rows[0, here], scaled_rows[1, there])
    table = policy.standardize(TAPE)
    every = table.rows.view(-1, len(TAPE.feature_names))
    clipped = (every.abs() == 5.0).any(0)
    torch.testing.assert_close(every.mean(0)[~clipped], torch.zeros((~clipped).sum()).double())


def trainer_of(randomize, tape=MARKET, **settings):
    rules = EnvConfig(action="logits", randomize=randomize, episode=EPISODE, **settings)
    return Trainer(tape, rules, PPO, PolicyConfig(hidden=8), COLLECT, iterations=6)


@pytest.mark.long
def test_moments_are_pooled_where_any_asset_may_stand_in_a_slot_and_only_there():
    features = len(MARKET.feature_names)
    for randomize, count in ((BOTH, features), (point(2.0), ASSETS * features)):
        assert len(trainer_of(randomize).policy.market_moments.mean) == count


@pytest.mark.long
def test_every_slot_in_its_place_is_the_tape_as_it_is():
    trainer = trainer_of(SUBSETS)
    seen = take(trainer.algorithm.rollout.seen(-1), torch.arange(4))
    slots = torch.arange(ASSETS).expand(4, -1)
    identity = seen._replace(view=View(slots, torch.ones(4)))
    plain = seen._replace(view=None)
    policy = trainer.policy
    torch.testing.assert_close(policy.act(MARKET, identity), policy.act(MARKET, plain))
    with torch.no_grad():
        shared = policy.look_up(trainer.algorithm.table, seen.bar)
        alone = policy.look_up(trainer.algorithm.table, seen.bar, identity.view)
    torch.testing.assert_close(shared, alone)


@pytest.mark.parametrize("randomize", [SUBSETS, point(2.0), BOTH])
def test_samples_are_learned_from_as_they_were_seen(randomize):
    trainer = trainer_of(randomize)
    for _ in range(2):
        before = copy.deepcopy(trainer.policy)
        trainer.iterate()
        rollout = trainer.algorithm.rollout
        assert len(rollout.view.volatility.unique()) > (randomize == BOTH)
        for step in (0, 7, 23):
            seen = rollout.seen(step)
            with torch.no_grad():
                market = before.look_up(trainer.algorithm.table, seen.bar, seen.view)
                output = before(market, seen.portfolio)
            torch.testing.assert_close(output.value, rollout.value[step])
            torch.testing.assert_close(output.mean, before.act(MARKET, seen))
        with torch.no_grad():
            batch = make_batch(rollout, rollout.reward, PPO)
            losses = ppo_losses(before, trainer.algorithm.table, batch, PPO)
        assert abs(float(losses.kl)) < 1e-5
    assert trainer.figures()["policy/kl"] > 0


def test_what_a_rollout_holds_is_what_the_environment_showed():
    trainer, shown = trainer_of(BOTH), []
    step = trainer.env.step

    def spy(action, into=None):
        transition = step(action, into)
        shown.append(copy.deepcopy(transition))
        return transition

    trainer.env.step = spy
    trainer.iterate()
    assert sum(bool(transition.restarted.any()) for transition in shown) > 1
    for number, transition in enumerate(shown):
        assert_same_bits(trainer.algorithm.rollout.seen(number + 1), transition.observation)


def test_a_run_goes_on_from_a_checkpoint(tmp_path):
    whole, resumed = trainer_of(BOTH), trainer_of(BOTH)
    whole.iterate()
    whole.save(tmp_path / "latest.pt")
    whole.iterate()
    resumed.load(tmp_path / "latest.pt")
    resumed.iterate()
    pairs = zip(
        whole.policy.state_dict().values(), resumed.policy.state_dict().values(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.long
def test_a_league_plays_in_drawn_markets():
    rules = EnvConfig(action="logits", randomize=BOTH, episode=EPISODE, players=3)
    league = LeagueEnv(PortfolioEnv(MARKET, 48, rules), [Noise()], LeagueConfig(snapshot_every=1))
    trainer = Trainer(MARKET, league, PPO, PolicyConfig(hidden=8), COLLECT, iterations=3)
    train_league(trainer, league, 3)
    seen = league.reset(0)
    snapshot = Seat(Snapshot(trainer.policy), MARKET, rules)
    assert seen.view.slots.shape == (16, ASSETS)
    torch.testing.assert_close(snapshot(seen), trainer.policy.act(MARKET, seen))


def test_a_backtest_of_a_policy_trained_on_subsets_is_of_every_asset_in_its_own_slot():
    trainer = trainer_of(BOTH)
    trainer.iterate()
    rules = trainer.env.config
    history = play(trainer.policy, MARKET, rules)
    plain = play(trainer.policy, MARKET, replace(rules, randomize=RandomizeConfig()))
    assert_same_bits(history.wealth, plain.wealth)
    assert (history.weights[1:, 0, :ASSETS].amax(0) > 0).all()


def side_by_side(*tapes):
    """One market of the assets of several."""
    known = KnownTables(
        *(torch.cat(tables, 1) for tables in zip(*(t.known for t in tapes), strict=True))
    )
    following = {
        name: torch.cat(tables, 1) if tables[0].dim() == 2 else torch.stack(tables).mean(0)
        for name in tapes[0].next
        for tables in [[tape.next[name] for tape in tapes]]
    }
    symbols = tuple(f"X{number}" for number in range(len(tapes)))
    return replace(tapes[0], symbols=symbols, known=known, next=Block.of(following))


def test_ppo_learns_from_one_asset_or_two_in_any_slot_what_there_is_to_earn_from_each():
    tapes, best = zip(*(planted_tape(revealing=True, seed=seed) for seed in (0, 1)), strict=True)
    tape: MarketTape = side_by_side(*tapes)
    best_growth = sum(best) / 2 / (tape.last - tape.first)
    rules = replace(PLANTED, randomize=RandomizeConfig(assets=(1, 2)))
    ppo = PPOConfig(discount=0.9, learning_rate=3e-3)
    policy, collect = PolicyConfig(initial_std=1.0), CollectConfig(num_envs=64, rollout_steps=16)
    trainer = Trainer(tape, rules, ppo, policy, collect, iterations=30, seed=0)
    for _ in range(30):
        trainer.advance()
    one = replace(
        rules, randomize=RandomizeConfig(assets=(1, 1)), episode=EpisodeConfig(horizon=64)
    )
    env, growth = PortfolioEnv(tape, 256, one), 0.0
    seen = env.reset(1)
    for _ in range(63):
        transition = env.step(trainer.policy.act(tape, seen))
        seen = transition.observation
        outcome = transition.outcome
        growth += float((outcome.wealth / outcome.wealth_before).log().mean()) / 63
    assert growth >= 0.8 * best_growth
    wealth = play(trainer.policy, tape, rules).wealth[:, 0]
    both = float((wealth[-1] / wealth[0]).log()) / (tape.last - tape.first)
    assert both >= best_growth  # two assets to choose from


@pytest.mark.parametrize("extra", [{}, {"observation": "window", "volatility": (0.5, 2.0)}])
def test_gymnasium_finds_nothing_to_complain_about(extra):
    observation = extra.get("observation", "flat")
    randomize = {"assets": (1, 3), **{k: v for k, v in extra.items() if k != "observation"}}
    env = gymnasium.make(
        fastsim.ENV_ID, market="tech4", observation=observation, randomize=randomize
    )
    check_env(env.unwrapped, skip_render_check=True)
    assert "weight.slot0" in env.unwrapped.observation_names


def test_stable_baselines3_is_given_the_same_columns():
    env = SB3VecEnv(8, MARKET, randomize={"assets": (1, 3)}, episode={"horizon": HORIZON})
    env.seed(0)
    seen = env.reset()
    for _ in range(HORIZON + 1):
        env.step_async(env.action_space.sample()[None].repeat(8, 0))
        seen, _, _, _ = env.step_wait()
    names = env.observation_names
    assert seen.shape == (8, len(names))
    slots = env.env.state.slots
    assert (seen[:, names.index("slot3.log_volatility_4")] == 0).all()  # never more than three
    shown = slots[:, 2] >= 0
    assert shown.any() and not shown.all()


def test_a_bar_alone_does_not_tell_which_assets_are_shown():
    with pytest.raises(ConfigError, match='use "flat" or "window"'):
        PortfolioGymEnv("tech4", observation="index", randomize={"assets": (1, 3)})
