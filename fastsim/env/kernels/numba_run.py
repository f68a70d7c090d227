"""Many bars in one call, on a CPU: answers that are known ahead are compiled with the step.

Rows depend on none but themselves here (`players` is 1), so each goes through all bars by itself,
and threads share the rows. What looks odd is explained in `numba_kernel`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.env.kernels import columns as c
from fastsim.env.kernels import numba_kernel, numba_market
from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_math import mean_price


class Kept(NamedTuple):
    """What is kept of B steps of N rows; 0 from the one on that follows a row's ruin."""

    action: NDArray[np.floating[Any]]  # [B, N, W]
    open_orders: NDArray[np.floating[Any]]  # [B, N, A], or [B, N, 0]; before the step
    figures: NDArray[np.floating[Any]]  # [B, N, FIGURE]
    flags: NDArray[np.bool_]  # [B, N, FLAG]
    singles: Any  # `Singles` of arrays [B, N, ...], or [B, 0, ...] of what does not apply


class Desk(NamedTuple):
    """Where a row's answer is worked out."""

    seen: NDArray[np.floating[Any]]  # [N, P]  as the rows see themselves now
    alive: NDArray[np.bool_]  # [N]  not ruined yet
    action: NDArray[np.floating[Any]]  # [N, W]
    open_orders: NDArray[np.floating[Any]]  # [N, A], or [N, 0]; the memory of the state


@jit
def tanh(x, real):
    """Hyperbolic tangent, by e^y - 1 of a negative y, which loses no digit near 0."""
    y = real(-2.0) * abs(x)
    less = y * mean_price(y, real)
    size = -less / (real(2.0) + less)
    return size if x >= real(0.0) else -size


@jit
def follow(b, n, targets, desk):
    """Answer with what was settled, but for what is held."""
    told, real = targets.answers.dtype.type, desk.action.dtype.type
    zero, one = told(0.0), told(1.0)
    held, share = zero, one
    for j in range(targets.stuck.shape[1]):
        weight = told(desk.seen[n, j])
        held += weight
        if targets.keeps[n] and targets.stuck[b, j]:
            share -= max(weight, zero)
    share = max(share, zero)
    if held > targets.enough[n]:
        share = told(math.nan)
    for j in range(targets.answers.shape[2]):
        desk.action[n, j] = real(share * targets.answers[b, n, j])
    for j in range(targets.stuck.shape[1] if targets.keeps[n] else 0):
        if targets.stuck[b, j]:
            desk.action[n, j] += real(max(told(desk.seen[n, j]), zero))


@jit
def think(b, n, network, hidden, answer, desk):
    """Answer with the output of a network."""
    told, real = network.market.dtype.type, desk.action.dtype.type
    limit = network.limit[0]
    for k in range(hidden.shape[0]):
        hidden[k] = network.market[b, k]
    for p in range(network.mean.shape[0]):
        scaled = (told(desk.seen[n, p]) - network.mean[p]) / network.std[p]
        scaled = max(-limit, min(scaled, limit))
        for k in range(hidden.shape[0]):
            hidden[k] += scaled * network.hidden[p, k]
    for k in range(hidden.shape[0]):
        hidden[k] = tanh(hidden[k], told)
    for j in range(answer.shape[0]):
        answer[j] = network.bias[j]
    for k in range(hidden.shape[0]):
        for j in range(answer.shape[0]):
            answer[j] += hidden[k] * network.actor[k, j]
    for j in range(answer.shape[0]):
        desk.action[n, j] = real(np.float32(answer[j]))  # as policies give them


@jit
def decide(b, n, targets, network, hidden, answer, desk):
    """Write the action of row `n` at bar `b`, whichever way it comes about."""
    if targets is not None:
        follow(b, n, targets, desk)
    if network is not None:
        think(b, n, network, hidden, answer, desk)


@jit
def keep_order(b, n, desk, kept):
    """Keep what is asked for, and what is open."""
    for j in range(desk.action.shape[1]):
        kept.action[b, n, j] = desk.action[n, j]
    for j in range(desk.open_orders.shape[1]):
        kept.open_orders[b, n, j] = desk.open_orders[n, j]


@jit
def keep(b, n, desk, results, singles, kept):
    """Keep what came of a step."""
    for j in range(results.figures.shape[1]):
        kept.figures[b, n, j] = results.figures[n, j]
    for j in range(results.flags.shape[1]):
        kept.flags[b, n, j] = results.flags[n, j]
    for part in range(len(singles)):
        told, into = singles[part], kept.singles[part]
        for j in range(told.shape[1] if told.shape[0] > 0 else 0):
            into[b, n, j] = told[n, j]
    for j in range(desk.seen.shape[1]):
        desk.seen[n, j] = results.seen[n, j]
    desk.alive[n] = not results.flags[n, c.FLAG.terminated]


@partial(jit, inline=False)
def run_rows(
    start, stop, targets, network, hidden, answer, desk, kept,
    state, market, rules, results, singles, *room,
):  # fmt: skip
    """Let rows `start` to `stop`, one after the other, go through all bars."""
    for n in range(start, stop):
        b = 0
        while b < kept.action.shape[0] and desk.alive[n]:
            decide(b, n, targets, network, hidden, answer, desk)
            keep_order(b, n, desk, kept)
            numba_kernel.step_block(
                n, n + 1, desk.action, state, market, rules, results, singles, *room
            )
            keep(b, n, desk, results, singles, kept)
            b += 1


@partial(jit, inline=False)
def run_markets(
    start, stop, targets, network, hidden, answer, desk, kept,
    state, market, rules, results, singles, *room,
):  # fmt: skip
    """The same where each row moves the prices of a market of its own."""
    for n in range(start, stop):
        b = 0
        while b < kept.action.shape[0] and desk.alive[n]:
            decide(b, n, targets, network, hidden, answer, desk)
            keep_order(b, n, desk, kept)
            numba_market.step_block(
                n, n + 1, desk.action, state, market, rules, results, singles, *room
            )
            keep(b, n, desk, results, singles, kept)
            b += 1
