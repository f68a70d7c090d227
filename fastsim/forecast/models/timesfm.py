"""TimesFM 2.5 (200m) by Google: a causal transformer over patches of one series, nine quantiles.

Das et al. 2024, "A decoder-only foundation model for time-series forecasting" (arXiv 2310.10688).
It is asked as its makers ask it: by the series and by its mirror image, with medians that are fed
back every 128 bars, quantiles of the head that gives all bars at once around them, and none below
zero where the past is not.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fastsim.forecast.interface import ForecastModel, ModelCard
from fastsim.forecast.networks.timesfm_network import OUTPUTS, TimesFMConfig, TimesFMNetwork
from fastsim.forecast.weights import find_weights, load_exactly, read_safetensors

CARD = ModelCard(
    name="timesfm-2.5-200m",
    licence="Apache-2.0",
    attribution="TimesFM by Google Research, Das et al. 2024, arXiv 2310.10688",
    hub_id="google/timesfm-2.5-200m-pytorch",
    revision=None,  # the official package names none
    parameters=231_289_280,
    max_context=15_360,
    max_horizon=1024,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its card ends page views with November 2023 and searches with 2022, and names no "
    "day of GiftEvalPretrain",
)
WEIGHTS = "model.safetensors"
MEDIAN = 4
"""Among the deciles."""
STILL = 1e-6
"""A deviation below it, relative to that of the whole past, divides nothing."""


class Past(NamedTuple):
    """What is known of a series, its gaps filled, in whole patches."""

    values: Tensor  # [B, T]  float64, 0 where hidden
    hidden: Tensor  # [B, T]  bool, before the first known close


class TimesFMModel(ForecastModel):
    """TimesFM 2.5.

    The constructor leaves random weights, for tests and benchmarks; `load_timesfm` gives the
    official ones.

    Parameters
    ----------
    mirrored
        Ask by the mirror image of the series too, and take the mean of both, as the makers do;
        without it a forecast takes half the time and is another.
    """

    card = CARD

    def __init__(self, config: TimesFMConfig, *, mirrored: bool = True) -> None:
        super().__init__()
        self.config, self.mirrored = config, mirrored
        self.network = TimesFMNetwork(config)

    def settings(self) -> dict[str, Any]:
        """Sizes of the network, and how it is asked."""
        return {**asdict(self.config), "mirrored": self.mirrored}

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, increasing in Q, of closes [B, L]."""
        (close,) = inputs
        past = whole_patches(close, self.config.patch)
        count = (~past.hidden).sum(-1, keepdim=True).clamp_min(1)
        mean = past.values.sum(-1, keepdim=True) / count
        centred = torch.where(past.hidden, 0.0, past.values - mean)
        deviation = (centred.square().sum(-1, keepdim=True) / count).sqrt()
        scaled = centred / torch.where(deviation == 0.0, 1.0, deviation)
        if self.mirrored:
            both = Past(torch.cat((scaled, -scaled)), past.hidden.repeat(2, 1))
            straight, mirror = self.answers(both, horizon).chunk(2)
            answers = 0.5 * (straight - mirror.flip(-1))
        else:
            answers = self.answers(Past(scaled, past.hidden), horizon)
        quantiles = deviation[..., None] * around_median(answers) + mean[..., None]
        below = (past.values < 0.0).any(-1)[:, None, None]
        return torch.where(below, quantiles, quantiles.clamp_min(0.0)).float()

    def answers(self, past: Past, horizon: int) -> Tensor:
        """Deciles [B, horizon, 9] float64 of scaled series, not in order yet.

        The median is that of the first head, fed back where it ends; the others lie as far from it
        as the second head has them from its own.
        """
        patch, fed = self.config.patch, self.config.output_patch
        hidden = torch.unflatten(past.hidden, -1, (-1, patch))[..., -1].sum(-1)  # [B] patches
        values, masked = past.values, past.hidden
        spread, points, caches, asked = None, [], None, values.shape[-1] // patch
        for step in range(-(-horizon // fed)):
            patches, mean, deviation = self.tokens(values, masked)
            state, caches = self.network(patches[:, -asked:], hidden, caches)
            near = self.network.output_projection_point(state)
            points.append(self.told(near, mean, deviation)[..., MEDIAN])
            if step == 0:
                far = self.network.output_projection_quantiles(state)
                spread = self.told(far, mean, deviation)[:, :horizon]
            values = torch.cat((values, points[-1]), 1)
            masked = F.pad(masked, (0, fed), value=False)
            asked = fed // patch
        assert spread is not None
        median = torch.cat(points, 1)[:, :horizon, None]
        return spread - spread[..., MEDIAN : MEDIAN + 1] + median

    def tokens(self, values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches [B, S, 2 P] scaled by what is known at their end; the last mean and deviation."""
        cut = (-1, self.config.patch)
        known = torch.unflatten(~hidden, -1, cut)  # [B, S, P]
        parts = torch.unflatten(values, -1, cut) * known
        count = known.sum(-1, keepdim=True).cumsum(1).clamp_min(1)
        mean = parts.sum(-1, keepdim=True).cumsum(1) / count  # [B, S, 1]
        square = parts.square().sum(-1, keepdim=True).cumsum(1) / count
        deviation = (square - mean.square()).clamp_min(0.0).sqrt()
        scaled = (parts - mean) / torch.where(deviation < STILL, 1.0, deviation) * known
        dtype = self.network.tokenizer.hidden_layer.bias.dtype
        patches = torch.cat((scaled.to(dtype), (~known).to(dtype)), -1)
        return patches, mean[:, -1:], deviation[:, -1:]

    def told(self, output: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Deciles [B, bars, 9] float64 that a head says, in the unit of the scaled series."""
        outputs = torch.unflatten(output, -1, (-1, OUTPUTS))[..., 1:]  # the mean is left out
        return outputs.double() * deviation + mean


def whole_patches(close: Tensor, patch: int) -> Past:
    """Closes [B, L] in whole patches: gaps on a line, and hidden before the first known one.

    After the last known close its value goes on.
    """
    padded = F.pad(close.double(), (-close.shape[-1] % patch, 0), value=math.nan)
    known = padded.isfinite()
    place = torch.ones_like(padded, dtype=torch.int64).cumsum(-1) - 1
    end = padded.shape[-1] - 1
    before = torch.where(known, place, -1).cummax(-1).values
    after = torch.where(known, place, end + 1).flip(-1).cummin(-1).values.flip(-1)
    left = padded.gather(-1, before.clamp_min(0))
    right = torch.where(after > end, left, padded.gather(-1, after.clamp_max(end)))
    share = (place - before) / (after - before).clamp_min(1)
    hidden = before < 0
    return Past(torch.where(hidden, 0.0, left + share * (right - left)), hidden)


def around_median(deciles: Tensor) -> Tensor:
    """Deciles [..., 9] that increase: each is at least as far from the median as the one within."""
    lower = deciles[..., : MEDIAN + 1].flip(-1).cummin(-1).values.flip(-1)
    upper = deciles[..., MEDIAN:].cummax(-1).values
    return torch.cat((lower, upper[..., 1:]), -1)


def random_timesfm() -> TimesFMModel:
    """The released sizes with random weights."""
    return TimesFMModel(TimesFMConfig())


def load_timesfm(path: str | Path | None = None, revision: str | None = None) -> TimesFMModel:
    """Load TimesFM 2.5 with official weights.

    Parameters
    ----------
    path
        model.safetensors, or the folder that holds it; None asks the hub's cache, then the hub.
    revision
        Revision on the hub; None takes the one met first.

    Raises
    ------
    ForecastError
        The file cannot be had, is damaged, or is not this architecture.
    """
    weights = find_weights(
        CARD.name, WEIGHTS, hub_id=CARD.hub_id, revision=revision or CARD.revision, path=path
    )
    model = random_timesfm()
    load_exactly(CARD.name, model.network, read_safetensors(CARD.name, weights), weights)
    return model.eval()
