"""Counter-based draws on a CPU: the integers of `fastsim.env.random`, bit for bit."""

from __future__ import annotations

import numpy as np

from fastsim.env.kernels.numba_jit import jit
from fastsim.env.random import GOLDEN


@jit
def mix(bits: int) -> int:
    """Finalise 32 bits, as `fastsim.env.random` does."""
    bits = bits & np.uint64(0xFFFFFFFF)
    bits = bits ^ (bits >> np.uint64(16))
    bits = (bits * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    bits = bits ^ (bits >> np.uint64(13))
    bits = (bits * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    return bits ^ (bits >> np.uint64(16))


@jit
def draw_integer(key: int, episode: int, stream: int, bound: int) -> int:
    """An integer in [0, bound)."""
    bits = mix(np.uint64(key) + np.uint64(episode) * np.uint64(GOLDEN))
    bits = mix(bits + np.uint64(stream))
    return np.int64((bits * np.uint64(bound)) >> np.uint64(32))
