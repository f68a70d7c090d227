"""Copies and pickles of environments: they go on alike, and apart."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from worlds import assert_same_bits

import fastsim
from fastsim.adapters.build import build_env
from fastsim.adapters.gym_env import PortfolioVectorEnv
from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import flatten

N = 6
RULES = {"market": "tech4", "episode": {"horizon": 5}}


def pickled(env):
    return pickle.loads(pickle.dumps(env))


COPIES = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
BACKENDS = pytest.mark.parametrize("backend", ["torch", "numba"])


def actions(steps: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(steps, N, 4, generator=torch.Generator().manual_seed(seed))


def begun(backend: str, **rules: object) -> PortfolioEnv:
    """An environment amid its episodes."""
    env = build_env(N, backend=backend, **{**RULES, **rules})
    env.reset(3)
    for action in actions(3):
        env.step(action)
    return env


def run(env: PortfolioEnv, seed: int = 1) -> list[object]:
    """All that a few steps return, over the ends of episodes."""
    return [env.step(action) for action in actions(12, seed)]


@COPIES
@BACKENDS
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_copy_steps_on_to_identical_results(backend, duplicate, autoreset):
    env = begun(backend, autoreset=autoreset)
    other = duplicate(env)
    assert other.stepper.name == env.stepper.name == backend
    assert_same_bits(other.state, env.state)
    for mine, theirs in zip(run(env), run(other), strict=True):
        assert_same_bits(mine, theirs)
    assert_same_bits(other.state, env.state)


@COPIES
@BACKENDS
def test_neither_original_nor_copy_moves_with_the_other(backend, duplicate):
    env = begun(backend)
    other, before = duplicate(env), env.state
    run(other)
    assert_same_bits(env.state, before)
    after = other.state
    run(env, seed=2)
    assert_same_bits(other.state, after)


@COPIES
@BACKENDS
def test_a_copy_shares_no_memory(backend, duplicate):
    env = begun(backend)
    other = duplicate(env)

    def places(each: PortfolioEnv) -> set[int]:
        block = each.tape.next
        parts = [
            each.stepper.state,
            each.tape.known,
            each.params.friction,
            block.assets,
            block.bars,
        ]
        tensors = [leaf for part in parts for leaf in flatten(part)]
        return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}

    assert not places(env) & places(other)


@COPIES
def test_players_who_share_a_market_are_copied_with_it(duplicate):
    env = begun("torch", players=3, impact={"transient": 5.0, "permanent": 0.1})
    other = duplicate(env)
    for mine, theirs in zip(run(env), run(other), strict=True):
        assert_same_bits(mine, theirs)


@COPIES
@BACKENDS
def test_a_copy_of_what_gymnasium_made_goes_on(backend, duplicate):
    env = gymnasium.make(fastsim.ENV_ID, backend=backend, **RULES)
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(2):
        env.step(env.action_space.sample())
    other = duplicate(env)

    def go_on(each: gymnasium.Env) -> list[object]:
        record: list[object] = []
        for _ in range(8):
            *stepped, info = each.step(each.action_space.sample())
            record += [*stepped, dict(info)]
            if stepped[-1] or stepped[-2]:
                seen, info = each.reset()
                record += [seen, dict(info)]
        return record

    np.testing.assert_equal(go_on(env), go_on(other))


@COPIES
@BACKENDS
def test_a_copy_of_what_make_vec_made_goes_on(backend, duplicate):
    env = gymnasium.make_vec(fastsim.ENV_ID, num_envs=N, backend=backend, **RULES)
    env.reset(seed=3)
    other = duplicate(env)
    assert isinstance(other, PortfolioVectorEnv)
    for action in actions(12):
        mine, theirs = env.step(action), other.step(action)
        assert all(map(torch.equal, mine[:4], theirs[:4]))
        assert_same_bits(mine[4], theirs[4])


def test_other_processes_step_what_was_made_here():
    env = gymnasium.make(fastsim.ENV_ID, **RULES)
    env.reset(seed=3)
    vector = gymnasium.vector.AsyncVectorEnv([lambda: env] * 2, context="spawn")
    try:
        vector.reset(seed=[3, 4])
        action = np.full((2, 4), 0.2, dtype=np.float32)
        first, _ = env.reset(seed=3)
        for _ in range(4):
            together, rewards, *_ = vector.step(action)
            first, reward, *_ = env.step(action[0])
            assert np.array_equal(together[0], first)
            assert rewards[0] == reward
    finally:
        vector.close()
