"""Memory on a CPU: rooms that are handed out again, and what the last cache holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHE = 32 << 20
"""Bytes of a last cache that cannot be asked for its size."""
LARGE = 1 << 20
"""Bytes from which on rooms are kept: smaller ones come from memory that the process has."""
_KEPT = 2
"""Rooms kept: one is looked at while the next is written."""


@cache
def last_cache() -> int:
    """Bytes of the cache that memory lies behind."""
    sizes = {}
    for index in CACHES.glob("index*"):
        try:
            size = (index / "size").read_text().strip().removesuffix("K")
            sizes[int((index / "level").read_text())] = int(size) << 10
        except (OSError, ValueError):
            continue
    return sizes.get(3, USUAL_CACHE)


def room_like(arrays: Arrays) -> Callable[[], Arrays]:
    """What makes arrays of the same sizes, under the same names; those without numbers are shared.

    It is called at every step, of which a single environment takes a few microseconds.
    """
    make = [_maker(array) for array in arrays]
    gather = partial(tuple.__new__, type(arrays))
    return lambda: gather([each() for each in make])


def _maker(array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    return room_maker(array.shape, array.dtype) if len(array) else lambda: array


def room_maker(shape: tuple[int, ...], dtype: DTypeLike) -> Callable[[], NDArray[Any]]:
    """What makes arrays of this shape and type, for the caller to keep.

    Fresh memory comes from the kernel page by page, which takes several times as long as to write a
    large room. One that nobody has an eye on any more, nor on a part of it, is handed out again.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return partial(np.empty, shape, dtype)
    kept: list[NDArray[Any]] = []

    def make() -> NDArray[Any]:
        for place in range(len(kept)):
            if _eyes(kept, place) == _UNSEEN:
                return kept[place][:]
        kept.append(np.empty(shape, dtype))
        del kept[:-_KEPT]
        return kept[-1][:]

    return make


def _eyes(rooms: list[NDArray[Any]], place: int) -> int:
    """References to a room; every view of it has one, of whatever it was taken."""
    return sys.getrefcount(rooms[place])


_UNSEEN = _eyes([np.empty(0)], 0)
