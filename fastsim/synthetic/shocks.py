"""Shocks of one bar, correlated across assets by common factors.

    n_i = sum_k b_ik f_k + sqrt(1 - sum_k b_ik^2) e_i

with independent standard normal factors f and own parts e, so that corr(n_i, n_j) is
sum_k b_ik b_jk: the correlation of an arbitrage pricing model (Ross 1976),
positive definite by construction and of cost A K rather than A^2 a draw.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from fastsim.config import configuration
from fastsim.errors import ConfigError


@configuration
class FactorConfig:
    """What the assets' shocks have in common."""

    loadings: tuple[tuple[float, ...], ...] = ((0.5,),)
    """b: one row of K loadings for all assets, or A rows; sum of squares of a row at most 1. One
    loading b for all is an equal correlation b^2. (0.0,) makes assets independent."""

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.loadings}
        if len(widths) != 1 or widths == {0}:
            raise ConfigError(
                f"FactorConfig.loadings must be rows of equal length >= 1, got {self.loadings!r}"
            )
        for number, row in enumerate(self.loadings):
            size = sum(loading**2 for loading in row)
            if not (isfinite(size) and size <= 1.0 + 1e-12):
                raise ConfigError(
                    f"FactorConfig.loadings must have rows with a sum of squares <= 1, "
                    f"row {number} {row!r} has {size:g}"
                )

    def check(self, assets: int, where: str) -> None:
        """Raise ConfigError unless there is one row, or one per asset."""
        if len(self.loadings) not in {1, assets}:
            raise ConfigError(
                f"{where}.loadings must have one row or {assets}, got {len(self.loadings)}"
            )

    def draw(self, bars: int, worlds: int, assets: int, generator: Generator) -> Tensor:
        """Correlated standard normals [T, M, A]."""
        return self.mix(draw_parts(bars, worlds, self.count, assets, generator))

    @property
    def count(self) -> int:
        """K."""
        return len(self.loadings[0])

    def mix(self, parts: NormalParts) -> Tensor:
        """Add up common and own parts: correlated standard normals [T, M, A]."""
        loadings = torch.tensor(self.loadings, dtype=parts.own.dtype, device=parts.own.device)
        own = (1.0 - loadings.square().sum(1)).clamp_min(0.0).sqrt()  # [A] or [1]
        normal = own * parts.own
        for factor in range(self.count):  # not a matrix product: its order of adding is its own
            normal.addcmul_(parts.common[..., factor, None], loadings[:, factor])
        return normal


class NormalParts(NamedTuple):
    """Independent standard normals of which correlated ones are made."""

    common: Tensor  # [T, M, K]
    own: Tensor  # [T, M, A]


def draw_parts(
    bars: int, worlds: int, factors: int, assets: int, generator: Generator
) -> NormalParts:
    """Draw the parts of one set of shocks."""
    return NormalParts(
        draw_normal((bars, worlds, factors), generator),
        draw_normal((bars, worlds, assets), generator),
    )


def draw_normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Independent standard normals, float64, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)


def student_radius(log_uniform: Tensor, freedom: Tensor) -> Tensor:
    """Radius sqrt((nu - 2) (U^(-2/nu) - 1)): times a uniform angle's cosine, Student-t.

    Bailey (1994), Math. Comp. 62, scaled to variance 1; `freedom` nu > 2.
    """
    return torch.sqrt((freedom - 2.0) * torch.expm1(-2.0 / freedom * log_uniform))


def student_from_normals(normal: Tensor, second: Tensor, freedom: Tensor) -> Tensor:
    """Student-t of variance 1 in the direction of `normal`, from two independent normals.

    Their squared length q is exponential of mean 2, so U = exp(-q / 2) is uniform and
    normal / sqrt(q) an independent cosine: Bailey's polar method, read backwards.
    Every asset's law is exact whatever the correlation of its normals with others'; the shocks'
    correlation is the normals' times 0.81 to 1 at 3 degrees of freedom, 0.96 to 1 at 5, 0.988 to 1
    at 8, growing with the correlation.
    """
    square = (normal.square() + second.square()).clamp_min(torch.finfo(normal.dtype).tiny)
    return student_radius(-0.5 * square, freedom) * normal * square.rsqrt()


def linear_recurrence(slope: Tensor, shift: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """x_{t+1} = slope_t x_t + shift_t: x_0 to x_{T-1} [T, ...] and x_T [...]."""
    path, value = torch.empty_like(shift), start
    for bar in range(len(shift)):
        path[bar] = value
        value = torch.addcmul(shift[bar], slope[bar], value)
    return path, value
