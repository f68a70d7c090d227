"""How many threads share a program of the step on a GPU, and how many registers each may have."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from fastsim.errors import ConfigError

WARPS = (1, 2, 4, 8, 16)
"""Warps that can share a program."""
REGISTERS = range(16, 256)
"""Registers that the compiler can be held to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What a launch may choose: it changes how fast a step is, not what it does."""

    warps: int = 1
    """Warps that share a program; one warp needs no barrier to add its lanes up."""
    registers: int | None = None
    """Registers that a thread has at most, what is beyond them spills to memory; None leaves it to
    the compiler."""

    def __post_init__(self) -> None:
        if self.warps not in WARPS:
            raise ConfigError(f"Launch.warps must be one of {WARPS}, got {self.warps!r}")
        if self.registers is not None and self.registers not in REGISTERS:
            raise ConfigError(
                f"Launch.registers must be None or {REGISTERS.start} to {REGISTERS.stop - 1}, "
                f"got {self.registers!r}"
            )

    def __str__(self) -> str:
        warps = "1 warp" if self.warps == 1 else f"{self.warps} warps"
        return warps if self.registers is None else f"{warps}, at most {self.registers} registers"


NARROW = {512: 1, 1024: 2, 2048: 4, 4096: 8}
"""Warps by most numbers of a program, of one account; 16 beyond. Not measured: compiled for sm_90
16 lanes to a thread fit into registers (168 for 500 assets), and two warps would meet 31 barriers.
"""
WIDE = {128: 1, 256: 2, 512: 4, 1024: 8}
"""The same of programs that hold more. Not measured: 8 lanes to a thread, for 6 players of 30
assets, take all 255 registers, 4 take 120."""
ONE_WAVE = 64
"""Registers at which 4,096 programs of one warp fit on 132 multiprocessors at once. Not measured:
plain steps of at most `SMALL` numbers need no more, of some compilers 72, and do not spill."""
SMALL = 128


def launch_of(numbers: int, *, plain: bool, wide: bool) -> Launch:
    """How programs are launched unless they are told otherwise, by the tables above.

    Parameters
    ----------
    numbers
        Of 32 bits in a row: the lanes of all players of a program, twice as many in float64.
    plain
        Whether nothing is drawn and one observation is written; not asked of what is `wide`.
    wide
        Whether it holds several accounts, prices that trades move, further rules of orders, or
        slots that are drawn.
    """
    table = WIDE if wide else NARROW
    place = bisect_left(list(table), numbers)
    warps = [*table.values(), max(WARPS)][place]
    small = plain and not wide and numbers <= SMALL
    return Launch(warps=warps, registers=ONE_WAVE if small else None)
