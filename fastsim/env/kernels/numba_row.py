"""The step of a single environment: one call of compiled code, and two arrays that are kept.

A call from Python costs many times the step. So what is told of it goes into one row of numbers,
and nothing else is allocated, looked at or worked out until somebody asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastsim.env.core import Transition
from fastsim.env.kernels import columns as c
from fastsim.env.kernels import numba_kernel, numba_market
from fastsim.env.kernels.arrays import Row, StepArrays
from fastsim.env.kernels.buffers import Results
from fastsim.env.kernels.numba_jit import jit

TOLD = c.places("Told", *c.FIGURE._fields, "bar", "invalid", *c.FLAG._fields)
"""Places in a row of what is told: figures, bar, actions that were not finite, and flags."""


@jit
def is_finite(action: Any) -> Any:
    """Whether a row of numbers is finite."""
    check = action.dtype.type(0.0)
    for column in range(action.shape[1]):
        check += action[0, column] * action.dtype.type(0.0)
    return not math.isnan(check)


@jit
def with_seen(seen: Any, results: Any) -> Any:
    """Results of which all but the observation is written where it was before."""
    return Results(
        seen,
        results.bar,
        results.figures,
        results.flags,
        results.final_seen,
        results.final_bar,
    )


@jit
def tell(state: Any, results: Any, told: Any) -> Any:
    """Write what is told; returns 4 bar + 2 truncated + terminated."""
    for column in range(results.figures.shape[1]):
        told[column] = results.figures[0, column]
    told[TOLD.bar] = results.bar[0]
    told[TOLD.invalid] = state.counters[0, c.COUNTER.invalid_actions]
    for column in range(results.flags.shape[1]):
        told[TOLD.terminated + column] = results.flags[0, column]
    ends = results.flags[0, c.FLAG.terminated] + 2 * results.flags[0, c.FLAG.truncated]
    return 4 * results.bar[0] + ends


@partial(jit, inline=False)
def step_row(
    action: Any, seen: Any, told: Any, results: Any, state: Any, market: Any, rules: Any, rest: Any
) -> Any:
    """Step the only environment; -1, and no step, if the action is not finite."""
    if not is_finite(action):
        return -1
    written = with_seen(seen, results)
    numba_kernel.step_block(0, 1, action, state, market, rules, written, *rest)
    return tell(state, written, told)


@partial(jit, inline=False)
def step_market(
    action: Any, seen: Any, told: Any, results: Any, state: Any, market: Any, rules: Any, rest: Any
) -> Any:
    """The same where it moves the prices of its market."""
    if not is_finite(action):
        return -1
    written = with_seen(seen, results)
    numba_market.step_block(0, 1, action, state, market, rules, written, *rest)
    return tell(state, written, told)


class NumbaRow:
    """Steps one environment of the blocks of a `NumbaStepper`, under `next_step`.

    `rest` are arguments of its kernel after the results.
    """

    def __init__(
        self,
        fixed: tuple[Any, ...],
        results: Results,
        rest: tuple[Any, ...],
        width: int,
        transition: Callable[[Any], Transition],
        *,
        market: bool,
    ) -> None:
        arrays: Any = results
        self._state, self._transition = fixed[0], transition
        self._shape, self._real = arrays.seen.shape, arrays.seen.dtype
        self._nothing = np.zeros((1, width), self._real)
        self._fixed = (results, *fixed, rest)
        call = (self._nothing, np.empty(self._shape, self._real), np.empty(len(TOLD)), *self._fixed)
        kernel = step_market if market else step_row
        self._step = kernel.compile(tuple(map(numba.typeof, call)))

    def step(self, action: NDArray[Any]) -> Row | None:
        """Step by an action [W]; None, and no step, if it is not finite."""
        seen, told = np.empty(self._shape, self._real), np.empty(len(TOLD))
        end = self._step(np.ascontiguousarray(action[None], self._real), seen, told, *self._fixed)
        return None if end < 0 else (seen, end >> 2, told, end & 1 > 0, end & 2 > 0)

    def begin(self) -> Row:
        """Begin the next episode, as a step does after the end of one."""
        self._state.done[:] = True
        self._state.counters[:, c.COUNTER.invalid_actions] = 0
        row = self.step(self._nothing[0])
        assert row is not None
        return row

    def arrays(self, row: Row) -> StepArrays:
        """What a row tells, as `step_arrays` returns it."""
        seen, bar, told, *_ = row
        figures, flags = told[None, : c.NUM_FIGURES], told[None, TOLD.terminated :]
        none = seen[:0], np.empty(0, np.int64)
        kept: Any = (seen, np.array([bar]), figures.astype(self._real), flags > 0, *none)
        invalid = told[None, TOLD.invalid].astype(np.int64)
        as_tensors = partial(self._transition, Results(*kept))
        return StepArrays._make((c.FIGURE._fields, *kept, invalid, as_tensors))
