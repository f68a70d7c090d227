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
from fastsim.env.kernels import numba_draws, numba_kernel, numba_market
from fastsim.env.kernels.arrays import StepArrays
from fastsim.env.kernels.buffers import (
    MarketBlocks,
    Results,
    Rules,
    State,
    by_market,
    by_orders,
    empty_draws,
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
    without_features,
)
from fastsim.env.kernels.compiled import OWN, PLACES, forget_old_code, in_turns
from fastsim.env.kernels.memory import last_cache, room_like
from fastsim.env.kernels.numba_row import NumbaRow
from fastsim.env.nested import copy
from fastsim.env.state import EnvParams, EnvState
from fastsim.errors import ConfigError

SERIAL_BELOW = 16_384
"""Numbers, N A, below which threads cost more than they bring."""
VECTOR = 16
"""Assets are padded to a multiple of this, so that loops over them end with whole registers."""


CACHED = 4
"""Observations as large as this part of the last cache are written past it: two in turns take half
of it, and what is read for them the rest."""
STREAMED = 2048
"""Bytes of a row from which on that brings anything: its ends are written as usual."""
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
        self.num_envs = len(state.portfolio.cash)
        self._params, self._portfolio_width = params, portfolio_width(params)
        self._state = empty_state(params, self.num_envs, VECTOR)
        self._state.load(state)
        self._market = pack_market(params, VECTOR)
        self._single_orders = single_orders
        self._new_results = room_like(numpy_blocks(empty_results(params, self.num_envs)))
        singles = empty_singles(params, self.num_envs, asked=single_orders)
        self.tells_rows = singles is None
        self._new_singles = _new_room(singles)
        self._new_views = _new_room(empty_views(params, self.num_envs))
        self._fixed = blocks, market = on_host(params, self._state, self._market)
        self._invalid = blocks.counters[:, c.COUNTER.invalid_actions]
        self._real = market.moves.dtype
        self._rooms = _rooms(params, blocks, self._state.slots.numpy(), market)
        self._room, self._count = self._rooms[0], self.num_envs // params.config.players
        self._rules = numpy_blocks(pack_rules(params))
        if self._new_results().seen[0].nbytes >= STREAMED:
            self._rules.whole[c.WHOLE.stream_from] = last_cache() // CACHED
        self._rules_of_room = numpy_blocks(pack_rules(without_features(params)))
        self._step_turns, self._draw_block = self._compiled()
        self._draw_again()

    def _compiled(self) -> tuple[Callable[..., None], Callable[..., None] | None]:
        """Kernels for blocks of these types, for steps taken in turns and for what is drawn.

        To look up the types of all blocks at every call takes longer than to step an environment.
        """
        params = self._params
        forget_old_code(numba_kernel.step_block, "env")
        width = action_width(params.config.action, params.tape.num_assets)
        told = self._new_results(), self._new_singles(), self._new_views()
        rest = self._rests(np.empty((self.num_envs, width), self._real), self._rules, told)[0]
        kernel = numba_market if by_market(params.config) else numba_kernel
        call = (*[np.zeros(PLACES, np.int64)] * 2, OWN, 1, 1, rest)
        step = kernel.step_turns.compile(tuple(map(numba.typeof, call)))
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

    def room(self, steps: int) -> Results:
        """Blocks [steps, N, ...] that so many steps can write into."""
        return empty_results(without_features(self._params), self.num_envs, steps)

    def step(self, action: Tensor, into: Results | None = None) -> Transition:
        """Step every environment once, into these blocks [N, ...] if there are any."""
        results = None if into is None else numpy_blocks(into)
        return self._in_tensors(*self._step(action.detach().numpy(), results))

    def step_arrays(self, action: NDArray[np.floating[Any]]) -> StepArrays:
        """Step every environment once; the arrays returned are the caller's to keep."""
        told = self._step(action)
        return _as_arrays(
            (*_NAMES, *told[0], self._invalid.copy(), partial(self._in_tensors, *told))
        )

    def by_row(self) -> NumbaRow:
        """Of a single environment under `next_step`; made when it is first asked for."""
        return self._row

    @cached_property
    def _row(self) -> NumbaRow:
        results = numpy_blocks(empty_results(self._params, 1))
        width = action_width(self._params.config.action, self._params.tape.num_assets)
        nothing = {"singles": None, "views": None}
        rest, transition = (None, None, *self._room), partial(self._in_tensors, **nothing)
        market = by_market(self._params.config)
        return NumbaRow(
            (*self._fixed, self._rules), results, rest, width, transition, market=market
        )

    def _in_tensors(self, stepped: Any, singles: Any, views: Any) -> Transition:
        """The same memory as tensors."""
        results: Results = torch_blocks(stepped)
        others = (None if blocks is None else torch_blocks(blocks) for blocks in (singles, views))
        return results.transition(self._portfolio_width, *others)

    def _step(self, action: NDArray[Any], into: Any = None) -> tuple[Any, ...]:
        """Share the environments among threads; returns results, single orders and views."""
        results = self._new_results() if into is None else into
        rules = self._rules if into is None else self._rules_of_room
        told = results, self._new_singles(), self._new_views()
        action = np.ascontiguousarray(action, self._real)
        in_turns(self._step_turns, self._count, self._rests(action, rules, told))
        return told

    def _rests(
        self, action: NDArray[Any], rules: Rules, told: tuple[Any, ...]
    ) -> list[tuple[Any, ...]]:
        """What the kernel is given beside turns, thread by thread."""
        return [(action, *self._fixed, rules, *told, *room) for room in self._rooms]

    def _draw_call(self) -> tuple[Any, ...]:
        """Arguments of the kernel that draws."""
        return 0, self.num_envs, *self._fixed, self._rules, self._room[0]

    def _draw_again(self) -> None:
        """Draw what follows from the episodes of a state that was loaded."""
        if self._draw_block is not None:
            self._draw_block(*self._draw_call())


def _nothing() -> None:
    """What is not told."""


def _new_room(blocks: Any) -> Callable[[], Any]:
    """What makes arrays like these blocks, if there are any."""
    return _nothing if blocks is None else room_like(numpy_blocks(blocks))


def on_host(params: EnvParams, state: State, market: MarketBlocks) -> tuple[Any, Any]:
    """Blocks as kernels take them: those that these rules need, for each takes time at a call."""
    blocks: Any = numpy_blocks(state)
    tables: Any = numpy_blocks(market)
    blocks = blocks._replace(slots=None)  # they are among what is drawn
    if not params.config.impact.moves_prices:
        blocks = blocks._replace(displaced=None)
    if not by_orders(params):
        blocks = blocks._replace(open_orders=None, since=None)
        tables = tables._replace(terms=None, fees=None, ranges=None, funding=None, tiers=None)
    return blocks, tables


def _rooms(params: EnvParams, state: Any, slots: Any, market: Any) -> list[tuple[Any, ...]]:
    """What each thread works in; there are no more of them than are of use."""
    rows, columns = state.holdings.shape
    threads = 1
    if rows * params.tape.num_assets >= SERIAL_BELOW:
        threads = min(torch.get_num_threads(), rows // params.config.players)
    drawn = _drawn_rooms(params, slots, market, (threads, columns))
    return [room(params, columns, each) for each in drawn]


def room(params: EnvParams, columns: int, drawn: Any = None) -> tuple[Any, ...]:
    """What a thread works in: what is drawn, weights, limits, a desk, and orders of a market.

    There is no desk without further rules, and no orders meet where they move no price.
    """
    single = [name for name in ("weights", "limit", *numba_market.Pit._fields) if name != "orders"]
    rows = len(single) + len(c.DESK) + params.config.players  # an order for each player
    lanes = torch.empty(rows, columns, dtype=params.tape.dtype).numpy()
    rooms = dict(zip(single, lanes, strict=False))
    weights, limit, lanes = rooms.pop("weights"), rooms.pop("limit"), lanes[len(single) :]
    desk, orders = lanes[: len(c.DESK)], lanes[len(c.DESK) :]
    room = drawn, weights, limit, desk if by_orders(params) else None
    if not by_market(params.config):
        return room
    meets = params.config.impact.moves_prices
    return (*room, numba_market.Pit(**rooms, orders=orders) if meets else None)


def _drawn_rooms(params: EnvParams, slots: Any, market: Any, sizes: tuple[int, int]) -> list[Any]:
    """What rows draw, and room to work in for each thread; None where nothing is drawn."""
    threads, columns = sizes
    draws = empty_draws(params, len(slots))
    if draws is None:
        return [None] * threads
    shared: Any = numpy_blocks(draws)
    return [
        numba_draws.Drawn(
            *shared,  # type: ignore[misc]
            slots=slots,
            order=np.empty(params.tape.num_assets, np.int64),
            spare=np.empty(columns, market.moves.dtype),
            met=_one_bar(market),
        )
        for _ in range(threads)
    ]


def _one_bar(market: Any) -> Any:
    """The same market, but with room for a single bar."""
    names = ("moves", "bars", "terms", "ranges", "funding")
    tables = {name: getattr(market, name) for name in names}
    rooms = {name: np.empty_like(each[:1]) for name, each in tables.items() if each is not None}
    return market._replace(**rooms)


make = NumbaStepper
