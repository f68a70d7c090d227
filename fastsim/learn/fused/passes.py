"""The policy forward and back by hand, part by part of its rows, in rooms that are made once.

It is the network of `fastsim.policy.flat`, and its numbers to rounding: bars are encoded, their
market parts gathered and the portfolio's added; then back, where the gradients of samples at one
bar are added up before they go on. Parts of the rows are of one size whoever works on them, and
what they leave is added up in their order, so that the bits do not depend on the threads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.learn.fused import numba_kernels as kernels
from fastsim.learn.fused.layout import (
    Array,
    Layout,
    OfBars,
    OfSamples,
    of_bars,
    of_samples,
    padded,
)
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.normalize import RunningMoments

SAMPLES = 2048
"""Samples in a part of them."""
BARS = 1024
"""Bars in a part of them, which are more work each."""


def parts_of(rows: int, part: int) -> int:
    """How many parts of this size so many rows are."""
    return -(-rows // part)


class Weights:
    """The policy's weights, padded, as the passes read them; the policy's own stay the truth.

    Nothing is shared with the policy, so that whoever loads, copies or moves it breaks nothing
    here: `read` takes over what it is now.
    """

    def __init__(self, policy: FlatPolicy, layout: Layout) -> None:
        self.layout, flat = layout, torch.zeros(layout.size)
        self.blocks = {name: place.of(flat) for name, place in layout.places.items()}
        self.samples, self.bars = of_samples(layout, flat), of_bars(layout, flat, 0)
        self.read(policy)

    @torch.no_grad()
    def read(self, policy: FlatPolicy) -> None:
        """Copy the weights and what standardises the portfolio."""
        for name, parameter in policy.named_parameters():
            place = self.layout.places[name]
            place.inner(self.blocks[name]).copy_(parameter.view(place.shape))
        moments: RunningMoments = policy.portfolio_moments
        self.mean, self.std = (each.float().numpy() for each in (moments.mean, moments.std))


class Room(NamedTuple):
    """What a thread works in."""

    samples: Tensor  # [m, P+ ...]  portfolios, and whatever else belongs to samples
    hidden: Tensor  # [m, 2 H]  of both heads
    mean: Tensor  # [m, W+]
    value: Tensor  # [m]
    market: Tensor  # [k, 2 H]
    encoded: Tensor  # [k, E+]
    deviation: Array  # [W+]  or their inverses


def empty_room(weights: Weights, rows: int, columns: int) -> Room:
    """For parts of at most so many rows, and so many numbers of a sample."""
    of = weights.samples
    width, rows, bars = len(of.portfolio), min(rows, SAMPLES), min(rows, BARS)
    return Room(
        samples=torch.zeros(rows, columns),
        hidden=torch.zeros(rows, width),
        mean=torch.zeros(rows, len(of.actor)),
        value=torch.zeros(rows),
        market=torch.zeros(bars, width),
        encoded=torch.zeros(bars, weights.bars.market.shape[1]),
        deviation=torch.zeros(len(of.log_std)).numpy(),
    )


class Known(NamedTuple):
    """Bars as the policy knows them: what the market shows, and what it makes of that."""

    shown: Tensor  # [B, F+]
    encoded: Tensor  # [B, E+]
    market: Tensor  # [B, 2 H]

    def part(self, number: int, count: int) -> Known:
        """Rows of a part of the first `count`."""
        rows = slice(number * BARS, min((number + 1) * BARS, count))
        return Known(*(block[rows] for block in self))


def empty_known(weights: Weights, features: int, bars: int) -> Known:
    """Room for so many bars."""
    width, encoded = weights.bars.market.shape
    return Known(
        *(torch.zeros(bars, columns) for columns in (padded(features), encoded, width)),
    )


def encode(weights: OfBars, known: Known) -> None:
    """Fill in what the policy makes of what the market shows, unless it is encoded already."""
    if weights.encoder is not None:
        torch.mm(known.shown, weights.encoder.t(), out=known.encoded)
        kernels.activate(known.encoded.numpy(), weights.encoder_bias)
    torch.mm(known.encoded, weights.market.t(), out=known.market)


def decide(weights: Weights, room: Room, market: Array, segment: Array) -> Room:
    """Forward, for the first samples of the room, at rows `segment` [m] of the market parts.

    Returns as much of the room as it took: means without their bias, and values.
    """
    of, rows = weights.samples, len(segment)
    if rows < len(room.value):
        room = room._replace(
            samples=room.samples[:rows],
            hidden=room.hidden[:rows],
            mean=room.mean[:rows],
            value=room.value[:rows],
        )
    torch.mm(room.samples[:, : of.portfolio.shape[1]], of.portfolio.t(), out=room.hidden)
    hidden, value = room.hidden.numpy(), room.value.numpy()
    bias = weights.bars.market_bias
    kernels.hide(hidden, market, segment, bias, of.critic, of.critic_bias, value)
    torch.mm(room.hidden[:, : len(of.critic)], of.actor.t(), out=room.mean)
    return room


def teach_samples(weights: OfSamples, room: Room, into: OfSamples, gradient: Tensor) -> None:
    """Back from gradients of means and values, in the room, to `gradient` [m, 2 H]."""
    half = len(weights.critic)
    hidden = room.hidden[:, :half]
    torch.mm(room.mean.t(), hidden, out=into.actor)
    torch.mm(room.mean, weights.actor, out=gradient[:, :half])
    arrays = (each.numpy() for each in (gradient, room.hidden, room.value))
    kernels.backward_hidden(*arrays, weights.critic, into.critic)
    portfolio = room.samples[:, : weights.portfolio.shape[1]]
    torch.mm(gradient.t(), portfolio, out=into.portfolio)


def teach_bars(
    weights: OfBars,
    room: Room,
    known: Known,
    into: OfBars,
    gradient: Array,
    starts: Array,
    first: int,
    owed: Tensor | None = None,
) -> None:
    """Back from the gradients [M, 2 H] of samples, in the order of their bars, to the encoder.

    `known` are the bars from the `first`, whose samples begin at `starts`. What a foreign encoder
    made goes into `owed` [k, E+].
    """
    rows = len(known.market)
    market, encoded = room.market[:rows], room.encoded[:rows]
    kernels.backward_bars(gradient, starts, first, market.numpy(), into.market_bias)
    torch.mm(market.t(), known.encoded, out=into.market)
    if weights.encoder is None:
        torch.mm(market, weights.market, out=owed)
        return
    torch.mm(market, weights.market, out=encoded)
    kernels.backward_activation(encoded.numpy(), known.encoded.numpy(), into.encoder_bias)
    torch.mm(encoded.t(), known.shown, out=into.encoder)
