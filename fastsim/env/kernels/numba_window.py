"""Windows on a CPU: laid out by a compiled kernel, in NumPy or in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.config import EnvConfig
from fastsim.env.kernels.compiled import OWN, PLACES, forget_old_code, in_turns
from fastsim.env.kernels.memory import room_maker
from fastsim.env.kernels.numba_window_kernel import Blocks, show_turns
from fastsim.env.observe import Observation, portfolio_width
from fastsim.env.slots import View
from fastsim.env.window import LOG_RETURN
from fastsim.env.window_tables import kinds_of, make_tables, retabulate
from fastsim.errors import DataError
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape

SERIAL_BELOW = 65_536
"""Numbers, N times the width, below which threads cost more than they bring."""
TILE = 64
"""Numbers that are subtracted at once, at least: single narrow bars would leave registers idle."""


class NumbaWindows:
    """Windows from tables, in torch or in NumPy; many are shared among threads."""

    def __init__(self, tape: MarketTape, config: EnvConfig) -> None:
        self._tape, self._config = tape, config
        self._asked = config.window_length, config.window_columns
        self._tables = make_tables(tape, *self._asked)
        columns = config.window_columns
        self._real = np.dtype(str(tape.dtype).removeprefix("torch."))
        shape = (config.window_length, tape.num_assets, len(columns))
        values, last, *others = (table.numpy() for table in self._tables)
        kinds = (np.array(kind) for kind in kinds_of(tape, columns))
        blocks = Blocks(values.reshape(-1), last.reshape(-1), *others, *kinds)
        place = columns.index(LOG_RETURN) if LOG_RETURN in columns else -1
        self._fixed = (shape, tape.bars_per_world, place, blocks)
        self._width, line = math.prod(shape), math.prod(shape[1:])
        self._tile = line * -(-TILE // line)
        self._as_it_is = np.empty((0, 0), np.int64), np.empty(0, self._real)
        self._known = (0, 0), room_maker((0, 0), self._real)
        own = np.empty((1, portfolio_width(tape, config)), self._real)
        rest = self._rest((np.zeros(1, np.int64), own, *self._as_it_is), own)
        forget_old_code(show_turns, "env")
        call = (*[np.zeros(PLACES, np.int64)] * 2, OWN, 1, 1, rest)
        self._show = show_turns.compile(tuple(map(numba.typeof, call)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew: compiled code stays here."""
        return NumbaWindows, (self._tape, self._config)

    def show(self, observation: Observation) -> Tensor:
        """The window and the portfolio [N, L A C + P].

        Raises
        ------
        DataError
            A bar that the market does not have.
        """
        own = observation.portfolio
        bar, columns = observation.bar.numpy(), own.detach().numpy()
        if len(bar) and not 0 <= bar.min() <= bar.max() < len(self._tape):
            raise DataError(
                f"there are windows of bars 0 to {len(self._tape) - 1} of this market, not of "
                f"{bar.min()} to {bar.max()}: show what its own environment observed"
            )
        shown = torch.from_numpy(self.rows(bar, columns, observation.view))
        if own.requires_grad:
            shown[:, self._width :] = own.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        return shown

    def rows(
        self, bar: NDArray[np.int64], own: NDArray[Any], view: View | None = None
    ) -> NDArray[Any]:
        """The same in NumPy, of bars [N] and portfolios [N, P]; the caller's to keep."""
        own = np.ascontiguousarray(own, self._real)
        seen = (np.ascontiguousarray(bar), own, *self._as_it_is)
        if view is not None:
            volatility = np.ascontiguousarray(view.volatility.numpy(), self._real)
            seen = (*seen[:2], np.ascontiguousarray(view.slots.numpy()), volatility)
        out = self._room(len(bar), self._width + own.shape[1])()
        threads = torch.get_num_threads() if out.size >= SERIAL_BELOW else 1
        in_turns(self._show, len(bar), [self._rest(seen, out) for _ in range(threads)])
        return out

    def refresh(self, bars: Tensor) -> None:
        """Take note that the tape has changed at these bars [B], all of each of their worlds."""
        retabulate(self._tables, self._tape, *self._asked, bars)

    def _room(self, rows: int, width: int) -> Callable[[], NDArray[Any]]:
        """What makes results of this shape, which hardly ever changes."""
        shape = rows, width
        if self._known[0] != shape:
            self._known = shape, room_maker(shape, self._real)
        return self._known[1]

    def _rest(self, seen: tuple[NDArray[Any], ...], out: NDArray[Any]) -> tuple[Any, ...]:
        """What the kernel of one thread is given beside turns."""
        return *seen, *self._fixed, np.empty(self._tile), out
