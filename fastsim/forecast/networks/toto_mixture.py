"""A mixture of Student's t for each bar, as Toto says it: its quantiles, and draws from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

WIDEST = 1.8856180831641267
"""The 0.9 quantile of Student's t with 2 degrees of freedom, the fewest of a component."""

BISECTIONS = 20
"""Halvings of a bracket, which is then interpolated; a millionth of it is left."""


class Mixture(NamedTuple):
    """A mixture of K Student's t for each of the next P bars, in standard deviations."""

    weight: Tensor  # [B, P, K]  sums to 1
    freedom: Tensor  # [B, P, K]  degrees of freedom, at least 2
    place: Tensor  # [B, P, K]
    width: Tensor  # [B, P, K]

    def mean(self) -> Tensor:
        """Mean [B, P]."""
        return (self.weight * self.place).sum(-1)

    def probability_below(self, value: Tensor) -> Tensor:
        """Cumulative distribution [B, P, Q] at values [B, P, Q]."""
        weight, freedom, place, width = (part[:, :, None] for part in self)  # [B, P, 1, K]
        return (weight * student_cdf((value[..., None] - place) / width, freedom)).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """A draw for each bar [B, P], by three uniform numbers in [0, 1) for each [B, P, 3].

        One chooses the component, two make a Student's t (Bailey 1994, "Polar generation of random
        variates with the t-distribution").
        """
        total = self.weight.cumsum(-1)
        chosen = (total <= noise[..., :1] * total[..., -1:]).sum(-1, keepdim=True)
        chosen = chosen.clamp_max(total.shape[-1] - 1)
        freedom, place, width = (
            part.gather(-1, chosen).squeeze(-1) for part in (self.freedom, self.place, self.width)
        )
        radius = (freedom * ((1.0 - noise[..., 1]) ** (-2.0 / freedom) - 1.0)).sqrt()
        return place + width * radius * (2.0 * math.pi * noise[..., 2]).cos()

    def quantiles(self, levels: Tensor) -> Tensor:
        """Quantiles [B, P, Q] at levels [Q] within 0.1 to 0.9, by bisection.

        A quantile of a mixture lies between the least and the greatest of its components', and
        theirs lie within `WIDEST` widths of their places.
        """
        reach = WIDEST * self.width
        low = (self.place - reach).amin(-1, keepdim=True) + 0.0 * levels
        high = (self.place + reach).amax(-1, keepdim=True) + 0.0 * levels
        below_low, below_high = self.probability_below(low), self.probability_below(high)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            below = self.probability_below(middle)
            left = below < levels
            low, below_low = torch.where(left, middle, low), torch.where(left, below, below_low)
            high, below_high = torch.where(left, high, middle), torch.where(left, below_high, below)
        share = (levels - below_low) / (below_high - below_low).clamp_min(1e-12)
        return torch.lerp(low, high, share.clamp(0.0, 1.0))


def student_cdf(value: Tensor, freedom: Tensor) -> Tensor:
    """Cumulative distribution of Student's t by its normal deviate; broadcasts.

    Hill 1970, "Algorithm 395: Student's t-distribution", equation 1. The error of the probability
    is below 2e-4 at 2 degrees of freedom, 1.1e-5 at 3 and 1.2e-6 at 4.
    """
    a = freedom - 0.5
    b = 48.0 * a * a
    square = a * torch.log1p(value * value / freedom)
    deviate = square.sqrt()
    tail = ((4.0 * square + 33.0) * square + 240.0) * square + 855.0
    correction = (square + 3.0) / b - tail / (10.0 * b * (b + 0.8 * square * square + 100.0))
    return 0.5 + 0.5 * torch.erf(deviate * (1.0 + correction) * value.sign() * math.sqrt(0.5))
