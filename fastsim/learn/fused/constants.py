"""Numbers that kernels for a CPU and for a GPU share."""

from __future__ import annotations

import math

FACTS = 5
"""Of a sample, after its action: log probability, value, advantage, target of the value, valid."""
LOSSES = 4
"""Sums of a minibatch: surrogate, squared error, divergence, and samples whose ratio is clipped."""
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
FAR = 7.90531110763549805
"""Where float32 knows no tanh but +-1."""
UP = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
"""Of the rational function of Eigen and XLA for tanh: over x, in powers of its square."""
DOWN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
"""Its denominator."""
