"""What an error advises, in words of the command line: flags instead of Python's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastsim.errors import FastsimError

FLAGS = (
    (r"set \w+='\w+' in CheckConfig \(repair=True in DataConfig\)", "give --{data}repair"),
    (
        r"by zero_volume='drop' in CheckConfig \(ignore_volume=True in DataConfig\)",
        "by --{data}ignore-volume",
    ),
    (r"give the one name as symbols=\['AAPL'\]", "give the one name as --{data}symbols AAPL"),
    (r"name all that you want in symbols\b", "name all that you want with --{data}symbols"),
    (r" \(validation_start='[^']*', test_start='[^']*'\)", ""),
    (r"^(TrainConfig\.)?(validation|test)_start\b", r"--\2-start"),
)
"""Patterns of advice and what a person types; {data} is where options of the data stand."""

OWN_OPTIONS = ("data",)
"""Commands that have the options of the data as their own."""


@contextmanager
def in_flags(arguments: Sequence[str]) -> Iterator[None]:
    """Let errors of these arguments advise what can be typed."""
    try:
        yield
    except FastsimError as error:
        prefix = "" if arguments and arguments[0] in OWN_OPTIONS else "data."
        line = str(error)
        for pattern, flag in FLAGS:
            line = re.sub(pattern, flag.replace("{data}", prefix), line)
        raise type(error)(line) from error
