"""NHITS on scaled returns: blocks that look at the past at several rates, one after the other.

Challu, Olivares, Oreshkin, Garza, Mergenthaler and Dubrawski, "NHITS: Neural Hierarchical
Interpolation for Time Series Forecasting" (AAAI 2023). Each block pools what the blocks before have
left unexplained (section 3.1), explains a part of it (the backcast) and adds a part of the forecast
from few coefficients, interpolated (section 3.3). What is forecast here are the control points of
quantile curves, not values: the first stack gives few, for what all horizons share, the last one
all of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.config import configuration, require_between, to_mapping
from fastsim.errors import ConfigError
from fastsim.forecast.covariates.channels import check_covariates
from fastsim.forecast.networks.return_network import (
    CONTEXT,
    KNOTS,
    OUTPUTS,
    SIZE_FLOOR,
    ReturnNetwork,
    begin_quietly,
    network_card,
    scaled_returns,
)
from fastsim.forecast.returns import GapReturns

CHANNELS = 2


@configuration(slots=False)
class NhitsConfig:
    """Sizes of the network: one entry a stack."""

    pools: tuple[int, ...] = (8, 4, 1)
    """Returns of which each input of a block is the largest."""
    points: tuple[int, ...] = (2, 4, KNOTS)
    """Coefficients of the forecast, from which its control points are interpolated."""
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.0
    covariates: tuple[str, ...] = ()
    """What it reads beside returns; see `fastsim.forecast.covariates.channels`."""
    zone: str = "UTC"
    """Of the clock that hours and days are told by."""

    def __post_init__(self) -> None:
        for name in ("hidden", "layers"):
            require_between(self, name, 1)
        require_between(self, "dropout", 0.0, 0.9)
        check_covariates(self.covariates, self.zone, "NhitsConfig.covariates")
        if not self.pools or min(*self.pools, *self.points, 1) < 1:
            raise ConfigError(f"NhitsConfig.pools must be counts from 1 up, got {self.pools!r}")
        if len(self.points) != len(self.pools):
            raise ConfigError(
                f"NhitsConfig.points must be as many as pools, {len(self.pools)}, "
                f"got {self.points!r}"
            )


class Told(NamedTuple):
    """What a block makes of a past."""

    backcast: Tensor  # [B, C, L]  the part of it that is explained
    forecast: Tensor  # [B, H, O]  what that adds to the forecast


class NhitsBlock(nn.Module):
    """Pooling, a few layers, and coefficients that are interpolated."""

    def __init__(
        self,
        shape: tuple[int, int],
        horizon: tuple[int, int],
        config: NhitsConfig,
        stack: int,
        ahead: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.horizon, self.pool = shape, horizon, config.pools[stack]
        channels, length = shape
        pooled = -(-length // self.pool)
        widths = [channels * pooled + ahead, *[config.hidden] * config.layers]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers)
        self.backcast = nn.Linear(config.hidden, channels * length)
        self.forecast = nn.Linear(config.hidden, horizon[1] * config.points[stack])
        begin_quietly(self.forecast)

    def forward(self, past: Tensor, ahead: Tensor | None = None) -> Told:
        """Of a past [B, C, L], and what is known of the bars to come [B, A]."""
        pooled = functional.max_pool1d(past, self.pool, self.pool, ceil_mode=True)
        seen = pooled.flatten(1)
        hidden = self.layers(seen if ahead is None else torch.cat([seen, ahead], 1))
        points = torch.unflatten(self.forecast(hidden), 1, (self.horizon[1], -1))  # [B, O, P]
        forecast = functional.interpolate(points.float(), size=self.horizon[0], mode="linear")
        backcast = torch.unflatten(self.backcast(hidden), 1, self.shape)
        return Told(backcast, forecast.transpose(1, 2))


class NhitsModel(ReturnNetwork):
    """Stacks of blocks on the size and the direction of scaled returns, with the prior's head.

    Stacks of one block each; the level that the paper's forecasts begin from is the last close.
    """

    fit_modes = ("scratch", "full", "head")

    def __init__(self, config: NhitsConfig | None = None) -> None:
        config = NhitsConfig() if config is None else config
        super().__init__(config.covariates, config.zone)
        self.config = config
        shape = (CHANNELS + self.past_width, CONTEXT - 1)
        stacks = range(len(config.pools))
        self.blocks = nn.ModuleList(
            NhitsBlock(shape, (KNOTS, OUTPUTS), config, stack, KNOTS * self.ahead_width)
            for stack in stacks
        )
        self.head_names = tuple(f"blocks.{stack}.forecast" for stack in stacks)
        self.card = network_card("nhits", self)

    def settings(self) -> dict[str, Any]:
        """Sizes and covariates."""
        return to_mapping(self.config)

    def features(self, gaps: GapReturns, scale: Tensor, past: Tensor | None) -> Tensor:
        """Log sizes and directions of returns, and covariates [B, C, L - 1], 0 where unknown."""
        scaled = scaled_returns(gaps, scale)
        size = torch.where(gaps.known, (scaled.abs() + SIZE_FLOOR).log(), 0.0)
        channels = torch.stack([size, scaled], 1)
        return channels if past is None else torch.cat([channels, past.transpose(1, 2)], 1)

    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]: the sum of what all blocks forecast."""
        known = (features != 0).any(1, keepdim=True)  # [B, 1, L - 1]
        # The latest first: windows of pooling begin there.
        past = features.flip(-1).to(next(self.parameters()).dtype)
        coming = None if ahead is None else ahead.flatten(1).to(past)
        known, total = known.flip(-1), features.new_zeros(())
        for block in self.blocks:
            told = block(past, coming)
            past = torch.where(known, past - told.backcast, 0.0)
            total = total + told.forecast
        return total.flatten(1)
