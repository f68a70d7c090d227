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
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
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

    def __post_init__(self) -> None:
        for name in ("hidden", "layers"):
            require_between(self, name, 1)
        require_between(self, "dropout", 0.0, 0.9)
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
    hidden: Tensor  # [B, D]  what both are made of


class NhitsBlock(nn.Module):
    """Pooling, a few layers, and coefficients that are interpolated."""

    def __init__(
        self, shape: tuple[int, int], horizon: tuple[int, int], config: NhitsConfig, stack: int
    ) -> None:
        super().__init__()
        self.shape, self.horizon, self.pool = shape, horizon, config.pools[stack]
        channels, length = shape
        pooled = -(-length // self.pool)
        widths = [channels * pooled, *[config.hidden] * config.layers]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers)
        self.backcast = nn.Linear(config.hidden, channels * length)
        self.forecast = nn.Linear(config.hidden, horizon[1] * config.points[stack])
        begin_quietly(self.forecast)

    def forward(self, past: Tensor) -> Told:
        """Of a past [B, C, L]."""
        pooled = functional.max_pool1d(past, self.pool, self.pool, ceil_mode=True)
        hidden = self.layers(pooled.flatten(1))
        points = torch.unflatten(self.forecast(hidden), 1, (self.horizon[1], -1))  # [B, O, P]
        forecast = functional.interpolate(points.float(), size=self.horizon[0], mode="linear")
        backcast = torch.unflatten(self.backcast(hidden), 1, self.shape)
        return Told(backcast, forecast.transpose(1, 2), hidden)


class NhitsModel(ReturnNetwork):
    """Stacks of blocks on the size and the direction of scaled returns, with the prior's head.

    Stacks of one block each; the level that the paper's forecasts begin from is the last close.
    """

    fit_modes = ("scratch", "full", "head")

    def __init__(self, config: NhitsConfig | None = None) -> None:
        super().__init__()
        self.config = NhitsConfig() if config is None else config
        shape = (CHANNELS, CONTEXT - 1)
        stacks = range(len(self.config.pools))
        self.blocks = nn.ModuleList(
            NhitsBlock(shape, (KNOTS, OUTPUTS), self.config, stack) for stack in stacks
        )
        self.head_names = tuple(f"blocks.{stack}.forecast" for stack in stacks)
        self.card = network_card("nhits", self)

    def features(self, gaps: GapReturns, scale: Tensor) -> Tensor:
        """Log sizes and directions of scaled returns [B, 2, L - 1], 0 where unknown."""
        scaled = scaled_returns(gaps, scale)
        size = torch.where(gaps.known, (scaled.abs() + SIZE_FLOOR).log(), 0.0)
        return torch.stack([size, scaled], 1)

    def hidden(self, features: Tensor) -> Tensor:
        """What all blocks make their coefficients of, side by side [B, stacks D]."""
        return torch.cat([told.hidden for told in self._told(features)], 1)

    def raw(self, features: Tensor) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]: the sum of what all blocks forecast."""
        total = features.new_zeros(())
        for told in self._told(features):
            total = total + told.forecast
        return total.flatten(1)

    def _told(self, features: Tensor) -> list[Told]:
        """What each block makes of what those before have left."""
        known = (features != 0).any(1, keepdim=True)  # [B, 1, L - 1]
        # The latest first: windows of pooling begin there.
        first = self.blocks[0]
        assert isinstance(first, NhitsBlock)
        past = features.flip(-1).to(first.forecast.bias.dtype)
        known, found = known.flip(-1), []
        for block in self.blocks:
            found.append(block(past))
            past = torch.where(known, past - found[-1].backcast, 0.0)
        return found
