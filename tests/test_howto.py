"""Every page of how-tos is right: its code runs, its commands too, and its tables are the records.

A block of Python or YAML whose first line is a comment with a file's name is written to that file.
The other blocks of Python are one program, every YAML is the configuration of a run, and every line
of a console is run, in this order. Commands in the text are understood.
"""

import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from printed import inline_commands

PAGES = sorted((Path(__file__).parent.parent / "docs" / "howto").glob("*.md"))
NAMES = [page.stem for page in PAGES]
WITHOUT_RECORD = {"setting"}
"""Pages on what needs none."""
READ_YAML = """
import shlex, sys
from pathlib import Path
from fastsim.cli import parse
for path in Path().glob("*.yaml"):
    parse(["train", "--config", str(path)])
for line in sys.argv[1:]:
    parse(shlex.split(line)[1:])
"""
COMMANDS = """
import shlex, sys
from fastsim.cli import main
for line in sys.argv[1:]:
    main(shlex.split(line, comments=True)[1:])
"""


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def written(blocks: list[str], ending: str, folder: Path) -> list[str]:
    """Write the blocks that are files; return the others."""
    others = []
    for block in blocks:
        name = re.match(rf"# (\w+\.{ending})\n", block)
        if name is None:
            others.append(block)
        else:
            (folder / name[1]).write_text(block)
    return others


def run(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-W", "error", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_the_page_shows_runs(page, tmp_path):
    program = written(blocks_of(page, "python"), "py", tmp_path)
    for number, block in enumerate(written(blocks_of(page, "yaml"), "yaml", tmp_path)):
        (tmp_path / f"block{number}.yaml").write_text(block)
    lines = [line for block in blocks_of(page, "console") for line in block.splitlines()]
    assert program or lines, "a page shows how"
    assert all(line.startswith("fastsim ") for line in lines)
    (tmp_path / "program.py").write_text("\n".join([*program, READ_YAML]))
    run(tmp_path, "program.py", *inline_commands(page))
    run(tmp_path, "-P", "-c", COMMANDS, *lines)  # without the current folder on the path


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_table_of_a_record_has_its_fields(page):
    if page.stem in WITHOUT_RECORD:
        assert "## The record" not in page.read_text()
        return
    section = page.read_text().split("\n## The record\n")[1].split("\n## ")[0]
    _, *parts = re.split(r"^`(fastsim[\w.]+)`", section, flags=re.MULTILINE)
    assert parts, "the record is named at the beginning of a line"
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        module, _, record = name.rpartition(".")
        names = tuple(field.name for field in fields(getattr(import_module(module), record)))
        assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == names, name


def test_there_are_pages():
    assert {"feature", "forecaster", "synthetic_market", "data_vendor"} <= set(NAMES)
