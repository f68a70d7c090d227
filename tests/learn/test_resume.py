"""A run that was killed goes on as if it had not been."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import RULES, planted_tape
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastsim.config import load_yaml, save_yaml, to_mapping
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import CheckpointError, ConfigError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.folder import policy_folder
from fastsim.experiment.markets import load_markets
from fastsim.experiment.replays import play
from fastsim.experiment.train import make_trainer, resume, train
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.checkpoint import load_checkpoint
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.folder import load_policy
from fastsim.policy.spec import PolicyConfig

SMALL = {
    "data": DataConfig(symbols=("AAPL", "KO"), start="2014-01-01", end="2016-12-30"),
    "validation_start": "2016-10-01",
    "test_start": "2016-11-15",
    "collect": CollectConfig(num_envs=8, rollout_steps=8),
    "sac": SACConfig(updates=2, batch_size=16),
    "policy": PolicyConfig(hidden=8),
    "total_steps": 8 * 8 * 40,
    "evaluations": 40,
}


def small_run(folder: Path, name: str, **changes: object) -> TrainConfig:
    return TrainConfig(name=name, runs_dir=str(folder), **{**SMALL, **changes})


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "latest.pt")["policy"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_killed_at_any_moment_resumes_to_the_very_same_weights(algorithm, tmp_path):
    whole = train(small_run(tmp_path, "whole", algorithm=algorithm))
    script = (
        "from pathlib import Path; from fastsim.config import load_yaml;"
        "from fastsim.experiment.config import TrainConfig;"
        "from fastsim.experiment.train import train;"
        f"train(load_yaml(TrainConfig, Path({str(tmp_path / 'killed.yaml')!r})))"
    )
    save_yaml(small_run(tmp_path, "killed", algorithm=algorithm), tmp_path / "killed.yaml")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, **threads}, stderr=subprocess.DEVNULL
    )
    latest = tmp_path / "killed" / "checkpoints" / "latest.pt"
    deadline = time.monotonic() + 120
    while not latest.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    stopped_at = load_checkpoint(latest)["iteration"]
    assert 0 < stopped_at < 40
    assert not same(weights_of(tmp_path / "killed"), weights_of(whole))
    resume(tmp_path / "killed")
    assert same(weights_of(tmp_path / "killed"), weights_of(whole))
    best = [
        load_checkpoint(run / "checkpoints" / "best.pt") for run in (whole, tmp_path / "killed")
    ]
    assert best[0]["iteration"] == best[1]["iteration"]
    for name in ("agent/policy", "agent-latest/policy"):
        for file in ("spec.json", "weights.safetensors"):
            kept = [(run / name / file).read_bytes() for run in (whole, tmp_path / "killed")]
            assert kept[0] == kept[1]


def test_a_configuration_read_back_repeats_the_run(tmp_path):
    first = train(small_run(tmp_path, "first"))
    config = load_yaml(TrainConfig, first / "config.yaml")
    assert config == small_run(tmp_path, "first")
    second = train(small_run(tmp_path, "second"))
    assert same(weights_of(first), weights_of(second))


def test_another_seed_is_another_run():
    tape, _ = planted_tape(revealing=True, bars=300)

    def weights(seed: int) -> torch.Tensor:
        policy, collect = PolicyConfig(hidden=8), CollectConfig(num_envs=8, rollout_steps=8)
        trainer = Trainer(tape, RULES, PPOConfig(), policy, collect, iterations=2, seed=seed)
        trainer.iterate()
        return trainer.policy.market_encoder[0].weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small_run(tmp_path_factory.mktemp("runs"), "finished"))


def test_a_second_run_does_not_overwrite_the_first(finished):
    before = (finished / "checkpoints" / "latest.pt").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        train(small_run(finished.parent, "finished"))
    assert (finished / "checkpoints" / "latest.pt").read_bytes() == before


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("these are not weights")


def damage_code(path: Path) -> None:
    torch.save({"format": 1, "policy": Path("evil")}, path)


def damage_format(path: Path) -> None:
    torch.save({"format": 99}, path)


def damage_list(path: Path) -> None:
    torch.save([1, 2, 3], path)


def damage_shape(path: Path) -> None:
    content = load_checkpoint(path)
    content["policy"]["log_std"] = torch.zeros(99)
    torch.save(content, path)


def damage_missing(path: Path) -> None:
    content = load_checkpoint(path)
    del content["policy"]["log_std"]
    torch.save(content, path)


def damage_absent(path: Path) -> None:
    path.unlink()


def damage_part(path: Path) -> None:
    content = load_checkpoint(path)
    del content["learner"]
    torch.save(content, path)


def damage_learner(path: Path) -> None:
    content = load_checkpoint(path)
    del content["learner"]["optimizer"]
    torch.save(content, path)


def damage_algorithm(path: Path) -> None:
    content = load_checkpoint(path)
    content["algorithm"] = "another"
    torch.save(content, path)


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncated,
        damage_empty,
        damage_text,
        damage_code,
        damage_format,
        damage_list,
        damage_shape,
        damage_missing,
        damage_absent,
        damage_part,
        damage_learner,
        damage_algorithm,
    ],
)
def test_a_bad_checkpoint_is_named_in_one_line(finished, damage):
    path = finished / "checkpoints" / "best.pt"
    whole = path.read_bytes()
    config = read_run(finished)
    trainer = make_trainer(config, load_markets(config))
    try:
        damage(path)
        with pytest.raises(CheckpointError, match=r"best\.pt") as caught:
            trainer.load(path)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(whole)


def test_a_policy_is_not_put_to_work_on_other_assets(finished):
    config = load_yaml(TrainConfig, finished / "config.yaml")
    other = TrainConfig(
        **{**SMALL, "data": replace(SMALL["data"], symbols=("AAPL", "PG"))},
        name="other",
        runs_dir=config.runs_dir,
    )
    folder = finished.parent / "other"
    save_yaml(other, folder / "config.yaml")
    for name in ("agent", "checkpoints"):
        shutil.copytree(finished / name, folder / name)
    with pytest.raises(ConfigError, match="AAPL, KO; this market has AAPL, PG"):
        evaluate(folder)
    with pytest.raises(ConfigError, match="AAPL, KO; this market has AAPL, PG"):
        resume(folder)


def test_a_run_keeps_its_best_policy_and_its_latest(finished):
    for name in ("best", "latest"):
        saved = load_checkpoint(finished / "checkpoints" / f"{name}.pt")
        policy = load_policy(policy_folder(finished, name))
        assert same(saved["policy"], policy.state_dict())
        assert to_mapping(policy.spec) == saved["spec"]
    assert policy.spec.symbols == ("AAPL", "KO")
    assert policy.spec.forecaster == "fastsim-prior"


@pytest.mark.parametrize("checkpoint", ["best", "latest"])
def test_evaluation_replays_the_policy_of_the_folder_and_reads_the_data_once(
    finished, checkpoint, monkeypatch
):
    config, read = read_run(finished), []
    markets = load_markets(config)
    trainer = make_trainer(config, markets)
    trainer.load(finished / "checkpoints" / f"{checkpoint}.pt")
    expected = play(trainer.policy, markets.test, config.env)

    def count(given):
        read.append(given)
        return load_bars(given)

    monkeypatch.setattr("fastsim.experiment.markets.load_bars", count)
    monkeypatch.setattr(Trainer, "load", None)  # no checkpoint is needed
    history = evaluate(finished, checkpoint=checkpoint).history
    assert len(read) == 1
    assert torch.equal(history.wealth[:, :1], expected.wealth)
    assert torch.equal(history.weights[:, :1], expected.weights)


def test_a_run_without_a_policy_says_so_before_any_data_is_read(tmp_path, monkeypatch):
    save_yaml(small_run(tmp_path, "empty"), tmp_path / "empty" / "config.yaml")
    monkeypatch.setattr("fastsim.experiment.markets.load_bars", None)
    with pytest.raises(CheckpointError, match=r"empty/agent/policy/spec\.json: no policy here"):
        evaluate(tmp_path / "empty")


def test_what_a_run_leaves_behind(finished):
    events = list((finished / "tensorboard").glob("events.out.tfevents.*"))
    assert events
    log = EventAccumulator(str(finished / "tensorboard"))
    log.Reload()
    wanted = {
        "rollout/reward",
        "rollout/sharpe_ratio",
        "rollout/drawdown",
        "rollout/turnover",
        "rollout/cost_bps",
        "policy/kl",
        "policy/clip_fraction",
        "value/explained_variance",
        "time/steps_per_second",
        "validation/sharpe_ratio",
    }
    assert wanted <= set(log.Tags()["scalars"])
    assert len(log.Scalars("rollout/reward")) == 40
