"""A pattern that the last bar does not show is found by who looks at windows, and by no other."""

import pytest
import torch
from planted import RULES, planted_tape

from fastsim.experiment.replays import play
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.encoders import ENCODERS
from fastsim.policy.spec import PolicyConfig

BARS, ITERATIONS = 20, 60


def share_of_best_growth(encoder: str) -> float:
    """Of a market whose next return a feature revealed 19 bars ago."""
    tape, best = planted_tape(revealing=True, ahead=BARS)
    policy = PolicyConfig(initial_std=1.0, encoder=encoder, window=BARS)
    settings = PPOConfig(discount=0.9, learning_rate=3e-3)
    collect = CollectConfig(num_envs=128)
    trainer = Trainer(tape, RULES, settings, policy, collect, iterations=ITERATIONS, seed=0)
    for _ in range(ITERATIONS):
        trainer.iterate()
    wealth = play(trainer.policy, tape, RULES).wealth[:, 0]
    return float(torch.log(wealth[-1] / wealth[0])) / best


@pytest.mark.long
@pytest.mark.parametrize("encoder", ENCODERS)
def test_four_fifths_of_the_best_growth_are_reached_by_looking_at_windows(encoder):
    assert share_of_best_growth(encoder) >= 0.8


def test_nothing_is_found_in_the_last_bar():
    assert share_of_best_growth("mlp") < 0.2
