"""Blocks of code as pages print them, and the commands that are named in their text."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from fastsim.cli import parse

ROOT = Path(__file__).parent.parent
LANGUAGES = {"python", "console", "yaml", "text"}
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`((?:fastsim|python) [^`]*)`")
_OPTIONS = re.compile(r"(?:tyro\.cli|read_options)\((\w+)")


class Block(NamedTuple):
    """A block, and why it is not run if it is not."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its lines, those that go on put together."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=found["text"],
            reason=found["reason"],
        )
        for found in _BLOCK.finditer(text)
    ]


def inline_commands(page: Path) -> list[str]:
    """Commands with options in the text of a page, outside its blocks."""
    text = _BLOCK.sub("", page.read_text())
    commands = (" ".join(found.split()) for found in _INLINE.findall(text))
    return [command for command in commands if " --" in command and "|" not in command]


def check_arguments(command: str) -> None:
    """Let the program of a command read its arguments, and go no further."""
    words = shlex.split(command, comments=True)
    program, *arguments = words[1:] if "=" in words[0] else words  # a variable for the program
    if "--help" in arguments:
        return  # every program has it
    if program == "fastsim":
        parse(arguments)
    elif program == "python":
        options = _options_of(ROOT / arguments[0])
        if options is not None:
            tyro.cli(options, args=arguments[1:])
        else:
            assert arguments[1:] == [], f"{command}: the script has no options"
    else:
        raise AssertionError(f"{command}: a block with {program} needs a mark why it is not run")


def _options_of(script: Path) -> Any:
    """The class of options of a script, from its module, which is not its main one."""
    found = _OPTIONS.search(script.read_text())
    if found is None:
        return None
    spec = spec_from_file_location(f"printed_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    sys.path.insert(0, str(script.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(script.parent))
    return getattr(module, found[1])
