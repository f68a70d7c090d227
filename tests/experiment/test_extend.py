"""A run is trained longer than it was to be, and TensorBoard shows it by environment steps."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fastsim.cli import main
from fastsim.config import load_yaml
from fastsim.data.source import DataConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.events import hyperparameters
from fastsim.experiment.train import resume, train
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.checkpoint import load_checkpoint
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig
from fastsim.policy.spec import PolicyConfig
from fastsim.progress import SILENT

FRAMES = 64


def settings(folder: Path, name: str, iterations: int, **changes: object) -> TrainConfig:
    config = TrainConfig(
        name=name,
        runs_dir=str(folder),
        data=DataConfig(symbols=("AAPL", "KO"), start="2014-01-01", end="2016-12-30"),
        validation_start="2016-10-01",
        test_start="2016-11-15",
        forecaster="none",
        collect=CollectConfig(num_envs=8, rollout_steps=8),
        sac=SACConfig(updates=1, batch_size=16),
        policy=PolicyConfig(hidden=8),
        total_steps=FRAMES * iterations,
        evaluations=2,
    )
    short = replace(config.env, episode=EpisodeConfig(horizon=6))
    return replace(config, env=short, **changes)


def latest(run: Path) -> dict:
    return load_checkpoint(run / "checkpoints" / "latest.pt")


def same_weights(first: Path, second: Path) -> bool:
    one, other = (latest(run)["policy"] for run in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


def steady(algorithm: str) -> dict[str, object]:
    kinds = {"ppo": PPOConfig, "sac": SACConfig, "apg": APGConfig}
    made = kinds[algorithm](schedule="constant")
    return {"algorithm": algorithm, algorithm: made}


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(each, marks=() if each == "ppo" else pytest.mark.long) for each in ALGORITHMS],
)
def test_where_nothing_falls_a_run_made_longer_is_the_longer_run(algorithm, tmp_path):
    short = train(settings(tmp_path, "short", 4, **steady(algorithm)), progress=SILENT)
    whole = train(settings(tmp_path, "whole", 8, **steady(algorithm)), progress=SILENT)
    assert not same_weights(short, whole)
    resume(short, total_steps=FRAMES * 8, progress=SILENT)
    assert same_weights(short, whole)
    assert latest(short)["iteration"] == 8


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_falls_over_a_run_falls_over_all_of_it_from_where_it_is(algorithm, tmp_path):
    run = made_longer(settings(tmp_path, "run", 4, algorithm=algorithm), 8)
    own = PPOConfig() if algorithm == "ppo" else SACConfig() if algorithm == "sac" else APGConfig()
    assert own.schedule == "linear"
    rates = [event.value / own.learning_rate for event in scalars(run, "policy/learning_rate")]
    expected = [1 - done / 4 for done in range(4)] + [1 - done / 8 for done in range(4, 8)]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_the_configuration_has_the_new_total_and_else_is_as_it_was(tmp_path):
    config = settings(tmp_path, "run", 2)
    run = train(config, progress=SILENT)
    resume(run, progress=SILENT)
    assert load_yaml(TrainConfig, run / "config.yaml") == config
    resume(run, total_steps=FRAMES * 3 + 7, progress=SILENT)
    longer = replace(config, total_steps=FRAMES * 3 + 7)
    assert load_yaml(TrainConfig, run / "config.yaml") == longer
    before = (run / "checkpoints" / "latest.pt").read_bytes()
    resume(run, progress=SILENT)
    assert (run / "checkpoints" / "latest.pt").read_bytes() == before


@pytest.mark.parametrize("steps", [FRAMES, FRAMES * 2, 2 * FRAMES + 1])
def test_a_run_cannot_have_done_less_than_it_has(steps, tmp_path):
    run = train(settings(tmp_path, "run", 3), progress=SILENT)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=rf"{steps} is less than the 192 steps that .* has done"):
        resume(run, total_steps=steps, progress=SILENT)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_the_command_line_makes_a_run_longer(tmp_path, capsys):
    run = train(settings(tmp_path, "run", 2), progress=SILENT)
    main(["train", "--resume", str(run), "--total-steps", str(FRAMES * 3)])
    assert latest(run)["iteration"] == 3
    main(["train", f"--resume={run}", "--total-timesteps", str(FRAMES * 4)])
    assert latest(run)["iteration"] == 4
    main(["train", "--resume", str(run), "--seed", "0"])  # it has that seed
    for wrong, culprit in (
        (["--total-steps", str(FRAMES)], "less than the 256 steps"),
        (["--seed", "1"], "drop seed"),
        (["--total-steps", "999", "--ppo.epochs", "1"], "drop ppo.epochs"),
        (["--config", str(run / "config.yaml")], "drop config"),
        (["--total-steps", "many"], "whole number"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["train", "--resume", str(run), *wrong])
        told = capsys.readouterr().err
        assert end.value.code == 2
        assert culprit in told
        assert told.count("\n") == 1
    assert latest(run)["iteration"] == 4


def made_longer(config: TrainConfig, iterations: int) -> Path:
    """A run and, in a file of events that sorts behind its own, what comes after."""
    run = train(config, progress=SILENT)
    time.sleep(1.1)
    return resume(run, total_steps=FRAMES * iterations, progress=SILENT)


def scalars(run: Path, name: str) -> list:
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    return log.Scalars(name)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tensorboard_counts_steps_and_knows_episodes_settings_and_configuration(
    algorithm, tmp_path
):
    run = made_longer(settings(tmp_path, "run", 4, algorithm=algorithm), 6)
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    assert [event.step for event in log.Scalars("rollout/reward")] == [64, 128, 192, 256, 320, 384]
    assert log.Scalars("validation/sharpe_ratio")[-1].step == 384
    lengths = [event.value for event in log.Scalars("episode/length")]
    assert lengths[0] == 6.0
    assert set(lengths) == {6.0}
    assert "episode/return" in log.Tags()["scalars"]
    told = log.Tensors("configuration/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert f"total_steps: {FRAMES * 6}" in told
    assert f"algorithm: {algorithm}" in told
    settings_shown = hparams_of(log)
    assert settings_shown["seed"] == 0.0
    assert settings_shown["collect.num_envs"] == 8.0
    assert f"{algorithm}.learning_rate" in settings_shown
    assert not {"ppo.clip", "sac.capacity"} & set(settings_shown) - {
        f"{algorithm}.clip",
        f"{algorithm}.capacity",
    }


def hparams_of(log: EventAccumulator) -> dict[str, object]:
    content = log.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}


def test_hyper_parameters_are_plain_and_all_of_them():
    shown = hyperparameters(TrainConfig())
    assert shown["env.costs.fee_bps"] == 1.0
    assert shown["data.start"] == "None"
    assert all(isinstance(value, bool | int | float | str) for value in shown.values())
    assert "name" not in shown
