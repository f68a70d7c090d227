"""What goes into a forecaster and what comes out, for every model the same.

A model is a module from inputs to quantiles of the price. `ModuleForecaster` puts it behind
`Forecaster`: it checks the context, cuts it to the model's length, and sorts the quantiles.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastsim.data.bars import CLOSE
from fastsim.errors import ForecastError
from fastsim.forecast.statistics import Counted, counted

"""Column of the close in a bar."""

Precision = Literal["float32", "float16", "bfloat16"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MEDIAN = 0.5
INNER_BAND = (0.1, 0.9)
"""Levels of the 80 % band that dispersion and confidence are read from."""


class Context(NamedTuple):
    """The past of B series. Bars that are missing are NaN; a short past is padded on the left."""

    bars: Tensor  # [B, L, 6]  open, high, low, close, volume, traded value
    timestamps: Tensor  # [B, L]  int64, seconds since 1970 UTC, increasing

    @property
    def close(self) -> Tensor:
        """Closing prices [B, L], what univariate models read."""
        return self.bars[..., CLOSE]


class Forecast(NamedTuple):
    """Quantiles of the close over the next H bars, in the unit of the close, float32."""

    quantiles: Tensor  # [B, H, Q]  increasing in Q
    levels: tuple[float, ...]  # Q  increasing, in (0, 1)

    @property
    def median(self) -> Tensor:
        """Median path [B, H]."""
        return self.at(MEDIAN)

    @property
    def mean(self) -> Tensor:
        """Mean [B, H] of the piecewise-linear quantile function, constant beyond its ends."""
        return (self.quantiles * _level_weights(self.levels, self.quantiles)).sum(-1)

    def at(self, level: float) -> Tensor:
        """Quantile [B, H] at a level, linear between the levels and constant beyond."""
        levels = self.levels
        if level <= levels[0]:
            return self.quantiles[..., 0]
        if level >= levels[-1]:
            return self.quantiles[..., -1]
        upper = next(index for index, known in enumerate(levels) if known >= level)
        low, high = levels[upper - 1], levels[upper]
        share = (level - low) / (high - low)
        return torch.lerp(self.quantiles[..., upper - 1], self.quantiles[..., upper], share)

    def expected_return(self, current_price: Tensor) -> Tensor:
        """Expected log return [B, H] from `current_price` [B]: the mean of the log quantiles."""
        return self.log_returns(current_price).mean

    def log_returns(self, current_price: Tensor) -> Forecast:
        """Quantiles of the log return from `current_price` [B], in place of prices."""
        floor = torch.finfo(self.quantiles.dtype).tiny
        ratio = (self.quantiles / current_price[:, None, None]).clamp_min(floor)
        return Forecast(ratio.log(), self.levels)

    def dispersion(self, current_price: Tensor) -> Tensor:
        """Width [B, H] of the 80 % band of log returns, in standard deviations of a normal."""
        returns = self.log_returns(current_price)
        low, high = (returns.at(level) for level in INNER_BAND)
        return (high - low) / (2.0 * 1.2815515655446004)

    def confidence(self, current_price: Tensor) -> Tensor:
        """In [0, 1): how large the expected log return is against its dispersion, tanh(|m| / s)."""
        dispersion = self.dispersion(current_price).clamp_min(1e-9)
        return torch.tanh(self.expected_return(current_price).abs() / dispersion)

    def probability_of_rise(self, current_price: Tensor) -> Tensor:
        """Probability [B, H] of a close above `current_price` [B]: the inverse quantile function.

        Linear between levels; beyond the outer levels the outermost slope goes on, within (0, 1).
        """
        price = current_price[:, None, None]
        levels = self.quantiles.new_tensor(self.levels)
        rank = (self.quantiles < price).sum(-1, keepdim=True).clamp(1, len(self.levels) - 1)
        low, high = self.quantiles.gather(-1, rank - 1), self.quantiles.gather(-1, rank)
        share = (price - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)
        level = levels[rank - 1] + share * (levels[rank] - levels[rank - 1])
        outer = 0.5 * min(self.levels[0], 1.0 - self.levels[-1])
        return 1.0 - level.squeeze(-1).clamp(outer, 1.0 - outer)

    def quantile_loss(self, target: Tensor) -> Tensor:
        """Pinball loss [B, H, Q] of each quantile for what came, `target` [B, H]."""
        error = target[..., None] - self.quantiles
        levels = self.quantiles.new_tensor(self.levels)
        return torch.maximum(levels * error, (levels - 1.0) * error)

    def crps(self, target: Tensor) -> Tensor:
        """Continuous ranked probability score [B, H]: twice the pinball loss over the levels.

        The integral over levels (Gneiting and Ranjan 2011, equation 13) by the same weights as the
        mean, so that uneven levels count for the probability that they stand for.
        """
        loss = self.quantile_loss(target)
        return 2.0 * (loss * _level_weights(self.levels, loss)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model is, before any weight of it is loaded."""

    name: str
    licence: str
    attribution: str = ""
    hub_id: str | None = None
    revision: str | None = None
    parameters: int
    max_context: int
    max_horizon: int
    levels: tuple[float, ...]
    inputs: Literal["close", "bars"] = "close"
    min_context: int = 8
    """Fewest known closes that a forecast is made from."""


class ForecastModel(nn.Module, ABC):
    """A network from inputs to quantiles; what a model's file provides.

    Inputs are closes [B, L] float32 (`card.inputs == "close"`, NaN where missing), or bars
    [B, L, 6] and timestamps [B, L]. Scaling is inside and in float32; the parameters may be half.
    """

    card: ModelCard

    @abstractmethod
    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, in the unit of the close."""


class Looping(nn.Module):
    """A part of a model with a loop whose length is data: an export compiles it, not unrolls it."""


class Forecaster(Protocol):
    """Whatever turns contexts into forecasts."""

    @property
    def card(self) -> ModelCard:
        """What it is."""
        ...

    @property
    def key(self) -> str:
        """Model, revision, precision and settings: equal keys give equal forecasts."""
        ...

    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series."""
        ...


class ModuleForecaster(Counted):
    """A model on one device, in one precision."""

    def __init__(
        self,
        model: ForecastModel,
        *,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        revision: str = "",
    ) -> None:
        self.model = model.to(device=device, dtype=DTYPES[precision]).eval()
        self.precision, self.device, self.revision = precision, torch.device(device), revision

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self.model.card

    @property
    def key(self) -> str:
        """Model, revision and precision."""
        return f"{self.card.name}@{self.revision or self.card.revision}/{self.precision}"

    @counted
    @torch.inference_mode()
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series.

        Raises
        ------
        ForecastError
            The horizon is below 1 or beyond the model's, or a series has too few known closes.
        """
        check_request(self.card, context, horizon)
        inputs = model_inputs(self.card, context, self.card.max_context, self.device)
        quantiles = self.model(*inputs, horizon=horizon)
        return Forecast(quantiles.float().sort(-1).values, self.card.levels)


def model_inputs(
    card: ModelCard, context: Context, length: int, device: torch.device
) -> tuple[Tensor, ...]:
    """What a model reads of the last `length` bars: closes, or bars and timestamps, float32."""
    bars = context.bars[:, -length:].to(device, torch.float32)
    if card.inputs == "close":
        return (bars[..., CLOSE].contiguous(),)
    return bars, context.timestamps[:, -length:].to(device)


def check_request(card: ModelCard, context: Context, horizon: int) -> None:
    """Raise ForecastError unless the model can forecast from this context over this horizon."""
    if not 1 <= horizon <= card.max_horizon:
        raise ForecastError(
            f"{card.name} forecasts 1 to {card.max_horizon} bars ahead, not {horizon}"
        )
    if context.bars.dim() != 3 or context.bars.shape[-1] != 6:
        raise ForecastError(f"context bars must be [B, L, 6], got {tuple(context.bars.shape)}")
    if context.timestamps.shape != context.bars.shape[:2]:
        raise ForecastError(
            f"timestamps must be {tuple(context.bars.shape[:2])} as the bars, "
            f"got {tuple(context.timestamps.shape)}"
        )
    known = context.close[:, -card.max_context :].isfinite().sum(1)
    short = (known < card.min_context).nonzero()
    if len(short):
        row = int(short[0])
        raise ForecastError(
            f"{card.name} needs {card.min_context} known closes; series {row} of the context has "
            f"{int(known[row])}"
        )


def _level_weights(levels: tuple[float, ...], like: Tensor) -> Tensor:
    """Probability that each level stands for: half the way to its neighbours, ends to 0 and 1."""
    middles = [0.0, *((low + high) / 2 for low, high in itertools.pairwise(levels)), 1.0]
    weights = [high - low for low, high in itertools.pairwise(middles)]
    assert math.isclose(sum(weights), 1.0)
    return like.new_tensor(weights)
