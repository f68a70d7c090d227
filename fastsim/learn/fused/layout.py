"""Where the policy's weights stand in one block: row by row, padded with zeros to whole registers.

Products of matrices are quickest where rows begin and end with a cache line. The padding stays
zero by itself: its inputs are zero, and so are the gradients of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.policy.flat import FlatPolicy

LANES = 8
"""Rows have a multiple of so many numbers."""
ENCODER = "market_encoder."
Array = NDArray[Any]


def padded(width: int) -> int:
    """The width, or the next that ends a register."""
    return -(-width // LANES) * LANES


class Place(NamedTuple):
    """Where a parameter stands, as blocks of rows."""

    shape: tuple[int, int, int]  # of the parameter: blocks, rows, columns
    room: tuple[int, int, int]  # the same, padded
    start: int

    def of(self, flat: Tensor, first: int = 0) -> Tensor:
        """Its room [blocks, rows, columns] in a flat block, which begins at the number `first`."""
        start = self.start - first
        return flat[start : start + prod(self.room)].view(self.room)

    def inner(self, room: Tensor) -> Tensor:
        """What of its room is not padding."""
        heads, rows, columns = self.shape
        return room[:heads, :rows, :columns]


class Layout(NamedTuple):
    """Rooms of all parameters by name: those that samples teach first, then those that bars do."""

    places: Mapping[str, Place]
    samples: int  # numbers that samples teach
    bars: int  # numbers that bars teach: the hidden layer's, and those of our own encoder
    size: int  # all of them, with those of a foreign encoder
    own_encoder: bool


class OfSamples(NamedTuple):
    """Weights, or gradients of them, of the layers that see samples; matrices are for products."""

    portfolio: Tensor  # [2 H, P+]
    actor: Tensor  # [W+, H]
    actor_bias: Array  # [W+]
    critic: Array  # [H]
    critic_bias: Array  # [1+]
    log_std: Array  # [W+]


class OfBars(NamedTuple):
    """The same of the layers that see bars; without an encoder where it is a foreign one."""

    market: Tensor  # [2 H, E+]
    market_bias: Array  # [2 H]
    encoder: Tensor | None  # [E+, F+]
    encoder_bias: Array | None  # [E+]


def shapes_of(policy: FlatPolicy) -> list[tuple[str, torch.Size]]:
    """Names and shapes of its parameters, by which it is known whether a layout still fits."""
    return [(name, each.shape) for name, each in policy.named_parameters()]


def lay_out(policy: FlatPolicy, *, own_encoder: bool) -> Layout:
    """The layout of this policy's parameters; those of a foreign encoder come last, as they are."""
    shapes = {name: tuple(shape) for name, shape in shapes_of(policy)}
    encoder = [name for name in shapes if name.startswith(ENCODER)]
    bars = ["market_hidden.weight", "market_hidden.bias"]
    samples = [name for name in shapes if name not in (*encoder, *bars)]
    groups = [samples, bars + encoder, []] if own_encoder else [samples, bars, encoder]
    places: dict[str, Place] = {}
    ends = []
    for names, place in zip(groups, (_padded_place, _padded_place, _plain_place), strict=True):
        for name in names:
            places[name] = place(name, shapes[name], _end(places))
        ends.append(_end(places))
    return Layout(places, ends[0], ends[1] - ends[0], ends[2], own_encoder)


def _padded_place(name: str, shape: tuple[int, ...], start: int) -> Place:
    """Of a layer's matrix or vector; those that feed both heads are two blocks."""
    heads = 2 if name.partition(".")[0] in ("market_hidden", "portfolio_hidden") else 1
    if len(shape) == 1:
        width = shape[0] // heads
        return Place((heads, 1, width), (heads, 1, padded(width)), start)
    rows, columns = shape[0] // heads, shape[1]
    return Place((heads, rows, columns), (heads, padded(rows), padded(columns)), start)


def _plain_place(name: str, shape: tuple[int, ...], start: int) -> Place:
    """Of what autograd works on: nothing is padded."""
    return Place((1, 1, prod(shape)), (1, 1, prod(shape)), start)


def _end(places: Mapping[str, Place]) -> int:
    return max((padded(each.start + prod(each.room)) for each in places.values()), default=0)


def of_samples(layout: Layout, flat: Tensor) -> OfSamples:
    """Those in a flat block [samples or more]."""
    places = layout.places

    def vector(name: str) -> Array:
        return places[name].of(flat).view(-1).numpy()

    return OfSamples(
        portfolio=_matrix(places["portfolio_hidden.weight"].of(flat)),
        actor=_matrix(places["actor.weight"].of(flat)),
        actor_bias=vector("actor.bias"),
        critic=places["critic.weight"].of(flat)[0, 0].numpy(),
        critic_bias=vector("critic.bias"),
        log_std=vector("log_std"),
    )


def of_bars(layout: Layout, flat: Tensor, first: int) -> OfBars:
    """Those in a flat block that begins at the number `first`."""

    def room(name: str) -> Tensor:
        return layout.places[name].of(flat, first)

    own = layout.own_encoder
    return OfBars(
        market=_matrix(room("market_hidden.weight")),
        market_bias=room("market_hidden.bias").view(-1).numpy(),
        encoder=_matrix(room(f"{ENCODER}0.weight")) if own else None,
        encoder_bias=room(f"{ENCODER}0.bias").view(-1).numpy() if own else None,
    )


def _matrix(room: Tensor) -> Tensor:
    return room.flatten(0, 1)
