"""A minibatch of PPO by hand, on a CPU: what `update.learn` does through autograd, in less time.

The reference stays the law, and is taken wherever this does not know what is asked for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.env.nested import take
from fastsim.learn.fused import numba_kernels as kernels
from fastsim.learn.fused.constants import FACTS
from fastsim.learn.fused.descent import Descent
from fastsim.learn.fused.layout import (
    ENCODER,
    Array,
    lay_out,
    of_bars,
    of_samples,
    padded,
    shapes_of,
)
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
    teach_bars,
    teach_samples,
)
from fastsim.learn.fused.threads import share
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import Batch, Tally
from fastsim.policy.flat import FlatPolicy, MarketTable


class Order(NamedTuple):
    """Samples of a minibatch, sorted by bar."""

    rows: Array  # [M]  of the batch
    segment: Array  # [M]  number of the bar among those found
    found: Array  # [K]  rank of each bar
    starts: Array  # [K + 1]  where its samples begin


class ByHand:
    """Learns from minibatches of a batch, whose memory stays where it is."""

    def __init__(
        self,
        policy: FlatPolicy,
        optimizer: torch.optim.Adam,
        table: MarketTable,
        batch: Batch,
        config: PPOConfig,
        *,
        own_encoder: bool,
    ) -> None:
        kernels.forget_stale()
        self.policy, self.config, self.table, self.batch = policy, config, table, batch
        self._actions = policy.spec.action_width
        self._shapes = shapes_of(policy)
        rows = len(batch.bar) // config.minibatches
        layout = lay_out(policy, own_encoder=own_encoder)
        self.weights = weights = Weights(policy, layout)
        self.descent = Descent(policy, optimizer, weights)
        self._rooms: list[Room] = []
        frames, bars = len(batch.bar), len(table.rows)
        if batch.view is not None:
            bars = frames  # no two samples see the same market
        self._seen, self._bars, self._rank = (
            np.arange(size, dtype=np.int32) for size in (bars, bars, frames)
        )
        most, places = min(rows, bars), min(frames, bars) + 1
        self._order = Order(
            np.zeros(rows, np.int64), *(np.zeros(size, np.int32) for size in (rows, most, places))
        )
        self._known = empty_known(weights, table.rows.shape[1], most)
        columns = weights.samples.portfolio.shape[1] + len(weights.samples.log_std)
        self._samples = torch.zeros(frames, padded(columns + FACTS))
        self._back = torch.zeros(rows, len(weights.samples.portfolio))  # gradients of samples
        self._owed = torch.zeros_like(self._known.encoded)  # those of a foreign encoder's bars
        gradient = self.descent.gradient
        self._into_log_std = self.descent.blocks["log_std"][..., : self._actions].numpy()
        self._totals = gradient[: layout.samples], gradient[layout.samples :][: layout.bars]
        counts = parts_of(rows, SAMPLES), parts_of(most, BARS)
        self._parts = [
            total[None] if count == 1 else torch.zeros(count, len(total))
            for count, total in zip(counts, self._totals, strict=True)
        ]
        self._into_samples = [of_samples(layout, flat) for flat in self._parts[0]]
        self._into_bars = [of_bars(layout, flat, layout.samples) for flat in self._parts[1]]
        self._sums = np.zeros((parts_of(rows, SAMPLES), 4))

    def fits(
        self,
        policy: FlatPolicy,
        optimizer: torch.optim.Adam,
        table: MarketTable,
        batch: Batch,
        own_encoder: bool,
        shapes: list[tuple[str, torch.Size]],
    ) -> bool:
        """Whether this was made for just these."""
        mine = (self.policy, self.descent.optimizer, self.table, self.batch)
        same = all(a is b for a, b in zip(mine, (policy, optimizer, table, batch), strict=True))
        own = self.weights.layout.own_encoder
        return same and own == own_encoder and self._shapes == shapes

    def begin(self, threads: int) -> None:
        """Take over the policy, the optimiser's moments and the batch as they are now."""
        self._threads = threads
        self.descent.begin()
        rows = len(self._order.rows)
        while len(self._rooms) < threads:
            self._rooms.append(empty_room(self.weights, rows, self._samples.shape[1]))
        batch = self.batch
        if batch.view is None:
            bar, first = batch.bar.numpy(), self.table.first
            kernels.rank_bars(bar, first, self._seen, self._rank, self._bars)
        share(self._pack, parts_of(len(self._samples), SAMPLES), threads)

    def _pack(self, part: int, worker: int) -> None:
        """Put all numbers of a sample beside one another, so that it is found at one place."""
        rows = slice(part * SAMPLES, (part + 1) * SAMPLES)
        batch, out = self.batch, self._samples[rows].numpy()
        weights = self.weights
        kernels.standardize(batch.portfolio[rows].numpy(), weights.mean, weights.std, out)
        facts = (batch.log_prob, batch.value, batch.advantage, batch.value_target, batch.valid)
        action, own = batch.action[rows].numpy(), tuple(each[rows].numpy() for each in facts)
        first = out.shape[1] - FACTS - len(weights.samples.log_std)
        kernels.pack(action, own, first, out)

    def learn(self, rows: Tensor, tally: Tally) -> None:
        """Take one step on these rows [M] of the batch, unless the policy has moved too far."""
        order, valid = self._order, self.batch.valid.numpy()
        bars, weight = kernels.arrange(
            rows.numpy(), self._rank, valid, order.starts, order.found, order.rows, order.segment
        )
        encoded = self._encode(bars)
        samples = max(weight, 1.0)
        clip = -1.0 if self.config.value_clip is None else self.config.value_clip
        how = (self.config.clip, clip, self.config.value_weight, 1.0 / samples)
        self._how = np.array(how, np.float32)
        share(self._teach_samples, len(self._into_samples), self._threads)
        if self._count(tally, samples):
            return
        share(
            lambda part, worker: self._teach_bars(part, worker, bars),
            parts_of(bars, BARS),
            self._threads,
        )
        self._gather_gradient((len(self._into_samples), parts_of(bars, BARS)))
        if encoded is not None:
            self._teach_encoder(encoded)
        self.descent.step(self.config.max_grad_norm)

    def _encode(self, bars: int) -> Tensor | None:
        """Make the market parts of so many bars; returns what a foreign encoder made of them."""
        made = None
        if self.weights.bars.encoder is None:
            self._show(slice(0, bars))
            width = self.table.rows.shape[1]
            with torch.enable_grad():
                made = self.policy.market_encoder(self._known.shown[:bars, :width])
            self._known.encoded[:bars, : made.shape[1]] = made.detach()

        def work(part: int, worker: int) -> None:
            if made is None:
                self._show(slice(part * BARS, min((part + 1) * BARS, bars)))
            encode(self.weights.bars, self._known.part(part, bars))

        share(work, parts_of(bars, BARS), self._threads)
        return made

    def _show(self, rows: slice) -> None:
        """Write down what the market shows at the bars found."""
        shown, found = self._known.shown[rows], self._order.found[rows]
        view = self.batch.view
        if view is None:
            kernels.gather(self.table.rows.numpy(), self._bars[found], shown.numpy())
            return
        samples = torch.from_numpy(found).long()
        seen = self.policy.show(self.table, self.batch.bar[samples], take(view, samples))
        shown[:, : seen.shape[1]] = seen

    def _teach_samples(self, part: int, worker: int) -> None:
        rows = slice(part * SAMPLES, (part + 1) * SAMPLES)
        room, weights, into = self._rooms[worker], self.weights, self._into_samples[part]
        market, segment = self._known.market.numpy(), self._order.segment[rows]
        kernels.gather(self._samples.numpy(), self._order.rows[rows], room.samples.numpy())
        room = decide(weights, room, market, segment)
        of = weights.samples
        log_std = of.log_std[: self._actions]
        kernels.backward_loss(
            (room.mean.numpy(), room.value.numpy()),
            room.samples.numpy(),
            (log_std, room.deviation, of.actor_bias),
            self._how,
            self._sums[part],
            (into.log_std, into.actor_bias, into.critic_bias),
        )
        teach_samples(of, room, into, self._back[rows])

    def _teach_bars(self, part: int, worker: int, bars: int) -> None:
        known, first = self._known.part(part, bars), part * BARS
        owed = self._owed[first : first + len(known.market)]
        back, starts, into = self._back.numpy(), self._order.starts, self._into_bars[part]
        room = self._rooms[worker]
        teach_bars(self.weights.bars, room, known, into, back, starts, first, owed)

    def _count(self, tally: Tally, samples: float) -> bool:
        """Add up the losses; whether the policy has moved too far."""
        log_std = self.weights.samples.log_std[: self._actions]
        target = math.nan if self.config.target_kl is None else self.config.target_kl
        arrays = (each.numpy() for each in tally)
        return bool(kernels.count(self._sums, samples, log_std, target, *arrays))

    def _gather_gradient(self, counts: tuple[int, int]) -> None:
        """Add up what the parts have left."""
        for total, left, count in zip(self._totals, self._parts, counts, strict=True):
            if len(left) > 1:  # else it stands there already
                kernels.add_up(left[:count].numpy(), total.numpy())
        self._into_log_std -= self.config.entropy_weight

    def _teach_encoder(self, made: Tensor) -> None:
        """Hand what is owed to a foreign encoder over to autograd."""
        encoder = self.policy.market_encoder
        named = {f"{ENCODER}{name}": each for name, each in encoder.named_parameters()}
        learning = {name: each for name, each in named.items() if each.requires_grad}
        if not made.requires_grad:
            return  # nothing in it learns
        owed = self._owed[: len(made), : made.shape[1]]
        given = torch.autograd.grad(made, list(learning.values()), owed, allow_unused=True)
        for name, gradient in zip(learning, given, strict=True):
            room = self.descent.blocks[name]
            room.zero_() if gradient is None else room.copy_(gradient.view_as(room))
