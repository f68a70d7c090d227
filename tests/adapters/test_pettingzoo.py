"""What PettingZoo and Gymnasium expect of a market that players share."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import fastsim
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.env.config import EnvConfig
from fastsim.errors import ActionError, ConfigError

SHORT = {"market": "tech4", "episode": {"horizon": 10}, "initial_cash": 1e9}


@pytest.mark.parametrize("rules", [{}, {"observation": "index"}, {"action": "signed"}])
def test_pettingzoo_finds_nothing_to_complain_about(rules):
    parallel_api_test(SharedMarketParallelEnv(3, **SHORT, **rules), num_cycles=40)


def test_the_same_seed_gives_the_same_play():
    parallel_seed_test(lambda: SharedMarketParallelEnv(3, **SHORT), num_cycles=40)


def test_players_are_told_what_the_rows_of_the_batch_are_told():
    zoo = SharedMarketParallelEnv(3, **SHORT)
    rows = gymnasium.make_vec(fastsim.SHARED_MARKET_ID, num_envs=3, **SHORT)
    seen, infos = zoo.reset(seed=5)
    together, info = rows.reset(seed=5)
    generator = torch.Generator().manual_seed(0)
    for step in range(10):
        for row, name in enumerate(zoo.agents):
            assert np.array_equal(seen[name], together[row].numpy())
            assert infos[name]["wealth"] == float(info["wealth"][row])
        assert len({infos[name]["date"] for name in zoo.agents}) == 1
        action = torch.rand(3, 4, generator=generator) / 4
        told = zoo.step(dict(zip(zoo.agents, action.numpy(), strict=True)))
        together, reward, terminated, truncated, info = rows.step(action)
        seen, infos = told[0], told[4]
        for row, name in enumerate(zoo.possible_agents):
            assert [part[name] for part in told[1:4]] == [
                float(part[row]) for part in (reward, terminated, truncated)
            ]
        assert bool(zoo.agents) == (step < 9)


def test_a_ruined_player_leaves_and_the_others_go_on():
    zoo = SharedMarketParallelEnv(2, **SHORT | {"action": "signed", "max_gross": 4.0})
    zoo.reset(seed=0)
    state = zoo.env.state
    state.portfolio.cash[0] = 1.0 + 1e-6
    state.portfolio.holdings[0, 0] = -1.0  # the next rise ruins it
    zoo.env.state = state
    still = np.zeros(4, dtype=np.float32)
    left = []
    while zoo.agents:
        *_, terminated, _, _ = zoo.step(dict.fromkeys(zoo.agents, still))
        left.append(list(terminated))
    assert zoo.agents == []
    assert left[0] == ["player_0", "player_1"]
    assert left[-1] == ["player_1"]
    with pytest.raises(ActionError, match="reset"):
        zoo.step({"player_0": still})
    assert zoo.step({}) == ({}, {}, {}, {}, {})
    assert set(zoo.reset()[0]) == {"player_0", "player_1"}


@pytest.mark.parametrize(
    ("action", "message"),
    [(np.full(4, np.nan), "player_1 must be 4 finite"), (np.zeros(3), "player_1 must be 4 finite")],
)
def test_a_bad_action_names_its_player(action, message):
    zoo = SharedMarketParallelEnv(2, **SHORT)
    zoo.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        zoo.step({"player_0": np.zeros(4), "player_1": action})
    with pytest.raises(ActionError, match="player_0, player_1, got player_0"):
        zoo.step({"player_0": np.zeros(4)})


def test_a_configuration_for_other_players_is_refused():
    with pytest.raises(ConfigError, match=r"EnvConfig\.players = 4 must be the 8 asked for"):
        SharedMarketParallelEnv(8, market="tech4", config=EnvConfig(players=4))


def test_make_is_one_player_alone_whose_trades_move_prices():
    env = gymnasium.make(fastsim.SHARED_MARKET_ID, **SHORT).unwrapped
    check_env(env, skip_render_check=True)
    assert env.env.config.impact.moves_prices
    assert any(name.startswith("displacement.") for name in env.observation_names)
    with pytest.raises(ConfigError, match="1 players do not fill markets of 2"):
        gymnasium.make(fastsim.SHARED_MARKET_ID, players=2, **SHORT)


def test_make_vec_is_as_many_markets_as_the_players_fill():
    env = gymnasium.make_vec(
        fastsim.SHARED_MARKET_ID, num_envs=6, players=3, impact={"transient": 0.5}, **SHORT
    )
    assert isinstance(env, PortfolioVectorEnv)
    assert env.env.config.impact.transient == 0.5
    env.reset(seed=0)
    buying = torch.tensor([[1.0, 0, 0, 0]] * 3 + [[0.0] * 4] * 3)
    observation, *_ = env.step(buying)
    moved = observation[:, env.observation_names.index("displacement.AAPL")]
    assert (moved[:3] > 0).all() and torch.equal(moved[:3], moved[:1].expand(3))
    assert (moved[3:] == 0).all()


def test_a_missing_package_is_named_in_one_line():
    code = (
        "import sys; sys.modules['pettingzoo'] = None\n"
        "try: import fastsim.adapters.pettingzoo\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = "pettingzoo is not installed: pip install 'fastsim-rl[pettingzoo]'"
    assert done.stdout.strip() == wanted


def test_the_state_is_the_market_and_everybodys_portfolio():
    zoo = SharedMarketParallelEnv(3, **SHORT)
    with pytest.raises(ActionError, match=r"call reset\(\) before state\(\)"):
        zoo.state()
    seen, _ = zoo.reset(seed=0)
    own = zoo.env.portfolio_width
    for _ in range(3):
        state = zoo.state()
        assert zoo.state_space.contains(state)
        assert np.array_equal(state[: -3 * own], seen["player_0"][:-own])
        portfolios = [seen[name][-own:] for name in zoo.possible_agents]
        assert np.array_equal(state[-3 * own :].reshape(3, own), portfolios)
        seen, *_ = zoo.step({name: zoo.action_space(name).sample() / 4 for name in zoo.agents})


def test_the_state_of_indices_is_the_bar_and_everybodys_portfolio():
    zoo = SharedMarketParallelEnv(2, observation="index", **SHORT)
    seen, _ = zoo.reset(seed=0)
    state = zoo.state()
    assert zoo.state_space.contains(state)
    assert state["bar"] == seen["player_1"]["bar"]
    own = [seen[name]["portfolio"] for name in zoo.agents]
    assert np.array_equal(state["portfolio"], np.concatenate(own))


def test_it_passes_through_pettingzoos_turns():
    env = parallel_to_aec(SharedMarketParallelEnv(2, **SHORT))
    api_test(env, num_cycles=30)


def test_its_caller_resets_it_whatever_autoreset_says():
    seen = []
    for mode in ("next_step", "SAME_STEP", "Disabled"):
        zoo = SharedMarketParallelEnv(2, autoreset_mode=mode, max_episode_steps=3, **SHORT)
        zoo.reset(seed=0)
        while zoo.agents:
            last = zoo.step(dict.fromkeys(zoo.agents, np.full(4, 0.2, np.float32)))[0]
        seen.append(last["player_1"])
    assert all(np.array_equal(seen[0], other) for other in seen[1:])


def test_accounts_of_all_players_are_drawn():
    zoo = SharedMarketParallelEnv(2, render_mode="rgb_array", **SHORT)
    zoo.reset(seed=0)
    zoo.step({"player_0": np.full(4, 0.25, np.float32), "player_1": np.zeros(4, np.float32)})
    picture = zoo.render()
    assert picture.shape == (480, 1280, 3)
    assert (picture[:, :640] != picture[:, 640:]).any()


@pytest.mark.parametrize("players", [0, -1, 1.5, "2", True, None])
def test_numbers_of_players_that_are_none_are_refused(players):
    with pytest.raises(ConfigError, match="players must be a whole number >= 1, got"):
        SharedMarketParallelEnv(players, market="tech4")


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, [1, 2]])
def test_seeds_that_are_none_are_refused(seed):
    with pytest.raises(ConfigError, match="seed must be a whole number >= 0, got"):
        SharedMarketParallelEnv(2, market="tech4").reset(seed=seed)


@pytest.mark.parametrize("mode", ["human", "ansi", 3])
def test_modes_it_cannot_draw_in_are_refused(mode):
    with pytest.raises(ConfigError, match="render_mode must be None or one of 'rgb_array', got"):
        SharedMarketParallelEnv(2, market="tech4", render_mode=mode)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"player": 3}, "did you mean 'players'"),
        ({"impacts": {}}, "did you mean 'impact'"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number"),
        ({"autoreset": "never"}, "autoreset must be one of"),
        ({"device": "gpu"}, "there is no device"),
        ({"market": 3}, "market must be"),
    ],
)
def test_unknown_arguments_are_named(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SharedMarketParallelEnv(2, **{"market": "tech4"} | given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "actions",
    [
        None,
        np.zeros((2, 4)),
        {},
        {"player_0": np.zeros(4), "player_1": np.zeros(4), "player_2": np.zeros(4)},
        {"player_0": np.zeros(4), "player_1": "buy"},
        {"player_0": np.zeros(4), "player_1": None},
        {"player_0": np.zeros(4), "player_1": np.zeros(4, dtype=complex)},
        {"player_0": np.zeros(4), "player_1": np.full(4, np.inf)},
        {"player_0": np.zeros(4), 1: np.zeros(4)},
    ],
)
def test_actions_that_are_none_are_refused(actions):
    zoo = SharedMarketParallelEnv(2, **SHORT)
    zoo.reset(seed=0)
    with pytest.raises(
        ActionError, match=r"actions? (must be of|of player_1 must|must be an)"
    ) as e:
        zoo.step(actions)
    assert "\n" not in str(e.value)


def test_steps_out_of_turn_are_refused():
    zoo = SharedMarketParallelEnv(2, **SHORT)
    for actions in ({}, {"player_0": np.zeros(4), "player_1": np.zeros(4)}):
        with pytest.raises(ActionError, match=r"call reset\(\) before step\(\)"):
            zoo.step(actions)
    zoo.reset(seed=0)
    zoo.close()
    for use in (zoo.reset, lambda: zoo.step({}), zoo.render):
        with pytest.raises(ActionError, match="closed: make another"):
            use()
