"""A minibatch of PPO by hand, on a GPU: `update.learn` in a seventh of its calls.

Calls are the same whatever the numbers are, on memory that is made once, so that they can be
recorded as a graph, and the host reads nothing. Once the policy has moved too far a minibatch
changes nothing. The reference stays the law, and is taken wherever this does not know what is asked
for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.env.nested import take
from fastsim.learn.fused import launches
from fastsim.learn.fused.constants import FACTS, LOSSES
from fastsim.learn.fused.device_descent import DeviceDescent, frozen, numbers_of
from fastsim.learn.fused.layout import ENCODER, lay_out, padded, shapes_of
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import Batch, Tally
from fastsim.policy.flat import FlatPolicy, MarketTable


class OnDevice:
    """Learns from minibatches of a batch, whose memory stays where it is.

    Bars are encoded as `Policy.look_up` does: those of the table once each, with the samples of a
    minibatch sorted by bar, or those of the samples one by one if there are fewer of them.
    """

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
        self.policy, self.config, self.table, self.batch = policy, config, table, batch
        self._shapes = shapes_of(policy)
        layout = lay_out(policy, own_encoder=own_encoder)
        self.descent = DeviceDescent(policy, optimizer, layout, config.max_grad_norm)
        rows, (frames, actions) = len(batch.bar) // config.minibatches, batch.action.shape
        bars, features = table.rows.shape
        self._arranged = batch.view is None and rows >= bars
        count = bars if self._arranged else rows
        weights, new = self.descent.weights, self.descent.copy.new_zeros
        first = weights.portfolio.shape[1]
        self._places = first, first + len(weights.log_std)
        self._samples = new(rows, padded(self._places[1] + FACTS))
        self._counted = launches.empty_counted(self._samples)
        self._whole = self._arranged and padded(features) == features  # the table as it stands
        self._shown = table.rows if self._whole else new(count, padded(features))
        self._encoded, self._owed = (new(count, weights.market.shape[1]) for _ in range(2))
        self._market = new(count, len(weights.market))
        self._hidden, self._back = (new(rows, len(weights.market)) for _ in range(2))
        self._mean, self._value = new(rows, len(weights.log_std)), new(rows)
        if self._arranged:
            kind = torch.int16 if bars < torch.iinfo(torch.int16).max else torch.int32
            self._rank = new(frames, dtype=kind)
            self._key, self._segment = (new(rows, dtype=kind) for _ in range(2))
            self._order = new(rows, dtype=torch.int64)
            self._bars = torch.arange(bars + 1, dtype=kind, device=batch.bar.device)
            self._starts = new(bars + 1, dtype=torch.int32)
        half = len(weights.critic)
        said = launches.cut(*self._mean.shape, whole=True).programs
        wide = len(weights.log_std)
        self._from_loss = new(said, 2 * wide + len(weights.critic_bias))
        self._losses = new(LOSSES, said, dtype=torch.float64)
        self._from_hidden = new(launches.cut(rows, half).programs, 3 * half)
        encoder = self._encoded.shape
        self._from_bars = new(launches.cut(*encoder).programs, encoder[1])
        clip = -1.0 if config.value_clip is None else config.value_clip
        how = (config.clip, clip, config.value_weight)
        self._by = launches.TaughtBy(self._samples, self._counted, self._places, actions, how)

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
        descent = self.descent
        mine = (self.policy, descent.optimizer, self.table, self.batch)
        same = all(a is b for a, b in zip(mine, (policy, optimizer, table, batch), strict=True))
        how = (descent.layout.own_encoder, descent.frozen, descent.numbers, self._shapes)
        return same and how == (own_encoder, frozen(policy), numbers_of(optimizer), shapes)

    def begin(self) -> None:
        """Take over the policy, the optimiser's moments and the batch as they are now."""
        self.descent.begin()
        table = self.table
        if self._arranged:
            self._rank.copy_(self.batch.bar - table.first)
            if not self._whole:
                self._shown[:, : table.rows.shape[1]] = table.rows

    def changed(self) -> list[Tensor]:
        """What minibatches change that `begin` has made."""
        return [self.descent.copy]

    @torch.no_grad()
    def learn(self, rows: Tensor, tally: Tally) -> None:
        """Take one step on these rows [M] of the batch, unless the policy has moved too far."""
        self._gather(rows)
        made = self._encode()
        self._decide()
        self._teach_samples()
        self._teach_bars()
        self._settle(tally)
        if made is not None and made.requires_grad:
            self._teach_encoder(made)
        self.descent.step(tally.stopped)

    def _gather(self, rows: Tensor) -> None:
        """Sort samples by bar, if bars are encoded once each, and gather all that is of them."""
        batch, moments = self.batch, self.policy.portfolio_moments
        order, shown = None, None if self._arranged or batch.view is not None else self._shown
        if self._arranged:
            order = self._order
            torch.index_select(self._rank, 0, rows, out=self._key)
            torch.sort(self._key, stable=True, out=(self._segment, order))
            torch.searchsorted(self._segment, self._bars, out_int32=True, out=self._starts)
        elif batch.view is not None:
            seen = self.policy.show(self.table, batch.bar[rows], take(batch.view, rows))
            self._shown[:, : seen.shape[1]] = seen
        facts = (batch.log_prob, batch.value, batch.advantage, batch.value_target, batch.valid)
        sources = launches.Sources(
            bar=batch.bar,
            portfolio=batch.portfolio,
            facts=(batch.action, *facts),
            moments=(moments.mean, moments.square_sum, moments.count),
            table=self.table.rows,
            first=self.table.first,
        )
        into = (self._samples, self._counted, self._places, shown)
        launches.gather(rows, order, sources, *into)

    def _encode(self) -> Tensor | None:
        """Make the market parts of bars; returns what a foreign encoder made of them."""
        weights, made = self.descent.weights, None
        if weights.encoder is None:
            with torch.enable_grad():
                seen = self._shown[:, : self.table.rows.shape[1]]
                made = self.policy.market_encoder(seen)
            self._encoded[:, : made.shape[1]] = made.detach()
        elif weights.encoder_bias is not None:
            torch.mm(self._shown, weights.encoder.t(), out=self._encoded)
            launches.activate(self._encoded, weights.encoder_bias)
        torch.mm(self._encoded, weights.market.t(), out=self._market)
        return made

    def _decide(self) -> None:
        """Forward: means without their bias, and values."""
        of, hidden = self.descent.weights, self._hidden
        torch.mm(self._samples[:, : self._places[0]], of.portfolio.t(), out=hidden)
        segment = self._segment if self._arranged else None
        head = (of.market_bias, of.critic, of.critic_bias)
        launches.hide(hidden, self._market, segment, *head, self._value)
        torch.mm(hidden[:, : len(of.critic)], of.actor.t(), out=self._mean)

    def _teach_samples(self) -> None:
        """Back from the losses to the gradient [M, 2 H] of hidden layers."""
        of, into, back = self.descent.weights, self.descent.into, self._back
        half = len(of.critic)
        said = (self._mean, self._value, of.log_std, of.actor_bias)
        launches.teach(*said, self._by, self._from_loss, self._losses)
        torch.mm(self._mean.t(), self._hidden[:, :half], out=into.actor)
        torch.mm(self._mean, of.actor, out=back[:, :half])
        launches.backward_hidden(back, self._hidden, self._value, of.critic, self._from_hidden)
        torch.mm(back.t(), self._samples[:, : self._places[0]], out=into.portfolio)

    def _teach_bars(self) -> None:
        """Back to the encoder; what it made is known by now, and a foreign one is owed more."""
        of, into, market = self.descent.weights, self.descent.into, self._back
        if self._arranged:
            market = self._market
            launches.backward_bars(self._back, self._starts, market)
        torch.mm(market.t(), self._encoded, out=into.market)
        torch.mm(market, of.market, out=self._owed)
        if into.encoder is not None:
            launches.backward_activation(self._owed, self._encoded, self._from_bars)
            torch.mm(self._owed.t(), self._shown, out=into.encoder)

    def _settle(self, tally: Tally) -> None:
        """Add up what programs have left: gradients of all vectors, and the tally."""
        into, config = self.descent.into, self.config
        wide, half = len(into.log_std), len(into.critic)
        loss, hidden = self._from_loss, self._from_hidden
        parts = [loss[:, :wide], loss[:, wide : 2 * wide], loss[:, 2 * wide :]]
        parts += [hidden[:, :half], hidden[:, half:]]
        sums = [into.log_std, into.actor_bias, into.critic_bias, into.critic, into.market_bias]
        if into.encoder_bias is not None:
            parts.append(self._from_bars)
            sums.append(into.encoder_bias)
        target = -1.0 if config.target_kl is None else config.target_kl
        launches.settle(
            tuple(parts),
            tuple(sums),
            self.descent.weights.log_std,
            self._counted,
            self._losses,
            tally,
            actions=self._by.actions,
            how=(config.entropy_weight, target),
        )

    def _teach_encoder(self, made: Tensor) -> None:
        """Hand what is owed to a foreign encoder over to autograd."""
        named = self.policy.market_encoder.named_parameters()
        learning = {f"{ENCODER}{name}": each for name, each in named if each.requires_grad}
        owed = self._owed[:, : made.shape[1]]
        given = torch.autograd.grad(made, list(learning.values()), owed, allow_unused=True)
        for name, gradient in zip(learning, given, strict=True):
            room = self.descent.block(name)
            room.zero_() if gradient is None else room.copy_(gradient.view_as(room))
