"""Rows taken in turns by whichever thread is free: none waits for one that still sleeps."""

from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastsim.env.kernels.compiled import FINISHED, OWN, TAKEN
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_stream import fence

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
def take_turns(block, turns, bell, job, size, count, rest):
    """Call `block(start, stop, *rest)` for `size` rows at a time that no thread has taken yet.

    Parameters
    ----------
    turns
        Counts [PLACES] of the rows, of all `count`, that are taken and that are finished.
    bell, job
        `OWN` is the job of whoever steps, and who rings: from there on it holds the interpreter's
        lock no longer, and looks in the end for the others' last turns. Any other is a helper's
        number, who then looks for the next job to be rung in. Either takes less time than to be
        woken, and is given up soon.
    """
    if job == OWN:
        _add(bell, 0, 1)
    start = _add(turns, TAKEN, size)
    while start < count:
        stop = min(start + size, count)
        block(start, stop, *rest)
        fence()
        _add(turns, FINISHED, stop - start)
        start = _add(turns, TAKEN, size)
    left = LOOKS
    while left > 0:
        waits = _add(turns, FINISHED, 0) < count if job == OWN else _add(bell, 0, 0) <= job
        left = left - 1 if waits else 0
