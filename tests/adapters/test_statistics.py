"""What episodes came to is told where they end, to loops of one's own."""

import copy
import math
import pickle
from dataclasses import replace

import empyrical
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordEpisodeStatistics
from parity import ruinous, soaring_tape
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.env.environment import PortfolioEnv
from fastsim.env.tally import FIGURES, EpisodeTally
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.stats.metrics import periods_per_year
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch

TAPE = make_tape(random_bars(120, 4, seed=2, holes=True), TapeConfig(features=SHORT_FEATURES))


def statistics_of(info, over):
    """What a batch tells of the episodes [N] that are over; nothing is there if none is."""
    assert ("episode_statistics" in info) == ("_episode_statistics" in info) == bool(over.any())
    if not over.any():
        return dict.fromkeys(FIGURES, torch.zeros(len(over)))
    assert torch.equal(info["_episode_statistics"], over)
    assert tuple(info["episode_statistics"]) == FIGURES
    return info["episode_statistics"]


def slow(rewards, wealth, costs, periods=252.0):
    """What an episode came to, from its path, by empyrical's definitions."""
    wealth = np.asarray(wealth, dtype=np.float64)
    returns = wealth[1:] / wealth[:-1] - 1.0
    few = len(returns) < 2
    return {
        "return": float(np.sum(rewards)),
        "length": len(rewards),
        "total_return": float(empyrical.cum_returns_final(returns)),
        "sharpe": math.nan if few else empyrical.sharpe_ratio(returns, annualization=periods),
        "drawdown": -float(empyrical.max_drawdown(returns)),
        "cost": float(np.sum(np.asarray(costs) / wealth[:-1])),
    }


def near(wanted):
    return pytest.approx(wanted, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_one_environment_tells_what_an_episode_came_to(backend):
    env = gymnasium.make(
        fastsim.ENV_ID, market=TAPE, backend=backend, action="signed", episode={"horizon": 17}
    )
    env.action_space.seed(0)
    told = []
    for episode in range(3):
        _, info = env.reset(seed=3 if episode == 0 else None)
        wealth, rewards, costs, over = [info["wealth"]], [], [], False
        while not over:
            assert "episode_statistics" not in info
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            wealth.append(info["wealth"])
            rewards.append(reward)
            costs.append(info["cost"])
            over = terminated or truncated
        told.append(info["episode_statistics"])
        assert told[-1] == near(slow(rewards, wealth, costs))
        assert [type(value) for value in told[-1].values()] == [float, int, *[float] * 4]
        assert tuple(told[-1]) == FIGURES
    averages = env.unwrapped.statistics
    assert (averages.episodes, averages.steps) == (3, 51)
    for name in FIGURES:
        mean = getattr(averages, f"mean_{name}")
        assert mean == pytest.approx(np.mean([each[name] for each in told]))
    assert averages.steps_per_second > 0


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_many_are_told_row_by_row(backend, autoreset):
    rows = 7
    env = gymnasium.make_vec(
        fastsim.ENV_ID,
        num_envs=rows,
        market=TAPE,
        backend=backend,
        autoreset=autoreset,
        initial_invested=0.5,
        episode={"horizon": 9, "staggered": True},
    )
    _, info = env.reset(seed=1)
    begun = info["wealth"]
    paths = [([float(each)], [], []) for each in begun]
    ended, restarts = [], torch.zeros(rows, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        _, reward, terminated, truncated, info = env.step(torch.rand(rows, 4, generator=generator))
        over = terminated | truncated
        told = statistics_of(info, over)
        for row, (wealth, rewards, costs) in enumerate(paths):
            if restarts[row]:
                paths[row] = ([float(info["wealth"][row])], [], [])
            else:
                wealth.append(float(info["wealth"][row]))
                rewards.append(float(reward[row]))
                costs.append(float(info["cost"][row]))
            figures = {name: values[row].item() for name, values in told.items()}
            if not over[row]:
                assert set(figures.values()) == {0}
                continue
            ended.append(figures)
            assert figures == near(slow(rewards, wealth, costs))
            if autoreset == "same_step":
                paths[row] = ([float(env.env.state.wealth[row])], [], [])
        restarts = over if autoreset == "next_step" else restarts
    averages = env.statistics
    assert averages.episodes == len(ended) > 20
    assert averages.mean_length == pytest.approx(np.mean([each["length"] for each in ended]))
    assert averages.mean_sharpe == pytest.approx(np.nanmean([each["sharpe"] for each in ended]))
    waited = averages.episodes if autoreset == "next_step" else 0
    waited -= int(restarts.sum()) if autoreset == "next_step" else 0
    assert averages.steps == 60 * rows - waited


def test_one_is_told_what_a_batch_of_one_is_told():
    rules = {"market": TAPE, "episode": {"horizon": 30}}
    single = gymnasium.make(fastsim.ENV_ID, **rules)
    many = gymnasium.make_vec(fastsim.ENV_ID, num_envs=1, **rules)
    single.reset(seed=7)
    many.reset(seed=7)
    single.action_space.seed(0)
    for _ in range(30):
        action = single.action_space.sample()
        one, rows = single.step(action)[4], many.step(torch.from_numpy(action)[None])[4]
    told = {name: values[0].item() for name, values in rows["episode_statistics"].items()}
    assert one["episode_statistics"] == near(told)


@pytest.mark.long
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_players_who_wait_for_their_market_add_nothing(backend, autoreset):
    tape = soaring_tape(volume=True)
    config = ruinous(autoreset, 1.0, 12)
    env = PortfolioVectorEnv(6, tape, config=config, backend=backend)
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(1)
    lengths, since, waiting = [], torch.zeros(6), torch.zeros(6, dtype=torch.bool)
    for _ in range(80):
        moved = env.env.state.episode.done if autoreset == "next_step" else torch.zeros(6) > 0
        alive = (env.env.state.wealth > 0) & ~moved
        action = 3.0 * torch.randn(6, 3, generator=generator, dtype=tape.dtype)
        *_, info = env.step(action)
        since += alive
        over = info.get("_episode_statistics", torch.zeros(6, dtype=torch.bool))
        told = statistics_of(info, over)
        assert torch.equal(told["length"], torch.where(over, since, 0.0).long())
        assert bool((told["drawdown"][over] >= 0).all())
        lengths += told["length"][over].tolist()
        waiting |= ~alive
        since[over] = 0.0
    assert waiting.any()
    assert env.statistics.episodes == len(lengths) > 10
    assert env.statistics.steps == sum(lengths) + int(since.sum())


def test_players_of_a_zoo_are_told_when_they_leave():
    zoo = SharedMarketParallelEnv(2, "tech4", action="signed", episode={"horizon": 6})
    zoo.reset(seed=0)
    zoo.action_space("player_0").seed(0)
    while zoo.agents:
        seated = list(zoo.agents)
        action = zoo.action_space("player_0").sample()
        _, _, terminated, truncated, _ = zoo.step(dict.fromkeys(seated, action))
        for name in seated:
            over = terminated[name] or truncated[name]
            assert (name in zoo.episode_statistics) == over
    told = zoo.episode_statistics["player_1"]
    assert tuple(told) == FIGURES
    assert told["length"] == 6 and isinstance(told["length"], int)
    assert zoo.statistics.episodes == 2


def test_gymnasiums_own_recorder_works_around_it():
    env = RecordEpisodeStatistics(
        gymnasium.make(fastsim.ENV_ID, market=TAPE, episode={"horizon": 5})
    )
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(env.action_space.sample())
    assert info["episode"]["r"] == pytest.approx(info["episode_statistics"]["return"])
    assert info["episode"]["l"] == info["episode_statistics"]["length"]


def test_an_episode_that_is_left_counts_its_steps_alone():
    long = {"horizon": 50}
    for make in (
        lambda: gymnasium.make(fastsim.ENV_ID, market=TAPE, episode=long).unwrapped,
        lambda: gymnasium.make_vec(fastsim.ENV_ID, num_envs=1, market=TAPE, episode=long),
    ):
        env = make()
        assert env.statistics.episodes == env.statistics.steps == 0
        assert math.isnan(env.statistics.mean_return)
        rows = np.zeros(env.action_space.shape, dtype=np.float32)
        env.reset(seed=0)
        for _ in range(4):
            env.step(rows)
        env.reset()
        env.step(rows)
        assert (env.statistics.episodes, env.statistics.steps) == (0, 5)


@pytest.mark.parametrize("horizon", [1, 2, 12])
def test_cash_alone_has_no_sharpe_ratio_and_no_drawdown(horizon):
    env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=3, market=TAPE, episode={"horizon": horizon})
    env.reset(seed=0)
    for _ in range(horizon):
        *_, info = env.step(torch.zeros(3, 4))
    told = info["episode_statistics"]
    assert told["sharpe"].isnan().all()
    for name in ("return", "total_return", "drawdown", "cost"):
        assert (told[name] == 0).all()
    assert math.isnan(env.statistics.mean_sharpe) and env.statistics.mean_return == 0.0


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_steady_rise_has_the_sharpe_ratio_of_its_small_deviations(backend):
    bars = random_bars(60, 2, seed=1, opens=False)
    noise = np.random.default_rng(0).normal(0.01, 1e-4, bars.close.shape)
    bars = replace(bars, close=50.0 * np.exp(np.cumsum(noise, 0)), high=None, low=None)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    env = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=2, market=tape, backend=backend, episode={"horizon": 30}
    )
    _, info = env.reset(seed=0)
    wealth, rewards, costs = [info["wealth"]], [], []
    for _ in range(30):
        _, reward, *_, info = env.step(torch.eye(2))
        wealth.append(info["wealth"])
        rewards.append(reward)
        costs.append(info["cost"])
    for row in range(2):
        told = {name: values[row].item() for name, values in info["episode_statistics"].items()}
        path = [[float(each[row]) for each in numbers] for numbers in (rewards, wealth, costs)]
        assert told == near(slow(*path))
        assert told["sharpe"] > 100


def test_a_year_has_as_many_bars_as_the_market():
    bars = random_bars(120, 4, seed=2)
    hours = np.datetime64("2020-01-06T10:00", "ns") + np.arange(120) * np.timedelta64(1, "h")
    hourly = make_tape(replace(bars, timestamps=hours), TapeConfig(features=SHORT_FEATURES))
    daily = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    sharpes = []
    for tape in (hourly, daily):
        env = gymnasium.make(fastsim.ENV_ID, market=tape, episode={"horizon": 20})
        env.reset(seed=0)
        for _ in range(20):
            *_, info = env.step(np.full(4, 0.25, dtype=np.float32))
        sharpes.append(info["episode_statistics"]["sharpe"])
    wanted = (periods_per_year(hours) / 252.0) ** 0.5
    assert sharpes[0] / sharpes[1] == pytest.approx(wanted, rel=1e-2)


def test_episodes_in_fresh_worlds_are_counted():
    worlds = FreshWorlds(model=Garch(assets=3), bars=200)
    env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=4, market=worlds, episode={"horizon": 5})
    env.reset(seed=0)
    for _ in range(12):
        env.step(torch.full((4, 3), 0.3))
    assert env.statistics.episodes == 8
    assert math.isfinite(env.statistics.mean_sharpe)


@pytest.mark.long
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_one_pass_on_a_cpu_adds_up_what_torch_does_on_any_device(autoreset):
    tape = soaring_tape(volume=True)
    env, other = (
        PortfolioEnv(tape, 8, ruinous(autoreset, 1.0, 9), backend=backend)
        for backend in ("torch", "numba")
    )
    reference, fused = EpisodeTally(env), EpisodeTally(other)
    env.reset(0)
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        action = 3.0 * torch.randn(8, 3, generator=generator, dtype=tape.dtype)
        transition = env.step(action)
        cost = sum(transition.outcome.all_costs.values())
        told, wanted = (tally.add(transition, cost) for tally in (fused, reference))
        torch.testing.assert_close(told, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)
        if step == 30:
            for tally in (fused, reference):
                tally.begin(torch.arange(8) % 2 == 0)
    one, other = fused.averages, reference.averages
    assert one.episodes > 20
    for name in set(one._fields) - {"steps_per_second"}:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)


def test_a_copy_goes_on_counting_from_where_it_was():
    env = PortfolioVectorEnv(3, TAPE, episode={"horizon": 8})
    env.reset(seed=0)
    for _ in range(5):
        env.step(torch.full((3, 4), 0.2))
    for copied in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        for _ in range(3):
            *_, info = copied.step(torch.full((3, 4), 0.2))
        assert info["episode_statistics"]["length"].tolist() == [8, 8, 8]
        assert copied.statistics.episodes == 3
    assert (env.statistics.episodes, env.statistics.steps) == (0, 15)


def test_gymnasiums_vectors_of_single_environments_gather_it():
    env = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=2, vectorization_mode="sync", market=TAPE, episode={"horizon": 4}
    )
    env.reset(seed=0)
    for _ in range(4):
        *_, info = env.step(np.full((2, 4), 0.2, dtype=np.float32))
    assert info["_episode_statistics"].tolist() == [True, True]
    assert info["episode_statistics"]["length"].tolist() == [4, 4]
