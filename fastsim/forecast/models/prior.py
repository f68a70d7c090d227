"""fastsim-prior: our own small forecaster, trained on simulated paths only.

It reads closes, looks at the returns in units of their own trailing volatility through
exponentially weighted moments, and gives quantiles of the cumulative log return. It has seen no
market (`prior_paths` says what it has seen), so no test period can have leaked into it. What it
knows is how wide and how skewed the distribution is, and that prices drift up a little; of the
direction it knows nothing else.

On the built-in us20 (5,020 windows from 251 origins, horizons 1 to 21, context 512) its scaled
quantile loss is 0.982 [0.975, 0.989] of that of a Gaussian random walk with trailing 60-day
volatility and 0.990 [0.986, 0.995] of that of a GARCH(1,1) with Student-t shocks refitted at every
origin; its 80 % band covers 0.814. us20 are survivors, which flatters any upward drift: with its
median moved to the last close it has 0.998 [0.996, 1.000] of the GARCH's loss.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.errors import ForecastError
from fastsim.forecast.interface import MEDIAN, ForecastModel, ModelCard
from fastsim.forecast.returns import GapReturns, returns_with_gaps
from fastsim.forecast.weights import load_exactly, read_safetensors

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CONTEXT = 512
HORIZON = 64
HALF_LIVES = (1, 2, 4, 8, 16, 32, 64, 128, 512)
SCALE_HALF_LIFE = 32
"""Half-life, in bars, of the trailing volatility that returns are divided by."""
RECENT = 5
MAXIMUM_BARS = (5, 21, 63, 252)
"""Trailing bars of which the largest absolute return is a feature."""
KNOTS = 8
"""Control points of the curve over horizons."""
WIDTH = 256
SIGNALS = 10
FEATURES = SIGNALS * len(HALF_LIVES) + RECENT + len(MAXIMUM_BARS)
OUTPUTS = len(LEVELS) + 1
RETURN_LIMIT = 15.0
INPUT_LIMIT = 5.0
TINY = 1e-12

CARD = ModelCard(
    name="fastsim-prior",
    licence="MIT",
    attribution="fastsim, trained on simulated paths only",
    revision="1",
    parameters=FEATURES * WIDTH
    + WIDTH
    + 2 * (WIDTH * WIDTH + WIDTH)
    + (WIDTH + FEATURES) * KNOTS * OUTPUTS
    + KNOTS * OUTPUTS,
    max_context=CONTEXT,
    max_horizon=HORIZON,
    levels=LEVELS,
    min_context=32,
    known_until=None,
    known_source="trained on simulated paths only",
)


class Reading(NamedTuple):
    """What the network reads from closes."""

    features: Tensor  # [B, FEATURES]
    scale: Tensor  # [B]  trailing volatility of a bar, the unit of the network's returns
    last: Tensor  # [B]  latest known close


class PriorModel(ForecastModel):
    """From closes to quantiles: fixed moments, a small network, curves over horizons.

    Closes may be missing (NaN) anywhere: see `returns_with_gaps`. Horizons count from the context's
    last bar and the price starts from the last one known, so that a gap at the very end is not
    allowed for in the spread. Multiplying closes by a constant multiplies the quantiles;
    multiplying log returns by a constant multiplies the quantiles of the log return. Parameters
    and constants may be half; arithmetic outside the layers is float32.
    """

    card = CARD
    feature_mean: Tensor  # [FEATURES]
    feature_deviation: Tensor  # [FEATURES]
    positions: Tensor  # [CONTEXT]  int64
    half_lives: Tensor  # [M]  int64
    curve: Tensor  # [HORIZON, KNOTS]
    normal_gaps: Tensor  # [Q - 1]

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.third = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, KNOTS * OUTPUTS)
        self.skip = nn.Linear(FEATURES, KNOTS * OUTPUTS, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_deviation", torch.ones(FEATURES))
        # Integers, which a half-precision copy of the model leaves as they are.
        self.register_buffer("positions", torch.arange(CONTEXT), persistent=False)
        self.register_buffer("half_lives", torch.tensor(HALF_LIVES), persistent=False)
        self.register_buffer("curve", horizon_curve(), persistent=False)
        self.register_buffer("normal_gaps", _normal_gaps(), persistent=False)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles of the close [B, horizon, Q] from closes [B, L]; NaN if none is known."""
        (closes,) = inputs
        features, scale, last = self.read(closes)
        spread = self.curve[:horizon].float() @ self.knots(features)  # [B, horizon, Q]
        root = self.positions[1 : horizon + 1, None].float().sqrt()  # [horizon, 1]
        return last[:, None, None] * (scale[:, None, None] * root * spread).exp()

    def read(self, closes: Tensor) -> Reading:
        """Features, scale and last close of `closes` [B, L]."""
        # A negative pad crops: shorter contexts are padded on the left, longer ones cut.
        closes = functional.pad(closes.float(), (CONTEXT - closes.shape[1], 0), value=torch.nan)
        gaps = returns_with_gaps(closes, self.positions)
        scale = self.scale(gaps)
        return Reading(self.features(gaps, scale), scale, gaps.last)

    def scale(self, gaps: GapReturns) -> Tensor:
        """Trailing volatility of a bar [B]: root of the weighted mean square, about zero."""
        weights = self._decay(self.half_lives[HALF_LIVES.index(SCALE_HALF_LIFE)])  # [L - 1]
        square, known = gaps.returns.square() @ weights, gaps.known.float() @ weights
        return (square / known.clamp_min(TINY)).sqrt().clamp_min(TINY)

    def features(self, gaps: GapReturns, scale: Tensor) -> Tensor:
        """Moments of scaled returns at every half-life, recent returns and maxima [B, FEATURES]."""
        scaled = (gaps.returns / scale[:, None]).clamp(-RETURN_LIMIT, RETURN_LIMIT)  # [B, L - 1]
        size = scaled.abs()
        square = scaled * scaled
        signals = (
            gaps.known.float(),
            scaled,
            scaled * size,
            square * scaled,
            _after(scaled, 1) * size,
            size,
            square,
            square * square,
            _after(size, 1) * size,
            _after(size, 5) * size,
        )
        decay = self._decay(self.half_lives[:, None]).T  # [L - 1, M]
        sums = torch.stack(signals, 1) @ decay  # [B, SIGNALS, M]
        weight = sums[:, :1].clamp_min(TINY)
        means = sums[:, 1:] / weight
        return torch.cat(
            [
                (sums[:, 0] + 0.1).log(),
                (means[:, :4] * 4.0).asinh().flatten(1),
                (means[:, 4:] + 0.01).log().flatten(1),
                scaled[:, -RECENT:],
                *((size[:, -bars:].amax(1, keepdim=True) + 0.1).log() for bars in MAXIMUM_BARS),
            ],
            dim=1,
        )

    def knots(self, features: Tensor) -> Tensor:
        """Control points [B, KNOTS, Q] of the curves over horizons from features [B, FEATURES].

        A log-return quantile over h bars is scale * sqrt(h) * (curve at h). Gaps between
        neighbouring quantiles are softplus, hence positive; untrained they are a normal's.
        """
        features = (features - self.feature_mean.float()) / self.feature_deviation.float()
        features = features.clamp(-INPUT_LIMIT, INPUT_LIMIT).to(self.first.bias.dtype)
        hidden = functional.silu(self.first(features))
        hidden = hidden + functional.silu(self.second(hidden))
        hidden = hidden + functional.silu(self.third(hidden))
        raw = (self.head(hidden) + self.skip(features)).float().unflatten(1, (KNOTS, OUTPUTS))
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


def load_prior(path: str | Path | None = None) -> PriorModel:
    """Load fastsim-prior with the weights that come with fastsim, or those in a file at `path`.

    Raises
    ------
    ForecastError
        The file is missing, damaged, or of another architecture.
    """
    if path is None:
        with as_file(files("fastsim.forecast.models") / "weights" / "prior.safetensors") as shipped:
            return load_prior(shipped)
    path, model = Path(path), PriorModel()
    if not path.is_file():
        raise ForecastError(f"{CARD.name}: no weights at {path}; without a path it loads its own")
    load_exactly(CARD.name, model, read_safetensors(CARD.name, path), path)
    return model.eval()


def _after(values: Tensor, bars: int) -> Tensor:
    """Values [B, T] of `bars` bars before, 0 at the beginning."""
    return functional.pad(values[:, :-bars], (bars, 0))


def _normal_gaps() -> Tensor:
    """Inverse softplus [Q - 1] of the distances between a normal's quantiles at LEVELS."""
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    quantiles: Tensor = torch.special.ndtri(levels)
    return quantiles.diff().expm1().log().float()
