"""Every algorithm finds what there is to find, and nothing where there is nothing."""

import pytest
import torch
from planted import RULES, planted_tape

from fastsim.experiment.replays import play
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.spec import PolicyConfig

RUNS = {
    "ppo": (PPOConfig(discount=0.9, learning_rate=3e-3), CollectConfig(num_envs=128), 60),
    "sac": (SACConfig(discount=0.9), CollectConfig(num_envs=64), 30),
    "apg": (APGConfig(discount=0.9), CollectConfig(num_envs=16, rollout_steps=8), 30),
}
"""Settings, experience and iterations of each."""

NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name == "sac")) for name in ALGORITHMS]


def share_of_best_growth(name: str, *, revealing: bool) -> float:
    tape, best = planted_tape(revealing=revealing)
    settings, collect, iterations = RUNS[name]
    policy = PolicyConfig(initial_std=1.0)
    trainer = Trainer(
        tape, RULES, settings, policy, collect, algorithm=name, iterations=iterations, seed=0
    )
    for _ in range(iterations):
        trainer.iterate()
    wealth = play(trainer.policy, tape, RULES).wealth[:, 0]
    return float(torch.log(wealth[-1] / wealth[0])) / best


@pytest.mark.parametrize("name", NAMES)
def test_four_fifths_of_the_best_growth_are_reached_when_a_feature_reveals_the_next_return(name):
    assert share_of_best_growth(name, revealing=True) >= 0.8


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_when_the_feature_is_shuffled(name):
    assert share_of_best_growth(name, revealing=False) < 0.2
