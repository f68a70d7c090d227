"""Counter-based randomness: a draw is a hash of (seed, environment, episode, stream).

Nothing is stored and nothing advances, so a draw is the same on every device and backend, in any
order and with any number of threads. The mixer is the 32-bit finaliser of MurmurHash3 (Appleby),
whose every input bit flips every output bit with a probability near one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Bits = TypeVar("Bits", int, Tensor)
_MASK = 0xFFFFFFFF
GOLDEN = (
    0x9E3779B9  # 2^32 over the golden ratio: the mixer maps zero to zero, so nothing starts there
)


def environment_keys(seed: int | Sequence[int], env_ids: Tensor) -> Tensor:
    """Keys [N] of the environments with these numbers [N] under this seed, or their own seeds."""
    if isinstance(seed, int):
        return _mix(_mixed(seed) + env_ids)
    return _mix(torch.tensor([_mixed(each) for each in seed], device=env_ids.device) + env_ids)


def draw_integers(
    key: Tensor, episode: Tensor, stream: Tensor | int, bound: Tensor | int
) -> Tensor:
    """Integers [N] in [0, bound), one per environment and episode; `stream` tells uses apart.

    Multiply-shift maps 32 random bits to the range (Lemire 2019); the bias is below bound / 2^32.
    """
    bits = _mix(_mix(key + episode * GOLDEN) + stream)
    return (bits * bound) >> 32


def draw_uniform(key: Tensor, episode: Tensor, stream: int) -> Tensor:
    """Numbers [N] strictly between 0 and 1 in steps of 2^-24, float64; see `draw_integers`."""
    steps = 1 << 24
    return (draw_integers(key, episode, stream, steps).double() + 0.5) / steps


def _mixed(seed: int) -> int:
    """Both halves of a seed in 32 bits, worked out on the host: nothing is copied from there."""
    return _mix(_mix((seed & _MASK) + GOLDEN) ^ ((seed >> 32) & _MASK))


def _mix(bits: Bits) -> Bits:
    """Finalise the low 32 bits of int64 numbers; the result is in [0, 2^32)."""
    bits = bits & _MASK
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x85EBCA6B) & _MASK
    bits = bits ^ (bits >> 13)
    bits = (bits * 0xC2B2AE35) & _MASK
    return bits ^ (bits >> 16)
