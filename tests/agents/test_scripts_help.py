"""Every script says what it does when it is asked to, and does nothing else."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sorted(
    path
    for pattern in ("agents/*.py", "benchmarks/*.py", "benchmarks/peers/environments.py")
    for path in ROOT.glob(pattern)
    if "__main__" in path.read_text()
)
NAMES = [path.stem for path in SCRIPTS]


def ended(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script as a person does, until it ends itself; returns its exit status."""
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_help_is_a_description_and_options(script, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert ended(script, ["--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    assert "--help" in told
    usage, description = told.split("\n\n")[:2]
    assert usage.startswith("usage:")
    assert len(description.split()) >= 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["--no-such-option", "stray"])
@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_what_it_does_not_know_is_refused(script, argument, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert ended(script, [argument], monkeypatch) == 2
    assert argument in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_scripts_are_tried():
    assert {"train_ppo", "train_sb3", "custom_agent", "self_play", "benchmark_env"} <= set(NAMES)
