"""The gate of models that draw paths: of rounding, their law is held to that of float32.

A draw that lands on another token changes all that follows, so paths in half precision part from
those in float32 however good they are. What can be held are the probabilities of the next token
after the same tokens (teacher forcing), and the quantiles of many paths within what so few tell.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.formats import ArtifactPrecision
from fastsim.forecast.interface import ForecastModel

ROWS = 8
"""Contexts of each kind that paths are drawn from."""
PATHS = 64
"""Drawn from each."""
FORCED = 4
"""Of which the tokens are given to both models."""
TOKENS_BOUND: dict[str, float] = {"float16": 0.01, "bfloat16": 0.05}
"""Largest mean distance in total variation: as many draws in a hundred may differ."""
QUANTILES_BOUND = 4.5
"""Largest distance of a quantile, in standard errors: fewer than one honest gate in a thousand, of
some hundred bars and levels, is beyond."""


class Agreement(NamedTuple):
    """How far a model in half precision is from itself in float32."""

    tokens: float  # mean total variation of the law of the next token
    quantiles: float  # of many paths, in standard errors


@runtime_checkable
class DrawsPaths(Protocol):
    """What a model whose quantiles are those of sampled paths can be asked."""

    def tokens(self, *inputs: Tensor, noise: Tensor) -> Any:
        """The tokens of the context and of paths, for uniform noise [B, S, H, ...]."""
        ...

    def laws(self, *inputs: Tensor, tokens: Any) -> tuple[Tensor, ...]:
        """Probabilities [B, S, H, V] of each token of the paths, given those before it."""
        ...

    def paths(self, *inputs: Tensor, noise: Tensor) -> Tensor:
        """Closes [B, S, H] of paths."""
        ...


def draws_paths(model: ForecastModel, precision: ArtifactPrecision) -> bool:
    """Whether this gate is the one for a model in a precision."""
    return precision in TOKENS_BOUND and isinstance(model, DrawsPaths)


@torch.no_grad()
def agreement(
    rounded: ForecastModel, exact: ForecastModel, inputs: list[tuple[Tensor, ...]], horizon: int
) -> Agreement:
    """Hold a model that draws paths against itself in float32, on contexts of several kinds.

    Both are given the same noise: paths that rounding leaves alone are the same.
    """
    assert isinstance(rounded, DrawsPaths) and isinstance(exact, DrawsPaths)
    apart, shares = [], []
    for number, columns in enumerate(inputs):
        rows = tuple(column[:ROWS] for column in columns)
        generator = torch.Generator().manual_seed(number)
        shape = (len(rows[0]), PATHS, horizon, 2)
        noise = torch.rand(shape, generator=generator).to(rows[0].device)
        tokens = exact.tokens(*rows, noise=noise[:, :FORCED])
        both = [one.laws(*rows, tokens=tokens) for one in (rounded, exact)]
        apart += [0.5 * (law - own).abs().sum(-1).mean() for law, own in zip(*both, strict=True)]
        found, wanted = (one.paths(*rows, noise=noise) for one in (rounded, exact))
        shares.append(share_below(found, wanted, exact.card.levels))
    off = errors_of(torch.cat(shares), exact.card.levels).nan_to_num(nan=torch.inf)
    return Agreement(float(torch.stack(apart).mean()), float(off.max()))


def errors_of(shares: Tensor, levels: tuple[float, ...]) -> Tensor:
    """How far mean shares [H, Q] of `share_below` [rows, H, Q] are from what one law gives.

    In standard errors of two samples of PATHS each. The rank of the quantile between the order
    statistics, of PATHS + 1 gaps, is what a path of the same law lies below (Hyndman and Fan 1996,
    definition 7).
    """
    level = shares.new_tensor(levels)
    expected = (level * (PATHS - 1) + 1.0) / (PATHS + 1)
    error = (2.0 * level * (1.0 - level) / (PATHS * len(shares))).sqrt()
    return (shares.mean(0) - expected).abs() / error


def require_agreement(name: str, met: Agreement, precision: ArtifactPrecision) -> None:
    """Raise ForecastError unless a model in half precision follows the law of float32."""
    if not met.tokens <= TOKENS_BOUND[precision]:
        raise ForecastError(
            f"{name}: of its next tokens {met.tokens:.2g} are others than in float32, more than "
            f"{TOKENS_BOUND[precision]:g}; it was not written"
        )
    if not met.quantiles <= QUANTILES_BOUND:
        raise ForecastError(
            f"{name}: a quantile of its paths is {met.quantiles:.2g} standard errors from that in "
            f"float32, more than {QUANTILES_BOUND:g}; it was not written"
        )


def share_below(found: Tensor, wanted: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Share [B, H, Q] of paths [B, S, H] below each quantile of other paths; ties count half.

    Shares are in the unit of probability, and so know no scale; NaN counts as neither.
    """
    marks = wanted.double().quantile(wanted.new_tensor(levels, dtype=torch.float64), dim=1)
    paths = found.double()[None]  # [1, B, S, H]
    marks = marks[:, :, None]  # [Q, B, 1, H]
    below = (paths < marks).double() + 0.5 * (paths == marks).double()
    share = below.mean(2).masked_fill(paths.isnan().any(2), torch.nan)
    return share.movedim(0, -1)
