"""Numbers that kernels for a CPU and for a GPU share."""

from __future__ import annotations

import math

FACTS = 5
"""Of a sample, after its action: log probability, value, advantage, target of the value, valid."""
LOSSES = 4
"""Sums of a minibatch: surrogate, squared error, divergence, and samples whose ratio is clipped."""
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
