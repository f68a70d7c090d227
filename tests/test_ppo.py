"""The pieces of PPO, each against a plain computation."""

import math

import pytest
import torch
from planted import RULES, planted_tape
from torch.distributions import Independent, Normal

from fastsim.env.environment import PortfolioEnv
from fastsim.learn.normalize import RunningMoments
from fastsim.learn.policy import Policy, PolicyConfig, PolicyOutput
from fastsim.learn.ppo import (
    Batch,
    PPOConfig,
    RewardScale,
    explained_variance,
    learning_rate,
    make_batch,
    ppo_losses,
)
from fastsim.learn.rollout import Rollout, collect, empty_rollout


@pytest.fixture
def experience() -> tuple[PortfolioEnv, Policy, Rollout]:
    tape, _ = planted_tape(revealing=True, bars=400)
    env = PortfolioEnv(tape, 16, RULES)
    torch.manual_seed(0)
    policy = Policy(tape, env.action_width, PolicyConfig(hidden=8, initial_std=0.5))
    rollout = empty_rollout(env, 80)
    collect(env, policy, env.reset(3), rollout, torch.Generator().manual_seed(0))
    return env, policy, rollout


def test_log_prob_and_entropy_are_those_of_a_diagonal_normal():
    generator = torch.Generator().manual_seed(1)
    mean, action = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    log_std = torch.randn(3, generator=generator, dtype=torch.float64)
    ours = PolicyOutput(mean, log_std, mean[:, 0])
    theirs = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy().expand(5), theirs.entropy())


def test_running_moments_of_batches_are_those_of_everything_at_once():
    values = 3.0 + 7.0 * torch.randn(1000, 4, generator=torch.Generator().manual_seed(2))
    valid = torch.arange(1000) % 3 != 0
    moments = RunningMoments(4)
    for rows in torch.arange(1000).split(130):
        moments.update(values[rows], valid[rows])
    kept = values[valid].double()
    torch.testing.assert_close(moments.mean, kept.mean(0))
    torch.testing.assert_close(moments.std, kept.std(0, unbiased=False))


def test_a_rollout_stores_what_the_policy_said_of_what_the_environment_showed(experience):
    _, policy, rollout = experience
    table = experience[0].tape.known.features
    with torch.no_grad():
        output = policy(policy.encode(table[rollout.bar[5]]), rollout.portfolio[5])
    torch.testing.assert_close(output.value, rollout.value[5])
    torch.testing.assert_close(output.log_prob(rollout.action[5]), rollout.log_prob[5])


@torch.no_grad()
def test_rows_that_restart_are_out_of_the_loss(experience):
    env, policy, rollout = experience
    assert rollout.restarted.any()
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    market = env.tape.known.features[batch.bar]
    loss = ppo_losses(policy, market, batch, PPOConfig())
    poisoned = batch._replace(
        advantage=torch.where(batch.valid > 0, batch.advantage, 1e6),
        value_target=torch.where(batch.valid > 0, batch.value_target, 1e6),
    )
    for before, after in zip(loss, ppo_losses(policy, market, poisoned, PPOConfig()), strict=True):
        torch.testing.assert_close(after, before)


@torch.no_grad()
def test_an_unmoved_policy_has_ratio_one_and_no_divergence(experience):
    env, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    losses = ppo_losses(policy, env.tape.known.features[batch.bar], batch, PPOConfig())
    assert abs(float(losses.kl)) < 1e-6
    assert float(losses.clip_fraction) == 0.0
    assert abs(float(losses.policy)) < 1e-5  # minus the mean of standardised advantages


@torch.no_grad()
def test_the_surrogate_is_clipped_as_in_the_paper(experience):
    env, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    shift = torch.linspace(-1.0, 1.0, len(batch.log_prob))
    moved = batch._replace(log_prob=batch.log_prob + shift)
    losses = ppo_losses(policy, env.tape.known.features[batch.bar], moved, PPOConfig(clip=0.2))
    expected, weight = 0.0, 0.0
    for delta, advantage, valid in zip(
        shift.tolist(), batch.advantage.tolist(), batch.valid.tolist(), strict=True
    ):
        ratio = math.exp(-delta)
        clipped = min(max(ratio, 0.8), 1.2)
        expected += valid * min(ratio * advantage, clipped * advantage)
        weight += valid
    assert float(losses.policy) == pytest.approx(-expected / weight, rel=1e-4)


@torch.no_grad()
def test_a_clipped_value_loss_is_the_larger_of_the_two(experience):
    env, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    far = batch._replace(value=batch.value + 1.0, value_target=batch.value + 1.0)
    market = env.tape.known.features[batch.bar]
    free = ppo_losses(policy, market, far, PPOConfig()).value
    clipped = ppo_losses(policy, market, far, PPOConfig(value_clip=0.1)).value
    assert float(free) == pytest.approx(1.0, abs=1e-4)
    assert float(clipped) == pytest.approx(1.0, abs=1e-4)
    near = far._replace(value=batch.value)
    assert float(ppo_losses(policy, market, near, PPOConfig(value_clip=0.1)).value) >= 1.0 - 1e-4


def test_rewards_are_scaled_to_unit_deviation_of_their_discounted_sums(experience):
    _, _, rollout = experience
    scale = RewardScale(16, torch.device("cpu"))
    scaled = scale.update(rollout, 0.9)
    ratio = rollout.reward[rollout.reward != 0] / scaled[rollout.reward != 0]
    assert float(ratio.std()) == pytest.approx(0.0, abs=1e-6)
    running, sums = torch.zeros(16), []
    for reward, ended in zip(rollout.reward, rollout.terminated | rollout.truncated, strict=True):
        running = 0.9 * running + reward
        sums.append(running)
        running = torch.where(ended, 0.0, running)
    kept = torch.stack(sums)[rollout.valid].double()
    assert float(ratio[0]) == pytest.approx(float(kept.std(unbiased=False)), rel=1e-4)


def test_learning_rates_fall_as_their_schedules_say():
    assert learning_rate(PPOConfig(learning_rate=1.0, schedule="linear"), 0.25) == 0.75
    assert learning_rate(PPOConfig(learning_rate=1.0, schedule="cosine"), 0.5) == pytest.approx(0.5)
    assert learning_rate(PPOConfig(learning_rate=1.0, schedule="constant"), 0.9) == 1.0


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant():
    target, valid = torch.arange(10.0), torch.ones(10)
    assert float(explained_variance(target, target, valid)) == 1.0
    assert float(explained_variance(torch.zeros(10), target, valid)) == pytest.approx(0.0)


def test_advantages_are_standardised_over_the_steps_that_count(experience):
    _, _, rollout = experience
    batch: Batch = make_batch(rollout, rollout.reward, PPOConfig())
    kept = batch.advantage[batch.valid > 0]
    assert float(kept.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(kept.std(unbiased=False)) == pytest.approx(1.0, rel=1e-4)
