"""A program that ends in one line where it is stopped or given bad input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from fastsim.cli.flags import flags_of, is_inlined
from fastsim.devices import memory_shortage
from fastsim.errors import ConfigError, FastsimError
from fastsim.settings import dotted, places_of

Options = TypeVar("Options")
MEMORY = (
    ("CollectConfig", "num_envs"),
    ("CollectConfig", "rollout_steps"),
    ("ForecastConfig", "batch_size"),
    ("FitConfig", "batch_size"),
)
"""Settings of a run that memory grows with."""
OWN_MEMORY = (
    *("num_envs", "num_assets", "markets", "players", "batch_size", "context", "bars"),
    *("peer_envs", "growth_envs"),
)
"""Likewise of other commands and scripts, by the names that they have there."""
_COUNTS = tyro.constructors.ConstructorRegistry()


@_COUNTS.primitive_rule
def _count(
    wanted: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Read a whole number, or else whatever number or text is there."""
    if wanted.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: _number(texts[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def _number(text: str) -> int | float | str:
    if text in ("None", "True", "False"):
        raise ValueError  # of an option that may be more than a number
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


@contextmanager
def one_line_errors(
    program: str, options: type[Any], after_stop: str | None = None
) -> Iterator[None]:
    """Let bad input end in one line and exit status 2, Ctrl-C in one line and 130.

    So does memory that is too small, with what to make smaller. Settings are called as the flags of
    `options`. How to go on says `after_stop`, or the argument of a KeyboardInterrupt, which Ctrl-C
    itself has none of.
    """
    try:
        yield
    except FastsimError as error:
        line, status = flags_of(options)(str(error)), 2
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        line, status = f"{place}{error.strerror or error}; choose a place that can be used", 2
    except (RuntimeError, MemoryError) as error:
        shortage = memory_shortage(error)
        if shortage is None:
            raise
        line, status = f"memory is too small ({shortage}); {_smaller(options)}", 2
    except KeyboardInterrupt as stop:
        hints = stop.args or (after_stop,)
        line, status = "; ".join(["stopped", *(str(hint) for hint in hints if hint)]), 130
    else:
        return
    print(f"{program}: {line}", file=sys.stderr)
    raise SystemExit(status)


def _smaller(options: type[Any]) -> str:
    """What of these options to make smaller where memory does not suffice."""
    places = places_of(options, is_inlined)
    found = [dotted(places, owner, name) for owner, name in MEMORY]
    found += [name for name in OWN_MEMORY if name in {entry.name for entry in fields(options)}]
    flags = [f"--{name.replace('_', '-')}" for name in found if name is not None]
    if not flags:
        return "end what else uses it, or choose a device that has more"
    return f"make {' or '.join(flags)} smaller"


def parsed(parse: Callable[[], Options]) -> Options:
    """What tyro makes of arguments; an error of ours that stopped it, as it was raised.

    tyro draws a box around every ValueError and calls its place by names of its own. Where ours is
    not the cause, parsing is done once more, for tyro to say itself what is wrong. What is no whole
    number where one is wanted reaches the configuration, which says so as it does in Python.
    """
    try:
        with _COUNTS, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return parse()
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, FastsimError):
            cause = cause.__context__
    if cause is not None:
        raise cause from None
    return parse()


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What an option is given, before all others are read; None if it is not there.

    Raises
    ------
    ConfigError
        It is there without a value.
    """
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            given = value if equals else next(iter(arguments[position + 1 :]), "")
            if not given or given.startswith("--"):
                raise ConfigError(f"{flag} needs a path, got {given or 'nothing'!r}")
            return given
    return None


def read_options(kind: type[Options], usual: Options | None = None) -> Options:
    """A dataclass from the command line, its docstring the help; options change what is usual."""
    if usual is None:
        return parsed(lambda: tyro.cli(kind, description=kind.__doc__))
    return parsed(lambda: tyro.cli(kind, description=kind.__doc__, default=usual))
