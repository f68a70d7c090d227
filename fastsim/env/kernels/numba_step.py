"""The backend for CPUs: one fused pass over each environment, shared among threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fastsim.env.core import EnvState, Transition, World
from fastsim.env.kernels.buffers import (
    empty_results,
    empty_state,
    numpy_blocks,
    pack_market,
    pack_rules,
    portfolio_width,
)
from fastsim.env.kernels.numba_kernel import step_block
from fastsim.errors import ConfigError

SERIAL_BELOW = 16_384
"""Numbers, N A, below which threads cost more than they bring."""
VECTOR = 16
"""Assets are padded to a multiple of this, so that loops over them end with whole registers."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fastsim-step")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


class NumbaStepper:
    """Steps environments on a CPU, in place; N A numbers or more are shared among threads.

    Raises
    ------
    ConfigError
        The market does not lie on a CPU.
    """

    name = "numba"

    def __init__(self, world: World, state: EnvState) -> None:
        if world.tape.device.type != "cpu":
            raise ConfigError(f'backend "numba" runs on a CPU, not on {world.tape.device}')
        self.num_envs, self._assets = state.portfolio.holdings.shape
        self._state = empty_state(world, self.num_envs, VECTOR)
        self._state.load(state)
        self._world, self._portfolio_width = world, portfolio_width(world)
        self._arrays = numpy_blocks(self._state)
        self._market = numpy_blocks(pack_market(world, VECTOR))
        self._rules = numpy_blocks(pack_rules(world))
        # OpenMP's threads spin at their barriers, which stalls a step for milliseconds as soon as
        # something else runs on the machine; threads of Python's wait quietly.
        self._threads = 1
        if self.num_envs * self._assets >= SERIAL_BELOW:
            self._threads = torch.get_num_threads()
        shape = (self._threads, 2, self._arrays.holdings.shape[1])
        self._scratch = torch.empty(shape, dtype=world.tape.dtype).numpy()

    @property
    def state(self) -> EnvState:
        """The state now, updated in place by every step."""
        return self._state.nested(self._assets)

    def load(self, state: EnvState) -> None:
        """Go on from a copy of this state."""
        self._state.load(state)

    def step(self, action: Tensor) -> Transition:
        """Step every environment once."""
        results = empty_results(self._world, self.num_envs)
        rows = action.detach().contiguous().numpy()
        self._step_blocks(rows, self._arrays, self._market, self._rules, numpy_blocks(results))
        return results.transition(self._portfolio_width)

    def _step_blocks(self, *world: Any) -> None:
        """Share the environments among threads; this one takes the last part."""
        bounds = [part * self.num_envs // self._threads for part in range(self._threads + 1)]
        parts = [
            (start, stop, *world, *scratch)
            for start, stop, scratch in zip(bounds, bounds[1:], self._scratch, strict=False)
        ]
        others = [_pool(self._threads).submit(step_block, *part) for part in parts[:-1]]
        step_block(*parts[-1])
        for other in others:
            other.result()


make = NumbaStepper
