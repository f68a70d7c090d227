"""A broker's server that does not do as it was asked, and how long it is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TypeVar

from fastsim.config import configuration
from fastsim.errors import BrokerError, ConfigError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class RefusedError(BrokerError):
    """A broker understood what it was asked and refused it: nothing has come of it."""


class MissingError(RefusedError):
    """A broker does not know what it was asked about."""


class ThrottledError(BrokerError):
    """A broker was asked too often, and did nothing."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds after which it may be asked again."""


@configuration
class Patience:
    """How long a broker is waited for. Times are in seconds."""

    attempts: int = 5
    """How often one thing is asked for where the broker says that it was asked too often."""
    longest: float = 60.0
    """The longest it may tell to wait, each time."""
    fills: float = 10.0
    """In which market orders are to be filled; after that they are reported as open."""
    every: float = 0.25
    """Between two looks at an order."""
    answer: float = 10.0
    """For one answer."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"Patience.attempts must be at least 1, got {self.attempts}")
        for name in ("longest", "fills", "every", "answer"):
            given = getattr(self, name)
            if not (isfinite(given) and given >= 0):
                raise ConfigError(f"Patience.{name} must be finite and >= 0, got {given!r}")

    def keep(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns, asked again as the broker tells while it raises ThrottledError."""
        for _ in range(self.attempts - 1):
            try:
                return ask()
            except ThrottledError as error:
                refusal = error
            if refusal.wait > self.longest:
                raise refusal
            logger.warning("%s; waiting for %.3g s", refusal, refusal.wait)
            time.sleep(refusal.wait)
        return ask()

    def until(self, look: Callable[[], bool], seconds: float) -> bool:
        """Look every now and then until it returns True, for so many seconds; what it said last."""
        deadline = time.monotonic() + seconds
        while not look():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(self.every, left))
        return True


def told_to_wait(headers: Mapping[str, str], otherwise: float = 1.0) -> float:
    """Seconds of a Retry-After header [RFC 9110, 10.2.3]; `otherwise` where it has no number."""
    found = {name.lower(): value for name, value in headers.items()}.get("retry-after", "")
    try:
        seconds = float(found)
    except ValueError:
        return otherwise
    return max(seconds, 0.0) if isfinite(seconds) else otherwise
