"""PPO finds what there is to find, and nothing where there is nothing."""

import torch
from planted import RULES, planted_tape

from fastsim.experiment.replays import play
from fastsim.learn.ppo import PPOConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.spec import PolicyConfig

ITERATIONS = 60


def share_of_best_growth(*, revealing: bool) -> float:
    tape, best = planted_tape(revealing=revealing)
    ppo = PPOConfig(num_envs=128, rollout_steps=16, discount=0.9, learning_rate=3e-3)
    policy = PolicyConfig(initial_std=1.0)
    trainer = Trainer(tape, RULES, ppo, policy, iterations=ITERATIONS, seed=0)
    for _ in range(ITERATIONS):
        trainer.iterate()
    wealth = play(trainer.policy, tape, RULES).wealth[:, 0]
    return float(torch.log(wealth[-1] / wealth[0])) / best


def test_ppo_reaches_four_fifths_of_the_best_growth_when_a_feature_reveals_the_next_return():
    assert share_of_best_growth(revealing=True) >= 0.8


def test_ppo_finds_nothing_when_the_feature_is_shuffled():
    assert share_of_best_growth(revealing=False) < 0.2
