"""NHITS on scaled returns: blocks that look at the past at several rates, one after the other.

Challu, Olivares, Oreshkin, Garza, Mergenthaler and Dubrawski, "NHITS: Neural Hierarchical
Interpolation for Time Series Forecasting" (AAAI 2023). Each block pools what the blocks before have
left unexplained (section 3.1), explains a part of it (the backcast) and adds a part of the forecast
from few coefficients, interpolated (section 3.3). What is forecast here are the control points of
quantile curves, not values: the first stack gives few, for what all horizons share, the last one
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    hidden: Tensor  # [B, D]  what both are made of


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
        return Told(backcast, forecast.transpose(1, 2), hidden)


def sums_of_blocks(
    blocks: Iterable[nn.Module], past: Tensor, known: Tensor, ahead: Tensor | None = None
) -> list[Tensor]:
    """What each block and those before it forecast together [B, H, O].

    A block is shown what those before it left unexplained.

    Parameters
    ----------
    past
        The latest first [B, C, L].
    known
        Which of it is [B, 1, L]: the rest stays 0.
    ahead
        What is known of the bars to come [B, A], if anything.
    """
    total, found = past.new_zeros(()), []
    for told in told_by_blocks(blocks, past, known, ahead):
        total = total + told.forecast
        found.append(total)
    return found


def told_by_blocks(
    blocks: Iterable[nn.Module], past: Tensor, known: Tensor, ahead: Tensor | None
) -> list[Told]:
    """What each block says, as above."""
    found: list[Told] = []
    for block in blocks:
        found.append(block(past, ahead))
        past = torch.where(known, past - found[-1].backcast, 0.0)
    return found


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

    def hidden(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """What all blocks make their coefficients of, side by side [B, stacks D]."""
        told = told_by_blocks(self.blocks, *self._seen(features, ahead))
        return torch.cat([each.hidden for each in told], 1)

    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]: the sum of what all blocks forecast."""
        return self.sums(features, ahead)[-1]

    def sums(self, features: Tensor, ahead: Tensor | None = None) -> list[Tensor]:
        """What each block and those before it forecast together [B, KNOTS * OUTPUTS]."""
        parts = sums_of_blocks(self.blocks, *self._seen(features, ahead))
        return [each.flatten(1) for each in parts]

    def _seen(self, features: Tensor, ahead: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the first block is shown: the past, what of it is known, and what is to come."""
        first = self.blocks[0]
        assert isinstance(first, NhitsBlock)
        known = (features != 0).any(1, keepdim=True)  # [B, 1, L - 1]
        # The latest first: windows of pooling begin there.
        past = features.flip(-1).to(first.forecast.bias.dtype)
        coming = None if ahead is None else ahead.flatten(1).to(past)
        return past, known.flip(-1), coming

    def by_stack(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [S + 1, B, horizon, Q] of closes [B, L]: of no stack, of the first, ... of all.

        Those of no stack are a normal's in units of the trailing volatility; the last are the
        forecast. With covariates from what `forward` takes.
        """
        reading = self.read(*inputs)
        sums = self.sums(reading.features, reading.ahead)
        parts = [torch.zeros_like(sums[0]), *sums]
        return torch.stack([self.quantiles_of(part, reading, horizon) for part in parts])
