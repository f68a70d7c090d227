"""Running moments, for observations and rewards of unknown scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastsim.capture import records

OBSERVATION_LIMIT = 5.0
"""Normalised observations are clipped to this many standard deviations."""

LARGE = 256
"""Rows from which on one fused pass takes less time."""


class Scale(NamedTuple):
    """Moments as they are now, in the type of what they are to standardise."""

    mean: Tensor  # [P]
    std: Tensor  # [P]

    def __call__(self, values: Tensor) -> Tensor:
        """Standardise `values` [..., P] and clip them."""
        scaled = (values - self.mean) / self.std
        return scaled.clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)


class RunningMoments(nn.Module):
    """Mean and variance of everything seen so far, per column, in float64.

    Batches are merged by the parallel formula of Chan, Golub and LeVeque (1979).
    """

    mean: Tensor  # [P]
    square_sum: Tensor  # [P]  sum of squared deviations
    count: Tensor  # []

    def __init__(self, columns: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._held: Scale | None = None
        for name, shape in (("mean", (columns,)), ("square_sum", (columns,)), ("count", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64, device=device))

    @property
    def std(self) -> Tensor:
        """Standard deviation [P]; one for a column that has not varied."""
        std = (self.square_sum / self.count.clamp_min(1.0)).sqrt()
        return torch.where(std > 1e-6, std, 1.0)

    @torch.no_grad()
    def update(self, values: Tensor, valid: Tensor | None = None) -> None:
        """Take in `values` [M, P], or only their rows where `valid` [M]."""
        mean, square_sum, count = self.moments_of(values, valid)
        total = self.count + count
        delta = mean - self.mean
        share = count / total.clamp_min(1.0)
        self.square_sum += square_sum + delta.square() * self.count * share
        self.mean += delta * share
        self.count.copy_(total)

    def moments_of(self, values: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and squared deviations, per column, of a batch as `batch_moments` has them."""
        return batch_moments(values, valid)

    @contextmanager
    def held(self, dtype: torch.dtype) -> Iterator[None]:
        """Within it moments stay as they are, and those for values of this type are at hand."""
        self._held = self.scale(dtype)
        try:
            yield
        finally:
            self._held = None

    def scale(self, dtype: torch.dtype) -> Scale:
        """The moments now, for values of this type."""
        return Scale(self.mean.to(dtype), self.std.to(dtype))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise `values` [..., P] and clip them."""
        held = self._held
        if held is not None and held.mean.dtype == values.dtype:
            return held(values)
        return self.scale(values.dtype)(values)


def batch_moments(values: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and sum of squared deviations [P] of `values` [M, P] where `valid` [M], and M []."""
    plain = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    if plain and len(values) >= LARGE and not records(values.device):
        # Imported when it is wanted, as kernels are: numba alone takes half a second.
        fused = import_module("fastsim.policy.normalize_numba").batch_moments
        found: tuple[Tensor, Tensor, Tensor] = fused(values, valid)
        return found
    rows = values.double()
    weight = rows.new_ones(len(rows), 1) if valid is None else valid.double()[:, None]
    count = weight.sum()
    mean = (rows * weight).sum(0) / count.clamp_min(1.0)
    return mean, ((rows - mean).square() * weight).sum(0), count
