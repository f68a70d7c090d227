"""The backend for CPUs: one fused pass over each environment or market, shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.actions import action_width
from fastsim.env.core import Transition
from fastsim.env.kernels import columns as c
from fastsim.env.kernels import numba_draws, numba_kernel, numba_market
from fastsim.env.kernels.arrays import StepArrays
from fastsim.env.kernels.buffers import (
    by_market,
    empty_draws,
    empty_like,
    empty_results,
    empty_singles,
    empty_state,
    empty_views,
    numpy_blocks,
    pack_market,
    pack_rules,
    portfolio_width,
    repack_bars,
    torch_blocks,
)
from fastsim.env.kernels.compiled import forget_old_code, in_parts
from fastsim.env.nested import copy
from fastsim.env.state import EnvParams, EnvState
from fastsim.errors import ConfigError

SERIAL_BELOW = 16_384
"""Numbers, N A, below which threads cost more than they bring."""
VECTOR = 16
"""Assets are padded to a multiple of this, so that loops over them end with whole registers."""


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
        self.num_envs = len(state.portfolio.cash)
        self._params, self._portfolio_width = params, portfolio_width(params)
        self._state = empty_state(params, self.num_envs, VECTOR)
        self._state.load(state)
        self._market = pack_market(params, VECTOR)
        self._single_orders = single_orders
        told = (
            empty_results(params, self.num_envs),
            empty_singles(params, self.num_envs) if single_orders else None,
            empty_views(params, self.num_envs),
        )
        self._blank = tuple(None if blocks is None else numpy_blocks(blocks) for blocks in told)
        blocks: Any = numpy_blocks(self._state)
        tables: Any = numpy_blocks(self._market), numpy_blocks(pack_rules(params))
        self._parts = _parts(params, blocks, tables[0])
        self._real = blocks.holdings.dtype
        # Every array takes its time at every call.
        blocks = blocks._replace(slots=None)
        if not by_market(params.config):
            blocks = blocks._replace(displaced=None)
        self._fixed = (blocks, *tables)
        self._step_block, self._draw_block = self._compiled()
        self._draw_again()

    def _compiled(self) -> tuple[Callable[..., None], Callable[..., None] | None]:
        """Kernels for blocks of these types, for steps and for what is drawn.

        To look up the types of all blocks at every call takes longer than to step an environment.
        """
        params = self._params
        forget_old_code(numba_kernel.step_block, "env")
        width = action_width(params.config.action, params.tape.num_assets)
        call = self._calls(np.empty((self.num_envs, width), self._real), self._blank)[0]
        kernel = numba_market if by_market(params.config) else numba_kernel
        step = kernel.step_block.compile(tuple(map(numba.typeof, call)))
        if not params.config.randomize.varies:
            return step, None
        types = map(numba.typeof, self._draw_call())
        return step, numba_draws.draw_block.compile(tuple(types))

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
        self._draw_again()

    def refresh(self, bars: Tensor) -> None:
        """Read these bars [B] of the tape again."""
        repack_bars(self._market, self._params, bars, VECTOR)

    def step(self, action: Tensor) -> Transition:
        """Step every environment once."""
        return self._in_tensors(self._step(action.detach().numpy()))

    def step_arrays(self, action: NDArray[np.floating[Any]]) -> StepArrays:
        """Step every environment once; the arrays returned are the caller's to keep."""
        told = self._step(action)
        stepped = told[0]
        return StepArrays(
            names=c.FIGURE._fields,
            seen=stepped.seen,
            bar=stepped.bar,
            figures=stepped.figures,
            flags=stepped.flags,
            final_seen=stepped.final_seen,
            final_bar=stepped.final_bar,
            invalid=self._fixed[0].counters[:, c.COUNTER.invalid_actions].copy(),
            transition=lambda: self._in_tensors(told),
        )

    def _in_tensors(self, told: tuple[Any, ...]) -> Transition:
        """The same memory as tensors."""
        tensors: Any = [None if blocks is None else torch_blocks(blocks) for blocks in told]
        transition: Transition = tensors[0].transition(self._portfolio_width, *tensors[1:])
        return transition

    def _step(self, action: NDArray[Any]) -> tuple[Any, ...]:
        """Share the environments among threads."""
        told = tuple(None if blocks is None else empty_like(blocks) for blocks in self._blank)
        action = np.ascontiguousarray(action, dtype=self._real)
        in_parts(self._step_block, self._calls(action, told))
        return told

    def _calls(self, action: NDArray[Any], told: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Arguments of the kernel, thread by thread; it tells results, single orders and views."""
        return [
            (start, stop, action, *self._fixed, *told, *room) for start, stop, room in self._parts
        ]

    def _draw_call(self) -> tuple[Any, ...]:
        """Arguments of the kernel that draws."""
        _, _, (drawn, *_) = self._parts[0]
        return 0, self.num_envs, *self._fixed, drawn

    def _draw_again(self) -> None:
        """Draw what follows from the episodes of a state that was loaded."""
        if self._draw_block is not None:
            self._draw_block(*self._draw_call())


def _parts(params: EnvParams, state: Any, market: Any) -> list[tuple[int, int, tuple[Any, ...]]]:
    """Markets from which to which each thread steps, and what it works in."""
    rows, columns = state.holdings.shape
    markets, threads = rows // params.config.players, 1
    if rows * params.tape.num_assets >= SERIAL_BELOW:
        threads = min(torch.get_num_threads(), markets)
    bounds = [part * markets // threads for part in range(threads + 1)]
    rooms = [
        (drawn, *_room(params, columns)) for drawn in _drawn_rooms(params, state, market, threads)
    ]
    return list(zip(bounds, bounds[1:], rooms, strict=False))


def _room(params: EnvParams, columns: int) -> tuple[Any, ...]:
    """What a thread works in: weights and limits of a row, and the orders of a market."""
    single = ("weights", "limit", *numba_market.Pit._fields)
    rows = len(single) - 1 + params.config.players  # the orders take one for each player
    lanes = torch.empty(rows, columns, dtype=params.tape.dtype).numpy()
    rooms = dict(zip((name for name in single if name != "orders"), lanes, strict=False))
    rooms["orders"] = lanes[len(rooms) :]
    weights, limit = rooms.pop("weights"), rooms.pop("limit")
    if not by_market(params.config):
        return weights, limit
    return weights, limit, numba_market.Pit(**rooms)


def _drawn_rooms(params: EnvParams, state: Any, market: Any, threads: int) -> list[Any]:
    """What rows draw, and room to work in for each thread; None where nothing is drawn."""
    draws = empty_draws(params, len(state.done))
    if draws is None:
        return [None] * threads
    shared: Any = numpy_blocks(draws)
    return [
        numba_draws.Drawn(
            *shared,  # type: ignore[misc]
            slots=state.slots,
            order=np.empty(params.tape.num_assets, np.int64),
            spare=np.empty_like(state.holdings[0]),
            met=market._replace(
                moves=np.empty_like(market.moves[:1]), bars=np.empty_like(market.bars[:1])
            ),
        )
        for _ in range(threads)
    ]


make = NumbaStepper
