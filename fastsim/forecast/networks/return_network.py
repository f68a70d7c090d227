"""What networks on closes share: returns in units of their own volatility, and curves of quantiles.

Returns are divided by their trailing volatility on the way in; on the way out a few control points
make quantiles of the cumulative log return at every horizon, in the same unit. A network in between
sees neither the price nor the unit: multiplying closes by a constant multiplies its quantiles, and
multiplying log returns by a constant multiplies the quantiles of the log return.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.data.bars import CLOSE
from fastsim.forecast.covariates.channels import Covariates
from fastsim.forecast.interface import MEDIAN, ForecastModel, ModelCard
from fastsim.forecast.returns import GapReturns, returns_with_gaps

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CONTEXT = 512
HORIZON = 64
SCALE_HALF_LIFE = 32
"""Half-life, in bars, of the trailing volatility that returns are divided by."""
KNOTS = 8
"""Control points of the curve over horizons."""
OUTPUTS = len(LEVELS) + 1
RETURN_LIMIT = 15.0
SIZE_FLOOR = 0.1
"""Added to absolute scaled returns before their logarithm is taken."""
LEAST_CLOSES = 32
"""Fewest known closes that networks forecast from."""
TINY = 1e-12


class Reading(NamedTuple):
    """What a network reads from closes, and beside them."""

    features: Tensor  # [B, ...]  whatever the network makes of scaled returns
    scale: Tensor  # [B]  trailing volatility of a bar, the unit of the network's returns
    last: Tensor  # [B]  latest known close
    ahead: Tensor | None = None  # [B, KNOTS, F]  covariates of bars to come


class ReturnNetwork(ForecastModel):
    """From closes to quantiles by way of scaled returns; `features` to `raw` are a network's own.

    Closes may be missing (NaN) anywhere: see `returns_with_gaps`. Horizons count from the context's
    last bar and the price starts from the last one known, so that a gap at the very end is not
    allowed for in the spread. Parameters and constants may be half; arithmetic outside the layers
    is float32.

    Parameters
    ----------
    covariates
        What it reads beside returns, by their names (`COVARIATES`): bars and their timestamps are
        its inputs then, not closes.
    zone
        Of the clock that covariates of the calendar go by.
    """

    positions: Tensor  # [CONTEXT]  int64
    scale_half_life: Tensor  # []  int64
    curve: Tensor  # [HORIZON, KNOTS]
    normal_gaps: Tensor  # [Q - 1]

    def __init__(self, covariates: tuple[str, ...] = (), zone: str = "UTC") -> None:
        super().__init__()
        self.beside = Covariates(covariates, zone) if covariates else None
        # Integers, which a half-precision copy of the model leaves as they are.
        self.register_buffer("positions", torch.arange(CONTEXT), persistent=False)
        self.register_buffer("scale_half_life", torch.tensor(SCALE_HALF_LIFE), persistent=False)
        self.register_buffer("curve", horizon_curve(), persistent=False)
        self.register_buffer("normal_gaps", _normal_gaps(), persistent=False)

    @property
    def past_width(self) -> int:
        """Covariates of each bar that was."""
        return 0 if self.beside is None else self.beside.past_width

    @property
    def ahead_width(self) -> int:
        """Covariates of each bar to come."""
        return 0 if self.beside is None else self.beside.ahead_width

    @abstractmethod
    def features(self, gaps: GapReturns, scale: Tensor, past: Tensor | None) -> Tensor:
        """What the network looks at [B, ...].

        Parameters
        ----------
        gaps
            Returns [B, CONTEXT - 1].
        scale
            Their volatility [B].
        past
            Covariates of their bars [B, CONTEXT - 1, C], where there are some.
        """

    @abstractmethod
    def hidden(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """What the head reads [B, D], of what `raw` takes."""

    @abstractmethod
    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS] that the knots are made of.

        From features [B, ...] and covariates of bars to come [B, KNOTS, F], where there are some.
        """

    def hidden_state(self, *inputs: Tensor) -> Tensor:
        """What the head reads [B, D], float32, of what `forward` takes."""
        reading = self.read(*inputs)
        return self.hidden(reading.features, reading.ahead).float()

    def standardise(self, sample: Tensor) -> None:
        """Take from a sample of features [R, ...] what it needs before it learns: nothing."""

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles of the close [B, horizon, Q] from closes [B, L]; NaN if none is known.

        With covariates from bars [B, L, 6] and their timestamps [B, L].
        """
        reading = self.read(*inputs)
        return self.quantiles_of(self.raw(reading.features, reading.ahead), reading, horizon)

    def quantiles_of(self, raw: Tensor, reading: Reading, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] that free numbers [B, KNOTS * OUTPUTS] make of a reading."""
        spread = self.curve[:horizon].float() @ self.knots_of(raw)  # [B, horizon, Q]
        root = self.positions[1 : horizon + 1, None].float().sqrt()  # [horizon, 1]
        scale, last = reading.scale[:, None, None], reading.last[:, None, None]
        return last * (scale * root * spread).exp()

    def read(self, *inputs: Tensor) -> Reading:
        """Features, scale and last close of what `forward` takes."""
        closes = inputs[0] if self.beside is None else inputs[0][..., CLOSE]
        # A negative pad crops: shorter contexts are padded on the left, longer ones cut.
        missing = CONTEXT - closes.shape[1]
        closes = functional.pad(closes.float(), (missing, 0), value=torch.nan)
        gaps = returns_with_gaps(closes, self.positions)
        scale = trailing_scale(gaps, self._decay(self.scale_half_life))
        if self.beside is None:
            return Reading(self.features(gaps, scale, None), scale, gaps.last)
        bars, stamps = inputs
        bars = functional.pad(bars, (0, 0, missing, 0), value=torch.nan)
        past, ahead = self.beside(bars, self._stamps(stamps, missing), gaps, scale, self.curve)
        return Reading(self.features(gaps, scale, past), scale, gaps.last, ahead)

    def knots(self, reading: Reading) -> Tensor:
        """Control points [B, KNOTS, Q] of the curves over horizons."""
        return self.knots_of(self.raw(reading.features, reading.ahead))

    def knots_of(self, raw: Tensor) -> Tensor:
        """Control points [B, KNOTS, Q] that free numbers [B, KNOTS * OUTPUTS] make.

        A log-return quantile over h bars is scale * sqrt(h) * (curve at h). Gaps between
        neighbouring quantiles are softplus, hence positive; those of raw zeros are a normal's.
        """
        raw = torch.unflatten(raw.float(), 1, (KNOTS, OUTPUTS))
        growth, median, free = raw[..., :1], raw[..., 1:2], raw[..., 2:]
        gaps = functional.softplus(free + self.normal_gaps.float())  # [B, KNOTS, Q - 1]
        above = functional.pad(gaps.cumsum(-1), (1, 0))
        middle = LEVELS.index(MEDIAN)
        knots: Tensor = growth.exp() * (above - above[..., middle : middle + 1] + median)
        return knots

    def _decay(self, half_lives: Tensor) -> Tensor:
        """Weights [..., L - 1] of returns, the latest last: 2 to the minus age over half-life."""
        age = self.positions.flip(0)[1:].float()
        return torch.exp2(-age / half_lives.float())

    def _stamps(self, stamps: Tensor, missing: int) -> Tensor:
        """Timestamps [B, CONTEXT] of [B, L]: before the first, time goes on at the first step."""
        place = self.positions - missing
        inside = place.clamp_min(0)
        step = (stamps[:, 1:2] - stamps[:, :1]).clamp_min(1)
        return stamps.index_select(1, inside) + (place - inside) * step


def trailing_scale(gaps: GapReturns, weights: Tensor) -> Tensor:
    """Trailing volatility of a bar [B]: root of the mean square about zero, by weights [L - 1]."""
    square, known = gaps.returns.square() @ weights, gaps.known.float() @ weights
    return (square / known.clamp_min(TINY)).sqrt().clamp_min(TINY)


def scaled_returns(gaps: GapReturns, scale: Tensor) -> Tensor:
    """Returns [B, L - 1] in units of `scale` [B], within RETURN_LIMIT of them."""
    return (gaps.returns / scale[:, None]).clamp(-RETURN_LIMIT, RETURN_LIMIT)


def return_channels() -> int:
    """How many numbers a bar is to a network that reads patches of them, beside covariates."""
    return 3


def patches_of(gaps: GapReturns, scale: Tensor, patch: int, past: Tensor | None = None) -> Tensor:
    """Scaled returns, their sizes in logarithms and whether they are known, by patches [B, S, C P].

    The latest patch is whole; what lacks before the first return is unknown. Covariates
    [B, L - 1, C - 3] stand beside them, where there are some.
    """
    scaled = scaled_returns(gaps, scale)
    size = torch.where(gaps.known, (scaled.abs() + SIZE_FLOOR).log(), 0.0)
    channels = torch.stack([scaled, size, gaps.known.float()], 2)  # [B, L - 1, 3]
    if past is not None:
        channels = torch.cat([channels, past], 2)
    missing = -CONTEXT % patch + 1
    padded = functional.pad(channels, (0, 0, missing, 0))
    return torch.unflatten(padded, 1, (-1, patch)).flatten(2)


def begin_quietly(head: nn.Linear) -> None:
    """Let a last layer say next to nothing before it learns: quantiles are then a normal's."""
    nn.init.normal_(head.weight, std=0.003)
    nn.init.zeros_(head.bias)


def network_card(name: str, network: ReturnNetwork) -> ModelCard:
    """What a network of this room is: it has no weights of its own, and has seen no market."""
    return ModelCard(
        name=name,
        licence="MIT",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        max_context=CONTEXT,
        max_horizon=HORIZON,
        levels=LEVELS,
        inputs="close" if network.beside is None else "bars",
        min_context=LEAST_CLOSES,
        known_until=None,
        known_source="not fitted to anything",
    )


def horizon_curve() -> Tensor:
    """Weights [HORIZON, KNOTS] of the knots at every horizon: a quadratic B-spline in sqrt(h).

    Weights are positive and sum to 1 (de Boor 1978, chapter IX), so a curve is smooth and lies
    between its knots, and quantiles that are in order at the knots are in order everywhere.
    """
    degree = 2
    span = HORIZON**0.5 - 1.0
    inner = torch.linspace(1.0, 1.0 + span, KNOTS - degree + 1, dtype=torch.float64)
    places = torch.cat([inner[:1].repeat(degree), inner, inner[-1:].repeat(degree)])
    root = torch.arange(1, HORIZON + 1, dtype=torch.float64).sqrt()[:, None]
    root = root.clamp(max=float(places[-1]) - 1e-9)
    weights = ((places[:-1] <= root) & (root < places[1:])).double()
    for order in range(1, degree + 1):
        rise = places[order:-1] - places[: -order - 1]
        fall = places[order + 1 :] - places[1:-order]
        up = (root - places[: -order - 1]) / rise.clamp_min(TINY) * weights[:, :-1]
        down = (places[order + 1 :] - root) / fall.clamp_min(TINY) * weights[:, 1:]
        weights = up * (rise > 0) + down * (fall > 0)
    return weights.float()


def _normal_gaps() -> Tensor:
    """Inverse softplus [Q - 1] of the distances between a normal's quantiles at LEVELS."""
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    quantiles: Tensor = torch.special.ndtri(levels)
    return quantiles.diff().expm1().log().float()
