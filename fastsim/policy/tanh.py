"""The hyperbolic tangent of kernels: numbers of the rational function of Eigen and XLA."""

from __future__ import annotations

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
"""The numerator over x, in powers of its square."""
DOWN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
"""Its denominator."""
