"""What all algorithms have in common, those that come with fastsim and one from outside."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from planted import RULES, planted_tape
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from waiting import without_waiting
from worlds import SHORT_FEATURES, random_bars

from fastsim.cli import main, parse
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import flatten
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import CheckpointError, ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.learn.algorithm import AlgorithmRecord
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.figures import rollout_figures, units_of
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig, begin_policy
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.fresh import FreshWorlds

NAMES = list(ALGORITHMS)
FEATURES = TapeConfig(features=SHORT_FEATURES)
FEW = CollectConfig(num_envs=6, rollout_steps=5)
DRAWN = RandomizeConfig(assets=(1, 2), volatility=(0.5, 2.0))
SMALL = {"ppo": {"minibatches": 2}, "sac": {"updates": 3, "batch_size": 16, "capacity": 100}}
MARKETS = {
    "history": (make_tape(random_bars(60, 3), FEATURES), RandomizeConfig()),
    "views": (make_tape(random_bars(60, 3), FEATURES), DRAWN),
    "fresh": (
        FreshWorlds(model=GeometricBrownian(assets=2), bars=20, config=FEATURES, batch=5),
        RandomizeConfig(),
    ),
}


def settings_of(name):
    return ALGORITHMS[name].config(**SMALL.get(name, {}))


def make(name, market="history", *, seed=3, **changes):
    tape, randomize = MARKETS[market]
    episode = EpisodeConfig(horizon=7, staggered=True)
    rules = EnvConfig(action="logits", randomize=randomize, episode=episode)
    given = {"collect": FEW, "algorithm": name, "iterations": 8, "seed": seed} | changes
    return Trainer(tape, rules, settings_of(name), PolicyConfig(hidden=8), **given)


def tensors_in(state):
    """All tensors of nested mappings and lists, by where they are."""
    if isinstance(state, torch.Tensor):
        return {"": state}
    if not isinstance(state, dict | list | tuple):
        return {}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {f"{key}/{path}": leaf for key, part in items for path, leaf in tensors_in(part).items()}


def everything(trainer):
    """All tensors of a run by name."""
    parts = {
        "policy": trainer.policy.state_dict(),
        "learner": trainer.algorithm.state_dict(),
        "env": trainer.env.state_dict(),
    }
    return tensors_in(copy.deepcopy(parts))


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_from_a_checkpoint_as_if_never_stopped(name, market, tmp_path):
    whole, stopped = make(name, market), make(name, market)
    for _ in range(8):
        figures = whole.iterate()
    for _ in range(4):
        stopped.advance()
    stopped.save(tmp_path / "latest.pt", best=1.5)
    at_four = everything(stopped)
    stopped.advance()  # what was saved is not touched by what comes after
    resumed = make(name, market)
    resumed.advance()  # nor is it by what was before
    assert resumed.load(tmp_path / "latest.pt") == {"best": 1.5}
    assert resumed.iteration == 4
    assert_same(everything(resumed), at_four)
    for _ in range(4):
        last = resumed.iterate()
    assert_same(everything(resumed), everything(whole))
    del figures["time/steps_per_second"], last["time/steps_per_second"]
    assert last == figures


@pytest.mark.parametrize("name", NAMES)
def test_a_run_changes_all_that_it_saves_and_another_seed_is_another_run(name):
    first, other = make(name), make(name, seed=4)
    before = everything(first)
    for _ in range(3):
        first.advance()
        other.advance()
    after, apart = everything(first), everything(other)
    for trained in ("policy/actor.weight/", "policy/market_encoder.0.weight/", "policy/log_std/"):
        assert not torch.equal(before[trained], after[trained]), trained
        assert not torch.equal(apart[trained], after[trained]), trained


@pytest.mark.parametrize("name", NAMES)
def test_random_numbers_of_others_are_left_alone(name):
    state = torch.get_rng_state()
    make(name).advance()
    assert torch.equal(torch.get_rng_state(), state)


TINY = [
    *("--data.symbols", "AAPL", "KO", "--data.start", "2014-01-01", "--data.end", "2016-12-30"),
    *("--validation-start", "2016-07-01", "--test-start", "2016-10-01", "--forecaster", "none"),
    *("--total-steps", "160", "--evaluations", "2", "--policy.hidden", "8"),
    *("--collect.num-envs", "8", "--collect.rollout-steps", "5", "--sac.batch-size", "16"),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_trains_with_every_algorithm(name, tmp_path, capsys):
    main(["train", "--algorithm", name, "--runs-dir", str(tmp_path), "--name", "run", *TINY])
    assert "Sharpe ratio of agent minus" in capsys.readouterr().out
    assert f"{name.upper()} on us20" in (tmp_path / "run" / "report.html").read_text()
    log = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    log.Reload()
    common = {"rollout/reward", "rollout/sharpe_ratio", "rollout/turnover", "policy/std",
              "policy/learning_rate", "loss/value", "validation/sharpe_ratio"}  # fmt: skip
    assert common <= set(log.Tags()["scalars"])
    values = [event.value for tag in common for event in log.Scalars(tag)]
    assert torch.tensor(values).isfinite().all()
    assert len(log.Scalars("rollout/reward")) == 4
    main(["train", "--resume", str(tmp_path / "run")])


@dataclass(frozen=True, kw_only=True)
class StillConfig:
    """Of an algorithm that does not learn."""

    shift: float = 0.0
    steps: int = 1


class Still:
    """The least that a trainer asks for."""

    def __init__(self, env, policy, config, collect, course):
        self.policy = begin_policy(env, policy, course.seed)
        self.config, self.count = config, 0
        env.reset(course.seed)

    def collect(self, env):
        for _ in range(self.config.steps):
            env.step(torch.full((env.num_envs, env.action_width), self.config.shift))

    def update(self):
        self.count += 1
        return {"still/count": torch.tensor(float(self.count))}

    def renewed(self, worlds):
        self.last = worlds

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, saved):
        self.count = saved["count"]


STILL = AlgorithmRecord(name="still", config=StillConfig, make=Still)
NOT_ONE = StillConfig()


def test_an_algorithm_of_ones_own_is_trained_by_where_it_is_imported_from(tmp_path):
    options = ["--algorithm", f"{__name__}:STILL", "--custom", "shift", "0.5", "steps", "2"]
    config = parse(["train", *options, *TINY]).run
    assert config.settings == StillConfig(shift=0.5, steps=2)
    main(["train", *options, "--runs-dir", str(tmp_path), "--name", "mine", *TINY])
    log = EventAccumulator(str(tmp_path / "mine" / "tensorboard"))
    log.Reload()
    assert [event.value for event in log.Scalars("still/count")] == [1.0, 2.0, 3.0, 4.0]


def test_an_algorithm_of_ones_own_is_trained_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setitem(ALGORITHMS._records, "still", STILL)
    tape, _ = MARKETS["history"]
    rules = EnvConfig(action="logits")
    given = {"algorithm": "still", "iterations": 3}
    trainer = Trainer(tape.between(slice(0, 60)), replace(rules, episode=EpisodeConfig(horizon=7)),
                      StillConfig(), PolicyConfig(hidden=4), FEW, **given)  # fmt: skip
    assert trainer.iterate()["still/count"] == 1.0
    trainer.save(tmp_path / "latest.pt")
    assert trainer.iterate()["still/count"] == 2.0
    trainer.load(tmp_path / "latest.pt")
    assert trainer.iterate()["still/count"] == 2.0


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"algorithm": "pppo"}, r"no algorithm is called 'pppo'; there are ppo, sac, apg"),
        ({"algorithm": "nowhere:RECORD"}, r"nowhere cannot be imported"),
        ({"algorithm": f"{__name__}:NOT_ONE"}, r"is not a algorithm"),
        ({"custom": {"shift": 1.0}}, r"TrainConfig\.custom is for an algorithm of your own"),
        ({"algorithm": f"{__name__}:STILL", "custom": {"drift": 1.0}}, "drift"),
        ({"algorithm": f"{__name__}:STILL", "custom": {"steps": 0.5}}, "steps"),
        ({"algorithm": "sac", "sac": SACConfig(capacity=9)}, r"SACConfig\.capacity = 9 does not"),
        ({"ppo": PPOConfig(minibatches=99999)}, r"PPOConfig\.minibatches = 99999 exceeds"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(settings, culprit):
    with pytest.raises(ConfigError, match=culprit):
        TrainConfig(**{"data": DataConfig(source="us20"), **settings})


def test_only_the_settings_of_the_algorithm_that_learns_are_checked_with_the_others():
    TrainConfig(algorithm="ppo", sac=SACConfig(capacity=9))
    TrainConfig(algorithm="sac", ppo=PPOConfig(minibatches=99999))


def test_settings_of_another_algorithm_are_refused():
    tape, _ = MARKETS["history"]
    with pytest.raises(ConfigError, match=r"'sac' are a SACConfig, got a PPOConfig"):
        Trainer(tape, EnvConfig(), PPOConfig(), PolicyConfig(), algorithm="sac", iterations=1)


@pytest.mark.parametrize("iterations", [0, 2.5])
def test_a_run_is_of_so_many_whole_iterations(iterations):
    with pytest.raises(
        ConfigError, match=f"iterations must be a whole number >= 1, got {iterations}"
    ):
        make("ppo", iterations=iterations)


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    make("ppo").save(tmp_path / "latest.pt")
    with pytest.raises(CheckpointError, match=r"latest\.pt: a run of algorithm 'ppo'; this one"):
        make("apg").load(tmp_path / "latest.pt")


@pytest.mark.parametrize(("hours", "bars_a_year"), [(24, 365.0), (24 * 7, 52.0), (1, 24 * 365.0)])
def test_the_sharpe_ratio_of_a_rollout_is_of_a_year_of_these_bars(hours, bars_a_year):
    bars = random_bars(384, 2)
    start = bars.timestamps[0].astype("datetime64[h]")
    stamps = (start + hours * torch.arange(384).numpy()).astype("datetime64[ns]")
    tape = make_tape(replace(bars, timestamps=stamps), FEATURES)
    rules = EnvConfig(action="logits", episode=EpisodeConfig(horizon=50))
    trainer = Trainer(tape, rules, PPOConfig(), PolicyConfig(hidden=4), FEW, iterations=1)
    figures, rollout = trainer.iterate(), trainer.algorithm.rollout
    growth = rollout.log_growth[rollout.valid]
    ratio = float(growth.mean() / growth.std(unbiased=False))
    assert figures["rollout/sharpe_ratio"] == pytest.approx(ratio * bars_a_year**0.5, rel=1e-3)
    weekdays = rollout_figures(rollout, units_of(trainer.env)._replace(bars_per_year=252.0))[
        "rollout/sharpe_ratio"
    ]
    assert float(weekdays) == pytest.approx(ratio * 252**0.5, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_an_iteration_on_a_gpu_reads_nothing_back(name):
    tape, _ = planted_tape(revealing=True, bars=400)
    env = PortfolioEnv(tape.to("cuda"), FEW.num_envs, RULES, backend=ALGORITHMS[name].backend)
    trainer = Trainer(
        env.tape, env, settings_of(name), PolicyConfig(hidden=8), FEW, algorithm=name, iterations=9
    )
    for _ in range(2):
        trainer.advance()
    with without_waiting():
        for _ in range(3):
            trainer.advance()
    assert all(leaf.isfinite().all() for leaf in flatten(tuple(trainer.policy.parameters())))


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_that_restarts_within_its_step_is_refused_by_every_algorithm(name):
    rules = EnvConfig(action="logits", autoreset="same_step", episode=EpisodeConfig(horizon=7))
    given = {"algorithm": name, "iterations": 1}
    with pytest.raises(ConfigError, match=r'training needs EnvConfig\.autoreset = "next_step"'):
        Trainer(MARKETS["history"][0], rules, settings_of(name), PolicyConfig(), FEW, **given)
