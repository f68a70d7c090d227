"""Rows carried through many bars at once, where how they decide is known ahead; on a CPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.env.actions import action_width
from fastsim.env.ahead import Ahead, Targets
from fastsim.env.core import Transition
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.buffers import (
    Results,
    Singles,
    State,
    by_market,
    empty_results,
    empty_singles,
    empty_state,
    numpy_blocks,
    pack_market,
    pack_rules,
)
from fastsim.env.kernels.compiled import forget_old_code, in_parts
from fastsim.env.kernels.numba_run import Desk, Kept, run_markets, run_rows
from fastsim.env.kernels.numba_step import SERIAL_BELOW, VECTOR, on_host, room
from fastsim.env.nested import copy
from fastsim.env.state import EnvParams, EnvState


class Run(NamedTuple):
    """What came of B steps of N rows, one bar after the other."""

    actions: Tensor  # [B N, W]
    open_orders: Tensor  # [B N, A], or [B N, 0]; before each step
    transition: Transition  # of B N rows, without observations; 0 from ruin on
    state: EnvState  # of the N rows, after them


def run_ahead(params: EnvParams, state: EnvState, how: Ahead, seen: Tensor, alive: Tensor) -> Run:
    """Carry N rows through the B bars of a tape, and to the one that follows them.

    Parameters
    ----------
    params
        Rules that coverage lets through, on a tape of B + 1 bars.
    state
        Where the rows stand, all of them at the first bar.
    how
        How their answers at these bars come about.
    seen
        The portfolio [N, P] as they see it at the first bar; goes on in place.
    alive
        Which of them [N] have not been ruined; goes on in place.
    """
    rows, assets = state.portfolio.holdings.shape
    steps, width = len(params.tape) - 1, action_width(params.config.action, assets)
    blocks = empty_state(params, rows, VECTOR)
    blocks.load(state)
    blocks.counters[:, c.COUNTER.bar] = 0
    blocks.counters[:, c.COUNTER.end] = steps + 1  # so that none begins anew
    blocks.done.zero_()
    action, open_orders = seen.new_empty(rows, width), blocks.nested(params).open_orders
    desk = Desk(*(part.numpy() for part in (seen, alive, action, open_orders)))
    kept = _empty_kept(params, steps, desk)
    _share_out(params, blocks, how, desk, kept)
    return Run(
        actions=_by_row(kept.action),
        open_orders=_by_row(kept.open_orders),
        transition=_transition(kept),
        state=copy(blocks.nested(params)),
    )


def _empty_kept(params: EnvParams, steps: int, desk: Desk) -> Kept:
    def zeros(rows: int, columns: int) -> Any:
        return torch.zeros(steps, rows, columns, dtype=params.tape.dtype).numpy()

    rows = len(desk.alive)
    singles = _empty_singles(params, rows)
    return Kept(
        action=zeros(*desk.action.shape),
        open_orders=zeros(*desk.open_orders.shape),
        figures=zeros(rows, c.NUM_FIGURES),
        flags=np.zeros((steps, rows, c.NUM_FLAGS), bool),
        singles=Singles(*(zeros(*part.shape) for part in singles)),
    )


def _empty_singles(params: EnvParams, rows: int) -> Singles:
    singles = empty_singles(params, rows, asked=True)
    assert singles is not None, "they are asked for"
    return singles


def _transition(kept: Kept) -> Transition:
    """The same memory under the names of the reference."""
    figures, nowhere = _by_row(kept.figures), torch.zeros(0, dtype=torch.int64)
    results = Results(
        seen=figures[:, :0],
        bar=nowhere,
        figures=figures,
        flags=_by_row(kept.flags),
        final_seen=figures[:, :0],
        final_bar=nowhere,
    )
    return results.transition(0, Singles(*map(_by_row, kept.singles)))


def _by_row(array: Any) -> Tensor:
    """Numbers [B, N, ...] of rows, bar by bar [B N, ...]."""
    return torch.from_numpy(array).flatten(0, 1)


def _share_out(params: EnvParams, state: State, how: Ahead, desk: Desk, kept: Kept) -> None:
    """Let threads share the rows."""
    rows, padded = state.holdings.shape
    threads, lone = 1, not by_market(params.config)
    if rows * padded * len(params.tape) >= SERIAL_BELOW:
        threads = min(torch.get_num_threads(), rows)
    told = pack_rules(params), empty_results(params, rows), _empty_singles(params, rows)
    fixed = *on_host(params, state, pack_market(params, VECTOR)), *map(numpy_blocks, told)
    bounds = [part * rows // threads for part in range(threads + 1)]
    known: Any = _arrays(how)
    calls = [
        (start, stop, *known, *_layers(how), desk, kept, *fixed, None, *room(params, padded))
        for start, stop in pairwise(bounds)
    ]
    run = run_rows if lone else run_markets
    forget_old_code(run, "env")
    in_parts(run, calls)


def _arrays(how: Ahead) -> tuple[Any, Any]:
    """Targets and network, one of which is None, on the host."""
    parts: Any = [
        (part.float() if part.dtype == torch.bfloat16 else part).contiguous().numpy(force=True)
        for part in how
    ]
    arrays: Any = type(how)(*parts)
    return (arrays, None) if isinstance(how, Targets) else (None, arrays)


def _layers(how: Ahead) -> tuple[Any, Any]:
    """Room for the layers of a network."""
    if isinstance(how, Targets):
        return None, None
    hidden, answer = (torch.empty(size, dtype=how.bias.dtype).numpy() for size in how.actor.shape)
    return hidden, answer
