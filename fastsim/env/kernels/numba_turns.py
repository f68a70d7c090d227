"""Rows taken in turns by whichever thread is free: none waits for one that still sleeps."""

from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastsim.env.kernels.compiled import FINISHED, OWN, TAKEN
from fastsim.env.kernels.numba_jit import jit

LOOKS = 20_000
"""How often to look before it is given up: a tenth of a millisecond, or two."""


@intrinsic
def _add(_context, turns, _place, _amount):
    """Add to a count, which others do at the same time; returns what it was."""

    def generate(context, builder, signature, arguments):
        made = make_array(signature.args[0])(context, builder, arguments[0])
        at = cgutils.gep_inbounds(builder, made.data, arguments[1])
        return builder.atomic_rmw("add", at, arguments[2], "seq_cst")

    return types.int64(turns, types.int64, types.int64), generate


@jit
def take(turns, size):
    """The first of `size` rows that are this thread's from now on; there may be fewer, or none."""
    return _add(turns, TAKEN, size)


@jit
def finish(turns, rows):
    """So many of them are done."""
    _add(turns, FINISHED, rows)


@jit
def open_turns(bell, job):
    """Let helpers know that the one who steps (`OWN`) holds the interpreter's lock no longer."""
    if job == OWN:
        _add(bell, 0, 1)


@jit
def close_turns(turns, bell, job, count):
    """Look for the others' last turns; as a helper of a job, for the next one to be rung in.

    Either takes less time than to be woken, and is given up soon.
    """
    left = LOOKS
    if job == OWN:
        while left > 0:
            left = left - 1 if _add(turns, FINISHED, 0) < count else 0
    else:
        while left > 0:
            left = left - 1 if _add(bell, 0, 0) <= job else 0
