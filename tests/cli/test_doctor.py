"""The doctor says what is here and what a lack costs, and falls ill of nothing."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fastsim.cli import main
from fastsim.experiment import checkup as checkups
from fastsim.experiment.checkup import EXTRAS, checkup
from fastsim.forecast import availability as availabilities
from fastsim.forecast.known import MODELS
from fastsim.forecast.models import toto

PROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


def looked() -> dict[str, dict[str, tuple[str, str]]]:
    return {
        section: {look.name: (look.found, look.costs) for look in looks}
        for section, looks in checkup().items()
    }


def no_package(name: str) -> str:
    raise PackageNotFoundError(name)


def test_the_extras_are_those_of_the_project():
    optional = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    packages = {
        name: {entry.split(">")[0].split("=")[0] for entry in entries}
        for name, entries in optional.items()
    }
    assert {name: set(extra.packages) for name, extra in EXTRAS.items()} == packages


def test_what_is_here_is_told_with_its_version():
    found = looked()
    assert found["machine"]["torch"] == (torch.__version__, "")
    assert found["extras"]["pettingzoo"][0].startswith("pettingzoo 1.")
    assert found["machine"]["threads"][0].startswith(f"torch {torch.get_num_threads()}, of")
    assert set(found["forecasters"]) == {record.name for record in MODELS}
    assert set(found["caches"]) == {"weights", "forecasts", "numba", "Triton", "Inductor"}


def test_what_is_missing_is_told_with_how_to_get_it_and_what_it_costs(monkeypatch, tmp_path):
    monkeypatch.setattr(checkups, "version", no_package)
    monkeypatch.setattr(checkups.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = looked()
    for name, extra in EXTRAS.items():
        assert found["extras"][name] == (f"pip install 'fastsim-rl[{name}]'", extra.costs)
    assert found["machine"]["GPU"][1] == "all runs on the CPU"
    assert found["machine"]["Triton"][1] == "no fused steps on a GPU"
    assert found["machine"]["numba"][1] == "no fused steps on a CPU"
    assert found["machine"]["compiler"] == ("none on the path", "no `fastsim export --format aoti`")
    assert found["forecasters"]["toto"][1] == "cannot forecast"
    assert "hf download" in found["forecasters"]["toto"][0]
    assert found["forecasters"]["fastsim-prior"][1] == ""


def test_a_compiler_that_was_named_is_the_one_that_is_looked_for(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert looked()["machine"]["compiler"][0] == "CXX=no-such-compiler, which is not there"


@pytest.mark.parametrize("error", [RuntimeError("driver\ntoo old"), OSError(5, "no"), KeyError(1)])
def test_what_cannot_be_looked_at_is_said_and_the_rest_is_looked_at(error, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise error

    for place, name in (
        (torch.cuda, "is_available"),
        (checkups, "version"),
        (checkups, "availability"),
        (checkups, "getuser"),
        (checkups, "import_module"),
    ):
        monkeypatch.setattr(place, name, fail)
    main(["doctor"])
    told = capsys.readouterr().out
    assert f"cannot be told ({type(error).__name__}" in told
    assert torch.__version__ in told
    assert len(told.splitlines()) < 60


def test_it_works_where_packages_are_missing():
    missing = ["numba", "triton", "stable_baselines3", "onnx", "arch", "pettingzoo", "ccxt"]
    code = (
        f"import sys; sys.modules |= dict.fromkeys({missing});"
        "from fastsim.cli import main; main(['doctor', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    caches = json.loads(done.stdout)["caches"]
    assert "cannot be told (ModuleNotFoundError" in caches["numba"]["found"]


def test_its_record_is_one_object_of_what_is_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["doctor", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert list(record) == ["machine", "extras", "forecasters", "caches"]
    assert record["extras"]["onnx"]["costs"] == looked()["extras"]["onnx"][1]
    main(["doctor"])
    told = capsys.readouterr().out
    assert all(name in told for looks in record.values() for name in looks)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_here_are_told_with_revision_and_digest(tmp_path, monkeypatch):
    weights = tmp_path / "w[x].safetensors"
    weights.write_bytes(b"abc")
    named = tmp_path / ("ab" * 32)
    named.write_bytes(b"abc")
    link = tmp_path / "model.safetensors"
    link.symlink_to(named)
    sha = "ba7816bf8f01"  # FIPS 180-4, of "abc"
    revision = toto.CARD.revision[:12]
    for path, digest in ((weights, sha), (link, "ab" * 6)):
        monkeypatch.setattr(availabilities, "cached", lambda file, path=path: path)
        told = f"{path}, revision {revision}, SHA-256 {digest}"
        assert looked()["forecasters"]["toto"] == (told, "")


def test_caches_are_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert looked()["caches"]["forecasts"][0] == "runs/forecasts, nothing yet"
    folder = tmp_path / "runs" / "forecasts" / "deep"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}").write_bytes(bytes(500_000))
    assert looked()["caches"]["forecasts"][0] == "runs/forecasts, 3 files of 1.5 MB"
