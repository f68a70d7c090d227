"""Nested named tuples of tensors, taken as one: states, transitions, observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fastsim.errors import CheckpointError

Nested = TypeVar("Nested", bound="Tensor | tuple[Any, ...]")
MaybeNested = TypeVar("MaybeNested", bound="Tensor | tuple[Any, ...] | None")


def select(mask: Tensor, chosen: Nested, other: Nested) -> Nested:
    """Rows of `chosen` where `mask` [N], else rows of `other`, through nested named tuples."""
    if isinstance(chosen, Tensor):
        mask = mask[:: len(mask) // max(len(chosen), 1)]  # one row per market, or per environment
        rows = mask.view(-1, *(1,) * (chosen.dim() - 1))
        return cast(Nested, torch.where(rows, chosen, cast(Tensor, other)))
    pairs = zip(chosen, cast(tuple[Any, ...], other), strict=True)
    build = cast(Callable[..., Nested], type(chosen))
    return build(*(select(mask, new, old) for new, old in pairs))


def copy(state: MaybeNested) -> MaybeNested:
    """A state with tensors of its own, through nested named tuples; what is None stays so."""
    if state is None:
        return state
    if isinstance(state, Tensor):
        return cast(MaybeNested, state.clone())
    parts = cast(tuple[Any, ...], state)
    return cast(MaybeNested, cast(Any, type(parts))(*(copy(part) for part in parts)))


def take(nested: MaybeNested, rows: Tensor | slice | int) -> MaybeNested:
    """These rows of every tensor of nested named tuples; what is None stays so."""
    if nested is None:
        return nested
    if isinstance(nested, Tensor):
        return cast(MaybeNested, nested[rows])
    if isinstance(nested, dict):
        return cast(MaybeNested, {name: take(part, rows) for name, part in nested.items()})
    parts = cast(tuple[Any, ...], nested)
    return cast(MaybeNested, cast(Any, type(parts))(*(take(part, rows) for part in parts)))


def flatten(nested: Tensor | tuple[Any, ...] | None) -> list[Tensor]:
    """Tensors of nested named tuples, in order, without what is None."""
    if nested is None:
        return []
    if isinstance(nested, Tensor):
        return [nested]
    return [leaf for part in nested for leaf in flatten(part)]


def unflatten(like: Nested, leaves: Sequence[Tensor]) -> Nested:
    """Nested named tuples of the structure of `like`, with these tensors.

    Raises
    ------
    CheckpointError
        There are more of them or fewer, or they have other shapes or types.
    """
    wanted, given = (
        [(tuple(leaf.shape), leaf.dtype) for leaf in group] for group in (flatten(like), leaves)
    )
    if given != wanted:
        different = [pair for pair in zip(wanted, given, strict=False) if pair[0] != pair[1]]
        want, got = different[0] if different else (f"{len(wanted)} tensors", len(given))
        raise CheckpointError(f"the saved state has {got} where {want} is needed")
    return cast(Nested, _fill(like, iter(leaves)))


def _fill(like: Any, leaves: Iterator[Tensor]) -> Any:
    if like is None:
        return None
    if isinstance(like, Tensor):
        return next(leaves)
    return type(like)(*(_fill(part, leaves) for part in like))
