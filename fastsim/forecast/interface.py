"""What goes into a forecaster and what comes out, for every model the same.

A model is a module from inputs to quantiles of the price. `ModuleForecaster` puts it behind
`Forecaster`: it checks the context, cuts it to the model's length, and sorts the quantiles.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from numbers import Integral
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastsim.data.bars import BAR_FIELDS, CLOSE
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.digests import OWN_CODE, digest_of, fingerprint
from fastsim.forecast.levels import check_levels, quantiles_at
from fastsim.forecast.statistics import Counted, counted

Precision = Literal["float32", "float16", "bfloat16"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
UNKNOWN = "unknown"
"""In place of a day: nobody says until when a model has seen markets."""
ORIGIN = ("known_until", "known_source", "trials")
"""What a card says of how weights came about, which no forecast depends on."""
MEDIAN = 0.5
INNER_BAND = (0.1, 0.9)
"""Levels of the 80 % band that dispersion and confidence are read from."""
LEAST_RATIO = 0.01
"""Quantiles below this share of the price, or below zero, have no log return of their own."""
TIE = 16 * torch.finfo(torch.float32).eps
"""Quantiles this near to a price, relative to it, equal it: they are float32, and averaged."""


class Context(NamedTuple):
    """The past of B series. Bars that are missing are NaN; a short past is padded on the left."""

    bars: Tensor  # [B, L, 6]  open, high, low, close, volume, traded value
    timestamps: Tensor  # [B, L]  int64, seconds since 1970 UTC, increasing

    @property
    def close(self) -> Tensor:
        """Closing prices [B, L], what univariate models read."""
        return self.bars[..., CLOSE]

    def of_column(self, name: str) -> Context:
        """The same with another column of the bars in the place of the close."""
        bars = self.bars.clone()
        bars[..., CLOSE] = bars[..., BAR_FIELDS.index(name)]
        return Context(bars, self.timestamps)


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

    def to_levels(self, levels: Sequence[float]) -> Forecast:
        """The same at other levels, which increase.

        A normal between two levels and an exponential tail beyond the outermost: see
        `fastsim.forecast.levels`.

        Raises
        ------
        ForecastError
            They do not increase, or do not lie between 0 and 1.
        """
        wanted = check_levels(levels)
        return Forecast(quantiles_at(self.quantiles, self.levels, wanted), wanted)

    def expected_return(self, current_price: Tensor) -> Tensor:
        """Expected log return [B, H] from `current_price` [B]: the mean of the log quantiles."""
        return self.log_returns(current_price).mean

    def log_returns(self, current_price: Tensor) -> Forecast:
        """Quantiles of the log return from `current_price` [B], in place of prices.

        Models that think in prices let an outer quantile fall to nothing or below it, where a log
        return says nothing of the others: it takes the value of the lowest quantile that is at
        least LEAST_RATIO of the price, as the quantile function is constant beyond its ends.
        """
        ratio = self.quantiles / current_price.to(self.quantiles)[:, None, None]
        told = ratio >= LEAST_RATIO
        lowest = ratio.masked_fill(~told, math.inf).amin(-1, keepdim=True)
        lowest = lowest.masked_fill(lowest.isinf(), LEAST_RATIO)
        # What is NaN stays so.
        return Forecast(torch.where(ratio < LEAST_RATIO, lowest, ratio).log(), self.levels)

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
        """Probability [B, H] of a close above `current_price` [B], ties counting half.

        The inverse of the quantile function, linear between levels; beyond the outer levels the
        outermost slope goes on, within (0, 1). Where a run of quantiles equals the price, the price
        itself has the probability between the run's ends, half of which counts as a rise: 0.5 for
        an asset that is pegged. A run that reaches the first or last level goes on to 0 or 1.
        """
        price = current_price.to(self.quantiles)[:, None, None]
        levels = self.quantiles.new_tensor(self.levels)
        last, near = len(self.levels) - 1, TIE * price.abs()
        below = (self.quantiles < price - near).sum(-1, keepdim=True)
        until = (self.quantiles <= price + near).sum(-1, keepdim=True)
        rank = below.clamp(min(1, last), last)
        low, high = (
            self.quantiles.gather(-1, (rank - 1).clamp_min(0)),
            self.quantiles.gather(-1, rank),
        )
        share = (price - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)
        first = levels[(rank - 1).clamp_min(0)]
        crossed = first + share * (levels[rank] - first)
        # A single level stands for the whole distribution.
        is_run = until - below > min(1, last)
        start = levels[below.clamp_max(last)].masked_fill(is_run & (below == 0), 0.0)
        end = levels[(until - 1).clamp_min(0)].masked_fill(is_run & (until == last + 1), 1.0)
        level = torch.where(until > below, 0.5 * (start + end), crossed).squeeze(-1)
        outer = 0.5 * min(self.levels[0], 1.0 - self.levels[-1])
        return 1.0 - level.clamp(outer, 1.0 - outer)

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
    known_until: str | None = UNKNOWN
    """Last day, 2024-05-31, of the market data that its weights were learned or chosen by; None
    where they have seen no market."""
    known_source: str = ""
    """Who says so."""
    trials: int = 1
    """Fits of which it is the best on validation bars: the more, the more of that is luck."""

    def __post_init__(self) -> None:
        levels = self.levels
        if not levels or any(not 0.0 < level < 1.0 for level in levels) or not _increase(levels):
            raise ConfigError(
                f"ModelCard.levels of {self.name} must increase and lie between 0 and 1, "
                f"got {levels!r}"
            )
        for name in ("max_context", "max_horizon", "min_context", "trials"):
            given = getattr(self, name)
            if not given >= 1:
                raise ConfigError(
                    f"ModelCard.{name} of {self.name} must be at least 1, got {given!r}"
                )
        if self.known_until not in (None, UNKNOWN) and not _is_day(self.known_until):
            raise ConfigError(
                f"ModelCard.known_until of {self.name} must be a day such as 2024-05-31, "
                f'"{UNKNOWN}" or None, got {self.known_until!r}'
            )

    def facts(self) -> dict[str, Any]:
        """What forecasts may depend on: all but what is known of how it came about."""
        told = asdict(self)
        return {name: told[name] for name in told if name not in ORIGIN}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that a forecast depends on beside its context and horizon, whatever the device.

    The key is a hash of the whole record, so a field that is added is part of it at once; of the
    card, all but how its weights came about, which changes no forecast.
    """

    card: ModelCard
    revision: str = ""
    """Of the weights, as those who publish them call it."""
    weights: str = ""
    """Digest of the weights or of the file that they are in; empty where there are none."""
    precision: str = "float32"
    implementation: str = OWN_CODE
    """Whose code runs, and which version of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else its maker can choose: plain values, and dataclasses of them, by name."""

    @functools.cached_property
    def key(self) -> str:
        """Name, revision and precision in words, and the hash of the whole record."""
        name = f"{self.card.name}@{self.revision}" if self.revision else self.card.name
        record = asdict(self) | {"card": self.card.facts()}
        return f"{name}/{self.precision}#{digest_of(record)}"


class ForecastModel(nn.Module, ABC):
    """A network from inputs to quantiles; what a model's file provides.

    Inputs are closes [B, L] float32 (`card.inputs == "close"`, NaN where missing), or bars
    [B, L, 6] and timestamps [B, L]. Scaling is inside and in float32; the parameters may be half.
    """

    card: ModelCard
    implementation: str = OWN_CODE
    """Whose code runs, and which version of it."""
    fit_modes: tuple[str, ...] = ()
    """How it can be fitted; see `fastsim.forecast.training.config.Mode`."""
    head_names: tuple[str, ...] = ()
    """Its parts that are the last layer, which mode head alone moves."""
    layer_names: tuple[str, ...] = ()
    """Lists of its layers that can be worked out again on the way back, for less memory."""

    def settings(self) -> Mapping[str, Any]:
        """What its forecasts depend on beside card and weights: plain values by name."""
        return {}

    def weights_changed(self) -> None:
        """Make again what it keeps of its weights; whoever changes them calls it."""

    def for_export(self) -> ForecastModel:
        """The same network in the form that an artefact is made of."""
        return self

    def digest(self) -> str:
        """Digest of its weights; to be replaced where they are no parameters or buffers."""
        return fingerprint(self)

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
    """A model on one device, in one precision: a copy, so that the caller's stays as it is."""

    def __init__(
        self,
        model: ForecastModel,
        *,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        revision: str = "",
    ) -> None:
        self.model = copied(model, precision).to(device)
        self.precision, self.device, self.revision = precision, torch.device(device), revision

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self.model.card

    @functools.cached_property
    def identity(self) -> Identity:
        """All that its forecasts depend on; the weights by their digest."""
        return Identity(
            card=self.card,
            revision=self.revision or self.card.revision or "",
            weights=self.model.digest(),
            precision=self.precision,
            implementation=f"{self.model.implementation}/{type(self.model).__qualname__}",
            settings=dict(self.model.settings()),
        )

    @property
    def key(self) -> str:
        """Name, revision and precision in words, and the hash of its whole identity."""
        return self.identity.key

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
        if not len(context.bars):
            return no_forecasts(self.card, horizon)
        inputs = model_inputs(self.card, context, self.card.max_context, self.device)
        quantiles = self.model(*inputs, horizon=horizon)
        return Forecast(quantiles.float().sort(-1).values, self.card.levels)


def copied(model: ForecastModel, precision: Precision) -> ForecastModel:
    """A copy of a model on the CPU, its parameters in this precision, ready to forecast.

    Raises
    ------
    ConfigError
        There is no such precision.
    """
    if precision not in DTYPES:
        raise ConfigError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    return copy.deepcopy(model).to(device="cpu", dtype=DTYPES[precision]).eval()


def model_inputs(
    card: ModelCard, context: Context, length: int, device: torch.device
) -> tuple[Tensor, ...]:
    """What a model reads of the last `length` bars: closes, or bars and timestamps, float32."""
    bars = context.bars[:, -length:].to(device, torch.float32)
    if card.inputs == "close":
        return (bars[..., CLOSE].contiguous(),)
    return bars, context.timestamps[:, -length:].to(device)


def no_forecasts(card: ModelCard, horizon: int) -> Forecast:
    """The forecast of no series at all: quantiles [0, horizon, Q]."""
    return Forecast(torch.empty(0, horizon, len(card.levels)), card.levels)


def enough_known(card: ModelCard, context: Context) -> Tensor:
    """Which series [B] have as many known closes, where the model looks, as it needs."""
    known = context.close[:, -card.max_context :].isfinite().sum(1)
    return known >= card.min_context


def can_forecast(forecaster: Forecaster, context: Context) -> Tensor:
    """Which series [B] a forecaster has enough known closes of.

    One with a rule of its own, such as an ensemble, says so in a method of this name.
    """
    own = getattr(forecaster, "can_forecast", None)
    found: Tensor = enough_known(forecaster.card, context) if own is None else own(context)
    return found


def check_horizon(card: ModelCard, horizon: int) -> None:
    """Raise ForecastError unless the horizon is a whole number within the model's."""
    whole = isinstance(horizon, Integral) and not isinstance(horizon, bool)
    if not (whole and 1 <= horizon <= card.max_horizon):
        raise ForecastError(
            f"{card.name} forecasts 1 to {card.max_horizon} bars ahead, not {horizon!r}"
        )


def check_horizons(horizons: Sequence[int]) -> int:
    """The longest of some horizons; ForecastError unless they are different whole numbers >= 1."""
    given = list(horizons)
    whole = all(isinstance(one, Integral) and not isinstance(one, bool) for one in given)
    if not given or not whole or min(given) < 1 or len(set(given)) < len(given):
        raise ForecastError(
            f"horizons must be different whole numbers of bars from 1 up, got {given}"
        )
    return max(given)


def check_context(card: ModelCard, context: Context) -> None:
    """Raise ForecastError unless shapes and values of a context are those of a past of prices."""
    if context.bars.dim() != 3 or context.bars.shape[-1] != 6 or not context.bars.shape[1]:
        raise ForecastError(
            f"context bars must be [B, L, 6] with at least one bar, got {tuple(context.bars.shape)}"
        )
    if context.timestamps.shape != context.bars.shape[:2]:
        raise ForecastError(
            f"timestamps must be {tuple(context.bars.shape[:2])} as the bars, "
            f"got {tuple(context.timestamps.shape)}"
        )
    if not context.bars.is_floating_point() or context.timestamps.is_floating_point():
        raise ForecastError(
            f"context bars must be floating point and timestamps int64 seconds, got "
            f"{context.bars.dtype} and {context.timestamps.dtype}"
        )
    close = context.close[:, -card.max_context :]
    impossible = ((close <= 0) | close.isinf()).nonzero()
    if len(impossible):
        row, bar = impossible[0].tolist()
        raise ForecastError(
            f"closes must be above 0 and finite, NaN where missing: series {row} of the context "
            f"has {float(close[row, bar])}"
        )
    if card.inputs == "bars" and bool((context.timestamps.diff(dim=1) <= 0).any()):
        raise ForecastError(f"{card.name} reads timestamps: they must increase from bar to bar")


def check_request(card: ModelCard, context: Context, horizon: int) -> None:
    """Raise ForecastError unless the model can forecast from this context over this horizon."""
    check_horizon(card, horizon)
    check_context(card, context)
    short = (~enough_known(card, context)).nonzero()
    if len(short):
        row = int(short[0])
        known = int(context.close[row, -card.max_context :].isfinite().sum())
        raise ForecastError(
            f"{card.name} needs {card.min_context} known closes; series {row} of the context has "
            f"{known}: leave it out or look further back"
        )


def _is_day(text: object) -> bool:
    try:
        return isinstance(text, str) and date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _increase(levels: tuple[float, ...]) -> bool:
    return all(low < high for low, high in itertools.pairwise(levels))


def _level_weights(levels: tuple[float, ...], like: Tensor) -> Tensor:
    """Probability that each level stands for: half the way to its neighbours, ends to 0 and 1."""
    middles = [0.0, *((low + high) / 2 for low, high in itertools.pairwise(levels)), 1.0]
    weights = [high - low for low, high in itertools.pairwise(middles)]
    assert math.isclose(sum(weights), 1.0)
    return like.new_tensor(weights)
