"""Every client library trains for a few iterations; `make test-clients` installs them all.

Where one is missing its tests are skipped, but with FASTSIM_CLIENTS=all that is a failure.
"""

import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from importlib import import_module
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import fastsim
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.errors import ActionError, ConfigError

ROOT = Path(__file__).parents[2]
HORIZON = 10
SHORT = {"market": "tech4", "episode": {"horizon": HORIZON}}
pytestmark = pytest.mark.filterwarnings("default")  # what clients warn of is their own


def client(name: str):
    """A client's module, or a skipped test."""
    if os.environ.get("FASTSIM_CLIENTS") == "all":
        return import_module(name)
    return pytest.importorskip(name)


def adapter(name: str, *needs: str):
    for need in needs:
        client(need)
    return import_module(f"fastsim.adapters.{name}")


def numpy_vec(num_envs: int = 4, **arguments):
    """A batch that speaks NumPy, as Gymnasium's vector wrappers expect."""
    client("array_api_compat")
    env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=num_envs, **SHORT, **arguments)
    return gymnasium.wrappers.vector.ArrayConversion(env, env_xp=torch, target_xp=np)


def moved(module: torch.nn.Module, train) -> bool:
    """Whether training changes parameters, all of which stay finite."""
    before = [parameter.detach().clone() for parameter in module.parameters()]
    train()
    after = list(module.parameters())
    assert all(torch.isfinite(new).all() for new in after)
    return any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


# Pins and the table of what works with what.


def pins(*files: str) -> dict[str, str]:
    lines = "\n".join((ROOT / name).read_text() for name in files)
    found = re.findall(r"^([\w.-]+)==(\S+)$", lines, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_the_table_of_clients_has_the_versions_that_are_pinned():
    pinned = pins("constraints.txt", "tests/clients.txt")
    rows = [line for line in (ROOT / "docs/clients.md").read_text().splitlines() if line[:1] == "|"]
    named = [pair for row in rows for pair in re.findall(r"`([\w-]+) (\d[\w.]*)`", row)]
    assert len(named) >= 10
    assert {name: pinned.get(name) for name, _ in named} == dict(named)


def test_every_client_that_is_installed_is_in_the_table():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    text = (ROOT / "docs/clients.md").read_text()
    for requirement in groups["clients"]:
        name = re.match(r"[\w-]+", requirement)[0]
        assert f"`{name} " in text, name
        assert name in pins("tests/clients.txt"), name


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/clients.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(example):
    for name in re.findall(r"^(?:from|import) (?!fastsim)(\w+)", example, re.MULTILINE):
        client(name)
    for name in re.findall(r"fastsim\.adapters\.(\w+)", example):
        needed = {"sb3": "stable_baselines3"}.get(name, name)
        client(needed)
    exec(compile(example, "docs/clients.md", "exec"), {})


# Gymnasium


WRAPPERS = {
    "RecordEpisodeStatistics": {},
    "NormalizeObservation": {},
    "NormalizeReward": {},
    "ClipReward": {"min_reward": -0.01, "max_reward": 0.01},
    "ClipAction": {},
    "RescaleAction": {"min_action": -1.0, "max_action": 1.0},
    "TransformObservation": {"func": lambda columns: columns * 2},
    "TransformReward": {"func": lambda reward: reward * 2},
    "TransformAction": {"func": lambda action: action / 2},
    "RescaleObservation": {"min_obs": -1.0, "max_obs": 1.0},
    "FlattenObservation": {},
    "ReshapeObservation": {"shape": (43, 1)},
    "DictInfoToList": {},
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_vector_wrappers_of_gymnasium_work_on_numpy(name):
    wrapper = getattr(gymnasium.wrappers.vector, name)
    env = wrapper(numpy_vec(), **WRAPPERS[name])
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(2 * HORIZON):
        observation, reward, terminated, *_ = env.step(env.action_space.sample())
        assert isinstance(observation, np.ndarray)
        assert isinstance(reward, np.ndarray)
        assert np.isfinite(observation).all()
        assert np.isfinite(reward).all()
    assert terminated.shape == (4,)


def test_episodes_of_a_converted_batch_are_counted_as_those_of_single_environments():
    batch = gymnasium.wrappers.vector.RecordEpisodeStatistics(numpy_vec(1))
    alone = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(fastsim.ENV_ID, **SHORT))
    batch.reset(seed=3)
    alone.reset(seed=3)
    for _ in range(HORIZON):
        action = np.full(4, 0.25, dtype=np.float32)
        told, one = batch.step(action[None])[4], alone.step(action)[4]
    assert told["episode"]["l"].tolist() == [one["episode"]["l"]] == [HORIZON]
    assert told["episode"]["r"][0] == pytest.approx(one["episode"]["r"], rel=1e-6)


def test_a_loop_in_the_manner_of_cleanrl_learns():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(numpy_vec(8, action="logits"))
    envs = gymnasium.wrappers.vector.NormalizeReward(envs, gamma=0.99)
    width = int(np.prod(envs.single_observation_space.shape))
    actions = int(np.prod(envs.single_action_space.shape))
    torch.manual_seed(0)
    actor, critic = torch.nn.Linear(width, actions), torch.nn.Linear(width, 1)
    both = torch.nn.ModuleList([actor, critic])
    optimizer = torch.optim.Adam(both.parameters(), lr=1e-3)
    lengths = []

    def train():
        seen = torch.tensor(envs.reset(seed=1)[0])
        for _ in range(3 * HORIZON):
            policy = torch.distributions.Normal(actor(seen), 0.1)
            action = policy.sample()
            told, reward, terminated, _, info = envs.step(action.numpy())
            following = torch.tensor(told)
            if "episode" in info:
                lengths.extend(info["episode"]["l"][info["_episode"]].tolist())
            alive = torch.tensor(~terminated)
            target = torch.tensor(reward) + 0.99 * critic(following)[:, 0].detach() * alive
            advantage = (target - critic(seen)[:, 0]).float()
            loss = advantage.square().mean()
            loss = loss - (policy.log_prob(action).sum(-1) * advantage.detach()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen = following

    assert moved(both, train)
    assert set(lengths) == {HORIZON}


@pytest.mark.parametrize("many", [False, True])
def test_videos_are_recorded(tmp_path, many):
    client("moviepy")
    if many:
        env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=2, render_mode="rgb_array", **SHORT)
        record = gymnasium.wrappers.vector.RecordVideo
    else:
        env = gymnasium.make(fastsim.ENV_ID, render_mode="rgb_array", **SHORT)
        record = gymnasium.wrappers.RecordVideo
    env = record(env, str(tmp_path / "videos"), video_length=3, episode_trigger=lambda _: True)
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.action_space.sample())
    env.close()
    assert any(path.stat().st_size > 1000 for path in (tmp_path / "videos").glob("*.mp4"))


# Stable-Baselines3 and sb3-contrib


@pytest.mark.parametrize("name", ["A2C", "SAC", "TD3"])
def test_algorithms_of_stable_baselines3_train(name):
    vec = adapter("sb3", "stable_baselines3").SB3VecEnv(4, **SHORT)
    algorithm = getattr(client("stable_baselines3"), name)
    options = {} if name == "A2C" else {"learning_starts": 16, "batch_size": 8, "buffer_size": 500}
    model = algorithm("MlpPolicy", vec, device="cpu", seed=0, **options)
    assert moved(model.policy, lambda: model.learn(80))


@pytest.mark.parametrize("name", ["RecurrentPPO", "TQC", "TRPO"])
def test_algorithms_of_sb3_contrib_train(name):
    vec = adapter("sb3", "stable_baselines3").SB3VecEnv(4, **SHORT)
    algorithm = getattr(client("sb3_contrib"), name)
    options = {"n_steps": 16, "batch_size": 16}
    if name == "TQC":
        options = {"learning_starts": 16, "batch_size": 8, "buffer_size": 500}
    policy = "MlpLstmPolicy" if name == "RecurrentPPO" else "MlpPolicy"
    model = algorithm(policy, vec, device="cpu", seed=0, **options)
    assert moved(model.policy, lambda: model.learn(128))


def test_stable_baselines3_trains_on_single_environments_side_by_side():
    sb3 = client("stable_baselines3")
    make = partial(gymnasium.make, fastsim.ENV_ID, **SHORT)
    vec = import_module("stable_baselines3.common.env_util").make_vec_env(make, n_envs=2, seed=0)
    model = sb3.PPO("MlpPolicy", vec, n_steps=16, batch_size=16, device="cpu", seed=0)
    assert moved(model.policy, lambda: model.learn(64))


# PettingZoo and SuperSuit


def test_players_pass_through_supersuit_to_stable_baselines3():
    zoo = adapter("pettingzoo", "pettingzoo").SharedMarketParallelEnv(3, **SHORT)
    supersuit, sb3 = client("supersuit"), client("stable_baselines3")
    vec = supersuit.pettingzoo_env_to_vec_env_v1(supersuit.black_death_v3(zoo))
    vec = supersuit.concat_vec_envs_v1(vec, 2, num_cpus=1, base_class="stable_baselines3")
    model = sb3.PPO("MlpPolicy", vec, n_steps=12, batch_size=12, device="cpu")
    assert moved(model.policy, lambda: model.learn(144))


def test_black_death_goes_on_until_nobody_is_left():
    module = adapter("pettingzoo", "pettingzoo")
    rules = SHORT | {"action": "signed", "max_gross": 4.0}
    zoo = module.SharedMarketParallelEnv(2, **rules)
    env = client("supersuit").black_death_v3(zoo)
    env.reset(seed=0)
    state = zoo.env.state
    state.portfolio.cash[0] = 1.0 + 1e-6
    state.portfolio.holdings[0, 0] = -1.0  # the next rise ruins the first player
    zoo.env.state = state
    steps = 0
    while env.agents:
        seen, reward, *_ = env.step({name: np.zeros(4, np.float32) for name in env.agents})
        steps += 1
        if 1 < steps <= HORIZON:
            assert not seen["player_0"].any()
            assert reward["player_0"] == 0.0
    assert steps == HORIZON + 1
    assert zoo.agents == []


# TorchRL


def test_a_batch_for_torchrl_keeps_what_its_specifications_say():
    module = adapter("torchrl", "torchrl")
    check_env_specs = import_module("torchrl.envs.utils").check_env_specs
    for observation in ("flat", "index", "window"):
        for action in ("weights", "logits"):
            rules = {"observation": observation, "action": action}
            check_env_specs(module.TorchRLEnv(3, **SHORT, **rules))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_rollout_of_torchrl_is_what_gymnasium_steps_to(backend):
    module = adapter("torchrl", "torchrl")
    env = module.TorchRLEnv(3, backend=backend, **SHORT)
    env.set_seed(7)
    ours = PortfolioVectorEnv(3, backend=backend, autoreset="same_step", **SHORT)
    seen, _ = ours.reset(seed=7)
    played = env.rollout(25, break_when_any_done=False)
    for step in range(25):
        now = played[:, step]
        assert torch.equal(now["observation"], seen)
        seen, reward, terminated, truncated, info = ours.step(now["action"])
        following = torch.where(info["_final_obs"][:, None], info["final_obs"], seen)
        assert torch.equal(now["next", "observation"], following)
        assert torch.equal(now["next", "reward"][:, 0], reward)
        assert torch.equal(now["next", "terminated"][:, 0], terminated)
        assert torch.equal(now["next", "truncated"][:, 0], truncated)
        assert torch.equal(now["next", "wealth"][:, 0], info["wealth"])


def test_a_mask_begins_only_the_rows_it_names():
    env = adapter("torchrl", "torchrl").TorchRLEnv(3, seed=0, **SHORT)
    first = env.reset()
    for _ in range(4):
        first = env.step(env.rand_action(first))["next"]
    bar = env.env.state.episode.bar.clone()
    mask = torch.tensor([[True], [False], [False]])
    seen = env.reset(first.clone().set("_reset", mask))
    assert env.env.state.episode.number.tolist() == [1, 0, 0]
    assert torch.equal(env.env.state.episode.bar[1:], bar[1:])
    assert torch.equal(seen["observation"][1:], first["observation"][1:])
    assert seen["wealth"][0].item() == 1e6


def test_ppo_of_torchrl_trains_on_a_batch():
    env = adapter("torchrl", "torchrl").TorchRLEnv(8, seed=0, action="logits", **SHORT)
    nn, objectives = import_module("tensordict.nn"), import_module("torchrl.objectives")
    modules = import_module("torchrl.modules")
    collect = import_module("torchrl.collectors").Collector
    torch.manual_seed(0)
    actor = torch.nn.Sequential(
        torch.nn.Linear(len(env.observation_names), 2 * env.env.action_width),
        nn.NormalParamExtractor(),
    )
    actor = modules.ProbabilisticActor(
        nn.TensorDictModule(actor, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=modules.IndependentNormal,
        return_log_prob=True,
    )
    critic = modules.ValueOperator(torch.nn.Linear(len(env.observation_names), 1))
    loss = objectives.ClipPPOLoss(actor, critic)
    gae = import_module("torchrl.objectives.value").GAE(
        gamma=0.99, lmbda=0.95, value_network=critic
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)

    def train():
        frames = 8 * 2 * HORIZON
        for batch in collect(env, actor, frames_per_batch=frames, total_frames=2 * frames):
            assert batch["next", "done"].sum() == 8 * 2
            values = loss(gae(batch))
            optimizer.zero_grad()
            sum(value for name, value in values.items() if name.startswith("loss_")).backward()
            optimizer.step()

    assert moved(loss, train)


@pytest.mark.parametrize("arguments", [{}, {"frame_skip": 4}, {"from_pixels": True}])
def test_torchrl_makes_a_single_environment_by_its_id(arguments):
    envs = client("torchrl.envs")
    env = envs.GymEnv(fastsim.ENV_ID, **arguments, **SHORT)
    played = env.rollout(20)
    assert played.shape == (-(-HORIZON // arguments.get("frame_skip", 1)),)
    assert played["next", "truncated"][-1].item()


def test_torchrl_wraps_a_batch_of_gymnasium():
    envs = client("torchrl.envs")
    batch = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=4, autoreset_mode=AutoresetMode.SAME_STEP, **SHORT
    )
    played = envs.GymWrapper(batch).rollout(25, break_when_any_done=False)
    assert played.shape == (4, 25)
    assert played["next", "done"].sum(1).tolist() == [[2]] * 4


def numbers_alone(info) -> None:
    """Skip where infos hold text, of which TorchRL's wrappers make no tensors."""
    if any(isinstance(value, str) for value in info.values()):
        pytest.skip("infos hold text")


def test_torchrl_makes_processes_of_single_environments():
    envs = client("torchrl.envs")
    numbers_alone(gymnasium.make(fastsim.ENV_ID, **SHORT).reset(seed=0)[1])
    env = envs.GymEnv(f"fastsim:{fastsim.ENV_ID}", num_envs=2, **SHORT)
    played = env.rollout(12, break_when_any_done=False)
    assert played["next", "done"].sum(1).tolist() == [[1], [1]]
    env.close()


def test_torchrl_wraps_the_players_of_pettingzoo():
    zoo = adapter("pettingzoo", "pettingzoo").SharedMarketParallelEnv(3, **SHORT)
    numbers_alone(zoo.reset(seed=0)[1]["player_0"])
    env = client("torchrl.envs").PettingZooWrapper(zoo, return_state=True)
    played = env.rollout(20)
    assert played["player", "observation"].shape == (HORIZON, 3, len(zoo.observation_names))
    assert played["state"].shape == (HORIZON, *zoo.state_space.shape)


# rsl_rl


def runner(env, **options):
    layers = {"class_name": "MLPModel", "hidden_dims": [16], "activation": "elu"}
    noise = {"class_name": "GaussianDistribution", "init_std": 0.3}
    config = {
        "num_steps_per_env": 12,
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": layers | {"distribution_cfg": noise},
        "critic": dict(layers),
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 1},
    }
    return import_module("rsl_rl.runners").OnPolicyRunner(env, config | options, device="cpu")


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_runner_of_rsl_rl_trains(backend):
    module = adapter("rsl_rl", "rsl_rl", "tensordict")
    env = module.RslRlVecEnv(16, seed=0, action="logits", backend=backend, **SHORT)
    train = runner(env)
    learn = partial(train.learn, 2, init_at_random_ep_len=True)
    assert moved(train.alg.get_policy(), learn)


def test_rsl_rl_is_told_what_gymnasium_is_told():
    module = adapter("rsl_rl", "rsl_rl", "tensordict")
    env = module.RslRlVecEnv(3, seed=5, **SHORT)
    ours = PortfolioVectorEnv(3, autoreset="same_step", **SHORT)
    seen, _ = ours.reset(seed=5)
    assert torch.equal(env.get_observations()["policy"], seen)
    for step in range(1, 25):
        action = torch.rand(3, 4, generator=torch.Generator().manual_seed(step))
        seen, reward, terminated, truncated, info = ours.step(action)
        told, rewards, dones, extras = env.step(action)
        assert torch.equal(told["policy"], seen)
        assert torch.equal(rewards, reward)
        assert torch.equal(dones, (terminated | truncated).long())
        assert torch.equal(extras["time_outs"], truncated)
        assert torch.equal(extras["log"]["/fastsim/wealth"], info["wealth"])
        assert env.episode_length_buf.tolist() == [step % HORIZON] * 3


def test_episodes_end_as_if_they_had_lived_as_long_as_rsl_rl_says():
    module = adapter("rsl_rl", "rsl_rl", "tensordict")
    env = module.RslRlVecEnv(3, seed=0, **SHORT)
    env.episode_length_buf = torch.tensor([0, 4, HORIZON - 1])
    ends = torch.stack([env.step(torch.zeros(3, 4))[2] for _ in range(HORIZON)])
    assert ends.argmax(0).tolist() == [HORIZON - 1, HORIZON - 5, 0]


# skrl


def skrl_env(num_envs: int = 4):
    client("skrl")
    batch = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **SHORT
    )
    return import_module("skrl.envs.wrappers.torch").wrap_env(batch, verbose=False)


def test_skrl_is_told_when_episodes_are_cut():
    env = skrl_env()
    seen, _ = env.reset()
    assert seen.shape == (4, 43)
    for step in range(1, 2 * HORIZON + 1):
        seen, reward, terminated, truncated, _ = env.step(torch.full((4, 4), 0.25))
        assert reward.shape == terminated.shape == (4, 1)
        assert truncated.flatten().tolist() == [step % HORIZON == 0] * 4


def test_ppo_of_skrl_trains_on_a_batch(tmp_path):
    env = skrl_env()
    layers = [{"name": "net", "input": "OBSERVATIONS", "layers": [16], "activations": "elu"}]
    experiment = {"directory": str(tmp_path), "write_interval": 0, "checkpoint_interval": 0}
    config = {
        "seed": 0,
        "models": {
            "separate": True,
            "policy": {"class": "GaussianMixin", "network": layers, "output": "ACTIONS"},
            "value": {"class": "DeterministicMixin", "network": layers, "output": "ONE"},
        },
        "memory": {"class": "RandomMemory", "memory_size": -1},
        "agent": {"class": "PPO", "rollouts": 12, "experiment": experiment},
        "trainer": {
            "class": "SequentialTrainer",
            "timesteps": 24,
            "close_environment_at_exit": False,
        },
    }
    runner = import_module("skrl.utils.runner.torch").Runner(env, config)
    assert moved(runner.agent.policy, runner.run)


# What every adapter refuses


def adapters():
    return {
        "make_vec": partial(gymnasium.make_vec, fastsim.ENV_ID),
        "rsl_rl": lambda **given: adapter("rsl_rl", "rsl_rl", "tensordict").RslRlVecEnv(**given),
        "torchrl": lambda **given: adapter("torchrl", "torchrl").TorchRLEnv(**given),
        "sb3": lambda **given: adapter("sb3", "stable_baselines3").SB3VecEnv(**given),
    }


@pytest.mark.parametrize("name", adapters())
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a whole number"),
        ({"num_envs": "4"}, "num_envs must be a whole number"),
        ({"num_envs": 2, "autoreset": AutoresetMode.DISABLED}, "DISABLED"),
        ({"num_envs": 2, "actoin": "logits"}, "did you mean 'action'"),
        ({"num_envs": 2, "max_episode_steps": 0}, "max_episode_steps must be a whole number"),
        ({"num_envs": 2, "market": 3}, "market must be"),
        ({"num_envs": 2, "device": "gpu"}, "there is no device 'gpu'"),
    ],
)
def test_every_adapter_refuses_alike(name, given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        adapters()[name](**{"market": "tech4"} | given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rsl_rl", "torchrl"])
@pytest.mark.parametrize("rules", [{"autoreset": "next_step"}, {"players": 2}])
def test_rules_that_batches_for_clients_cannot_work_with_are_refused(name, rules):
    shared = rules | ({"impact": {"transient": 1.0}} if "players" in rules else {})
    with pytest.raises(ConfigError, match='needs autoreset="same_step"'):
        adapters()[name](num_envs=2, market="tech4", **shared)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
@pytest.mark.parametrize("name", ["rsl_rl", "torchrl"])
def test_seeds_that_are_none_are_refused(name, seed):
    with pytest.raises(ConfigError, match="seed must be a whole number >= 0"):
        adapters()[name](num_envs=2, market="tech4", seed=seed)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.zeros(3, 4), r"must have shape \(2, 4\), got \(3, 4\)"),
        (torch.zeros(2, 4, dtype=torch.complex64), "real numbers"),
        ("buy", "real numbers"),
    ],
)
def test_actions_that_are_none_are_refused_by_rsl_rl(actions, message):
    env = adapters()["rsl_rl"](num_envs=2, **SHORT)
    with pytest.raises(ActionError, match=message):
        env.step(actions)


def test_a_step_of_torchrl_before_reset_is_refused():
    env = adapters()["torchrl"](num_envs=2, **SHORT)
    tensordict = client("tensordict").TensorDict
    with pytest.raises(ActionError, match="call reset"):
        env.step(tensordict({"action": torch.zeros(2, 4)}, batch_size=[2]))


def test_lengths_of_another_number_are_refused():
    env = adapters()["rsl_rl"](num_envs=2, **SHORT)
    with pytest.raises(ConfigError, match=r"episode_length_buf must have shape \(2,\)"):
        env.episode_length_buf = torch.zeros(3)


@pytest.mark.parametrize("name", ["rsl_rl", "torchrl"])
def test_a_missing_client_is_named_in_one_line(name):
    code = (
        f"import sys; sys.modules['{name}'] = None\n"
        f"try: import fastsim.adapters.{name}\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{name} is not installed: pip install 'fastsim-rl[{name}]'"
