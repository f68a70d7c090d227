"""A single environment steps by rows of numbers, and is what the batch and the reference are."""

import copy
import pickle

import numpy as np
import pytest
import torch

from fastsim.adapters.build import build_env
from fastsim.adapters.gym_env import PortfolioGymEnv
from fastsim.errors import ActionError

RULES = {"market": "tech4", "episode": {"horizon": 5}}
KINDS = {
    "flat": {},
    "index": {"observation": "index"},
    "invested": {"initial_invested": 0.5, "reward": {"kind": "differential_sharpe"}},
    "moving prices": {"impact": {"transient": 1.0, "permanent": 0.1}},
    "whole history": {"episode": {"horizon": None, "random_start": False}},
    "logits": {"action": "logits"},
}


def made(kind, backend="auto"):
    return PortfolioGymEnv(**{**RULES, **KINDS[kind]}, backend=backend)


def drawn(env, step):
    return np.random.default_rng(step).random(env.action_space.shape, dtype=np.float32)


def assert_alike(one, other):
    if isinstance(one, tuple):
        for each, wanted in zip(one, other, strict=True):
            assert_alike(each, wanted)
    elif isinstance(one, dict):
        assert set(one) == set(other)
        for name in one:
            assert_alike(one[name], other[name])
    else:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_episode_after_episode_is_that_of_the_reference(kind):
    row, law = made(kind), made(kind, "torch")
    assert row.env.stepper.name == "numba"
    begun = [env.reset(seed=4) for env in (row, law)]
    assert_alike(*begun)
    for step in range(17):
        (seen, *ends, info), (wanted, *others, told) = (
            env.step(drawn(env, step)) for env in (row, law)
        )
        assert row.observation_space.contains(seen)
        assert [type(end) for end in ends] == [float, bool, bool]
        assert_alike(seen, wanted)
        assert ends[1:] == others[1:]
        assert ends[0] == pytest.approx(others[0], rel=1e-4, abs=1e-5)
        assert_alike(dict(info), dict(told))
        if any(ends[1:]):
            again = [env.reset() for env in (row, law)]
            assert_alike(again[0][0], again[1][0])
            assert_alike(dict(again[0][1]), dict(again[1][1]))
    assert row.statistics.episodes == law.statistics.episodes
    assert row.statistics.steps == law.statistics.steps == 17
    for ours, wanted in zip(row.statistics[3:], law.statistics[3:], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-2, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("kind", ["flat", "index"])
def test_what_a_step_returned_stays_as_it_was(kind):
    env = made(kind)
    returned, kept = [env.reset(seed=1)], []
    kept.append(copy.deepcopy((returned[0][0], dict(made(kind).reset(seed=1)[1]))))
    other = made(kind)
    other.reset(seed=1)
    for step in range(5):
        returned.append(env.step(drawn(env, step))[::4])
        seen, *_, info = other.step(drawn(env, step))
        kept.append((copy.deepcopy(seen), dict(info)))
    env.reset()
    for (seen, info), (wanted, told) in zip(returned, kept, strict=True):
        assert_alike(seen, wanted)
        assert_alike(dict(info), told)


def test_a_bad_action_changes_nothing():
    env, other = made("flat"), made("flat")
    env.reset(seed=2), other.reset(seed=2)
    for bad, words in (
        (np.full(4, np.nan, np.float32), "must be finite"),
        (np.array([0.1, np.inf, 0, 0], np.float32), "must be finite"),
        (np.zeros(3, np.float32), r"must have shape \(1, 4\), got \(1, 3\)"),
        (np.zeros((1, 4), np.float32), r"must have shape"),
        (np.array(["a"] * 4), "real numbers"),
        (np.zeros(4, complex), "real numbers"),
        (None, "real numbers"),
    ):
        with pytest.raises(ActionError, match=words):
            env.step(bad)
    assert env.env.state.invalid_actions.item() == 0
    huge = np.array([3e38, 0, 0, 0], np.float32)  # its square is infinite
    for action in (huge, [0.1, 0.2, 0.3, 0.4], np.arange(4), np.arange(8.0)[::2]):
        ours, theirs = env.step(action), other.step(np.array(action, np.float32))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]


def test_a_reset_alone_begins_the_next_episode_wherever_the_last_one_is():
    env, batch = made("flat"), build_env(1, **RULES)
    env.reset(seed=3), batch.reset(3)
    for steps in (0, 2, 5):
        for step in range(steps):
            env.step(drawn(env, step))
        seen, info = env.reset()
        wanted = batch.reset()
        np.testing.assert_array_equal(seen, batch.columns(wanted)[0].numpy())
        assert info["bar"] == wanted.bar.item()
        assert env.env.state.episode.number.item() == batch.state.episode.number.item()
        assert not env.env.state.episode.done.any()


def test_episodes_that_are_cut_at_random_are_so_after_every_reset():
    rules = {**RULES, "episode": {"horizon": 40, "staggered": True}}
    env, batch = PortfolioGymEnv(**rules), build_env(1, **rules)
    env.reset(seed=3), batch.reset(3)
    for _ in range(4):
        env.reset(), batch.reset()
        assert torch.equal(env.env.state.episode.end, batch.state.episode.end)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_and_apart(duplicate):
    env = made("flat")
    env.reset(seed=6)
    env.step(drawn(env, 0))
    other = duplicate(env)
    for step in range(1, 4):
        one, two = env.step(drawn(env, step)), other.step(drawn(env, step))
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:4] == two[1:4]
    env.step(drawn(env, 9))
    assert other.env.state.episode.bar.item() + 1 == env.env.state.episode.bar.item()
