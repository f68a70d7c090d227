"""The backend for CPUs: one fused pass over each environment or market, shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.actions import action_width
from fastsim.env.core import Transition
from fastsim.env.kernels import columns as c
from fastsim.env.kernels import numba_kernel, numba_market
from fastsim.env.kernels.arrays import StepArrays
from fastsim.env.kernels.buffers import (
    MarketBlocks,
    Results,
    Rules,
    Singles,
    State,
    by_market,
    by_orders,
    empty_results,
    empty_singles,
    empty_state,
    numpy_blocks,
    pack_market,
    pack_rules,
    portfolio_width,
    repack_bars,
    room_like,
    torch_blocks,
    without_features,
)
from fastsim.env.kernels.compiled import forget_old_code, in_parts
from fastsim.env.kernels.numba_row import NumbaRow
from fastsim.env.nested import copy
from fastsim.env.state import EnvParams, EnvState
from fastsim.errors import ConfigError

SERIAL_BELOW = 16_384
"""Numbers, N A, below which threads cost more than they bring."""
VECTOR = 16
"""Assets are padded to a multiple of this, so that loops over them end with whole registers."""


_NAMES = (c.FIGURE._fields,)
_as_arrays = partial(tuple.__new__, StepArrays)
"""Of all fields at once: by name it takes half as long again as a step of a single environment."""


class NumbaStepper:
    """Steps environments on a CPU, in place; many are shared among threads, market by market.

    Raises
    ------
    ConfigError
        The market does not lie on a CPU.
    """

    name = "numba"
    capturable = False

    def __init__(self, params: EnvParams, state: EnvState, *, single_orders: bool = False) -> None:
        if params.tape.device.type != "cpu":
            raise ConfigError(f'backend "numba" runs on a CPU, not on {params.tape.device}')
        self.num_envs, assets = state.portfolio.holdings.shape
        self._params, markets = params, self.num_envs // params.config.players
        self._state = empty_state(params, self.num_envs, VECTOR)
        self._state.load(state)
        self._portfolio_width = portfolio_width(params)
        self._single_orders = single_orders
        singles = empty_singles(params, self.num_envs, asked=single_orders)
        self._new_results = room_like(numpy_blocks(empty_results(params, self.num_envs)))
        self.tells_rows = singles is None
        self._new_singles: Callable[[], Singles | None] = _nothing
        if singles is not None:
            self._new_singles = room_like(numpy_blocks(singles))
        self._market = pack_market(params, VECTOR)
        self._fixed = on_host(params, self._state, self._market)
        self._rules = numpy_blocks(pack_rules(params))
        self._rules_of_room = numpy_blocks(pack_rules(without_features(params)))
        self._invalid = self._fixed[0].counters[:, c.COUNTER.invalid_actions]
        self._threads = 1
        if self.num_envs * assets >= SERIAL_BELOW:
            self._threads = min(torch.get_num_threads(), markets)
        bounds = [part * markets // self._threads for part in range(self._threads + 1)]
        rooms = [room(params, self._state.holdings.shape[1]) for _ in range(self._threads)]
        self._parts = list(zip(bounds, bounds[1:], rooms, strict=False))
        self._all, self._room = (0, markets), rooms[0]
        self._real = rooms[0][0].dtype
        width = action_width(params.config.action, assets)
        blank = self._rules, self._new_results(), self._new_singles()
        call = self._calls(np.empty((self.num_envs, width), self._real), *blank)[0]
        kernel = numba_market if by_market(params.config) else numba_kernel
        forget_old_code(numba_kernel.step_block, "env")
        # To look up the types of all blocks at every call takes longer than to step an environment.
        self._step_block = kernel.step_block.compile(tuple(map(numba.typeof, call)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew: blocks are shared here, and compiled code stays."""
        made = partial(NumbaStepper, single_orders=self._single_orders)
        return made, (self._params, copy(self.state))

    @property
    def state(self) -> EnvState:
        """The state now, updated in place by every step."""
        return self._state.nested(self._params)

    @property
    def invalid_actions(self) -> Tensor:
        """Actions [N] that were not finite, since the last reset; updated in place."""
        return self._state.counters[:, c.COUNTER.invalid_actions]

    def load(self, state: EnvState) -> None:
        """Go on from a copy of this state."""
        self._state.load(state)

    def refresh(self, bars: Tensor) -> None:
        """Read these bars [B] of the tape again."""
        repack_bars(self._market, self._params, bars, VECTOR)

    def room(self, steps: int) -> Results:
        """Blocks [steps, N, ...] that so many steps can write into."""
        return empty_results(without_features(self._params), self.num_envs, steps)

    def step(self, action: Tensor, into: Results | None = None) -> Transition:
        """Step every environment once, into these blocks [N, ...] if there are any."""
        results = None if into is None else numpy_blocks(into)
        return self._in_tensors(*self._step(action.detach().numpy(), results))

    def step_arrays(self, action: NDArray[np.floating[Any]]) -> StepArrays:
        """Step every environment once; the arrays returned are the caller's to keep."""
        stepped, singles = self._step(action)
        return _as_arrays(
            (*_NAMES, *stepped, self._invalid.copy(), partial(self._in_tensors, stepped, singles))
        )

    def by_row(self) -> NumbaRow:
        """Of a single environment under `next_step`; made when it is first asked for."""
        return self._row

    @cached_property
    def _row(self) -> NumbaRow:
        results = numpy_blocks(empty_results(self._params, 1))
        width = action_width(self._params.config.action, self._params.tape.num_assets)
        rest, transition = (None, *self._room), partial(self._in_tensors, singles=None)
        market = by_market(self._params.config)
        return NumbaRow(
            (*self._fixed, self._rules), results, rest, width, transition, market=market
        )

    def _in_tensors(self, stepped: Any, singles: Any) -> Transition:
        """The same memory as tensors."""
        orders = None if singles is None else torch_blocks(singles)
        results: Results = torch_blocks(stepped)
        return results.transition(self._portfolio_width, orders)

    def _step(self, action: NDArray[Any], into: Any = None) -> tuple[Any, Any]:
        """Share the environments among threads."""
        results = self._new_results() if into is None else into
        rules = self._rules if into is None else self._rules_of_room
        singles = self._new_singles()
        action = np.ascontiguousarray(action, self._real)
        if self._threads > 1:
            in_parts(self._step_block, self._calls(action, rules, results, singles))
        else:  # a single environment takes its step in less time than it takes to look around
            blocks = (*self._fixed, rules, results, singles)
            self._step_block(*self._all, action, *blocks, *self._room)
        return results, singles

    def _calls(
        self, action: NDArray[Any], rules: Rules, results: Results, singles: Singles | None
    ) -> list[tuple[Any, ...]]:
        """Arguments of the kernel, thread by thread."""
        return [
            (start, stop, action, *self._fixed, rules, results, singles, *room)
            for start, stop, room in self._parts
        ]


def _nothing() -> None:
    """Where single orders are not told."""


def on_host(params: EnvParams, state: State, market: MarketBlocks) -> tuple[Any, Any]:
    """Blocks as kernels take them: those that these rules need, for each takes time at a call."""
    blocks: Any = numpy_blocks(state)
    tables: Any = numpy_blocks(market)
    if not by_market(params.config):
        blocks = blocks._replace(displaced=None)
    if not by_orders(params):
        blocks, tables = blocks._replace(open_orders=None), tables._replace(terms=None, fees=None)
    return blocks, tables


def room(params: EnvParams, columns: int) -> tuple[Any, ...]:
    """What a thread works in: weights and limits, the desk of a row, and the orders of a market."""
    single = [name for name in ("weights", "limit", *numba_market.Pit._fields) if name != "orders"]
    rows = len(single) + len(c.DESK) + params.config.players  # an order for each player
    lanes = torch.empty(rows, columns, dtype=params.tape.dtype).numpy()
    rooms = dict(zip(single, lanes, strict=False))
    weights, limit, lanes = rooms.pop("weights"), rooms.pop("limit"), lanes[len(single) :]
    desk, orders = lanes[: len(c.DESK)], lanes[len(c.DESK) :]
    room = weights, limit, desk if by_orders(params) else None
    return (*room, numba_market.Pit(**rooms, orders=orders)) if by_market(params.config) else room


make = NumbaStepper
