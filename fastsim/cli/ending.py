"""A program that ends in one line where it is stopped or given bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from fastsim.errors import FastsimError

Options = TypeVar("Options")


@contextmanager
def one_line_errors(program: str, after_stop: str | None = None) -> Iterator[None]:
    """Let bad input end in one line and exit status 2, Ctrl-C in one line and 130.

    How to go on says `after_stop`, or the argument of a KeyboardInterrupt, which Ctrl-C itself has
    none of.
    """
    try:
        yield
    except FastsimError as error:
        line, status = str(error), 2
    except KeyboardInterrupt as stop:
        hints = stop.args or (after_stop,)
        line, status = "; ".join(["stopped", *(str(hint) for hint in hints if hint)]), 130
    else:
        return
    print(f"{program}: {line}", file=sys.stderr)
    raise SystemExit(status)


def read_options(kind: type[Options]) -> Options:
    """A dataclass from the command line, its docstring the help.

    It is a field of the class that tyro makes, because of that one tyro catches every ValueError
    and draws a box around it.
    """
    field: Any = Annotated[kind, tyro.conf.arg(name="")]
    command: Any = make_dataclass("Command", [("options", field)])
    options: Options = tyro.cli(command, description=kind.__doc__).options
    return options
