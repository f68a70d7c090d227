"""The passes by hand are held to autograd, whatever is asked of them, and step aside by name."""

import copy
import logging
from types import MethodType

import numpy as np
import pytest
import torch
from experience import assert_alike, experience, follow, settings_drawn, twins, with_encoder
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import take
from fastsim.learn.fused import acting, numba_kernels, passes
from fastsim.learn.fused.coverage import has_own_encoder, uncovered
from fastsim.learn.ppo import by_hand
from fastsim.learn.ppo.by_hand import ByHand
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import (
    empty_tally,
    learn,
    make_optimizer,
    minibatches,
)
from fastsim.learn.rollout import (
    CollectConfig,
)
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.spec import PolicyConfig

CPU = torch.device("cpu")


@given(
    settings=settings_drawn,
    hidden=st.integers(1, 20),
    assets=st.integers(1, 9),
    num_envs=st.integers(2, 9),
    steps=st.integers(3, 12),
    drawn=st.booleans(),
    parts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_every_step_is_that_of_autograd(settings, hidden, assets, num_envs, steps, drawn, parts):
    policy, table, batch = experience(
        assets, hidden=hidden, num_envs=num_envs, steps=steps, drawn=drawn, settings=settings
    )
    ours, theirs = twins(policy, settings)
    with pytest.MonkeyPatch.context() as patch:
        in_parts(patch, *parts)
        hand = ByHand(*ours, table, batch, settings, own_encoder=True)
        rows = minibatches(len(batch.bar), settings, torch.Generator().manual_seed(1))
        mine, law = empty_tally(CPU), empty_tally(CPU)
        for minibatch in rows:
            hand.begin(1)
            hand.learn(minibatch, mine)
            learn(*theirs, table, take(batch, minibatch), settings, law)
            torch.testing.assert_close(mine.sums, law.sums, rtol=1e-4, atol=1e-5)
            assert mine.terms == law.terms
            assert mine.stopped == law.stopped
            assert_alike(ours, theirs)
            if mine.stopped:
                break
            follow(*theirs, ours)


def in_parts(patch, samples, bars):
    """Let parts be of so many rows."""
    for module in (passes, by_hand, acting):
        patch.setattr(module, "SAMPLES", samples)
        patch.setattr(module, "BARS", bars)


def test_restarted_rows_teach_nothing():
    settings = PPOConfig(minibatches=1)
    policy, table, batch = experience(settings=settings)
    assert not batch.valid.all()
    poisoned = batch._replace(
        advantage=torch.where(batch.valid > 0, batch.advantage, 1e6),
        value_target=torch.where(batch.valid > 0, batch.value_target, 1e6),
    )
    results = []
    for each in (batch, poisoned):
        own = twins(policy, settings)[1]
        hand, tally = ByHand(*own, table, each, settings, own_encoder=True), empty_tally(CPU)
        hand.begin(1)
        hand.learn(torch.arange(len(each.bar)), tally)
        results.append([tally.sums, *(each.detach() for each in own[0].parameters())])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_what_is_not_a_number_does_not_pass_for_one():
    settings = PPOConfig(minibatches=1, target_kl=None)
    policy, table, batch = experience(settings=settings)
    batch.advantage[3] = torch.nan
    ours, theirs = twins(policy, settings)
    hand, rows = ByHand(*ours, table, batch, settings, own_encoder=True), torch.arange(54)
    hand.begin(1)
    hand.learn(rows, empty_tally(CPU))
    learn(*theirs, table, take(batch, rows), settings, empty_tally(CPU))
    for one, other in zip(ours[0].parameters(), theirs[0].parameters(), strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        assert one.isnan().any()


def test_any_number_of_threads_gives_the_same_bits(threads, monkeypatch):
    in_parts(monkeypatch, 7, 5)
    found = []
    for count in (1, 2, 3):
        threads(count)
        trainer = a_trainer()
        for _ in range(3):
            figures = trainer.iterate()
        assert torch.get_num_threads() == count
        del figures["time/steps_per_second"]
        state = trainer.policy.state_dict(), trainer.algorithm.optimizer.state_dict()["state"]
        found.append((figures, copy.deepcopy(state)))
    for other in found[1:]:
        assert str(other) == str(found[0])
        for name, value in found[0][1][0].items():
            assert torch.equal(value, other[1][0][name]), name


def a_trainer(seed=0, **changes):
    tape = make_tape(random_bars(80, 3), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(action="logits", episode=EpisodeConfig(horizon=9, staggered=True))
    settings = PPOConfig(minibatches=2, epochs=2, target_kl=None, **changes)
    few = CollectConfig(num_envs=16, rollout_steps=6)
    return Trainer(tape, rules, settings, PolicyConfig(hidden=8), few, iterations=9, seed=seed)


@pytest.mark.parametrize("kind", ["identity", "deep", "hooked"])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_foreign_encoder_learns_as_by_autograd(kind, drawn):
    settings = PPOConfig(minibatches=2, epochs=2, target_kl=None, entropy_weight=0.1)
    policy, table, batch = experience(drawn=drawn, settings=settings)
    ours, theirs = twins(with_encoder(policy, kind), settings)
    assert not has_own_encoder(policy)
    assert uncovered(*ours, table) == []
    hand = ByHand(*ours, table, batch, settings, own_encoder=False)
    before = copy.deepcopy(policy.state_dict())
    for rows in minibatches(len(batch.bar), settings, torch.Generator().manual_seed(1)):
        mine, law = empty_tally(CPU), empty_tally(CPU)
        hand.begin(1)
        with torch.no_grad():
            hand.learn(rows, mine)
        learn(*theirs, table, take(batch, rows), settings, law)
        torch.testing.assert_close(mine.sums, law.sums, rtol=1e-4, atol=1e-5)
        assert_alike(ours, theirs)
        follow(*theirs, ours)
    for name, value in policy.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


def test_a_layer_that_is_frozen_stays_and_the_rest_learns_as_by_autograd():
    settings = PPOConfig(minibatches=1, target_kl=None, entropy_weight=0.1)
    policy, table, batch = experience(settings=settings)
    policy.log_std.requires_grad_(False)
    policy.market_encoder[0].weight.requires_grad_(False)
    ours, theirs = twins(policy, settings)
    frozen = policy.log_std.clone(), policy.market_encoder[0].weight.clone()
    hand, rows = ByHand(*ours, table, batch, settings, own_encoder=True), torch.arange(54)
    hand.begin(1)
    hand.learn(rows, empty_tally(CPU))
    learn(*theirs, table, take(batch, rows), settings, empty_tally(CPU))
    assert_alike(ours, theirs)
    assert torch.equal(policy.log_std, frozen[0])
    assert torch.equal(policy.market_encoder[0].weight, frozen[1])


def own_forward(policy):
    policy.forward = MethodType(FlatPolicy.forward, policy)


def another_layer(policy):
    policy.actor = nn.Sequential(policy.actor)


def gradient_hook(policy):
    policy.actor.weight.register_hook(lambda gradient: 0.5 * gradient)


def layer_hook(policy):
    policy.critic.register_forward_hook(lambda _, __, out: 2.0 * out)


def more_parameters(policy):
    policy.extra = nn.Parameter(torch.zeros(2))


def double(policy):
    policy.double()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (own_forward, "forward"),
        (another_layer, "actor"),
        (gradient_hook, "hooks on actor.weight"),
        (layer_hook, "hooks on a layer"),
        (more_parameters, "extra"),
        (double, "float64"),
    ],
)
def test_what_is_not_known_by_hand_is_named(change, name):
    policy, table, _ = experience()
    optimizer = make_optimizer(policy, PPOConfig())
    assert uncovered(policy, optimizer, table) == []
    change(policy)
    if change is not double:
        optimizer = make_optimizer(policy, PPOConfig())
    assert name in ", ".join(uncovered(policy, optimizer, table))


def test_other_optimisers_are_named():
    policy, table, _ = experience()
    for optimizer, name in (
        (torch.optim.SGD(policy.parameters(), lr=0.1), "one Adam"),
        (torch.optim.Adam(policy.parameters(), weight_decay=0.1), "weight_decay = 0.1"),
        (torch.optim.Adam(policy.actor.parameters()), "other parameters"),
        (torch.optim.Adam(policy.parameters()), "not begun"),
    ):
        assert name in ", ".join(uncovered(policy, optimizer, table))


def test_the_log_says_who_learns_and_bfloat16_goes_through_autograd(caplog):
    with caplog.at_level(logging.INFO, logger="fastsim"):
        trainer = a_trainer()
        trainer.advance()
        trainer.advance()
        a_trainer(precision="bfloat16").advance()
    told = [line for line in caplog.messages if line.startswith("minibatches")]
    assert len(told) == 2
    assert told[0] == "minibatches are learned by hand"
    assert 'precision = "bfloat16"' in told[1]


def test_an_iteration_by_hand_is_that_of_autograd(monkeypatch):
    ours, theirs = a_trainer(), a_trainer()
    ours.advance()
    monkeypatch.setattr("fastsim.learn.ppo.steps.uncovered", lambda *_: ["anything"])
    theirs.advance()
    one, other = ours.figures(), theirs.figures()
    for name, value in one.items():
        assert value == pytest.approx(other[name], rel=1e-3, abs=1e-5, nan_ok=True), name


def test_copies_and_what_is_loaded_go_on_by_themselves():
    trainer = a_trainer()
    trainer.advance()
    twin = copy.deepcopy(trainer.algorithm)
    apart = copy.deepcopy(trainer.policy)
    learned = copy.deepcopy(trainer.algorithm.optimizer.state_dict())
    trainer.course.begin()
    trainer.algorithm.update()
    after = {name: value.clone() for name, value in trainer.policy.state_dict().items()}
    twin.course = copy.deepcopy(trainer.course)
    twin.course.begin()
    twin.update()
    for name, value in twin.policy.state_dict().items():
        assert torch.equal(value, after[name]), name
    trainer.policy.load_state_dict(apart.state_dict())
    trainer.algorithm.optimizer.load_state_dict(learned)
    trainer.course.begin()
    trainer.algorithm.update()
    for name, value in trainer.policy.state_dict().items():
        assert torch.equal(value, after[name]), name


def test_tanh_is_right_to_some_roundings_everywhere():
    x = torch.cat([torch.linspace(-20, 20, 40_001), torch.logspace(-30, 1, 1000)])
    exact = x.double().tanh()
    given = x.clone()[None].numpy()
    numba_kernels.activate(given, np.zeros(len(x), np.float32))
    error = (torch.from_numpy(given[0]).double() - exact).abs()
    assert float((error / exact.abs().clamp_min(1e-30)).max()) < 4e-7
    odd = torch.tensor([[torch.nan, torch.inf, -torch.inf]]).numpy()
    numba_kernels.activate(odd, np.zeros(3, np.float32))
    assert np.isnan(odd[0, 0])
    assert odd[0, 1:].tolist() == pytest.approx([1.0, -1.0], abs=1e-6)
