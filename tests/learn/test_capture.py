"""Recorded procedures do what they did, to the bit; a CUDA graph is emulated on a CPU."""

from dataclasses import replace

import pytest
import torch
from planted import RULES, planted_tape
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

pytest.importorskip("triton", reason="triton is for Linux")
from emulation import emulated

from fastsim import capture
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels.triton_step import CapturedSteps
from fastsim.env.nested import flatten
from fastsim.env.players import Momentum, Noise
from fastsim.env.randomize import RandomizeConfig
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.league import LeagueConfig, LeagueEnv, train_league
from fastsim.learn.optimizer import adam
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.fresh import FreshWorlds

# The interpreter does what a GPU does with infinities and empty lanes; NumPy remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

FEATURES = TapeConfig(features=SHORT_FEATURES)
PLANTED, _ = planted_tape(revealing=True, bars=100)
EPISODE = EpisodeConfig(horizon=5, staggered=True)
SHARED = ImpactConfig(transient=1.0, permanent=0.1)
MARKETS = {
    "planted": (PLANTED, replace(RULES, episode=EPISODE)),
    "fresh worlds": (
        FreshWorlds(model=GeometricBrownian(assets=2), bars=20, config=FEATURES, batch=5),
        EnvConfig(action="logits", episode=EPISODE),
    ),
    "shared": (
        make_tape(random_bars(40, 3), FEATURES),
        EnvConfig(action="logits", observation="index", players=2, impact=SHARED, episode=EPISODE),
    ),
}
SETTINGS = {
    "float32": PPOConfig(epochs=2, minibatches=2, learning_rate=1e-2),
    "bfloat16": PPOConfig(epochs=2, minibatches=2, learning_rate=1e-2, precision="bfloat16"),
    "stopped": PPOConfig(epochs=3, minibatches=2, learning_rate=3e-2, target_kl=1e-4),
    "value clipped": PPOConfig(epochs=1, minibatches=3, value_clip=0.1, entropy_weight=0.01),
}
FEW = CollectConfig(num_envs=4, rollout_steps=3)
SMALL = {"ppo": {"minibatches": 2}, "sac": {"updates": 2, "batch_size": 8, "capacity": 60}}


def make_trainer(market="planted", settings="float32", *, capture=True, iterations=6):
    source, rules = MARKETS[market]
    env = PortfolioEnv(source, FEW.num_envs, rules, backend="triton")
    size = PolicyConfig(hidden=8)
    return Trainer(
        env.tape, env, SETTINGS[settings], size, FEW, iterations=iterations, capture=capture
    )


def everything(trainer):
    """All tensors of a run."""
    learner = trainer.algorithm
    moments = [value for state in learner.optimizer.state.values() for value in state.values()]
    return [
        tensor.detach().clone()
        for tensor in (
            *trainer.policy.state_dict().values(),
            *moments,
            *learner.reward_scale.buffers(),
            *learner.episodes.buffers(),
            *flatten(learner.rollout._replace(room=None)),  # nothing writes its first row
            *flatten(learner.batch),
            *learner.tally,
            *flatten(trainer.env.stepper.state),
        )
    ]


def assert_same(one, other):
    assert len(one) == len(other)
    assert all(
        torch.equal(first.nan_to_num(), second.nan_to_num())
        for first, second in zip(one, other, strict=True)
    )


@pytest.fixture
def emulation():
    with emulated() as emulation:
        yield emulation


@pytest.mark.parametrize(
    ("market", "settings"),
    [
        pytest.param("planted", each, marks=() if each == "float32" else pytest.mark.long)
        for each in SETTINGS
    ]
    + [
        pytest.param(*each, marks=pytest.mark.long)
        for each in (("fresh worlds", "float32"), ("shared", "float32"), ("shared", "bfloat16"))
    ],
)
def test_a_captured_run_is_the_eager_one_to_the_bit(emulation, market, settings):
    eager = make_trainer(market, settings, capture=False)
    replayed = make_trainer(market, settings)
    for _ in range(4):
        eager.advance()
        replayed.advance()
        assert_same(everything(replayed), everything(eager))
    minibatches = SETTINGS[settings].epochs * SETTINGS[settings].minibatches
    assert [graph.replays for graph in emulation.graphs] == [4, 4 * minibatches]
    stopped = float(eager.algorithm.tally.stopped)
    assert stopped == (settings == "stopped"), "the test is to meet a policy that moved too far"


def test_bars_that_are_encoded_once_a_minibatch_are_captured_like_others(emulation):
    tape, _ = planted_tape(revealing=True, bars=32)
    settings, runs = PPOConfig(epochs=2, minibatches=1), []
    for replayed in (False, True):
        env = PortfolioEnv(tape, 4, MARKETS["planted"][1], backend="triton")
        collect = CollectConfig(num_envs=4, rollout_steps=6)
        size = PolicyConfig(hidden=8)
        trainer = Trainer(tape, env, settings, size, collect, iterations=3, capture=replayed)
        assert len(trainer.algorithm.table.rows) < 4 * 6
        for _ in range(2):
            trainer.advance()
        runs.append(everything(trainer))
    assert_same(*runs)


def test_a_replay_draws_fresh_noise(emulation):
    trainer = make_trainer()
    actions = []
    for _ in range(3):
        trainer.advance()
        actions.append(trainer.algorithm.rollout.action.clone())
    assert not torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[1], actions[2])


@pytest.mark.long
@pytest.mark.parametrize("market", ["planted", "fresh worlds"])
def test_a_captured_run_goes_on_from_a_checkpoint_as_if_never_stopped(emulation, market, tmp_path):
    whole, stopped = make_trainer(market), make_trainer(market)
    for _ in range(5):
        whole.advance()
    for _ in range(2):
        stopped.advance()
    stopped.save(tmp_path / "latest.pt")
    other = make_trainer(market)
    other.advance()  # what it recorded is of tensors that loading replaces
    for resumed in (other, make_trainer(market)):
        resumed.load(tmp_path / "latest.pt")
        for _ in range(3):
            resumed.advance()
        assert_same(everything(resumed), everything(whole))


def test_a_run_that_was_saved_without_graphs_is_captured_after_loading(emulation, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(capture.RECORDERS, "cpu")
        for place in ("ppo.steps.uncovered", "rollout.uncovered_policy"):
            patch.setattr(f"fastsim.learn.{place}", lambda *_: ["what rounds otherwise"])
        saved = make_trainer()
        saved.advance()
        assert not saved.algorithm.optimizer.param_groups[0]["capturable"]
        saved.save(tmp_path / "latest.pt")
    resumed, whole = make_trainer(), make_trainer(capture=False)
    resumed.load(tmp_path / "latest.pt")
    resumed.advance()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastsim.learn.ppo.steps.uncovered", lambda *_: ["what rounds otherwise"])
        whole.advance()
    whole.advance()
    assert emulation.graphs
    assert_same(everything(resumed), everything(whole))


def test_only_where_there_are_graphs_is_an_optimiser_made_for_them(emulation):
    parameter = torch.nn.Parameter(torch.ones(2))
    assert adam([parameter], 1e-3).param_groups[0]["capturable"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(capture.RECORDERS, "cpu")
        assert not adam([parameter], 1e-3).param_groups[0]["capturable"]


def make_league(*, capture=True):
    _, rules = MARKETS["shared"]
    rules = replace(rules, impact=ImpactConfig())
    env = PortfolioEnv(make_tape(random_bars(40, 3), FEATURES), 8, rules, backend="triton")
    league = LeagueEnv(env, [Noise(), Momentum(lookback=3)], LeagueConfig(snapshot_every=2, keep=2))
    trainer = Trainer(
        env.tape, league, SETTINGS["float32"], PolicyConfig(hidden=8), FEW, iterations=6,
        capture=capture,
    )  # fmt: skip
    return league, trainer


@pytest.mark.long
def test_a_league_steps_as_it_is_and_its_update_is_captured(emulation):
    (first, eager), (second, replayed) = make_league(capture=False), make_league()
    for _ in range(5):
        train_league(eager, first, 1)
        train_league(replayed, second, 1)
        assert_same(everything(replayed), everything(eager))
    assert not second.capturable, "who sits where changes"
    [update] = emulation.graphs
    assert "step_kernel" not in update.names
    assert update.replays == 5 * 4


def small_trainer(name, randomize):
    rules = EnvConfig(action="logits", episode=EPISODE, randomize=randomize)
    settings = ALGORITHMS[name].config(**SMALL.get(name, {}))
    tape = make_tape(random_bars(60, 3), FEATURES)
    given = {"algorithm": name, "iterations": 6, "capture": False}
    env = PortfolioEnv(tape, FEW.num_envs, rules, backend="torch")
    return Trainer(tape, env, settings, PolicyConfig(hidden=8), FEW, **given)


@pytest.mark.parametrize(
    "randomize",
    [RandomizeConfig(), RandomizeConfig(assets=(1, 2), volatility=(0.5, 2.0))],
    ids=["history", "views"],
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_iteration_reads_nothing_back(emulation, name, randomize):
    trainer = small_trainer(name, randomize)
    trainer.advance()
    with emulation.watching(trainer.course.generator):
        trainer.advance()


def test_an_iteration_of_a_league_reads_nothing_back(emulation):
    league, trainer = make_league(capture=False)
    train_league(trainer, league, 3)
    league._sit(torch.arange(4))  # a row for each player: two scripted ones, two snapshots
    with emulation.watching(trainer.course.generator):
        trainer.advance()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_worlds_drawn_anew_are_standardised_without_waiting_for_the_device(emulation, count):
    trainer = make_trainer("fresh worlds", capture=False)
    policy, table = trainer.policy, trainer.algorithm.table
    worlds = torch.randperm(trainer.env.tape.worlds, generator=torch.Generator().manual_seed(1))
    bars = trainer.env.tape.bars_of(worlds[:count])
    trainer.env.tape.known.features[bars] += 1.0
    with emulation.watching():
        policy.restandardize(table, worlds[:count])
    assert torch.equal(table.rows, policy.standardize(trainer.env.tape).rows)


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_of_one_graph_are_the_eager_ones(emulation, steps):
    tape, rules = MARKETS["shared"]
    eager, other = (PortfolioEnv(tape, 4, rules, backend="triton") for _ in range(2))
    start, stepped = other.state, CapturedSteps(other.stepper, steps)
    assert_same_bits(other.state, start)
    for _ in range(8 // steps):
        actions = torch.randn(steps, 4, other.action_width)
        for number, transition in enumerate(stepped(actions)):
            assert_same_bits(transition, eager.step(actions[number]))
        assert_same_bits(other.state, eager.state)
    assert emulation.graphs[0].names == {"step_kernel": steps}, "and no other call"


def test_steps_of_one_graph_show_the_market_where_that_is_asked_for(emulation):
    rules = EnvConfig(observation="flat", episode=EPISODE)
    tape, _ = MARKETS["shared"]
    eager, other = (PortfolioEnv(tape, 2, rules, backend="triton") for _ in range(2))
    stepped = CapturedSteps(other.stepper, 2, flat=True)
    for _ in range(3):
        actions = torch.rand(2, 2, other.action_width)
        for number, transition in enumerate(stepped(actions)):
            assert transition.observation.flat is not None
            assert_same_bits(transition, eager.step(actions[number]))
    assert CapturedSteps(other.stepper, 1)()[0].observation.flat is None


STEP, MINIBATCH = 19, 23
"""Calls that one step of a rollout and one minibatch may launch: fewer is better, and stays so."""


def test_a_rollout_step_and_a_minibatch_launch_no_more_calls_than_they_did(emulation):
    tape, _ = planted_tape(revealing=True, bars=32)
    counts = []
    for steps in (6, 7):
        collect = CollectConfig(num_envs=4, rollout_steps=steps)
        env = PortfolioEnv(tape, 4, MARKETS["planted"][1], backend="triton")
        assert tape.last - tape.first < 4 * steps, "each bar is to be encoded once"
        trainer = Trainer(
            tape, env, PPOConfig(minibatches=2), PolicyConfig(hidden=8), collect, iterations=1
        )
        trainer.advance()
        rollout, minibatch = emulation.graphs[-2:]
        counts.append(rollout.names.total())
    assert counts[1] - counts[0] <= STEP
    assert minibatch.names.total() <= MINIBATCH
    assert rollout.names["normal_"] == 1, "all noise is drawn at once"
