"""Self-play: who learns, who does not, and that learning among others is worth something."""

from dataclasses import replace

import pytest
import torch
from planted import RULES as PLANTED
from planted import planted_tape

from fastsim.env.environment import PortfolioEnv
from fastsim.env.players import Momentum, Noise
from fastsim.errors import ConfigError
from fastsim.learn.league import LeagueConfig, LeagueEnv, Snapshot, play_match, train_league
from fastsim.learn.policy import PolicyConfig
from fastsim.learn.ppo import PPOConfig
from fastsim.learn.trainer import Trainer

PLAYERS, MARKETS = 3, 8
TAPE, BEST = planted_tape(revealing=True)
RULES = replace(PLANTED, players=PLAYERS)
POLICY = PolicyConfig(hidden=16, initial_std=1.0)


def make_league(markets=MARKETS, steps=16, iterations=4, **settings):
    env = PortfolioEnv(TAPE, markets * PLAYERS, RULES)
    config = LeagueConfig(snapshot_every=2, keep=2, **settings)
    league = LeagueEnv(env, [Noise(), Momentum()], config)
    ppo = PPOConfig(num_envs=markets, rollout_steps=steps, discount=0.9, learning_rate=3e-3)
    trainer = Trainer(TAPE, league, ppo, POLICY, iterations=iterations)
    return league, trainer


def weights_of(policy):
    return [value.clone() for value in policy.state_dict().values()]


def test_snapshots_stay_as_they_were_while_the_learner_goes_on():
    league, trainer = make_league(scripted_share=0.0)
    train_league(trainer, league, 1)
    [snapshot] = league.snapshots
    before = weights_of(snapshot.policy)
    market = snapshot.market.clone()
    assert [member for member, _ in league.seats] == [2]  # nobody else plays
    trainer.iterate()
    assert all(map(torch.equal, weights_of(snapshot.policy), before))
    assert torch.equal(snapshot.market, market)
    assert not all(map(torch.equal, weights_of(trainer.policy), before))
    assert not any(value.requires_grad for value in snapshot.policy.parameters())


def test_a_snapshot_plays_what_the_policy_would_have_played():
    league, trainer = make_league()
    trainer.iterate()
    observation = league.reset(0)
    snapshot = Snapshot(trainer.policy, TAPE)
    expected = trainer.policy.act(TAPE, observation)
    torch.testing.assert_close(snapshot(observation), expected)
    trainer.iterate()
    torch.testing.assert_close(snapshot(observation), expected)


def test_the_oldest_snapshots_leave():
    league, trainer = make_league(iterations=8)
    train_league(trainer, league, 3)
    first = league.snapshots[0]
    train_league(trainer, league, 3)
    assert len(league.snapshots) == 2
    assert first not in league.snapshots


def test_only_the_learners_rows_are_learned_from():
    league, trainer = make_league()
    received = []
    step = league.env.step

    def spy(action):
        received.append((action.clone(), step(action)))
        return received[-1][1]

    league.env.step = spy
    train_league(trainer, league, 1)
    rollout = trainer.rollout
    assert rollout.reward.shape == (16, MARKETS)
    for number, (action, transition) in enumerate(received):
        assert torch.equal(rollout.action[number], action[::PLAYERS])
        assert torch.equal(rollout.reward[number], transition.reward[::PLAYERS])
        seen = transition.observation.portfolio[::PLAYERS]
        assert torch.equal(rollout.portfolio[number + 1], seen)


def test_every_seat_is_taken_by_one_player():
    league, trainer = make_league(markets=64)
    train_league(trainer, league, 1)
    rows = torch.cat([rows for _, rows in league.seats])
    others = torch.arange(64 * PLAYERS).view(64, PLAYERS)[:, 1:].flatten()
    assert torch.equal(rows.sort().values, others)
    assert {member for member, _ in league.seats} == {0, 1, 2}


def test_a_league_repeats_itself():
    runs = []
    for _ in range(2):
        league, trainer = make_league()
        train_league(trainer, league, 4)
        runs.append(weights_of(trainer.policy))
    assert all(map(torch.equal, *runs))


def test_a_league_goes_on_from_a_checkpoint(tmp_path):
    league, trainer = make_league()
    train_league(trainer, league, 1)
    trainer.save(tmp_path / "latest.pt")
    other, resumed = make_league()
    resumed.load(tmp_path / "latest.pt")
    assert torch.equal(other.state.portfolio.cash, league.state.portfolio.cash)
    assert torch.equal(other._seen.bar, league._seen.bar)
    torch.testing.assert_close(other._seen.portfolio, league._seen.portfolio)


def test_the_learner_earns_more_than_noise_and_than_it_did_untrained():
    league, trainer = make_league(markets=64, iterations=40)
    rules = replace(RULES, episode=replace(RULES.episode, staggered=False))
    players = [Noise(), Momentum()]
    before = play_match(TAPE, [Snapshot(trainer.policy, TAPE), *players], rules)
    train_league(trainer, league, 40)
    after = play_match(TAPE, [Snapshot(trainer.policy, TAPE), *players], rules)
    torch.testing.assert_close(after[1:], before[1:])  # no volume, no impact: the others stay put
    best = BEST / (TAPE.last - TAPE.first)
    assert after[0] > 0.5 * best
    assert after[0] > max(before[0], after[1]) + 0.2 * best


def test_a_league_of_one_is_refused():
    env = PortfolioEnv(TAPE, 4, replace(RULES, players=1))
    with pytest.raises(ConfigError, match="players >= 2"):
        LeagueEnv(env, [Noise()], LeagueConfig())


def test_a_trainer_wants_as_many_rows_as_the_league_shows():
    league, _ = make_league()
    with pytest.raises(ConfigError, match="num_envs = 7 must be the environment's 8 rows"):
        Trainer(TAPE, league, PPOConfig(num_envs=7), POLICY, iterations=1)
