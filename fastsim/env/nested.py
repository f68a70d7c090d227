"""Nested named tuples and mappings of tensors, taken as one: states, transitions, observations.

What is None stays so, and the keys of a mapping keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fastsim.errors import CheckpointError

Nested = TypeVar("Nested", bound="Tensor | tuple[Any, ...] | Mapping[str, Any] | None")


def transform(function: Callable[[Tensor], Tensor], nested: Nested) -> Nested:
    """Replace every tensor by what `function` makes of it."""
    return cast(Nested, _transform(function, nested))


def combine(function: Callable[..., Tensor], first: Nested, *others: Nested) -> Nested:
    """Replace the tensors at each place of several of one structure by one, `function` of them."""
    return cast(Nested, _combine(function, first, *others))


def select(mask: Tensor, chosen: Nested, other: Nested) -> Nested:
    """Rows of `chosen` where `mask` [N], else rows of `other`."""

    def rows_of(new: Tensor, old: Tensor) -> Tensor:
        if new is old or not new.numel():
            return new
        each = mask
        if len(new) < len(mask):
            each = mask[:: len(mask) // len(new)]  # one row per market
        if new.dim() > 1:
            each = each.view(-1, *(1,) * (new.dim() - 1))
        return torch.where(each, new, old)

    return combine(rows_of, chosen, other)


def copy(nested: Nested) -> Nested:
    """The same with tensors of its own."""
    return transform(Tensor.clone, nested)


def take(nested: Nested, rows: Tensor | slice | int) -> Nested:
    """These rows of every tensor."""
    return transform(lambda tensor: tensor[rows], nested)


def flatten(nested: Tensor | tuple[Any, ...] | Mapping[str, Any] | None) -> list[Tensor]:
    """Tensors in order, without what is None."""
    if nested is None:
        return []
    if isinstance(nested, Tensor):
        return [nested]
    parts = nested if isinstance(nested, tuple) else nested.values()
    return [leaf for part in parts for leaf in flatten(part)]


def unflatten(like: Nested, leaves: Sequence[Tensor]) -> Nested:
    """The structure of `like` with these tensors.

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
    following = iter(leaves)
    return transform(lambda _: next(following), like)


def _transform(function: Callable[[Tensor], Tensor], nested: Any) -> Any:
    if nested is None:
        return None
    if isinstance(nested, Tensor):
        return function(nested)
    build = type(nested)
    if isinstance(nested, tuple):
        return build(*[_transform(function, part) for part in nested])
    return build({name: _transform(function, part) for name, part in nested.items()})


def _combine(function: Callable[..., Tensor], *nested: Any) -> Any:
    first = nested[0]
    if first is None:
        assert all(other is None for other in nested)
        return None
    if isinstance(first, Tensor):
        return function(*nested)
    build = type(first)
    if isinstance(first, tuple):
        return build(*[_combine(function, *parts) for parts in zip(*nested, strict=True)])
    assert all(other.keys() == first.keys() for other in nested)
    return build({name: _combine(function, *(part[name] for part in nested)) for name in first})
