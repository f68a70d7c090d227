"""What Stable-Baselines3 expects of a vector environment."""

import numpy as np
import pytest
import torch
from gymnasium import make
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor, VecNormalize

import fastsim
from fastsim.adapters.build import build_env
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.adapters.sb3 import SB3VecEnv, pack, unpack
from fastsim.data.sample import sample_bars
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError
from fastsim.market.tape import make_tape

SHORT = {"market": "tech4", "episode": {"horizon": 10, "staggered": False}}


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
    env = VecNormalize(VecMonitor(VecCheckNan(SB3VecEnv(4, **SHORT), raise_exception=True)))
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
