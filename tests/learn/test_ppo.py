"""The pieces of PPO, each against a plain computation."""

import copy
import math

import pytest
import torch
from planted import RULES, planted_tape
from torch.distributions import Independent, Normal
from waiting import without_waiting

from fastsim.env.environment import PortfolioEnv
from fastsim.env.observe import Observation
from fastsim.learn.figures import explained_variance
from fastsim.learn.ppo.config import PPOConfig, learning_rate
from fastsim.learn.ppo.update import (
    Batch,
    empty_tally,
    learn,
    make_batch,
    make_optimizer,
    minibatches,
    ppo_losses,
)
from fastsim.learn.reward_scale import RewardScale
from fastsim.learn.rollout import (
    CollectConfig,
    Rollout,
    begin_policy,
    begin_rollout,
    collect,
    empty_rollout,
)
from fastsim.learn.trainer import Trainer
from fastsim.policy.flat import FlatPolicy, MarketTable
from fastsim.policy.normalize import RunningMoments
from fastsim.policy.policy import PolicyOutput
from fastsim.policy.spec import PolicyConfig


@pytest.fixture
def experience() -> tuple[MarketTable, FlatPolicy, Rollout]:
    tape, _ = planted_tape(revealing=True, bars=400)
    env = PortfolioEnv(tape, 16, RULES)
    policy = begin_policy(env, PolicyConfig(hidden=8, initial_std=0.5), seed=0)
    rollout = empty_rollout(env, 80)
    begin_rollout(rollout, env.reset(3))
    table = policy.standardize(tape)
    collect(env, policy, table, rollout, torch.Generator().manual_seed(0))
    return table, policy, rollout


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


@pytest.mark.parametrize("rows", [255, 256, 257, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [None, torch.bool, torch.float32])
def test_moments_of_many_rows_in_one_pass_are_those_of_the_plain_formula(rows, dtype, kind):
    generator = torch.Generator().manual_seed(rows)
    values = 1e3 + torch.randn(rows, 5, generator=generator, dtype=dtype).cumsum(0)
    values[:, 2] = 0.1  # does not vary
    valid = torch.rand(rows, generator=generator) < 0.8
    valid[:140] = False
    kept = (values if kind is None else values[valid]).double()
    moments = RunningMoments(5)
    moments.update(values, None if kind is None else valid.to(kind))
    torch.testing.assert_close(moments.mean, kept.mean(0), rtol=1e-14, atol=0.0)
    expected = (kept - kept.mean(0)).square().sum(0)
    torch.testing.assert_close(moments.square_sum, expected, rtol=1e-11, atol=1e-18)
    assert float(moments.count) == len(kept)
    assert float(moments.std[2]) == 1.0


def test_a_rollout_stores_what_the_policy_said_of_what_the_environment_showed(experience):
    table, policy, rollout = experience
    with torch.no_grad():
        output = policy(policy.look_up(table, rollout.bar[5]), rollout.portfolio[5])
    torch.testing.assert_close(output.value, rollout.value[5])
    torch.testing.assert_close(output.log_prob(rollout.action[5]), rollout.log_prob[5])


@torch.no_grad()
def test_rows_that_restart_are_out_of_the_loss(experience):
    table, policy, rollout = experience
    assert rollout.restarted.any()
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    loss = ppo_losses(policy, table, batch, PPOConfig())
    poisoned = batch._replace(
        advantage=torch.where(batch.valid > 0, batch.advantage, 1e6),
        value_target=torch.where(batch.valid > 0, batch.value_target, 1e6),
    )
    for before, after in zip(loss, ppo_losses(policy, table, poisoned, PPOConfig()), strict=True):
        torch.testing.assert_close(after, before)


@torch.no_grad()
def test_an_unmoved_policy_has_ratio_one_and_no_divergence(experience):
    table, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    losses = ppo_losses(policy, table, batch, PPOConfig())
    assert abs(float(losses.kl)) < 1e-6
    assert float(losses.clip_fraction) == 0.0
    assert abs(float(losses.policy)) < 1e-5  # minus the mean of standardised advantages


@torch.no_grad()
def test_the_surrogate_is_clipped_as_in_the_paper(experience):
    table, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    shift = torch.linspace(-1.0, 1.0, len(batch.log_prob))
    moved = batch._replace(log_prob=batch.log_prob + shift)
    losses = ppo_losses(policy, table, moved, PPOConfig(clip=0.2))
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
    table, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    far = batch._replace(value=batch.value + 1.0, value_target=batch.value + 1.0)
    free = ppo_losses(policy, table, far, PPOConfig()).value
    clipped = ppo_losses(policy, table, far, PPOConfig(value_clip=0.1)).value
    assert float(free) == pytest.approx(1.0, abs=1e-4)
    assert float(clipped) == pytest.approx(1.0, abs=1e-4)
    near = far._replace(value=batch.value)
    assert float(ppo_losses(policy, table, near, PPOConfig(value_clip=0.1)).value) >= 1.0 - 1e-4


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


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in policy.parameters()]


def test_encoding_each_bar_once_gives_the_loss_and_gradients_of_encoding_each_sample(experience):
    table, policy, rollout = experience
    policy.double()
    table = table._replace(rows=table.rows.double())
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    parts = (x.double() if x.is_floating_point() else x for x in batch if x is not None)
    batch = Batch(*parts)
    assert len(batch.bar) > len(table.rows)
    gathered = ppo_losses(policy, table, batch, PPOConfig())
    alone = policy.encode(table.rows[batch.bar - table.first])
    output = policy(alone, batch.portfolio)
    ratio = (output.log_prob(batch.action) - batch.log_prob).exp()
    surrogate = torch.minimum(ratio * batch.advantage, ratio.clamp(0.8, 1.2) * batch.advantage)
    value = (output.value - batch.value_target).square()
    weight = batch.valid / batch.valid.sum()
    plain = ((value - surrogate) * weight).sum()
    once = gathered.policy + gathered.value
    torch.testing.assert_close(once, plain, rtol=1e-6, atol=1e-9)  # outputs are float32
    pairs = zip(gradients(policy, once), gradients(policy, plain), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_few_samples_are_encoded_one_by_one_and_alike(experience):
    table, policy, rollout = experience
    few = rollout.bar[0][:5]
    assert len(few) < len(table.rows)
    whole = policy.look_up(table, rollout.bar[:-1].flatten())[:5]
    torch.testing.assert_close(policy.look_up(table, few), whole, rtol=1e-5, atol=1e-6)


def test_acting_on_a_bar_equals_looking_it_up(experience):
    table, policy, rollout = experience
    tape, _ = planted_tape(revealing=True, bars=400)
    seen = Observation(rollout.bar[3], rollout.portfolio[3])
    with torch.no_grad():
        output = policy(policy.look_up(table, seen.bar), seen.portfolio)
    torch.testing.assert_close(policy.act(tape, seen), output.mean, rtol=1e-5, atol=1e-7)


def everything(policy, optimizer):
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*policy.parameters(), *moments)]


@pytest.mark.parametrize("stopped", [0.0, 1.0])
def test_updates_change_nothing_once_the_policy_has_moved_too_far(experience, stopped):
    table, policy, rollout = experience
    optimizer, tally = make_optimizer(policy, PPOConfig()), empty_tally(torch.device("cpu"))
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    before = everything(policy, optimizer)
    tally.stopped.fill_(stopped)
    learn(policy, optimizer, table, batch, PPOConfig(), tally)
    after = everything(policy, optimizer)
    unmoved = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert all(unmoved) if stopped else not any(unmoved)
    assert float(tally.terms) == 1.0 - stopped


def test_a_step_is_that_of_plain_adam(experience):
    table, policy, rollout = experience
    config = PPOConfig(max_grad_norm=1e9, target_kl=None)
    batch, tally = make_batch(rollout, rollout.reward, config), empty_tally(torch.device("cpu"))
    twin = copy.deepcopy(policy)
    plain = torch.optim.Adam(twin.parameters(), lr=config.learning_rate, eps=1e-5)
    optimizer = make_optimizer(policy, config)
    for _ in range(3):
        learn(policy, optimizer, table, batch, config, tally)
        losses = ppo_losses(twin, table, batch, config)
        plain.zero_grad()
        (losses.policy + config.value_weight * losses.value).backward()
        plain.step()
    for ours, theirs in zip(policy.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_epoch_draws_every_sample_once():
    config = PPOConfig(epochs=3, minibatches=4)
    rows = list(minibatches(24, config, torch.Generator().manual_seed(0)))
    assert len(rows) == 12
    for epoch in range(3):
        assert sorted(torch.cat(rows[4 * epoch : 4 * epoch + 4]).tolist()) == list(range(24))


def test_bfloat16_products_leave_log_probabilities_in_float32(experience):
    table, policy, rollout = experience
    batch = make_batch(rollout, rollout.reward, PPOConfig())
    with torch.no_grad():
        exact = ppo_losses(policy, table, batch, PPOConfig())
        rough = ppo_losses(policy, table, batch, PPOConfig(precision="bfloat16"))
    assert rough.policy.dtype == torch.float32
    assert float(rough.value) != float(exact.value)
    torch.testing.assert_close(rough.value, exact.value, rtol=0.02, atol=1e-3)


@pytest.mark.gpu
def test_a_captured_iteration_equals_an_eager_one_and_reads_nothing_back():
    tape, _ = planted_tape(revealing=True, bars=400)
    config, few = PPOConfig(minibatches=2, epochs=2), CollectConfig(num_envs=64, rollout_steps=8)
    runs = []
    for eager in (True, False):
        size = PolicyConfig(hidden=16)
        trainer = Trainer(
            tape.to("cuda"), RULES, config, size, few, iterations=9, capture=not eager
        )
        trainer.advance()
        with without_waiting():
            for _ in range(3):
                trainer.advance()
        actions = trainer.algorithm.rollout.action.clone()
        trainer.advance()
        assert not torch.equal(
            actions, trainer.algorithm.rollout.action
        )  # a replay draws fresh noise
        runs.append([parameter.detach().clone() for parameter in trainer.policy.parameters()])
    for captured, eager in zip(*runs, strict=True):
        torch.testing.assert_close(captured, eager, rtol=1e-4, atol=1e-6)


def test_moments_that_are_held_standardise_as_they_did_and_change_afterwards():
    moments, values = RunningMoments(2), torch.tensor([[1.0, 2.0], [3.0, 8.0]])
    moments.update(values)
    before = moments(values)
    with moments.held(torch.float32):
        assert torch.equal(moments(values), before)
        assert torch.equal(moments(values.double()).float(), before)
    moments.update(10.0 * values)
    assert not torch.equal(moments(values), before)
