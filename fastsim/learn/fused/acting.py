"""A policy that acts by hand: what `rollout.collect` asks of it, without autograd or modules."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from fastsim.env.observe import Observation
from fastsim.learn.fused import numba_kernels as kernels
from fastsim.learn.fused.coverage import has_own_encoder
from fastsim.learn.fused.layout import Array, lay_out, shapes_of
from fastsim.learn.fused.passes import (
    BARS,
    SAMPLES,
    Room,
    Weights,
    decide,
    empty_known,
    empty_room,
    encode,
    parts_of,
)
from fastsim.learn.fused.threads import one_thread_each, share
from fastsim.learn.rollout import Rollout
from fastsim.policy.flat import FlatPolicy, MarketTable


class Acting:
    """A policy in N environments, as it is when a rollout begins.

    Parameters
    ----------
    at_once
        Encode every bar of the table to begin with, rather than those that are seen when they are.
    """

    def __init__(
        self, policy: FlatPolicy, table: MarketTable, num_envs: int, *, at_once: bool
    ) -> None:
        kernels.forget_stale()
        self.policy, self.table, self._at_once = policy, table, at_once
        own = has_own_encoder(policy)
        self._weights = Weights(policy, lay_out(policy, own_encoder=own))
        self._made_for = (at_once, num_envs, len(table.rows), own, shapes_of(policy))
        columns = self._weights.samples.portfolio.shape[1]
        bars = len(table.rows) if at_once else num_envs
        self._known = empty_known(self._weights, table.rows.shape[1], bars)
        self._each = np.arange(num_envs, dtype=np.int32)
        self._room = partial(empty_room, self._weights, num_envs, columns)
        self._rooms: list[Room] = []

    def fits(self, policy: FlatPolicy, table: MarketTable, num_envs: int, *, at_once: bool) -> bool:
        """Whether this was made for just these."""
        if self.policy is not policy or self.table is not table:
            return False
        own, shapes = has_own_encoder(policy), shapes_of(policy)
        return self._made_for == (at_once, num_envs, len(table.rows), own, shapes)

    def begin(self) -> None:
        """Take over the policy as it is now."""
        self._weights.read(self.policy)
        if self._at_once:
            with one_thread_each() as threads:
                self._encode(self.table.rows, threads)

    def act(self, rollout: Rollout, step: int) -> None:
        """Make actions of the noise in their place at a step; fill in values and log densities."""
        action = rollout.action[step]
        drawn = (action.clone(), action, rollout.log_prob[step])
        self._look(rollout.seen(step), rollout.value[step], drawn)

    def judge(self, rollout: Rollout) -> None:
        """Fill in the values of the state after the last step."""
        self._look(rollout.seen(-1), rollout.value[-1], None)

    def _look(
        self, seen: Observation, value: Tensor, drawn: tuple[Tensor, Tensor, Tensor] | None
    ) -> None:
        """Fill in values [N] and, of noise [N, W], actions [N, W] and their log densities [N]."""
        with one_thread_each() as threads:
            segment = self._each
            if self._at_once:
                segment = (seen.bar - self.table.first).int().numpy()
            elif seen.view is None:
                self._encode(self.table.rows[seen.bar - self.table.first], threads)
            else:
                self._encode(self.policy.show(self.table, seen.bar, seen.view), threads)

            def work(part: int, worker: int) -> None:
                rows = slice(part * SAMPLES, (part + 1) * SAMPLES)
                room = self._decide(self._rooms[worker], seen.portfolio[rows], segment[rows])
                value[rows] = room.value
                if drawn is not None:
                    of, blocks = self._weights.samples, (each[rows].numpy() for each in drawn)
                    known = (room.mean.numpy(), of.actor_bias, of.log_std, room.deviation)
                    kernels.act(*known, *blocks)

            self._furnish(threads)
            share(work, parts_of(len(segment), SAMPLES), threads)

    def _decide(self, room: Room, portfolio: Tensor, segment: Array) -> Room:
        weights, samples = self._weights, room.samples.numpy()
        kernels.standardize(portfolio.numpy(), weights.mean, weights.std, samples)
        return decide(weights, room, self._known.market.numpy(), segment)

    def _encode(self, shown: Tensor, threads: int) -> None:
        """Make market parts of what the market shows [B, A F]."""
        known, of, count = self._known, self._weights.bars, len(shown)
        if of.encoder is None:
            made = self.policy.market_encoder(shown)
            known.encoded[:, : made.shape[1]] = made
        else:
            known.shown[:, : shown.shape[1]] = shown
        work = partial(self._encode_part, count)
        share(work, parts_of(count, BARS), threads)

    def _encode_part(self, count: int, part: int, _worker: int) -> None:
        encode(self._weights.bars, self._known.part(part, count))

    def _furnish(self, threads: int) -> None:
        while len(self._rooms) < threads:
            self._rooms.append(self._room())
