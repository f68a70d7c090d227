"""What the pages print runs as it is printed, or says why it is not run here.

Every block of Python is a program of its own, and every line of a console is a command. One that
needs weights, a network, a GPU or hours has a mark before it, `<!-- not run: why -->`; its commands
must still be understood. Pages of how-tos are tried by `test_howto.py`.
"""

import ast
import shlex
import shutil
import subprocess
import sys

import polars as pl
import pytest
from printed import LANGUAGES, ROOT, blocks_of, check_arguments, inline_commands

from fastsim.cli import main
from fastsim.config import save_yaml
from fastsim.data.read import write_bars
from fastsim.data.sample import sample_bars
from fastsim.experiment.config import TrainConfig

PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.rglob("benchmarks/*.md"))
    if page.exists()
] + sorted(page for page in ROOT.glob("docs/*.md"))
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.reason is None]
PROGRAMS = [block for block in RUN if block.language == "python"]
CONSOLES = [block for block in RUN if block.language == "console"]
NOT_RUN = [block for block in BLOCKS if block.reason is not None]
MARKS = 29
"""Blocks that are not run."""
INLINE = [(page, command) for page in PAGES for command in inline_commands(page)]
UNDERSTOOD_ONLY = ("pip ", "make ", "git ")
"""What a block that is not run may begin a line with beside fastsim and python."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a reader stands: with a file of bars, and a run that was begun."""
    monkeypatch.chdir(tmp_path)
    write_bars(sample_bars("tech4"), tmp_path / "bars.parquet")
    pl.read_parquet(tmp_path / "bars.parquet").write_csv(tmp_path / "my_bars.csv")
    save_yaml(TrainConfig(), tmp_path / "runs" / "NAME" / "config.yaml")
    (tmp_path / "agents").mkdir()
    shutil.copy(ROOT / "agents" / "strategy.yaml", tmp_path / "agents")
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_a_program_runs_as_it_is_printed(block, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", CONSOLES, ids=lambda block: block.name)
def test_a_console_runs_as_it_is_printed(block, folder):
    for command in block.commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "fastsim", "what is no command of ours needs a mark why it is not run"
        main(arguments)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.name)
def test_what_is_not_run_is_understood(block, folder):
    if block.language == "python":
        ast.parse(block.text)
        return
    assert block.language == "console"
    for command in block.commands:
        if not command.startswith(UNDERSTOOD_ONLY):
            check_arguments(command)


@pytest.mark.parametrize(("page", "command"), INLINE, ids=[command for _, command in INLINE])
def test_a_command_in_the_text_is_understood(page, command, folder):
    check_arguments(command)


def test_the_blocks_that_are_not_run_are_counted():
    assert len(NOT_RUN) == MARKS, [block.name for block in NOT_RUN]
    assert all(block.reason for block in NOT_RUN)


def test_every_block_has_a_language_by_which_it_is_tried():
    for block in BLOCKS:
        tree = block.text.startswith("fastsim/\n")
        assert tree or block.language in LANGUAGES, block.name
        if tree or block.language == "text":
            assert not block.text.startswith(("import ", "from ", "fastsim ", "python ")), (
                block.name
            )


def test_pages_print_what_is_tried():
    assert len(PROGRAMS) >= 6
    assert any("fastsim doctor" in block.text for block in CONSOLES)
    assert len(INLINE) >= 5


@pytest.mark.parametrize(
    "command",
    [
        "fastsim trian",
        "fastsim train --no-such-option 1",
        "fastsim export",
        "python agents/baselines.py --sauce us20",
        "python benchmarks/table.py --all",
        "rm -rf runs",
    ],
)
def test_a_command_that_is_wrong_would_be_seen(command, folder, capsys):
    with pytest.raises((SystemExit, AssertionError)):
        check_arguments(command)
