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

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.errors import ForecastError
from fastsim.forecast.interface import ModelCard
from fastsim.forecast.networks.return_network import (
    CONTEXT,
    HORIZON,
    KNOTS,
    LEVELS,
    OUTPUTS,
    TINY,
    ReturnNetwork,
    scaled_returns,
)
from fastsim.forecast.returns import GapReturns
from fastsim.forecast.weights import load_exactly, read_safetensors

HALF_LIVES = (1, 2, 4, 8, 16, 32, 64, 128, 512)
RECENT = 5
MAXIMUM_BARS = (5, 21, 63, 252)
"""Trailing bars of which the largest absolute return is a feature."""
WIDTH = 256
SIGNALS = 10
FEATURES = SIGNALS * len(HALF_LIVES) + RECENT + len(MAXIMUM_BARS)
INPUT_LIMIT = 5.0
LEAST_DEVIATION = 1e-3

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


class PriorModel(ReturnNetwork):
    """From closes to quantiles: fixed moments, a small network, curves over horizons."""

    card = CARD
    fit_modes = ("scratch", "full", "head", "lora")
    head_names = ("head", "skip")
    feature_mean: Tensor  # [FEATURES]
    feature_deviation: Tensor  # [FEATURES]
    half_lives: Tensor  # [M]  int64

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
        self.register_buffer("half_lives", torch.tensor(HALF_LIVES), persistent=False)

    def features(self, gaps: GapReturns, scale: Tensor, past: Tensor | None) -> Tensor:
        """Moments of scaled returns at every half-life, recent returns and maxima [B, FEATURES]."""
        scaled = scaled_returns(gaps, scale)  # [B, L - 1]
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

    def hidden(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """What the head reads [B, WIDTH], from features [B, FEATURES]."""
        return self._hidden(self._standardised(features))

    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS] from features [B, FEATURES]."""
        features = self._standardised(features)
        raw: Tensor = self.head(self._hidden(features)) + self.skip(features)
        return raw

    def _standardised(self, features: Tensor) -> Tensor:
        features = (features - self.feature_mean.float()) / self.feature_deviation.float()
        return features.clamp(-INPUT_LIMIT, INPUT_LIMIT).to(self.first.bias.dtype)

    def _hidden(self, features: Tensor) -> Tensor:
        hidden = functional.silu(self.first(features))
        hidden = hidden + functional.silu(self.second(hidden))
        return hidden + functional.silu(self.third(hidden))

    @torch.no_grad()
    def standardise(self, sample: Tensor) -> None:
        """Take the mean and deviation that features are standardised with from these [R, F]."""
        self.feature_mean.copy_(sample.mean(0))
        self.feature_deviation.copy_(sample.std(0).clamp_min(LEAST_DEVIATION))


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
