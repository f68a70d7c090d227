"""A minibatch in Triton's kernels is that of autograd; kernels are interpreted on a CPU."""

import copy
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experience import assert_alike, experience, follow, settings_drawn, twins, with_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import RULES, planted_tape

pytest.importorskip("triton", reason="triton is for Linux")
from emulation import emulated
from interpreted import quick_interpreter

from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import take
from fastsim.learn.fused import launches
from fastsim.learn.fused.coverage import has_own_encoder, uncovered
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.on_device import OnDevice
from fastsim.learn.ppo.update import empty_tally, learn, make_optimizer, minibatches
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.spec import PolicyConfig

# The interpreter does what a GPU does with infinities and empty lanes; NumPy remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

CPU = torch.device("cpu")
MANY, FEW = {"steps": 20}, {"steps": 9}  # samples of a minibatch: more than bars, or fewer
ANY = PPOConfig(minibatches=1, epochs=3, target_kl=None, entropy_weight=0.01, value_clip=0.1)


@pytest.fixture
def interpreted():
    with quick_interpreter():
        yield


def hand_of(twin, table, batch, config):
    hand = OnDevice(*twin, table, batch, config, own_encoder=has_own_encoder(twin[0]))
    hand.begin()
    return hand


def rows_of(batch, config):
    return minibatches(len(batch.bar), config, torch.Generator().manual_seed(1))


def assert_learns_as_by_autograd(ours, theirs, table, batch, config):
    """Minibatch by minibatch from the same weights, until the policy has moved too far."""
    hand = hand_of(ours, table, batch, config)
    for rows in rows_of(batch, config):
        mine, law = empty_tally(CPU), empty_tally(CPU)
        hand.begin()
        hand.learn(rows, mine)
        learn(*theirs, table, take(batch, rows), config, law)
        torch.testing.assert_close(mine.sums, law.sums, rtol=1e-5, atol=3e-7)
        assert (mine.terms, mine.stopped) == (law.terms, law.stopped)
        assert_alike(ours, theirs)
        if mine.stopped:
            break
        follow(*theirs, ours)


@pytest.mark.long
@settings(max_examples=12)
@given(
    config=settings_drawn,
    hidden=st.integers(1, 20),
    assets=st.integers(1, 9),
    num_envs=st.integers(2, 9),
    steps=st.integers(3, 24),
    drawn=st.booleans(),
)
def test_every_step_is_that_of_autograd(config, hidden, assets, num_envs, steps, drawn):
    policy, table, batch = experience(
        assets, hidden=hidden, num_envs=num_envs, steps=steps, drawn=drawn, settings=config
    )
    with quick_interpreter():
        assert_learns_as_by_autograd(*twins(policy, config), table, batch, config)


@pytest.mark.parametrize("many", [True, False])
def test_some_steps_in_a_row_stay_those_of_autograd(interpreted, many):
    config = replace(ANY, epochs=6)
    policy, table, batch = experience(hidden=12, settings=config, **(MANY if many else FEW))
    ours, theirs = twins(policy, config)
    hand = hand_of(ours, table, batch, config)
    assert hand._arranged == many
    for rows in rows_of(batch, config):
        mine, law = empty_tally(CPU), empty_tally(CPU)
        hand.learn(rows, mine)  # from what the step before has left
        learn(*theirs, table, take(batch, rows), config, law)
        torch.testing.assert_close(mine.sums, law.sums, rtol=3e-6, atol=3e-7)
    for (name, one), other in zip(ours[0].named_parameters(), theirs[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("sizes", [MANY, FEW, MANY | {"drawn": True}])
def test_it_is_the_same_however_rows_are_cut(interpreted, monkeypatch, sizes):
    policy, table, batch = experience(hidden=12, num_envs=4, settings=ANY, **sizes)
    for name, value in {
        "TILE": 32, "WIDEST": 8, "PROGRAMS": 3, "GATHERED": 4, "FLAT": 64, "SUMMED": (2, 4),
        "PARAMETERS": 3,
    }.items():  # fmt: skip
        monkeypatch.setattr(launches, name, value)
    assert launches.cut(36, 12) == (4, 8, 3)
    assert_learns_as_by_autograd(*twins(policy, ANY), table, batch, replace(ANY, epochs=1))


@pytest.mark.parametrize("kind", ["identity", "deep", "hooked"])
@pytest.mark.parametrize("sizes", [MANY, FEW, FEW | {"drawn": True}])
def test_a_foreign_encoder_learns_as_by_autograd(interpreted, kind, sizes):
    policy, table, batch = experience(settings=ANY, **sizes)
    ours, theirs = twins(with_encoder(policy, kind), ANY)
    before = copy.deepcopy(policy.state_dict())
    assert_learns_as_by_autograd(ours, theirs, table, batch, ANY)
    for name, value in policy.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


def test_a_layer_that_is_frozen_stays_and_the_rest_learns_as_by_autograd(interpreted):
    policy, table, batch = experience(settings=ANY)
    names = ("log_std", "market_encoder.0.weight")
    for name in names:
        policy.get_parameter(name).requires_grad_(False)
    ours, theirs = twins(policy, ANY)
    before = copy.deepcopy(policy.state_dict())
    assert_learns_as_by_autograd(ours, theirs, table, batch, ANY)
    assert all(torch.equal(policy.state_dict()[name], before[name]) for name in names)


def test_what_was_learned_before_is_taken_over(interpreted):
    policy, table, batch = experience(settings=ANY)
    ours, theirs = twins(policy, ANY)
    hand = hand_of(ours, table, batch, ANY)
    for rows in rows_of(batch, ANY):
        learn(*theirs, table, take(batch, rows), ANY, empty_tally(CPU))
        follow(*ours, theirs)  # its moments are other tensors now
        hand.begin()
        assert hand.fits(*ours, table, batch, True, hand._shapes)
        hand.learn(rows, empty_tally(CPU))
        learn(*theirs, table, take(batch, rows), ANY, empty_tally(CPU))
        assert_alike(ours, theirs)


def test_restarted_rows_teach_nothing(interpreted):
    policy, table, batch = experience(settings=ANY)
    assert not batch.valid.all()
    poisoned = batch._replace(
        advantage=torch.where(batch.valid > 0, batch.advantage, 1e6),
        value_target=torch.where(batch.valid > 0, batch.value_target, 1e6),
    )
    results = []
    for each in (batch, poisoned):
        own, tally = twins(policy, ANY)[1], empty_tally(CPU)
        hand_of(own, table, each, ANY).learn(torch.arange(len(each.bar)), tally)
        results.append([tally.sums, *(each.detach() for each in own[0].parameters())])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_what_is_not_a_number_does_not_pass_for_one(interpreted):
    policy, table, batch = experience(settings=ANY)
    batch.advantage[3] = torch.nan
    ours, theirs = twins(policy, ANY)
    rows, mine, law = torch.arange(len(batch.bar)), empty_tally(CPU), empty_tally(CPU)
    hand_of(ours, table, batch, ANY).learn(rows, mine)
    learn(*theirs, table, take(batch, rows), ANY, law)
    assert torch.equal(mine.sums.isnan(), law.sums.isnan())
    for one, other in zip(ours[0].parameters(), theirs[0].parameters(), strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        assert one.isnan().any()


def test_once_stopped_a_minibatch_changes_nothing(interpreted):
    config = PPOConfig(minibatches=1, target_kl=0.005, learning_rate=1e-1)
    policy, table, batch = experience(settings=config)
    own, tally, rows = twins(policy, config)[0], empty_tally(CPU), torch.arange(len(batch.bar))
    hand = hand_of(own, table, batch, config)
    kept = [*own[0].parameters(), *hand.changed(), *tally]
    kept += [value for state in own[1].state.values() for value in state.values()]
    counts = []
    for _ in range(4):
        before = [each.detach().clone() for each in kept]
        hand.learn(rows, tally)
        same = [torch.equal(one, other) for one, other in zip(before, kept, strict=True)]
        counts.append((float(tally.terms), float(tally.stopped), all(same)))
        batch.advantage.mul_(-1.0)
    assert counts[0] == (1.0, 0.0, False)
    assert counts[1] == (2.0, 1.0, False), "the minibatch on which it stops still counts"
    assert counts[2:] == [(2.0, 1.0, True)] * 2
    assert own[1].state[own[0].log_std]["step"] == 1.0


MOST = {"each bar once": 23, "each sample": 19, "views": 53}
"""Calls of a minibatch, of which autograd takes 171, or 201 with views."""


@pytest.mark.parametrize("name", MOST)
def test_a_minibatch_launches_a_few_calls_and_reads_nothing(name):
    sizes = {"each bar once": MANY, "each sample": FEW, "views": FEW | {"drawn": True}}[name]
    policy, table, batch = experience(settings=ANY, **sizes)
    with emulated() as emulation:
        hand = hand_of((policy, make_optimizer(policy, ANY)), table, batch, ANY)
        rows, tally = torch.arange(len(batch.bar)), empty_tally(CPU)
        with emulation.watching() as graph:
            hand.begin()
        assert graph.names.total() <= 4
        with emulation.watching() as graph:
            hand.learn(rows, tally)
    assert graph.names["mm"] == 10
    assert graph.names.total() <= MOST[name] < 60


def a_trainer(**given):
    tape, _ = planted_tape(revealing=True, bars=60)
    rules = replace(RULES, episode=EpisodeConfig(horizon=5, staggered=True))
    few = CollectConfig(num_envs=4, rollout_steps=3)
    config = PPOConfig(minibatches=2, epochs=2, **given)
    return Trainer(tape, rules, config, PolicyConfig(hidden=8), few, iterations=9)


def test_the_log_says_who_learns_and_another_who_is_recorded_anew(caplog):
    with emulated() as emulation, caplog.at_level(logging.INFO, logger="fastsim"):
        trainer = a_trainer()
        trainer.advance()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fastsim.learn.fused.coverage.find_spec", lambda _: None)
            trainer.advance()
        trainer.advance()
        trainer.advance()
        a_trainer(precision="bfloat16").advance()
    told = [line.split("learned ")[1] for line in caplog.messages if "minibatches" in line]
    autograd = "through autograd: by hand nothing is known of"
    assert told == [
        "by hand on the device",
        f"{autograd} tensors on cpu without the package triton",
        "by hand on the device",
        f'{autograd} PPOConfig.precision = "bfloat16"',
    ]
    updates = [graph for graph in emulation.graphs if "mm" in graph.names and graph.replays >= 4]
    assert [("adam" in graph.names, graph.replays) for graph in updates] == [
        (True, 4), (False, 4), (True, 8), (False, 4),
    ]  # fmt: skip


def test_a_copy_of_an_algorithm_goes_on_by_itself():
    with emulated():
        trainer = a_trainer()
        trainer.course.capture = False
        trainer.advance()
        twin = copy.deepcopy(trainer.algorithm)
        results = []
        for each in (trainer.algorithm, twin):
            each.course = copy.deepcopy(trainer.course)
            each.course.begin()
            each.update()
            results.append(each.policy.state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_what_is_elsewhere_or_has_gaps_is_named():
    policy, table, _ = experience()
    with emulated():
        optimizer = make_optimizer(policy, ANY)
        assert uncovered(policy, optimizer, table) == []
        gaps = table._replace(rows=table.rows.repeat(1, 2)[:, ::2])
        assert uncovered(policy, optimizer, gaps) == ["tensors with gaps"]
        optimizer.param_groups[0]["lr"] = 1e-3
        assert "rate or steps are elsewhere" in uncovered(policy, optimizer, table)[0]
        away = table._replace(rows=table.rows.to("meta"))
        assert "tensors on cpu" in ", ".join(uncovered(policy, optimizer, away))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the compiler is for Linux")
def test_the_kernels_compile_for_a_gpu(tmp_path):
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tests.parent, tests)))
    environment |= {"TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("minibatch_compile.py")
    result = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == [
        *("activate", "adam", "backward_activation", "backward_bars", "backward_hidden", "gather"),
        *("hide", "read", "settle", "square_sums", "teach"),
    ], result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("minibatches", [1, 4])
def test_an_update_on_a_gpu_is_that_of_autograd(minibatches, monkeypatch):
    tape, _ = planted_tape(revealing=True, bars=200)
    config = PPOConfig(minibatches=minibatches, epochs=2, target_kl=None, value_clip=0.1)
    few, runs = CollectConfig(num_envs=64, rollout_steps=8), []
    for missing in ([], ["anything"]):
        if missing:
            monkeypatch.setattr("fastsim.learn.ppo.steps.uncovered", lambda *_: ["anything"])
        size = PolicyConfig(hidden=16)
        trainer = Trainer(tape.to("cuda"), RULES, config, size, few, iterations=9)
        trainer.advance()
        runs.append(trainer)
    mine, law = (trainer.algorithm.tally.means for trainer in runs)
    torch.testing.assert_close(mine, law, rtol=1e-4, atol=1e-5)
    pairs = zip(runs[0].policy.parameters(), runs[1].policy.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
