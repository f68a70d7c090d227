"""What a user of Gymnasium expects."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from worlds import assert_same_bits

import fastsim
from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ActionError, ConfigError, DataError
from fastsim.market.tape import make_tape

EPISODE = {"horizon": 20}
ACTION = np.full(20, 0.05, dtype=np.float32)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": "signed"},
        {"observation": "index"},
        {"market": "tech4"},
        {"market": "tech4", "observation": "window"},
        {"market": "tech4", "tape": {"fill": "close"}, "start": "2010-01-01", "end": "2011-12-31"},
    ],
)
def test_gymnasium_finds_nothing_to_complain_about(arguments):
    check_env(gymnasium.make(fastsim.ENV_ID, **arguments).unwrapped, skip_render_check=True)


def test_an_environment_made_twice_with_one_seed_runs_the_same_at_any_thread_count(threads):
    def run(count: int) -> list[np.ndarray]:
        threads(count)
        env = gymnasium.make(fastsim.ENV_ID, episode=EPISODE)
        env.action_space.seed(1)
        observations = [env.reset(seed=5)[0]]
        for _ in range(60):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            observations.append(env.reset()[0] if terminated or truncated else observation)
        return observations

    assert all(np.array_equal(*pair) for pair in zip(run(1), run(2), strict=True))


def test_make_is_the_first_row_of_make_vec():
    single = gymnasium.make(fastsim.ENV_ID, episode=EPISODE)
    many = gymnasium.make_vec(fastsim.ENV_ID, num_envs=3, episode=EPISODE)
    alone, _ = single.reset(seed=7)
    together, _ = many.reset(seed=7)
    actions = torch.full((3, 20), 0.03)
    for _ in range(50):
        assert np.array_equal(alone, together[0].numpy())
        alone, reward, terminated, truncated, _ = single.step(actions[0].numpy())
        together, rewards, _, truncations, _ = many.step(actions)
        assert reward == float(rewards[0])
        assert truncated == bool(truncations[0])
        if terminated or truncated:
            alone, _ = single.reset()
            together, *_ = many.step(actions)  # the restart takes a step of its own


def test_make_vec_steps_torch_tensors_and_names_its_autoreset_mode():
    env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=64, device="cpu", episode=EPISODE)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    observation, reward, terminated, truncated, info = env.step(torch.rand(64, 20))
    assert all(isinstance(value, torch.Tensor) for value in (observation, reward, truncated))
    assert terminated.dtype == truncated.dtype == torch.bool
    assert info["wealth"].shape == (64,)


def test_same_step_gives_a_dense_final_observation():
    env = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=4, autoreset="same_step", episode={"horizon": 3}
    )
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for step in range(1, 7):
        observation, _, _, truncated, info = env.step(torch.full((4, 20), 0.05))
        assert bool(truncated.all()) == (step % 3 == 0)
        assert torch.equal(info["_final_obs"], truncated)
        changed = (info["final_obs"] != observation).any(1)
        assert torch.equal(changed, truncated)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("as_config", [False, True])
def test_one_environment_is_the_same_whatever_autoreset_says(backend, as_config):
    def run(autoreset: str) -> list[object]:
        rules = {"autoreset": autoreset, "episode": EpisodeConfig(horizon=3)}
        chosen = (
            {"config": EnvConfig(**rules)} if as_config else {**rules, "episode": {"horizon": 3}}
        )
        env = gymnasium.make(fastsim.ENV_ID, backend=backend, **chosen)
        seen, info = env.reset(seed=0)
        record: list[object] = [seen.tolist(), repr(info)]
        for _ in range(7):
            seen, *rest = env.step(ACTION)
            record += [seen.tolist(), rest[:3], repr(rest[3])]
            if rest[2]:
                seen, info = env.reset()
                record += [seen.tolist(), repr(info)]
        return record

    assert run("same_step") == run("next_step")


def test_the_observation_at_an_end_is_the_last_of_the_episode():
    env = gymnasium.make(fastsim.ENV_ID, autoreset="same_step", episode={"horizon": 3})
    env.reset(seed=0)
    for _ in range(3):
        seen, _, _, truncated, info = env.step(ACTION)
    names = dict(zip(env.unwrapped.observation_names, seen.tolist(), strict=True))
    assert truncated
    assert names["weight.cash"] < 0.01, "a new episode begins in cash"
    assert names["log_growth"] == pytest.approx(math.log(info["wealth"] / 1e6), abs=1e-5)
    tape = env.unwrapped.env.tape
    bar = tape.timestamps.tolist().index(info["date"])
    assert bar == info["bar"]
    assert np.array_equal(
        seen[: -len(tape.symbols) - 3], tape.known.features[bar].flatten().numpy()
    )


def test_dates_bound_the_episodes_and_features_still_look_further_back():
    env = gymnasium.make(
        fastsim.ENV_ID, start="2020-01-01", end="2020-12-31", episode={"horizon": None}
    )
    _, info = env.reset(seed=0)
    assert str(np.datetime64(info["date"], "ns")).startswith("2020")
    tape = env.unwrapped.env.tape
    assert str(tape.timestamps[tape.last])[:10] == "2020-12-31"
    whole = make_tape(sample_bars("us20"))
    assert torch.equal(tape.known.features, whole.known.features)


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_run_is_the_same_to_the_bit_at_one_thread_and_at_two(threads, autoreset):
    def run(count: int) -> list[torch.Tensor]:
        threads(count)
        env = gymnasium.make_vec(
            fastsim.ENV_ID, num_envs=2048, autoreset=autoreset, episode={"horizon": 5}
        )
        kept = [env.reset(seed=9)[0]]
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            observation, reward, *_ = env.step(torch.rand(2048, 20, generator=generator))
            kept += [observation, reward]
        return kept

    assert all(torch.equal(*pair) for pair in zip(run(1), run(2), strict=True))


def test_an_unseeded_environment_differs_from_run_to_run():
    starts = {gymnasium.make(fastsim.ENV_ID).reset()[1]["date"] for _ in range(5)}
    assert len(starts) > 1


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full(20, np.nan, dtype=np.float32), "finite"),
        (np.full(20, np.inf, dtype=np.float32), "finite"),
        (np.zeros(19, dtype=np.float32), r"\(1, 20\)"),
        (np.zeros((2, 20), dtype=np.float32), r"\(1, 20\)"),
    ],
)
def test_a_bad_action_is_an_error_for_one_person(action, message):
    env = gymnasium.make(fastsim.ENV_ID, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(action)


def test_a_refused_action_leaves_everything_as_it_was():
    env = gymnasium.make(fastsim.ENV_ID, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    before = env.env.state
    for action in (ACTION * np.nan, ACTION * np.inf, ACTION[1:], ACTION[None]):
        with pytest.raises(ActionError):
            env.step(action)
    assert_same_bits(env.env.state, before)


def test_huge_numbers_are_an_action_like_any_other():
    env = gymnasium.make(fastsim.ENV_ID, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    env.step(np.full(20, 3e38, dtype=np.float32))
    assert int(env.env.state.invalid_actions) == 0
    torch.testing.assert_close(
        env.env.state.portfolio.cash / 1e6, torch.zeros(1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("observation", ["flat", "index", "window"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_one_environment_is_told_what_the_batch_is_told(observation, dtype, backend):
    tape = make_tape(sample_bars("tech4"), dtype=dtype)
    rules = {"market": tape, "backend": backend, "episode": {"horizon": 9}}
    single = gymnasium.make(fastsim.ENV_ID, observation=observation, **rules)
    many = gymnasium.make_vec(fastsim.ENV_ID, num_envs=1, observation=observation, **rules)
    assert single.unwrapped.env.stepper.name == backend
    single.reset(seed=7)
    many.reset(seed=7)
    for _ in range(9):
        action = single.action_space.sample()
        seen, reward, terminated, truncated, info = single.step(action)
        rows = many.step(torch.from_numpy(action)[None])
        assert [reward, terminated, truncated] == [float(part) for part in rows[1:4]]
        assert {type(value) for value in (reward, terminated, truncated)} == {float, bool}
        for name in ("wealth", "turnover", "cost"):
            assert info[name] == pytest.approx(float(rows[4][name]), rel=1e-6, abs=1e-9)
        parts = [(seen, rows[0])]
        if observation == "index":
            assert np.datetime64(info["date"], "ns") == tape.timestamps[seen["bar"]]
            parts = [(seen[key], rows[0][key]) for key in ("bar", "portfolio")]
        for mine, theirs in parts:
            assert np.array_equal(mine, theirs[0].to(torch.float32).numpy())
    assert truncated


def test_observations_are_the_callers_to_keep():
    env = gymnasium.make(fastsim.ENV_ID)
    first, _ = env.reset(seed=0)
    second = env.step(ACTION)[0]
    kept = first.copy(), second.copy()
    env.step(ACTION * 0)
    assert np.array_equal(first, kept[0])
    assert np.array_equal(second, kept[1])


def test_a_backend_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"backend must be one of .*'fortran'"):
        gymnasium.make(fastsim.ENV_ID, backend="fortran")


def test_stepping_before_reset_or_after_the_end_is_an_error():
    env = gymnasium.make(fastsim.ENV_ID, episode={"horizon": 1}).unwrapped
    with pytest.raises(ActionError, match="call reset"):
        env.step(ACTION)
    env.reset(seed=0)
    assert env.step(ACTION)[3]
    with pytest.raises(ActionError, match="call reset"):
        env.step(ACTION)


@pytest.mark.parametrize(
    ("arguments", "error", "culprit"),
    [
        ({"market": "us21"}, DataError, "us21"),
        ({"market": 3}, ConfigError, "int"),
        ({"device": "gpu"}, ConfigError, "gpu"),
        pytest.param(
            {"device": "cuda"},
            ConfigError,
            "no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ({"actoin": "logits"}, ConfigError, "actoin"),
        ({"action": "softmax"}, ConfigError, "softmax"),
        ({"costs": {"fee_bps": -1}}, ConfigError, "fee_bps"),
        ({"costs": {"fees": 1}}, ConfigError, "fees"),
        ({"costs": {"fee_bps": "cheap"}}, ConfigError, "cheap"),
        ({"episode": {"horizon": 0}}, ConfigError, "horizon"),
        ({"episode": {"horizon": 10**6}}, ConfigError, "1000000"),
        ({"max_gross": 2.0}, ConfigError, "max_gross"),
        ({"action": "signed", "max_gross": 9.0}, ConfigError, "max_gross"),
        ({"initial_cash": 0}, ConfigError, "initial_cash"),
        ({"reward": {"kind": "sharpe"}}, ConfigError, "sharpe"),
        ({"autoreset": "never"}, ConfigError, "never"),
        ({"observation": "image"}, ConfigError, "image"),
        ({"window_length": 0}, ConfigError, "window_length"),
        ({"start": "soon"}, ConfigError, "soon"),
        ({"start": "2022-12-28"}, DataError, "longer span"),
        ({"tape": {"fill": "next_open"}}, DataError, "open"),
        ({"tape": {"fill": "never"}}, ConfigError, "never"),
        ({"tape": {"risk_free_rate": 5.0}}, ConfigError, "risk_free_rate"),
        ({"tape": {"features": {"momentum_skip": 500}}}, ConfigError, "momentum_skip"),
        ({"tape": {"features": {"return_windows": [0]}}}, ConfigError, "return_windows"),
        ({"tape": {"features": {"momentum_window": 9000}}}, DataError, "5785 bars"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, error, culprit):
    with pytest.raises(error, match=culprit) as caught:
        gymnasium.make(fastsim.ENV_ID, **arguments)
    assert "\n" not in str(caught.value)


def test_costs_can_differ_between_environments():
    fees = torch.tensor([0.0, 10.0, 1000.0])
    env = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=3, costs_per_env={"fee_bps": fees}, costs={"half_spread_bps": 0}
    )
    env.reset(seed=0)
    *_, info = env.step(torch.full((3, 20), 0.05))
    paid = info["cost"] / 1e6
    torch.testing.assert_close(paid, fees * 1e-4 / (1 + fees * 1e-4), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("costs", "culprit"),
    [
        ({"fee_bps": torch.zeros(4)}, r"\(3,\)"),
        ({"fee_bps": torch.tensor([0.0, -1.0, 0.0])}, "fee_bps"),
        ({"fees": torch.zeros(3)}, "fees"),
    ],
)
def test_wrong_costs_per_environment_are_named(costs, culprit):
    with pytest.raises(ConfigError, match=culprit):
        gymnasium.make_vec(fastsim.ENV_ID, num_envs=3, costs_per_env=costs)


def test_a_batch_of_none_is_an_error():
    for count in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="num_envs must be a whole number"):
            gymnasium.make_vec(fastsim.ENV_ID, num_envs=count)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_steps_to_what_the_cpu_steps_to():
    def run(device: str) -> torch.Tensor:
        env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=64, device=device, episode=EPISODE)
        env.reset(seed=0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            actions = torch.rand(64, 20, generator=generator).to(device)
            observation, *_ = env.step(actions)
        return observation.cpu()

    torch.testing.assert_close(run("cuda"), run("cpu"), rtol=1e-4, atol=1e-5)
