"""What an error advises, in words of the command line: flags instead of Python's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastsim.errors import FastsimError

FLAGS = (
    (r"set \w+='\w+' in CheckConfig \(repair=True in DataConfig\)", "give ", "repair"),
    (
        r"by zero_volume='drop' in CheckConfig \(ignore_volume=True in DataConfig\)",
        "by ",
        "ignore-volume",
    ),
    (r"give the one name as symbols=\['AAPL'\]", "give the one name as ", "symbols AAPL"),
    (r"name all that you want in symbols\b", "name all that you want with ", "symbols"),
)
"""Patterns of advice on data, what a person is told instead, and the option of the data."""
OTHERS = (
    (r" \(validation_start='[^']*', test_start='[^']*'\)", ""),
    (r"^(TrainConfig\.)?(validation|test)_start\b", r"--\2-start"),
)
OF_A_RUN = ("train", "ablate")
WITH_OPTIONS = {("data", "check"), ("data", "fetch")}
"""Commands that have options of the data as their own; a run has them under `--data`."""


@contextmanager
def in_flags(arguments: Sequence[str]) -> Iterator[None]:
    """Let errors of these arguments advise what can be typed."""
    try:
        yield
    except FastsimError as error:
        line = str(error)
        for pattern, words, option in FLAGS:
            line = re.sub(pattern, words + _flag(option, arguments), line)
        for pattern, words in OTHERS:
            line = re.sub(pattern, words, line)
        raise type(error)(line) from error


def _flag(option: str, arguments: Sequence[str]) -> str:
    """How an option of the data is typed; where a command lacks it, another writes such data."""
    if arguments and arguments[0] in OF_A_RUN:
        return f"--data.{option}"
    if tuple(arguments[:2]) in WITH_OPTIONS:
        return f"--{option}"
    return f"--{option} to `fastsim data check FILE --out bars.parquet` and use that file"
