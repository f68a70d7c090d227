"""A policy's folder: what was saved is what is loaded, from two small files and nothing else."""

import builtins
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.replay import replay
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import CheckpointError
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.folder import load_policy, save_policy
from fastsim.policy.spec import PolicyConfig

TAPE = make_tape(random_bars(80, 3, seed=1), TapeConfig(features=SHORT_FEATURES))
RULES = EnvConfig(action="logits", episode=EpisodeConfig(horizon=10))


@pytest.fixture(scope="module")
def trained() -> FlatPolicy:
    collect = CollectConfig(num_envs=8, rollout_steps=8)
    trainer = Trainer(TAPE, RULES, PPOConfig(), PolicyConfig(hidden=8), collect, iterations=2)
    for _ in range(2):
        trainer.advance()
    return trainer.policy


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    save_policy(trained, tmp_path / "policy")
    return tmp_path / "policy"


def test_what_was_saved_is_loaded_and_acts_alike(trained, folder):
    loaded = load_policy(folder)
    assert loaded.spec == trained.spec
    saved, again = trained.state_dict(), loaded.state_dict()
    assert list(saved) == list(again)
    for name, value in saved.items():
        assert torch.equal(value, again[name]) and value.dtype == again[name].dtype, name
    assert all(value.requires_grad for value in loaded.parameters())
    one, other = (replay(TAPE, who, ["it"], RULES) for who in (trained, loaded))
    assert torch.equal(one.wealth, other.wealth) and torch.equal(one.weights, other.weights)
    assert one.turnover.sum() > 0
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json", "weights.safetensors"]


def test_loading_reads_two_files_and_draws_no_random_number(folder, monkeypatch):
    opened, state = [], torch.get_rng_state()
    for reader in (
        "fastsim.data.source.load_bars",
        "fastsim.market.tape.make_tape",
        "fastsim.forecast.tape.build_forecast_tape",
        "fastsim.forecast.registry.load_ensemble",
        "fastsim.env.environment.PortfolioEnv.__init__",
        "torch.load",
    ):
        monkeypatch.setattr(reader, None)
    plain = builtins.open

    def note(path, *rest, **options):
        opened.append(Path(path).name)
        return plain(path, *rest, **options)

    monkeypatch.setattr(builtins, "open", note)
    monkeypatch.setattr("io.open", note)
    load_policy(folder)
    assert set(opened) <= {"spec.json", "weights.safetensors"}
    assert torch.equal(torch.get_rng_state(), state)


def test_what_loads_a_policy_brings_no_environment_no_forecasts_and_no_learning_with_it():
    others = "env.environment env.kernels synthetic forecast backtest learn experiment data.read"
    code = (
        "import sys, fastsim.policy.folder;"
        f"rooms = tuple('fastsim.' + room for room in {others.split()});"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_a_loaded_policy_is_its_own_and_the_file_may_go(folder):
    policy = load_policy(folder)
    before = policy.log_std.detach().clone()
    shutil.rmtree(folder)
    assert torch.equal(policy.log_std, before)
    policy.portfolio_moments.update(torch.ones(3, len(policy.spec.portfolio)))
    policy.log_std.data.add_(1.0)


def test_saving_again_takes_the_place_of_what_was_there(trained, folder):
    changed = load_policy(folder)
    changed.log_std.data.add_(1.0)
    save_policy(changed, folder)
    assert torch.equal(load_policy(folder).log_std, changed.log_std)
    assert not torch.equal(load_policy(folder).log_std, trained.log_std)


def test_an_interrupted_save_leaves_the_old_policy(trained, folder, monkeypatch):
    changed = load_policy(folder)
    changed.log_std.data.add_(1.0)

    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        save_policy(changed, folder)
    assert torch.equal(load_policy(folder).log_std, trained.log_std)


SPEC, WEIGHTS = "spec.json", "weights.safetensors"


def rewrite(folder, change):
    """Change the mapping of a spec, and let the weights belong to it."""
    mapping = json.loads((folder / SPEC).read_text())
    mapping = change(mapping) or mapping
    (folder / SPEC).write_text(json.dumps(mapping))
    retensor(folder, lambda _: None)


def retensor(folder, change):
    """Change the weights, which go on belonging to the spec."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    digest = hashlib.sha256((folder / SPEC).read_bytes()).hexdigest()
    save_file(tensors, folder / WEIGHTS, metadata={SPEC: digest})


def cut(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "no folder": (shutil.rmtree, r"spec\.json: no policy here; train first"),
    "no spec": (lambda f: (f / SPEC).unlink(), r"spec\.json: no policy here"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"weights\.safetensors: no weights here"),
    "spec cut": (lambda f: cut(f, SPEC), r"spec\.json: damaged"),
    "weights cut": (lambda f: cut(f, WEIGHTS), r"weights\.safetensors: damaged"),
    "spec empty": (lambda f: (f / SPEC).write_bytes(b""), r"spec\.json: damaged"),
    "weights empty": (lambda f: (f / WEIGHTS).write_bytes(b""), r"weights\.safetensors: damaged"),
    "spec binary": (lambda f: (f / SPEC).write_bytes(b"\xff\xfe{"), r"spec\.json: damaged"),
    "spec nested": (lambda f: (f / SPEC).write_text("[" * 100_000), r"spec\.json: damaged"),
    "spec is a list": (
        lambda f: (f / SPEC).write_text("[1]"),
        r"spec\.json: no spec of format 1, but of None",
    ),
    "other format": (
        lambda f: rewrite(f, lambda spec: spec.update(format=99)),
        r"spec\.json: no spec of format 1, but of 99",
    ),
    "field missing": (
        lambda f: rewrite(f, lambda spec: spec.pop("action") and None),
        r'spec\.json: .*missing value for field "action"',
    ),
    "field unknown": (
        lambda f: rewrite(f, lambda spec: spec.update(colour="red")),
        r"spec\.json: .*colour",
    ),
    "field of another type": (
        lambda f: rewrite(f, lambda spec: spec.update(symbols=7)),
        r"spec\.json: .*symbols",
    ),
    "value out of range": (
        lambda f: rewrite(f, lambda spec: spec["network"].update(hidden=0)),
        r"spec\.json: .*hidden must be >= 1",
    ),
    "other size": (
        lambda f: rewrite(f, lambda spec: spec["network"].update(hidden=9)),
        r"weights\.safetensors: does not fit its spec\.json .*size mismatch",
    ),
    "spec edited": (
        lambda f: (f / SPEC).write_text((f / SPEC).read_text().replace("S0", "S9")),
        r"weights\.safetensors: belongs to another spec\.json",
    ),
    "weights without a spec": (
        lambda f: save_file(load_file(f / WEIGHTS), f / WEIGHTS),
        r"weights\.safetensors: belongs to another spec\.json",
    ),
    "weight missing": (
        lambda f: retensor(f, lambda tensors: tensors.pop("log_std")),
        r"weights\.safetensors: does not fit .*Missing key.*log_std",
    ),
    "weight too many": (
        lambda f: retensor(f, lambda tensors: tensors.update(more=torch.zeros(1))),
        r"weights\.safetensors: does not fit .*Unexpected key.*more",
    ),
    "weight of another shape": (
        lambda f: retensor(f, lambda tensors: tensors.update(log_std=torch.zeros(99))),
        r"weights\.safetensors: does not fit .*log_std",
    ),
    "pickled code": (
        lambda f: torch.save({"evil": Path("evil")}, f / WEIGHTS),
        r"weights\.safetensors: damaged",
    ),
    "a folder in its place": (
        lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()),
        r"weights\.safetensors: damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_no_policy_is_named_in_one_line(folder, name):
    damage, words = DAMAGE[name]
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_weights_of_another_policy_of_the_same_shape_are_refused(trained, folder, tmp_path):
    other = FlatPolicy(replace(trained.spec, symbols=("A", "B", "C")))
    save_policy(other, tmp_path / "other")
    shutil.copy(tmp_path / "other" / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"belongs to another spec\.json"):
        load_policy(folder)
