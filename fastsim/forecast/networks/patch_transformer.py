"""A Transformer on patches of scaled returns.

The encoder of Vaswani et al. (2017) with norms before its layers, on patches of bars as tokens
(Nie, Nguyen, Sinthong and Kalagnanam, "A Time Series is Worth 64 Words", ICLR 2023), places
learned. The token of the latest patch and the mean of all make the head's numbers; there is no
decoder, as all horizons come from few control points at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.forecast.networks.return_network import (
    CONTEXT,
    KNOTS,
    OUTPUTS,
    ReturnNetwork,
    begin_quietly,
    network_card,
    patches_of,
    return_channels,
)
from fastsim.forecast.returns import GapReturns


@configuration(slots=False)
class PatchTransformerConfig:
    """Sizes of the network."""

    patch: int = 16
    """Bars in a token."""
    width: int = 64
    heads: int = 4
    layers: int = 3
    hidden: int = 128
    """Width of the feed-forward layers."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patch", "width", "heads", "layers", "hidden"):
            require_between(self, name, 1)
        require_between(self, "dropout", 0.0, 0.9)
        if self.width % self.heads:
            raise ConfigError(
                f"PatchTransformerConfig.width must be a multiple of heads {self.heads}, "
                f"got {self.width}"
            )


class EncoderLayer(nn.Module):
    """Attention of all tokens to all, then a layer on each, both beside a straight line."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.before_attention, self.before_feed = (nn.LayerNorm(config.width) for _ in range(2))
        self.asked = nn.Linear(config.width, 3 * config.width)
        self.answered = nn.Linear(config.width, config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, S, D]."""
        asked = torch.unflatten(self.asked(self.before_attention(tokens)), 2, (3, self.heads, -1))
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, E, S, W]
        found = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self._drop(self.answered(found.transpose(1, 2).flatten(2)))
        fed = self.down(functional.gelu(self.up(self.before_feed(tokens))))
        return tokens + self._drop(fed)

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


class PatchTransformerModel(ReturnNetwork):
    """An encoder of patches, and the prior's head."""

    fit_modes = ("scratch", "full", "head")
    head_names = ("head",)

    def __init__(self, config: PatchTransformerConfig | None = None) -> None:
        super().__init__()
        self.config = PatchTransformerConfig() if config is None else config
        width, tokens = self.config.width, -(-CONTEXT // self.config.patch)
        self.embedding = nn.Linear(return_channels() * self.config.patch, width)
        self.places = nn.Parameter(torch.empty(tokens, width).normal_(std=0.02))
        self.layers = nn.ModuleList(EncoderLayer(self.config) for _ in range(self.config.layers))
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, KNOTS * OUTPUTS)
        begin_quietly(self.head)
        self.card = network_card("patch-transformer", self)

    def features(self, gaps: GapReturns, scale: Tensor) -> Tensor:
        """Patches of scaled returns [B, S, C * P]."""
        return patches_of(gaps, scale, self.config.patch)

    def hidden(self, features: Tensor) -> Tensor:
        """The token of the latest patch and the mean of all [B, 2 D], normalised."""
        tokens = self.embedding(features.to(self.head.bias.dtype)) + self.places
        for layer in self.layers:
            tokens = layer(tokens)
        pooled: Tensor = self.norm(torch.cat([tokens[:, -1], tokens.mean(1)], 1))
        return pooled

    def raw(self, features: Tensor) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]."""
        raw: Tensor = self.head(self.hidden(features))
        return raw
