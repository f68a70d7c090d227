"""What Stable-Baselines3 expects of a vector environment."""

import numpy as np
import pytest
import torch
from gymnasium import make
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecCheckNan, VecNormalize

import fastsim
from fastsim.adapters.build import build_env
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.adapters.sb3 import SB3VecEnv, pack, unpack
from fastsim.data.sample import sample_bars
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import make_tape

SHORT = {"market": "tech4", "episode": {"horizon": 10}}


def test_stable_baselines3_finds_nothing_to_complain_about():
    check_env(make(fastsim.ENV_ID, action="signed").unwrapped)


def test_a_finished_episode_carries_what_its_algorithms_need():
    env = SB3VecEnv(3, **SHORT)
    env.seed(0)
    env.reset()
    total = np.zeros(3)
    for step in range(1, 21):
        observation, reward, done, infos = env.step(np.full((3, 4), 0.25, dtype=np.float32))
        total += reward
        assert done.all() == (step % 10 == 0)
        for row, info in enumerate(infos):
            if not done[row]:
                assert "episode" not in info and "terminal_observation" not in info
                continue
            assert info["TimeLimit.truncated"] is True
            assert info["terminal_observation"].shape == observation[row].shape
            assert not np.array_equal(info["terminal_observation"], observation[row])
            assert info["episode"]["l"] == 10
            assert info["episode"]["r"] == pytest.approx(total[row], abs=1e-6)
        if done.all():
            total[:] = 0.0


def test_infos_are_made_for_the_rows_that_are_looked_at_and_stay_those_of_their_step():
    env = SB3VecEnv(64, market="tech4", episode={"horizon": 16, "staggered": True})
    env.seed(0)
    env.reset()
    kept, dones = [], 0
    for _ in range(20):
        _, _, done, infos = env.step(np.full((64, 4), 0.25, dtype=np.float32))
        assert ["episode" in info for info in infos] == done.tolist()
        assert len(infos) == 64 and infos[-1] is infos[63]
        kept.append((infos, infos[5]["wealth"]))
        dones += done.sum()
    assert dones > 0
    assert [infos[5]["wealth"] for infos, _ in kept] == [wealth for _, wealth in kept]
    assert len({infos[7]["wealth"] for infos, _ in kept}) > 15


EPISODE = EpisodeConfig(horizon=7)
CASES = [{}, {"backend": "torch"}, {"observation": "window"}, {"tape_dtype": torch.float64}]


def arguments_of(case):
    """Arguments of an environment; a floating-point type is one of a ready tape."""
    case = dict(case)
    dtype = case.pop("tape_dtype", torch.float32)
    market = make_tape(sample_bars("tech4"), dtype=dtype)
    return {"market": market, "autoreset": "same_step", "episode": EPISODE} | case


@pytest.mark.parametrize("case", CASES)
def test_its_numbers_are_those_of_the_environment(case):
    ours, theirs = build_env(16, **arguments_of(case)), SB3VecEnv(16, **arguments_of(case))
    theirs.seed(3)
    assert np.array_equal(theirs.reset(), ours.columns(ours.reset(3)).float().numpy())
    for action in np.random.default_rng(0).random((15, 16, 4), dtype=np.float32):
        columns, reward, done, infos = theirs.step(action)
        transition = ours.step(torch.from_numpy(action))
        assert columns.dtype == reward.dtype == np.float32
        assert np.array_equal(columns, ours.columns(transition.observation).float().numpy())
        assert np.array_equal(reward, transition.reward.float().numpy())
        assert np.array_equal(done, (transition.terminated | transition.truncated).numpy())
        final = ours.columns(transition.final_observation).float().numpy()
        for row in np.flatnonzero(done):
            assert np.array_equal(infos[row]["terminal_observation"], final[row])


def test_what_is_packed_for_a_single_copy_comes_out_as_it_went_in():
    columns, reward = torch.randn(5, 7), torch.randn(5)
    terminated, truncated = torch.arange(5) % 2 == 0, torch.arange(5) > 2
    packed = pack(columns, reward, terminated, truncated)
    assert packed.dtype == torch.float32
    assert packed.shape == (5 * (7 + 3),)
    out = unpack(packed.numpy(), 5)
    assert out[0].flags.c_contiguous
    assert out[2].dtype == out[3].dtype == bool
    for found, wanted in zip(out, (columns, reward, terminated, truncated), strict=True):
        assert np.array_equal(found, wanted.numpy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_from_a_gpu_comes_what_comes_from_the_cpu():
    arguments = SHORT | {"backend": "torch"}
    runs = []
    for device in ("cuda", "cpu"):
        env = SB3VecEnv(16, device=device, **arguments)
        env.seed(3)
        record = [env.reset()]
        for action in np.random.default_rng(0).random((25, 16, 4), dtype=np.float32):
            columns, reward, done, infos = env.step(action)
            last = [info["terminal_observation"] for info in infos if "episode" in info]
            record += [columns, reward, done, *last]
        runs.append(record)
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_it_runs_the_same_as_gymnasium_from_the_same_seed_at_any_thread_count(threads, count):
    threads(1)
    ours = PortfolioVectorEnv(3, autoreset="same_step", **SHORT)
    theirs = SB3VecEnv(3, **SHORT)
    theirs.seed(11)
    assert np.array_equal(ours.reset(seed=11)[0].numpy(), theirs.reset())
    actions = np.random.default_rng(0).random((25, 3, 4), dtype=np.float32)
    for action in actions:
        threads(1)
        expected, reward, *_ = ours.step(torch.from_numpy(action))
        threads(count)
        observation, rewards, *_ = theirs.step(action)
        assert np.array_equal(expected.numpy(), observation)
        assert np.array_equal(reward.numpy(), rewards)


def test_its_wrappers_and_its_evaluation_accept_it():
    env = VecNormalize(VecCheckNan(SB3VecEnv(4, **SHORT), raise_exception=True))
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu", seed=0)
    model.learn(64)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4)
    assert np.isfinite(mean)


def test_its_ppo_trains_on_a_thousand_portfolios_at_once():
    env = SB3VecEnv(1024, action="logits")
    options = {"log_std_init": -2.3}
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=4,
        batch_size=1024,
        n_epochs=1,
        policy_kwargs=options,
        device="cpu",
        seed=0,
    )
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(4 * 1024 * 2)
    after = list(model.policy.parameters())
    assert model.num_timesteps == 8192
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.isfinite(new).all() for new in after)


@pytest.mark.parametrize("rules", [{"autoreset": "next_step"}, {"observation": "index"}])
def test_rules_it_cannot_work_with_are_refused(rules):
    with pytest.raises(ConfigError, match="Stable-Baselines3 needs"):
        SB3VecEnv(2, **rules)


def test_single_environments_of_a_batch_have_no_attributes_to_set():
    env = SB3VecEnv(2)
    with pytest.raises(ConfigError, match="horizon"):
        env.set_attr("horizon", 3)
    with pytest.raises(ConfigError, match="reset_to"):
        env.env_method("reset_to")


def test_players_who_share_a_market_are_refused():
    with pytest.raises(ConfigError, match="players=1, got 2"):
        SB3VecEnv(4, "tech4", players=2, impact={"transient": 1.0})


def test_evaluation_counts_whole_episodes_alone():
    env = SB3VecEnv(4, **SHORT)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu", seed=0)
    unseen = SB3VecEnv(3, **SHORT)
    unseen.seed(0)
    returns, lengths = evaluate_policy(
        model, unseen, n_eval_episodes=7, return_episode_rewards=True
    )
    assert lengths == [10] * 7
    assert len(set(returns)) > 3


def test_its_episodes_are_recorded_as_by_a_monitor():
    env = SB3VecEnv(3, **SHORT)
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(Monitor, [0, 2]) == [True] * 2
    assert env.env_is_wrapped(TimeLimit) == [False] * 3


def test_starts_are_others_in_every_run_that_is_not_seeded():
    first = [SB3VecEnv(8, "tech4").reset() for _ in range(2)]
    assert not np.array_equal(*first)
    seeded = []
    for _ in range(2):
        env = SB3VecEnv(8, "tech4")
        env.seed(4)
        seeded.append(np.stack([env.reset(), env.reset()]))
    assert np.array_equal(*seeded)
    assert not np.array_equal(*seeded[0]), "a seed is for one reset"


def test_a_list_of_seeds_is_for_single_environments():
    env = SB3VecEnv(3, **SHORT)
    assert env.seed([5, 1, 5]) == [5, 1, 5]
    rows = env.reset()
    for seed, row in zip([5, 1, 5], rows, strict=True):
        assert np.array_equal(make(fastsim.ENV_ID, **SHORT).reset(seed=seed)[0], row)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, [1], [1, 2, -3], [1, None, 2]])
def test_seeds_that_are_none_are_refused(seed):
    with pytest.raises(ConfigError, match="seed must be") as caught:
        SB3VecEnv(3, **SHORT).seed(seed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, 1.5, "4", True, None])
def test_numbers_of_environments_that_are_none_are_refused(count):
    with pytest.raises(ConfigError, match="num_envs must be a whole number >= 1, got"):
        SB3VecEnv(count, "tech4")


def test_it_is_drawn_as_gymnasium_draws_it():
    env = SB3VecEnv(2, render_mode="rgb_array", **SHORT)
    with pytest.raises(ActionError, match=r"call reset\(\) before render\(\)"):
        env.render()
    env.seed([4, 9])
    env.reset()
    env.step(np.full((2, 4), 0.25, dtype=np.float32))
    assert env.render_mode == "rgb_array"
    assert env.render().shape[2] == 3
    alone = make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT)
    alone.reset(seed=9)
    alone.step(np.full(4, 0.25, dtype=np.float32))
    assert np.array_equal(env.get_images()[1], alone.render())


@pytest.mark.parametrize("mode", ["human", "rgb_array_list", "ansi", 3])
def test_modes_it_cannot_draw_in_are_refused(mode):
    with pytest.raises(ConfigError, match="render_mode must be None or one of 'rgb_array', got"):
        SB3VecEnv(2, render_mode=mode, **SHORT)


def test_it_takes_gymnasiums_words_for_restarts_and_limits():
    env = SB3VecEnv(2, "tech4", autoreset_mode=AutoresetMode.SAME_STEP, max_episode_steps=3)
    env.reset()
    done = [env.step(np.zeros((2, 4), dtype=np.float32))[2].tolist() for _ in range(3)]
    assert done == [[False] * 2, [False] * 2, [True] * 2]
    with pytest.raises(ConfigError, match="DISABLED"):
        SB3VecEnv(2, "tech4", autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ConfigError, match="Stable-Baselines3 needs"):
        SB3VecEnv(2, "tech4", autoreset_mode=AutoresetMode.NEXT_STEP)


def test_steps_out_of_turn_are_refused():
    env = SB3VecEnv(2, **SHORT)
    still = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(ActionError, match=r"call reset\(\) before step\(\)"):
        env.step(still)
    env.reset()
    env.close()
    for use in (env.reset, lambda: env.step(still)):
        with pytest.raises(ActionError, match="closed: make another"):
            use()


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((3, 4)), r"must have shape \(2, 4\), got \(3, 4\)"),
        (np.zeros(4), r"must have shape \(2, 4\), got \(4,\)"),
        (np.zeros((2, 4), dtype=complex), "real numbers"),
        (np.array([["buy"] * 4] * 2), "real numbers"),
        (None, "real numbers"),
        ([[0.1], [0.2, 0.3]], "real numbers"),
    ],
)
def test_actions_that_are_none_are_refused(actions, message):
    env = SB3VecEnv(2, **SHORT)
    env.reset()
    with pytest.raises(ActionError, match=message) as caught:
        env.step(actions)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_not_finite_holds():
    env = SB3VecEnv(2, **SHORT)
    env.reset()
    actions = np.full((2, 4), 0.25, dtype=np.float32)
    actions[1, 0] = np.nan
    env.step(actions)
    assert env.env.state.invalid_actions.tolist() == [0, 1]
