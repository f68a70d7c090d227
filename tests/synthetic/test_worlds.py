"""Many worlds on one tape: each episode lives in one of them, on every backend."""

import math
from dataclasses import replace

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.replay import replay_schedule
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError, DataError, ForecastError
from fastsim.experiment.replays import play
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.tape import build_forecast_tape
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

WORLDS, BARS, ASSETS = 3, 60, 2


def wide_tape(**options):
    bars = random_bars(BARS, WORLDS * ASSETS, seed=1)
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), **options)


def test_worlds_lie_one_after_the_other_and_are_what_they_were():
    wide = wide_tape()
    tape = wide.fold(WORLDS)
    assert (len(tape), tape.num_assets, tape.bars_per_world) == (WORLDS * BARS, ASSETS, BARS)
    for number in range(WORLDS):
        world = tape.world(number)
        columns = slice(number * ASSETS, (number + 1) * ASSETS)
        assert torch.equal(world.known.features, wide.known.features[:, columns])
        assert torch.equal(world.next["r_after"], wide.next["r_after"][:, columns])
        close = wide.known.bars[:, columns, 3]
        mean = (close[1:] / close[:-1] - 1.0).mean(1)
        torch.testing.assert_close(world.next["market_return"][:-1], mean, rtol=1e-4, atol=1e-6)
        assert len(world) == BARS and world.worlds == 1


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("horizon", [None, 7])
def test_an_episode_stays_in_its_world_and_all_worlds_are_visited(backend, horizon):
    tape = wide_tape().fold(WORLDS)
    config = EnvConfig(episode=EpisodeConfig(horizon=horizon, random_start=horizon is not None))
    env = PortfolioEnv(tape, 8, config, backend=backend)
    begun = env.reset(0).bar
    seen = {int(bar) // BARS for bar in begun}
    for _ in range(2 * BARS):
        before = env.state.episode
        transition = env.step(torch.full((8, ASSETS), 0.4))
        after = env.state.episode
        going_on = ~before.done
        assert torch.equal((before.bar // BARS)[going_on], (after.bar // BARS)[going_on])
        inside = after.bar % BARS
        assert (inside >= tape.first).all() and (inside <= tape.last).all()
        seen |= {int(bar) // BARS for bar in transition.observation.bar}
    assert seen == set(range(WORLDS))


def test_every_backend_draws_the_same_worlds():
    tape = wide_tape(dtype=torch.float64).fold(WORLDS)
    config = EnvConfig(episode=EpisodeConfig(horizon=5))
    one, other = (PortfolioEnv(tape, 6, config, backend=name) for name in ("torch", "numba"))
    one.reset(3)
    other.reset(3)
    for _ in range(20):
        action = torch.full((6, ASSETS), 0.3)
        assert torch.equal(one.step(action).observation.bar, other.step(action).observation.bar)


def test_an_environment_on_worlds_trades_what_it_would_on_its_world_alone():
    tape = wide_tape(dtype=torch.float64).fold(WORLDS)
    config = EnvConfig(episode=EpisodeConfig(horizon=None, random_start=False))
    env = PortfolioEnv(tape, 4, config)
    world = int(env.reset(1).bar[2]) // BARS
    alone = PortfolioEnv(tape.world(world), 1, config)
    alone.reset(0)
    for _ in range(10):
        action = torch.full((4, ASSETS), 0.45)
        mine, its = env.step(action), alone.step(action[:1])
        torch.testing.assert_close(mine.reward[2:3], its.reward, rtol=1e-12, atol=1e-15)


def test_a_window_does_not_look_into_the_world_before():
    tape = wide_tape().fold(WORLDS)
    config = EnvConfig(
        observation="window",
        window_length=20,
        episode=EpisodeConfig(horizon=None, random_start=False),
    )
    env = PortfolioEnv(tape, 8, config)
    observation = env.reset(0)
    later = observation.bar >= BARS
    assert later.any()
    window = env.columns(observation)[later][:, : 20 * ASSETS * 5].unflatten(1, (20, ASSETS, 5))
    assert not window[:, : 20 - tape.first - 1].any()


@pytest.mark.parametrize("worlds", [0, 4])
def test_assets_that_do_not_make_equal_worlds_are_refused(worlds):
    with pytest.raises(DataError, match="worlds of equal size"):
        wide_tape().fold(worlds)


def test_a_world_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match="no world 3"):
        wide_tape().fold(WORLDS).world(3)


def test_an_agent_trains_on_simulated_worlds_and_is_tested_on_history():
    model = Garch(assets=3)
    tape = make_worlds(model, 40, 120, seed=1, config=TapeConfig(features=SHORT_FEATURES))
    assert tape.symbols == ("A0", "A1", "A2") and tape.worlds == 40
    history = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    tape = replace(tape, symbols=history.symbols)  # whom they stand for
    rules = EnvConfig(action="logits", episode=EpisodeConfig(horizon=20))
    ppo, collect = PPOConfig(minibatches=2), CollectConfig(num_envs=16, rollout_steps=8)
    trainer = Trainer(tape, rules, ppo, PolicyConfig(hidden=8), collect, iterations=3)
    for _ in range(3):
        figures = trainer.iterate()
    assert all(math.isfinite(value) for value in figures.values())
    wealth = play(trainer.policy, history, rules).wealth
    assert wealth.isfinite().all() and (wealth > 0).all()


def test_what_needs_one_history_refuses_many(tmp_path):
    tape = wide_tape().fold(WORLDS)
    steps = tape.last - tape.first
    with pytest.raises(ConfigError, match=r"one history.*tape\.world"):
        replay_schedule(tape, torch.zeros(steps, 1, ASSETS), ["still"])
    with pytest.raises(ForecastError, match="one world at a time"):
        build_forecast_tape(tape, trailing_random_walk(), tmp_path)
