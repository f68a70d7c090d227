"""What a person can get wrong, each with its own name.

Every message is one line that names the culprit, the value it had, and what would work.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FastsimError(ValueError):
    """Base of every error that fastsim raises for bad input; its message becomes one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class ConfigError(FastsimError):
    """A setting is out of range, of the wrong type, unknown, or contradicts another."""


class DataError(FastsimError):
    """Bars are missing, malformed or inconsistent; names the symbol and the date."""


class ActionError(FastsimError):
    """An action has the wrong shape or is not finite."""


class CheckpointError(FastsimError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class ForecastError(FastsimError):
    """A forecast cannot be made: weights cannot be had, or the context or horizon does not fit."""


class BrokerError(FastsimError):
    """A broker cannot be reached, refuses its client, or says what cannot be."""


def one_line(value: object, most: int | None = None) -> str:
    """What `value` says, in one line, cut after `most` characters."""
    text = " ".join(str(value).split())
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The nearest of the known names as the end of a message, or nothing where none is near."""
    near = get_close_matches(str(name), [each for each in known if each != name], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
