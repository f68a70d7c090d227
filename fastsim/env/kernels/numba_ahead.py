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
    open_orders: Tensor  # [B N, A] before each step, or [B N, 0] where none are carried
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
    desk = Desk(seen.numpy(), alive.numpy(), np.empty((rows, width), seen.numpy().dtype))
    kept = _empty_kept(params, rows, steps)
    _share_out(params, blocks, how, desk, kept)
    return Run(
        actions=torch.from_numpy(kept.action).flatten(0, 1),
        open_orders=_open_orders(kept),
        transition=_transition(kept),
        state=copy(blocks.nested(params)),
    )


def _empty_kept(params: EnvParams, rows: int, steps: int) -> Kept:
    assets, width = (
        params.tape.num_assets,
        action_width(params.config.action, params.tape.num_assets),
    )

    calls = params.config.orders.maintenance_margin > 0

    def zeros(columns: int, kept: bool = True) -> Any:
        return torch.zeros(steps, rows if kept else 0, columns, dtype=params.tape.dtype).numpy()

    return Kept(
        action=zeros(width),
        figures=zeros(c.NUM_FIGURES),
        flags=np.zeros((steps, rows, c.NUM_FLAGS), bool),
        singles=Singles(
            trade=zeros(assets),
            holdings=zeros(assets),
            called=zeros(assets, calls),
            called_cost=zeros(len(c.COSTS), calls),
        ),
        open_orders=zeros(assets, params.config.orders.carries),
    )


def _open_orders(kept: Kept) -> Tensor:
    """What was open before each step."""
    steps, rows, _ = kept.action.shape
    orders = torch.from_numpy(kept.open_orders)
    return orders.flatten(0, 1) if orders.shape[1] else orders.new_empty(steps * rows, 0)


def _transition(kept: Kept) -> Transition:
    """The same memory under the names of the reference."""

    def rows(array: Any) -> Tensor:
        return torch.from_numpy(array).flatten(0, 1)

    figures, flags, singles = rows(kept.figures), rows(kept.flags), map(rows, kept.singles)
    nothing, nowhere = figures[:, :0], torch.zeros(0, dtype=torch.int64)
    results = Results(
        seen=nothing,
        bar=nowhere,
        figures=figures,
        flags=flags,
        final_seen=nothing,
        final_bar=nowhere,
    )
    return results.transition(0, Singles(*singles))


def _share_out(params: EnvParams, state: State, how: Ahead, desk: Desk, kept: Kept) -> None:
    """Let threads share the rows."""
    rows, padded = state.holdings.shape
    threads, lone = 1, not by_market(params.config)
    if rows * padded * len(params.tape) >= SERIAL_BELOW:
        threads = min(torch.get_num_threads(), rows)
    singles = empty_singles(params, rows, asked=True)
    assert singles is not None
    fixed = (
        *on_host(params, state, pack_market(params, VECTOR)),
        numpy_blocks(pack_rules(params)),
        *(numpy_blocks(empty_results(params, rows)), numpy_blocks(singles)),
    )
    bounds = [part * rows // threads for part in range(threads + 1)]
    known: Any = _arrays(how)
    calls = [
        (start, stop, *known, *_layers(how), desk, kept, *fixed, *room(params, padded))
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
