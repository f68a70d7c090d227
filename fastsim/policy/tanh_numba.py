"""The hyperbolic tangent that compiled loops take, for a CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastsim.env.kernels.numba_jit import jit as compiled
from fastsim.policy.tanh import DOWN, FAR, UP

_FAR = np.float32(FAR)
_UP, _DOWN = (tuple(map(np.float32, numbers)) for numbers in (UP, DOWN))

jit = partial(compiled, inline=False)


@jit
def tanh(x: Any) -> Any:
    """Hyperbolic tangent to some roundings of float32: the rational function of Eigen and XLA."""
    x = _FAR if x > _FAR else x
    x = -_FAR if x < -_FAR else x
    y = x * x
    up = ((_UP[0] * y + _UP[1]) * y + _UP[2]) * y + _UP[3]
    up = (((up * y + _UP[4]) * y + _UP[5]) * y + _UP[6]) * x
    return up / (((_DOWN[0] * y + _DOWN[1]) * y + _DOWN[2]) * y + _DOWN[3])
