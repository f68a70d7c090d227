"""What docs/nautilus.md prints runs as it is printed."""

import re
import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from nautilus_runs import require_nautilus, run_of
from printed import ROOT, blocks_of

nautilus = require_nautilus()
PAGE = ROOT / "docs" / "nautilus.md"
PROGRAMS = [block for block in blocks_of(PAGE) if block.language == "python"]


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_the_page_runs_as_it_is_printed(block, tmp_path):
    shutil.copytree(run_of("open").folder / "agent", tmp_path / "runs" / "NAME")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tensor(" in done.stdout


def test_the_page_names_what_there_is():
    text = PAGE.read_text()
    assert len(PROGRAMS) == 2
    for module, name in re.findall(r"`(fastsim\.adapters\.[\w.]+):(\w+)`", text):
        assert hasattr(import_module(module), name)
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
    named = {name for row in table for name in re.findall(r"\w+", row)} - {"AgentStrategyConfig"}
    assert named == set(nautilus.AgentStrategyConfig.__annotations__)
