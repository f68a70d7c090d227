"""What every model of a market gives, and what gives it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Generator, Tensor

from fastsim.errors import ConfigError


class Paths(NamedTuple):
    """Bars of M worlds, float64, on the generator's device. Without the rest, closes alone."""

    open: Tensor | None  # [M, T, A]
    high: Tensor | None  # [M, T, A]
    low: Tensor | None  # [M, T, A]
    close: Tensor  # [M, T, A]
    volume: Tensor | None  # [M, T, A]  units traded


class PathModel(Protocol):
    """Anything that draws worlds."""

    def sample(self, worlds: int, bars: int, generator: Generator) -> Paths:
        """Draw `worlds` worlds of `bars` bars, all randomness from `generator`.

        On a CPU the same seed gives the same bits on any number of threads.
        """
        ...


def check_sizes(worlds: int, bars: int) -> None:
    """Raise ConfigError unless both are whole numbers >= 1."""
    for name, size in (("worlds", worlds), ("bars", bars)):
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name} must be a whole number >= 1, got {size!r}")
